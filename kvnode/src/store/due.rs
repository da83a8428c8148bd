//! What is due: entries whose time has come, for the sweeper of the primary.
//!
//! All indexes are asked, newest first: those of the memtables, then the table `expiry`. A row counts only if nothing
//! newer is known about its key. Locks are held for lookups only, the transaction as long as rows are gone
//! through; rows that were overwritten but not flushed cost one lookup each.

use std::ops::Bound;

use bytes::Bytes;
use kvclient::position::{Position, Seq};

use super::{
    core::Core,
    error::StoreError,
    memtable::Memtable,
    row::Row,
    tables::{StoredEntry, expiry_key, parse_expiry_key},
    view::View,
};

/// An entry whose time has come, with that time.
type Due = (u64, Position, Bytes);

impl Core {
    /// Up to `max` entries that are due at `now_ms`, oldest first.
    pub(super) fn due(
        &self,
        now_ms: u64,
        max: usize,
    ) -> Result<Vec<(Bytes, Position)>, StoreError> {
        let view = self.view.load();
        let mut due = from_memtables(&view, now_ms, max);
        due.extend(self.due_in_lmdb(&view, now_ms, max)?);
        due.sort_unstable_by_key(|(at, position, _)| (*at, position.seq));
        due.truncate(max);
        Ok(due
            .into_iter()
            .map(|(_, position, key)| (key, position))
            .collect())
    }

    fn due_in_lmdb(&self, view: &View, now_ms: u64, max: usize) -> Result<Vec<Due>, StoreError> {
        let mut due = Vec::new();
        let last = expiry_key(now_ms, Seq::MAX);
        let txn = self.env.read()?;
        let until_now = (Bound::Unbounded, Bound::Included(&last[..]));
        for row in self.env.expiry.range(&txn, &until_now)? {
            let (row_key, key) = row?;
            if due.len() == max {
                break;
            }
            if view.memtables().any(|m| m.read().get(key).is_some()) {
                continue;
            }
            let stored = self.env.data.get(&txn, key)?;
            due.extend(stored.and_then(|stored| is_of(row_key, key, stored)));
        }
        Ok(due)
    }
}

fn from_memtables(view: &View, now_ms: u64, max: usize) -> Vec<Due> {
    // Held together without a deadlock: only the active one is ever locked for writing, and it comes first.
    let contents: Vec<_> = view.memtables().map(Memtable::read).collect();
    let mut due = Vec::new();
    for (at, content) in contents.iter().enumerate() {
        let newer = &contents[..at];
        let is_newest = |row: &Row| newer.iter().all(|newer| newer.get(row.key()).is_none());
        let rows = content.due(now_ms).filter(|(_, row)| is_newest(row));
        due.extend(rows.take(max).map(copied));
    }
    due
}

fn copied((at_ms, row): (u64, &Row)) -> Due {
    let key = Bytes::copy_from_slice(row.key());
    (at_ms, row.slot().position(), key)
}

/// A row of `expiry` together with its entry, if that is still the one it speaks of.
fn is_of(row_key: &[u8], key: &[u8], stored: &[u8]) -> Option<Due> {
    let (at, seq) = parse_expiry_key(row_key)?;
    let entry = StoredEntry::parse(stored).ok()?;
    (entry.position.seq == seq).then(|| (at, entry.position, Bytes::copy_from_slice(key)))
}
