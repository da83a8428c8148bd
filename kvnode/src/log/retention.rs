//! How long frames stay: what LMDB still lacks, what somebody holds, and a measure before that.

use std::sync::Arc;

use kvclient::{faults, position::Seq};

use super::{
    error::LogError,
    files::locked,
    segment::Segment,
    state::{Held, Shared, State},
};

/// Readers with a hold at once: each may cost its limit on disk, and serves a reader that wants the whole shard.
const MOST_HOLDS: usize = 4;

/// Keeps the frames after a seq in the log for as long as it lives, unless they come to more than its limit.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
    id: u64,
}

impl Hold {
    pub(super) fn new(shared: Arc<Shared>, after: Seq, limit_bytes: u64) -> Option<Self> {
        let id = {
            let holds = &mut shared.state().holds;
            let readers = holds.values().filter(|held| held.is_read_by);
            if readers.count() >= MOST_HOLDS {
                return None;
            }
            let id = holds.last_key_value().map_or(0, |(newest, _)| newest + 1);
            let held = Held {
                after,
                limit_bytes,
                lapsed: false,
                is_read_by: true,
            };
            holds.insert(id, held);
            id
        };
        Some(Self { shared, id })
    }

    /// Nobody reads by it any more, and what follows `seq` is kept on: another may read instead.
    pub fn set_aside(&self, seq: Seq) {
        if let Some(held) = self.shared.state().holds.get_mut(&self.id) {
            held.is_read_by = false;
        }
        self.advance(seq);
    }

    /// Frames up to `seq` are wanted no longer.
    pub fn advance(&self, seq: Seq) {
        if let Some(held) = self.shared.state().holds.get_mut(&self.id) {
            held.after = held.after.max(seq);
        }
    }

    /// Whether it costs, or has once cost, more than its limit: frames may be gone from now on.
    pub fn has_lapsed(&self) -> bool {
        let mut state = self.shared.state();
        state.let_holds_lapse();
        state.holds.get(&self.id).is_none_or(|held| held.lapsed)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.state().holds.remove(&self.id);
    }
}

impl Shared {
    /// Removes segments that are not needed, oldest first, each durably before the next: a crash never leaves a
    /// hole in the numbers.
    pub(super) fn release(&self, applied: Seq) -> Result<(), LogError> {
        let _one_at_a_time = locked(&self.releasing);
        loop {
            let popped = self
                .state()
                .pop_unneeded(applied, self.home.options.retention_bytes);
            match popped {
                Some(segment) => {
                    self.spares.recycle(segment)?;
                    faults::point("segment.given_free");
                }
                None => return Ok(()),
            }
        }
    }
}

impl State {
    /// Lets go of what costs more than its limit: the segments from the one that holds the next seq to the end.
    fn let_holds_lapse(&mut self) {
        let mut holds = std::mem::take(&mut self.holds);
        for held in holds.values_mut() {
            held.lapsed |= self.bytes_from(self.segment_after(held.after)) > held.limit_bytes;
        }
        self.holds = holds;
    }

    fn pop_unneeded(&mut self, applied: Seq, retention_bytes: u64) -> Option<Arc<Segment>> {
        self.let_holds_lapse();
        let held = self.holds.values().filter(|held| !held.lapsed);
        let keep_after = held.map(|held| held.after).fold(applied, Seq::min);
        // Everything before the segment that holds the next seq is done with. The last one is never among them.
        let done = self.segment_after(keep_after);
        let done_bytes: u64 = self.segments.iter().take(done).map(|s| s.bytes).sum();
        if done_bytes > retention_bytes {
            self.segments.pop_front()
        } else {
            None
        }
    }
}
