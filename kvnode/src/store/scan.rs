//! Ordered scans: memtables over LMDB, in bounded pages.
//!
//! A page is made in rounds. Each pins the memtables, copies a window of them out under their lock, then opens one short
//! LMDB transaction and merges; a window that was cut bounds how far the round may go. So neither a lock nor a
//! transaction is held for longer than a page takes, and a million tombstones cost rounds, not time under a lock.
//!
//! Pages are no snapshot. Each key is read at one moment of the scan, and keys only move on, so a key that is there
//! throughout comes exactly once. Expired entries come too. Reading pages to the end, each from behind the last key of
//! the one before, gives all entries of the shard: that is how copies are made.

use std::{
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    core::Core,
    effect::Slot,
    error::StoreError,
    merge::{Bounds, Candidate, Merge, Order, Overlay},
    tables::{ENTRY_HEADER_BYTES, Entry, INLINE_ROW_BYTES, StoredEntry},
};

/// Most rows that one round takes from a memtable.
const WINDOW_ROWS: usize = 1024;

/// Which keys, in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRange {
    /// The lower bound.
    pub start: Bound<Bytes>,
    /// The upper bound.
    pub end: Bound<Bytes>,
    /// From the upper bound down.
    pub reverse: bool,
}

/// What a scan brings of each entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanContent {
    /// All of it.
    Entries,
    /// All but the value, which stays empty. Values on pages of their own are not read, so such entries are not checked.
    Keys,
}

/// How large a page may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimits {
    /// Most entries, at least 1.
    pub max_entries: usize,
    /// Most bytes of keys and values; the first entry comes whatever its size.
    pub max_bytes: usize,
    /// What comes of each entry.
    pub content: ScanContent,
}

/// Some entries in the order asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanPage {
    /// Entries with their keys, expired ones too.
    pub entries: Vec<(Bytes, Entry)>,
    /// Whether another entry follows. Then there is at least one here: go on with [`ScanRange::after`] its key.
    pub more: bool,
}

impl ScanRange {
    /// All keys, ascending.
    pub fn all() -> Self {
        Self {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            reverse: false,
        }
    }

    /// The part of this range behind `key`, in its order.
    pub fn after(&self, key: Bytes) -> Self {
        let behind = Bound::Excluded(key);
        let (start, end) = if self.reverse {
            (self.start.clone(), behind)
        } else {
            (behind, self.end.clone())
        };
        Self {
            start,
            end,
            reverse: self.reverse,
        }
    }

    fn bounds(&self) -> Bounds<'_> {
        (
            self.start.as_ref().map(|key| &key[..]),
            self.end.as_ref().map(|key| &key[..]),
        )
    }

    fn order(&self) -> Order {
        if self.reverse {
            Order::Descending
        } else {
            Order::Ascending
        }
    }

    /// Whether no key can be in it. `BTreeMap` panics at such ranges.
    fn is_empty(&self) -> bool {
        use Bound::{Excluded, Included, Unbounded};
        match self.bounds() {
            (Unbounded, _) | (_, Unbounded) => false,
            (Included(start), Included(end)) => start > end,
            (Included(start) | Excluded(start), Included(end) | Excluded(end)) => start >= end,
        }
    }
}

/// A page being made.
struct PageMaker<'a> {
    core: &'a Core,
    limits: &'a ScanLimits,
    page: ScanPage,
    bytes: usize,
}

/// How a round has ended.
enum Round {
    /// Nothing follows, or the page is full.
    Done,
    /// All up to this key was seen, and a memtable may say more behind it.
    SeenUpTo(Arc<[u8]>),
}

impl Core {
    /// The next page of a range.
    pub(super) fn scan(
        &self,
        range: &ScanRange,
        limits: &ScanLimits,
    ) -> Result<ScanPage, StoreError> {
        let mut maker = PageMaker {
            core: self,
            limits,
            page: ScanPage::default(),
            bytes: 0,
        };
        let mut rest = range.clone();
        while let Round::SeenUpTo(key) = maker.round(&rest)? {
            rest = rest.after(Bytes::from_owner(key));
        }
        Ok(maker.page)
    }
}

