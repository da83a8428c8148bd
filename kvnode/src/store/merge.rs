//! What memtables and LMDB hold, as one ordered sequence of keys: the inside of a round of a scan.

use std::{cmp::Ordering, collections::BTreeMap, iter::Peekable, ops::Bound, sync::Arc};

use heed::RoTxn;

use super::{env::Env, error::StoreError, memtable::Memtable, row::Row, tables::StoredEntry};

/// Bounds of a scan, as tables want them.
pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

impl Order {
    /// How two keys stand in this order.
    pub(super) fn compare(self, one: &[u8], other: &[u8]) -> Ordering {
        match self {
            Self::Ascending => one.cmp(other),
            Self::Descending => other.cmp(one),
        }
    }
}

/// What memtables say about the next keys.
#[derive(Default)]
pub(super) struct Overlay {
    rows: BTreeMap<Arc<[u8]>, Row>,
    /// Behind this key a memtable says more than was taken.
    horizon: Option<Arc<[u8]>>,
}

impl Overlay {
    /// Lays the next `window` rows of a memtable over those that are there.
    pub(super) fn cover(
        &mut self,
        memtable: &Memtable,
        bounds: Bounds,
        order: Order,
        window: usize,
    ) {
        let content = memtable.read();
        let mut rows = content.rows_in(bounds);
        let last = match order {
            Order::Ascending => self.take(&mut rows, window),
            Order::Descending => self.take(&mut rows.rev(), window),
        };
        let Some(last) = last else { return };
        let farther = |horizon: &Arc<[u8]>| order.compare(&last, horizon).is_gt();
        if !self.horizon.as_ref().is_some_and(farther) {
            self.horizon = Some(last);
        }
    }

    /// Takes up to `window` rows; gives the last key if there are more.
    fn take<'a>(
        &mut self,
        rows: &mut impl Iterator<Item = (&'a Arc<[u8]>, &'a Row)>,
        window: usize,
    ) -> Option<Arc<[u8]>> {
        let mut last = None;
        for (key, row) in rows.by_ref().take(window) {
            self.rows.insert(key.clone(), row.clone());
            last = Some(key);
        }
        rows.next().and(last.cloned())
    }

    /// Up to where it is complete, inclusive; `None`: to the end.
    pub(super) fn horizon(&self) -> Option<Arc<[u8]>> {
        self.horizon.clone()
    }
}

/// A key with what was found for it, not copied yet.
pub(super) enum Candidate<'t> {
    Memory(Row),
    Stored(&'t [u8], &'t [u8]),
}

impl Candidate<'_> {
    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Memory(row) => row.key(),
            Self::Stored(key, _) => key,
        }
    }
}

type Stored<'t> = Box<dyn Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>> + 't>;

/// Both sources, merged. For a key that both have, the higher seq wins.
pub(super) struct Merge<'t> {
    order: Order,
    stored: Peekable<Stored<'t>>,
    rows: Peekable<Box<dyn Iterator<Item = Row>>>,
}

impl<'t> Merge<'t> {
    /// The keys between `bounds`.
    pub(super) fn new(
        env: &Env,
        txn: &'t RoTxn,
        bounds: Bounds,
        order: Order,
        overlay: Overlay,
    ) -> Result<Self, StoreError> {
        let rows = overlay.rows.into_values();
        let (stored, rows): (Stored, Box<dyn Iterator<Item = _>>) = match order {
            Order::Ascending => (Box::new(env.data.range(txn, &bounds)?), Box::new(rows)),
            Order::Descending => (
                Box::new(env.data.rev_range(txn, &bounds)?),
                Box::new(rows.rev()),
            ),
        };
        Ok(Self {
            order,
            stored: stored.peekable(),
            rows: rows.peekable(),
        })
    }

    /// The next key.
    pub(super) fn next(&mut self) -> Result<Option<Candidate<'t>>, StoreError> {
        let side = match (self.rows.peek(), self.stored.peek()) {
            (None, None) => return Ok(None),
            (Some(row), Some(Ok((stored_key, _)))) => self.order.compare(row.key(), stored_key),
            (Some(_), None) => Ordering::Less,
            (_, Some(_)) => Ordering::Greater,
        };
        if side.is_lt() {
            return Ok(self.rows.next().map(Candidate::Memory));
        }
        let stored = self.stored.next().transpose()?;
        let stored = stored.map(|(key, row)| Candidate::Stored(key, row));
        if side.is_gt() {
            return Ok(stored);
        }
        let memory = self.rows.next().map(Candidate::Memory);
        Ok(if is_newer(&stored, &memory) {
            stored
        } else {
            memory
        })
    }
}

/// Whether LMDB was flushed past the memtables that the scan has pinned.
fn is_newer(stored: &Option<Candidate>, memory: &Option<Candidate>) -> bool {
    match (stored, memory) {
        (Some(Candidate::Stored(_, stored)), Some(Candidate::Memory(row))) => {
            StoredEntry::parse(stored).is_ok_and(|entry| entry.position.seq > row.seq())
        }
        _ => false,
    }
}
