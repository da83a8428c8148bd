//! The memtables that lie over LMDB: one that takes frames, and those on their way into LMDB.
//!
//! A view is never changed: whoever moves a memtable on puts a new view in the place of the old one. So a reader that has
//! loaded one goes through memtables that belong together, newest first.
//!
//! Invariant: each frame is in one of them or in LMDB, and those of an older memtable come before those of a newer one.

use std::sync::Arc;

use super::memtable::Memtable;

/// Most frozen memtables. A read that finds nothing in any of them pays for each.
const MOST_FROZEN: usize = 16;

/// The memtables that lie over LMDB.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Takes new frames.
    pub(super) active: Arc<Memtable>,
    /// On their way into LMDB, oldest first.
    frozen: Vec<Arc<Memtable>>,
}

impl View {
    /// The memtables, newest first.
    pub(super) fn memtables(&self) -> impl DoubleEndedIterator<Item = &Memtable> {
        let frozen = self.frozen.iter().rev().map(|memtable| &**memtable);
        std::iter::once(&*self.active).chain(frozen)
    }

    /// The one that goes into LMDB next.
    pub(super) fn oldest_frozen(&self) -> Option<&Arc<Memtable>> {
        self.frozen.first()
    }

    /// What the frozen ones weigh together, in bytes.
    pub(super) fn frozen_weight_bytes(&self) -> usize {
        let frozen = self.frozen.iter();
        frozen.map(|memtable| memtable.read().weight_bytes()).sum()
    }

    /// Whether the active one may be frozen, if all together may weigh so many bytes. One always may.
    pub(super) fn has_room(&self, limit_bytes: usize) -> bool {
        let weight_bytes = || self.frozen_weight_bytes() + self.active.read().weight_bytes();
        self.frozen.is_empty() || (self.frozen.len() < MOST_FROZEN && weight_bytes() < limit_bytes)
    }

    /// The same, with the active memtable frozen and an empty one in its place.
    pub(super) fn with_active_frozen(&self) -> Self {
        let frozen = self.frozen.iter().chain([&self.active]);
        Self {
            active: Arc::default(),
            frozen: frozen.cloned().collect(),
        }
    }

    /// The same without the oldest frozen memtable, which is in LMDB now.
    pub(super) fn without_oldest(&self) -> Self {
        Self {
            active: Arc::clone(&self.active),
            frozen: self.frozen.iter().skip(1).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kvclient::position::Position;

    use super::*;
    use crate::store::effect::Slot;

    /// With as many frozen memtables, each of which holds the key of its number.
    fn frozen(count: u8) -> View {
        (0..count).fold(View::default(), |view, number| {
            let gone = Slot::Tombstone(Position::new(1, 1));
            view.active.write().insert(&[number], gone);
            view.with_active_frozen()
        })
    }

    #[test]
    fn the_oldest_goes_first_and_the_newest_is_asked_first() {
        let view = frozen(3);
        let has = |memtable: &Memtable, key: u8| memtable.read().get(&[key]).is_some();
        let newest = view.memtables().nth(1).expect("it is frozen");
        assert!(has(newest, 2));
        assert!(view.oldest_frozen().is_some_and(|oldest| has(oldest, 0)));
        let view = view.without_oldest();
        assert!(view.oldest_frozen().is_some_and(|oldest| has(oldest, 1)));
        assert_eq!(view.memtables().count(), 3);
    }

    #[test]
    fn there_is_room_by_weight_and_by_number() {
        let one = frozen(1).frozen_weight_bytes();
        assert!(frozen(0).has_room(0), "one may always be frozen");
        assert!(frozen(2).has_room(2 * one + 1));
        assert!(!frozen(2).has_room(2 * one));
        assert!(frozen(15).has_room(usize::MAX));
        assert!(!frozen(16).has_room(usize::MAX));
    }
}
