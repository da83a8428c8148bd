//! Entries that are durable in the log but not in LMDB yet.
//!
//! Filled by one thread, frame by frame: all of a frame goes in under one write lock, so readers see it as a whole.
//! Frozen memtables are only read. A deletion is kept as a tombstone, since LMDB below may still have the key.
//!
//! Keys and values are copied in. A record is a slice of the frame or request it came in, and one small entry that
//! stays would hold megabytes of its neighbours.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use kvclient::{
    position::{Position, Reign, Seq},
    wire::log::{Effect, Link, Record},
};

use super::tables::{Entry, Request};

/// What an entry costs beside its key and value: its place in a tree that is two thirds full (about 160 bytes) and
/// two allocations. Measured with 400,000 entries of 110 bytes, which took 116 MB.
const ENTRY_OVERHEAD_BYTES: usize = 180;

/// What a memtable says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    /// It has this entry.
    Live(Entry),
    /// It was deleted here.
    Tombstone(Position),
}

impl Slot {
    /// Seq of the record behind it; the larger one wins.
    pub(super) fn seq(&self) -> Seq {
        match self {
            Self::Live(entry) => entry.position.seq,
            Self::Tombstone(position) => position.seq,
        }
    }

    /// The entry, unless it is a tombstone.
    pub(super) fn into_entry(self) -> Option<Entry> {
        match self {
            Self::Live(entry) => Some(entry),
            Self::Tombstone(_) => None,
        }
    }

    fn expiry(&self) -> Option<(u64, Seq)> {
        match self {
            Self::Live(entry) => Some((entry.expires_at_ms?, entry.position.seq)),
            Self::Tombstone(_) => None,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Live(entry) => entry.value.len(),
            Self::Tombstone(_) => 0,
        }
    }
}

/// What a record makes of a key that now has `current`: the rule of effects. `None`: nothing.
pub(super) fn effect(position: Position, record: &Record, current: Option<&Slot>) -> Option<Slot> {
    if current.is_some_and(|slot| slot.seq() >= position.seq) {
        return None;
    }
    match (&record.effect, current) {
        (
            Effect::Put {
                value,
                expires_at_ms,
            },
            _,
        ) => Some(Slot::Live(Entry {
            position,
            expires_at_ms: *expires_at_ms,
            value: Bytes::copy_from_slice(value),
        })),
        (Effect::Delete { .. }, _) => Some(Slot::Tombstone(position)),
        (Effect::Expire { expires_at_ms }, Some(Slot::Live(entry))) => Some(Slot::Live(Entry {
            position,
            expires_at_ms: *expires_at_ms,
            value: entry.value.clone(),
        })),
        (Effect::Expire { .. } | Effect::EpochStart { .. }, _) => None,
    }
}

/// An ordered set of changes that end at one frame's end.
#[derive(Debug, Default)]
pub(super) struct Memtable {
    /// Std lock: held for one lookup or one frame, never over an await or a read of LMDB.
    content: RwLock<Content>,
}

/// What is in a memtable.
#[derive(Debug, Default)]
pub(super) struct Content {
    slots: BTreeMap<Bytes, Slot>,
    /// The live entries that expire, by time.
    expiry: BTreeMap<(u64, Seq), Bytes>,
    requests: BTreeMap<(u128, u64), Request>,
    reigns: Vec<Reign>,
    /// Where the newest frame in it ends, and that frame's time.
    end: Option<(Link, u64)>,
    bytes: usize,
}

impl Memtable {
    /// Its content, to be read; the lock is released with the guard.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().expect("no writer panics")
    }

    /// Its content, to be changed as a whole.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().expect("no writer panics")
    }
}

