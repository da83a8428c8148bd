//! What memtables and LMDB hold, as one ordered sequence of keys: the inside of a round of a scan.

use std::{cmp::Ordering, collections::BTreeMap, iter::Peekable, ops::Bound};

use bytes::Bytes;
use heed::RoTxn;

use super::{effect::Slot, env::Env, error::StoreError, memtable::Memtable, tables::StoredEntry};

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
    slots: BTreeMap<Bytes, Slot>,
    /// Behind this key a memtable says more than was taken.
    horizon: Option<Bytes>,
}

impl Overlay {
    /// Lays the next `window` slots of a memtable over those that are there.
    pub(super) fn cover(
        &mut self,
        memtable: &Memtable,
        bounds: Bounds,
        order: Order,
        window: usize,
    ) {
        let content = memtable.read();
        let mut slots = content.slots_in(bounds);
        let last = match order {
            Order::Ascending => self.take(&mut slots, window),
            Order::Descending => self.take(&mut slots.rev(), window),
        };
        let Some(last) = last else { return };
        let farther = |horizon: &Bytes| order.compare(&last, horizon).is_gt();
        if !self.horizon.as_ref().is_some_and(farther) {
            self.horizon = Some(last);
        }
    }

    /// Takes up to `window` slots; gives the last key if there are more.
    fn take<'a>(
        &mut self,
        slots: &mut impl Iterator<Item = (&'a Bytes, &'a Slot)>,
        window: usize,
    ) -> Option<Bytes> {
        let mut last = None;
        for (key, slot) in slots.by_ref().take(window) {
            self.slots.insert(key.clone(), slot.clone());
            last = Some(key);
        }
        slots.next().and(last.cloned())
    }

    /// Up to where it is complete, inclusive; `None`: to the end.
    pub(super) fn horizon(&self) -> Option<Bytes> {
        self.horizon.clone()
    }
}

/// A key with what was found for it, not copied yet.
pub(super) enum Candidate<'t> {
    Memory(Bytes, Slot),
    Stored(&'t [u8], &'t [u8]),
}

impl Candidate<'_> {
    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Memory(key, _) => key,
            Self::Stored(key, _) => key,
        }
    }
}

type Stored<'t> = Box<dyn Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>> + 't>;

/// Both sources, merged. For a key that both have, the higher seq wins.
pub(super) struct Merge<'t> {
    order: Order,
    stored: Peekable<Stored<'t>>,
    slots: Peekable<Box<dyn Iterator<Item = (Bytes, Slot)>>>,
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
        let slots = overlay.slots.into_iter();
        let (stored, slots): (Stored, Box<dyn Iterator<Item = _>>) = match order {
            Order::Ascending => (Box::new(env.data.range(txn, &bounds)?), Box::new(slots)),
            Order::Descending => (
                Box::new(env.data.rev_range(txn, &bounds)?),
                Box::new(slots.rev()),
            ),
        };
        Ok(Self {
            order,
            stored: stored.peekable(),
            slots: slots.peekable(),
        })
    }

    /// The next key.
    pub(super) fn next(&mut self) -> Result<Option<Candidate<'t>>, StoreError> {
        let side = match (self.slots.peek(), self.stored.peek()) {
            (None, None) => return Ok(None),
            (Some((slot_key, _)), Some(Ok((stored_key, _)))) => {
                self.order.compare(slot_key, stored_key)
            }
            (Some(_), None) => Ordering::Less,
            (_, Some(_)) => Ordering::Greater,
        };
        let memory = |(key, slot)| Candidate::Memory(key, slot);
        if side.is_lt() {
            return Ok(self.slots.next().map(memory));
        }
        let stored = self.stored.next().transpose()?;
        let stored = stored.map(|(key, row)| Candidate::Stored(key, row));
        if side.is_gt() {
            return Ok(stored);
        }
        let memory = self.slots.next().map(memory);
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
        (Some(Candidate::Stored(_, row)), Some(Candidate::Memory(_, slot))) => {
            StoredEntry::parse(row).is_ok_and(|entry| entry.position.seq > slot.seq())
        }
        _ => false,
    }
}
