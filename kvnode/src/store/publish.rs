//! Makes durable frames visible. Called by whoever commits, one at a time, live and when the log is read at start.
//!
//! Every record that gets here is newer than all that is stored, since frames at or below `visible` are left out. So
//! only `expire` needs to know what lies below the active memtable: it copies that entry up.
//!
//! Memory is bounded: a memtable that is due to be frozen takes no more frames. While the flush is merely slow the
//! commit thread waits; while it fails for lack of room, `can_accept` refuses writes before they reach the log, and a
//! frame that is already there still goes in.

use std::sync::{Arc, MutexGuard};

use kvclient::{
    faults::{self, Guarantee},
    position::{Lineage, Position},
    wire::log::{Effect, Link, Record},
};

use super::{
    core::{Core, State},
    error::StoreError,
    memtable::Content,
    tables::Entry,
    view::View,
};

impl Core {
    /// Whether a frame may be written to the log now.
    pub(super) fn can_accept(&self) -> Result<(), StoreError> {
        if faults::is_off(Guarantee::RefuseWhenFull) {
            return Ok(());
        }
        self.lock().check()
    }

    /// Whether a frame can be made visible without waiting for the flush.
    pub(super) fn has_room(&self) -> bool {
        !self.lock().freeze_pending
    }

    /// Makes one frame visible as a whole.
    pub(super) fn publish(
        &self,
        link: Link,
        time_ms: u64,
        records: &[(Position, Record)],
    ) -> Result<(), StoreError> {
        let visible = self.visible();
        let Some(records) = not_yet_visible(visible, link, records)? else {
            return Ok(());
        };
        let left_out = match faults::is_off(Guarantee::ApplyAll) {
            true => records.len() / 2,
            false => 0,
        };
        let records = &records[left_out..];
        let mut state = self.wait_for_room()?;
        let older = self.below(records)?;
        let lineage = self.lineage_after(records)?;
        let view = self.view.load();
        // Before the lock, and nobody else changes it: what is about to be replaced is at hand then.
        view.active.read().fetch(records);
        let mut active = view.active.write();
        active.apply(link, time_ms, records, &older);
        if let Some(lineage) = lineage {
            self.lineage.store(lineage);
        }
        // Under the lock: who sees a frame's entries must not be told a position before it.
        self.set_visible(link.position);
        let full = self.is_due(&view, &active);
        drop(active);
        self.visible_watch.send_replace(link.position);
        let is_wanted = state.counting.wants(link.position.seq);
        if full || is_wanted || self.passes_checkpoint(visible.seq, link.position.seq) {
            self.freeze(&mut state);
        }
        Ok(())
    }

    /// Whether a memtable takes no more frames: it is full, or with the frozen ones it weighs what two of them may.
    fn is_due(&self, view: &View, active: &Content) -> bool {
        let limit_bytes = self.options.memtable_bytes;
        let together = || view.frozen_weight_bytes() + active.weight_bytes();
        active.is_full(limit_bytes) || together() >= 2 * limit_bytes
    }

    fn wait_for_room(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.lock();
        while state.freeze_pending && state.no_room.is_none() && state.failure.is_none() {
            state = self.wait(state);
        }
        state.failure.clone().map_or(Ok(state), Err)
    }

    /// For each record what lies below the active memtable, as far as it matters; nothing if it does for none.
    fn below(&self, records: &[(Position, Record)]) -> Result<Vec<Option<Entry>>, StoreError> {
        let expires = |(_, record): &(_, Record)| matches!(record.effect, Effect::Expire { .. });
        if !records.iter().any(expires) {
            return Ok(Vec::new());
        }
        records
            .iter()
            .map(|(_, record)| match record.effect {
                Effect::Expire { .. } => self.entry_to_expire(&record.key),
                Effect::Put { .. } | Effect::Delete { .. } | Effect::EpochStart { .. } => Ok(None),
            })
            .collect()
    }

    /// The record is durable already, so this may neither give up because of other readers nor stop the node because
    /// of one damaged entry: that one stays as it is, damaged.
    fn entry_to_expire(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        loop {
            match self.entry(key) {
                Err(StoreError::Damaged { .. }) => return Ok(None),
                Err(StoreError::Busy) => std::thread::yield_now(),
                other => return other,
            }
        }
    }

    fn lineage_after(
        &self,
        records: &[(Position, Record)],
    ) -> Result<Option<Arc<Lineage>>, StoreError> {
        let mut reigns = records
            .iter()
            .filter_map(|(position, record)| record.reign_at(*position))
            .peekable();
        if reigns.peek().is_none() {
            return Ok(None);
        }
        let mut lineage = Lineage::clone(&self.lineage.load());
        for reign in reigns {
            lineage
                .push(reign)
                .map_err(|error| StoreError::Fatal(error.to_string()))?;
        }
        Ok(Some(Arc::new(lineage)))
    }
}

/// The records behind `visible`; `None` if the whole frame is visible already.
fn not_yet_visible(
    visible: Position,
    link: Link,
    records: &[(Position, Record)],
) -> Result<Option<&[(Position, Record)]>, StoreError> {
    if link.position.seq <= visible.seq {
        return Ok(None);
    }
    let seen = records.partition_point(|(position, _)| position.seq <= visible.seq);
    let fresh = &records[seen..];
    let ends = fresh.first().zip(fresh.last());
    let follows = ends.is_some_and(|((first, _), (last, _))| {
        first.seq == visible.seq + 1 && *last == link.position
    });
    if !follows {
        return Err(StoreError::gap(visible, link.position));
    }
    Ok(Some(fresh))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn only_what_follows_is_taken() {
        let record = |seq| {
            let record = Record::new(
                Bytes::from_static(b"k"),
                Effect::Delete { by_expiry: false },
            );
            (Position::new(1, seq), record)
        };
        let records = [record(4), record(5), record(6)];
        let link = |seq| Link {
            position: Position::new(1, seq),
            crc: 0,
        };
        for (visible, end, fresh) in [
            (3, 6, Ok(3)),
            (4, 6, Ok(2)),
            (6, 6, Ok(0)),
            (9, 6, Ok(0)),
            (2, 6, Err(())),
            (3, 7, Err(())),
        ] {
            let taken = not_yet_visible(Position::new(1, visible), link(end), &records);
            let taken = taken.map(|fresh| fresh.map_or(0, <[_]>::len));
            assert_eq!(taken.map_err(|_| ()), fresh, "{visible} then {end}");
        }
    }
}