impl PageMaker<'_> {
    fn round(&mut self, range: &ScanRange) -> Result<Round, StoreError> {
        if range.is_empty() {
            return Ok(Round::Done);
        }
        let (bounds, order) = (range.bounds(), range.order());
        let overlay = self.overlay(bounds, order);
        let horizon = overlay.horizon();
        let txn = self.core.env.read()?;
        let mut merge = Merge::new(&self.core.env, &txn, bounds, order, overlay)?;
        while let Some(candidate) = merge.next()? {
            let behind = |horizon: &Arc<[u8]>| order.compare(candidate.key(), horizon).is_gt();
            if horizon.as_ref().is_some_and(behind) {
                break;
            }
            if self.offer(candidate)?.is_break() {
                self.page.more = true;
                return Ok(Round::Done);
            }
        }
        Ok(horizon.map_or(Round::Done, Round::SeenUpTo))
    }

    /// Pins the memtables and takes what they say, the oldest one first.
    fn overlay(&self, bounds: Bounds, order: Order) -> Overlay {
        let window = self.limits.max_entries.clamp(1, WINDOW_ROWS);
        let view = self.core.view.load();
        let mut overlay = Overlay::default();
        for memtable in view.memtables().rev() {
            overlay.cover(memtable, bounds, order, window);
        }
        overlay
    }

    /// Takes one more, unless the page is full.
    fn offer(&mut self, candidate: Candidate) -> Result<ControlFlow<()>, StoreError> {
        let (key_bytes, value_bytes) = match &candidate {
            Candidate::Memory(row) => match row.slot() {
                Slot::Tombstone(_) => return Ok(ControlFlow::Continue(())),
                Slot::Live(entry) => (row.key().len(), entry.value.len()),
            },
            Candidate::Stored(key, row) => {
                (key.len(), row.len().saturating_sub(ENTRY_HEADER_BYTES))
            }
        };
        let bytes = match self.limits.content {
            ScanContent::Entries => key_bytes + value_bytes,
            ScanContent::Keys => key_bytes,
        };
        if self.is_full(bytes) {
            return Ok(ControlFlow::Break(()));
        }
        self.bytes += bytes;
        let taken = self.copy(candidate)?;
        self.page.entries.extend(taken);
        Ok(ControlFlow::Continue(()))
    }

    fn is_full(&self, next_bytes: usize) -> bool {
        let entries = self.page.entries.len();
        entries > 0
            && (entries >= self.limits.max_entries
                || self.bytes.saturating_add(next_bytes) > self.limits.max_bytes)
    }

    fn copy(&self, candidate: Candidate) -> Result<Option<(Bytes, Entry)>, StoreError> {
        let keys_only = self.limits.content == ScanContent::Keys;
        let (key, entry) = match candidate {
            Candidate::Memory(row) => {
                let Some(mut entry) = row.to_entry() else {
                    return Ok(None);
                };
                if keys_only {
                    entry.value = Bytes::new();
                }
                (Bytes::copy_from_slice(row.key()), entry)
            }
            Candidate::Stored(key, row) if keys_only => {
                let entry = if key.len() + row.len() <= INLINE_ROW_BYTES {
                    self.core.check(key, row)?
                } else {
                    let damaged = |problem| self.core.damaged(key, problem);
                    StoredEntry::parse(row).map_err(damaged)?
                };
                (Bytes::copy_from_slice(key), entry.without_value())
            }
            Candidate::Stored(key, row) => {
                let entry = self.core.check(key, row)?.to_entry();
                (Bytes::copy_from_slice(key), entry)
            }
        };
        Ok(Some((key, entry)))
    }
}