impl Content {
    /// What it says about a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.slots.get(key)
    }

    /// Adds a frame. `older[i]` is what lies below this memtable for record `i`; it is asked only if the memtable
    /// itself says nothing about the key, and may be left `None` for a `put` or `delete` known to be newer.
    pub(super) fn apply(
        &mut self,
        end: Link,
        time_ms: u64,
        records: &[(Position, Record)],
        older: &[Option<Slot>],
    ) {
        for ((position, record), older) in records.iter().zip(older) {
            let current = self.slots.get(&record.key).or(older.as_ref());
            if let Some(slot) = effect(*position, record, current) {
                self.insert(&record.key, slot);
            }
            self.reigns.extend(record.reign_at(*position));
            if let Some(mark) = &record.mark {
                let request = Request {
                    mark: mark.clone(),
                    position: *position,
                    time_ms,
                };
                self.remember(request);
            }
        }
        self.end = Some((end, time_ms));
    }

    /// Sets what is said about a key.
    pub(super) fn insert(&mut self, key: &[u8], slot: Slot) {
        let expiry = slot.expiry();
        self.bytes += slot.value_bytes();
        let place = match self.slots.entry(Bytes::copy_from_slice(key)) {
            btree_map::Entry::Vacant(place) => {
                self.bytes += key.len() + ENTRY_OVERHEAD_BYTES;
                place.insert_entry(slot)
            }
            btree_map::Entry::Occupied(mut place) => {
                let old = place.insert(slot);
                self.bytes -= old.value_bytes();
                if let Some(at) = old.expiry() {
                    self.expiry.remove(&at);
                }
                place
            }
        };
        if let Some(at) = expiry {
            self.expiry.insert(at, place.key().clone());
        }
    }

    /// Adds a remembered request.
    pub(super) fn remember(&mut self, mut request: Request) {
        request.mark.outcome = Bytes::copy_from_slice(&request.mark.outcome);
        self.bytes += request.mark.outcome.len() + ENTRY_OVERHEAD_BYTES;
        self.requests
            .insert((request.mark.client, request.mark.n), request);
    }

    /// Where its newest frame ends and that frame's time; `None`: it has taken none.
    pub(super) fn end(&self) -> Option<(Link, u64)> {
        self.end
    }

    /// Memory it holds, estimated, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All keys in order.
    pub(super) fn slots(&self) -> impl Iterator<Item = (&Bytes, &Slot)> {
        self.slots.iter()
    }

    /// The keys between two bounds, in order.
    pub(super) fn slots_in(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Slot)> {
        self.slots.range::<[u8], _>(bounds)
    }

    /// The live entries whose time has come at `now_ms`, oldest first.
    pub(super) fn due(&self, now_ms: u64) -> impl Iterator<Item = ((u64, Seq), &Bytes)> {
        self.expiry
            .range(..=(now_ms, Seq::MAX))
            .map(|(at, key)| (*at, key))
    }

    /// The remembered requests behind `after`, by client and n.
    pub(super) fn requests_after(
        &self,
        after: Bound<(u128, u64)>,
    ) -> impl Iterator<Item = &Request> {
        self.requests
            .range((after, Bound::Unbounded))
            .map(|(_, request)| request)
    }

    /// The reigns that began in it.
    pub(super) fn reigns(&self) -> &[Reign] {
        &self.reigns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &'static [u8], expires_at_ms: Option<u64>) -> Effect {
        Effect::Put {
            value: Bytes::from_static(value),
            expires_at_ms,
        }
    }

    fn at(seq: Seq) -> Position {
        Position::new(1, seq)
    }

    fn live(seq: Seq, expires_at_ms: Option<u64>, value: &'static [u8]) -> Slot {
        Slot::Live(Entry {
            position: at(seq),
            expires_at_ms,
            value: Bytes::from_static(value),
        })
    }

    #[test]
    fn the_rule_of_effects() {
        let expire = Effect::Expire {
            expires_at_ms: Some(9),
        };
        let delete = Effect::Delete { by_expiry: false };
        let gone = Some(Slot::Tombstone(at(4)));
        let there = Some(live(4, None, b"old"));
        for (effect_of, seq, current, becomes) in [
            (put(b"new", None), 5, None, Some(live(5, None, b"new"))),
            (
                put(b"new", Some(7)),
                5,
                there.clone(),
                Some(live(5, Some(7), b"new")),
            ),
            (put(b"new", None), 4, there.clone(), None),
            (put(b"new", None), 3, gone.clone(), None),
            (
                delete.clone(),
                5,
                there.clone(),
                Some(Slot::Tombstone(at(5))),
            ),
            (delete, 3, there.clone(), None),
            (
                expire.clone(),
                5,
                there.clone(),
                Some(live(5, Some(9), b"old")),
            ),
            (expire.clone(), 3, there, None),
            (expire.clone(), 5, gone, None),
            (expire, 5, None, None),
            (
                Effect::EpochStart {
                    reign_id: 1,
                    node: String::new(),
                },
                5,
                None,
                None,
            ),
        ] {
            let record = Record::new(Bytes::from_static(b"k"), effect_of);
            assert_eq!(
                effect(at(seq), &record, current.as_ref()),
                becomes,
                "{record:?} at {seq}"
            );
        }
    }

    #[test]
    fn bytes_and_expiry_index_follow_what_is_in_it() {
        let mut content = Content::default();
        content.insert(b"key", live(1, Some(50), b"123"));
        assert_eq!(content.bytes(), 3 + 3 + ENTRY_OVERHEAD_BYTES);
        content.insert(b"key", live(2, Some(40), b"12345"));
        assert_eq!(content.bytes(), 3 + 5 + ENTRY_OVERHEAD_BYTES);
        content.insert(b"other", live(3, Some(45), b""));
        let due: Vec<_> = content.due(45).map(|(at, _)| at).collect();
        assert_eq!(due, [(40, 2), (45, 3)]);
        content.insert(b"key", Slot::Tombstone(at(4)));
        let due: Vec<_> = content.due(u64::MAX).map(|(at, _)| at).collect();
        assert_eq!(due, [(45, 3)]);
    }

    #[test]
    fn what_it_keeps_does_not_hold_the_frame() {
        let frame = Bytes::from(vec![b'x'; 1 << 20]);
        let mut content = Content::default();
        let record = Record::new(frame.slice(..3), put(b"", None));
        content.apply(Link::default(), 0, &[(at(1), record)], &[None]);
        assert!(frame.is_unique());
    }
}
