//! Who wants a key: from prefixes to what is kept for them.
//!
//! A key is looked up once for each length of prefix that is in use, which are few however many prefixes there are.
//! What is found has a number, by which it is found again at once.

use bytes::Bytes;
use hashbrown::HashTable;

use crate::hashing::Seeded;

/// Items by prefix, one for each.
#[derive(Debug)]
pub(super) struct Index<T> {
    /// Items under their numbers. `None`: the number is free.
    items: Vec<Option<(Bytes, T)>>,
    free: Vec<usize>,
    /// Numbers of the items whose prefixes have the same length, by what the prefix is; shorter ones first.
    lengths: Vec<(usize, HashTable<Number>)>,
    seeded: Seeded,
}

/// An item's number, beside the hash of its prefix: few others are looked at in vain.
#[derive(Debug, Clone, Copy)]
struct Number {
    hash: u64,
    nth: usize,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
            lengths: Vec::new(),
            seeded: Seeded::default(),
        }
    }
}

impl<T> Index<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The item that has this number.
    pub(super) fn nth_mut(&mut self, nth: usize) -> Option<&mut T> {
        let item = self.items.get_mut(nth)?.as_mut();
        item.map(|(_, item)| item)
    }

    /// The item of this very prefix.
    pub(super) fn get_mut(&mut self, prefix: &[u8]) -> Option<&mut T> {
        let at = self.length(prefix.len()).ok()?;
        let nth = self.find(at, prefix)?;
        self.nth_mut(nth)
    }

    /// The item of this very prefix, which is made if there is none.
    pub(super) fn get_or_default(&mut self, prefix: &Bytes) -> &mut T
    where
        T: Default,
    {
        let at = self.length(prefix.len()).unwrap_or_else(|at| {
            self.lengths.insert(at, (prefix.len(), HashTable::new()));
            at
        });
        let nth = match self.find(at, prefix) {
            Some(nth) => nth,
            None => self.insert(at, prefix),
        };
        let item = self.items[nth].get_or_insert_with(|| (prefix.clone(), T::default()));
        &mut item.1
    }

    /// A number for a prefix that has none.
    fn insert(&mut self, at: usize, prefix: &Bytes) -> usize {
        let nth = self.free.pop().unwrap_or_else(|| {
            self.items.push(None);
            self.items.len() - 1
        });
        let hash = self.seeded.hash(prefix);
        let numbers = &mut self.lengths[at].1;
        numbers.insert_unique(hash, Number { hash, nth }, |number| number.hash);
        nth
    }

    /// Removes the item of this very prefix.
    pub(super) fn remove(&mut self, prefix: &[u8]) {
        let Ok(at) = self.length(prefix.len()) else {
            return;
        };
        let Some(nth) = self.find(at, prefix) else {
            return;
        };
        let numbers = &mut self.lengths[at].1;
        if let Ok(entry) = numbers.find_entry(self.seeded.hash(prefix), |number| number.nth == nth)
        {
            entry.remove();
        }
        if numbers.is_empty() {
            self.lengths.remove(at);
        }
        self.items[nth] = None;
        self.free.push(nth);
    }

    /// Visits the items whose prefix the key begins with, and the number of each; shorter prefixes first.
    pub(super) fn visit_matching(&mut self, key: &[u8], mut visit: impl FnMut(usize, &mut T)) {
        for at in 0..self.lengths.len() {
            let Some(prefix) = key.get(..self.lengths[at].0) else {
                return;
            };
            let Some(nth) = self.find(at, prefix) else {
                continue;
            };
            if let Some((_, item)) = &mut self.items[nth] {
                visit(nth, item);
            }
        }
    }

    /// All items.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().flatten().map(|(_, item)| item)
    }

    /// Where prefixes of a length are, or belong.
    fn length(&self, length: usize) -> Result<usize, usize> {
        self.lengths.binary_search_by_key(&length, |(of, _)| *of)
    }

    /// The number of this very prefix among those of its length.
    fn find(&self, at: usize, prefix: &[u8]) -> Option<usize> {
        let hash = self.seeded.hash(prefix);
        let is_it = |number: &Number| {
            let item = self.items[number.nth].as_ref();
            number.hash == hash && item.is_some_and(|(of, _)| of == prefix)
        };
        self.lengths[at]
            .1
            .find(hash, is_it)
            .map(|number| number.nth)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Short, of two letters: most are prefixes of some others.
    fn short() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..5)
    }

    proptest! {
        #[test]
        fn finds_what_a_search_through_all_finds(
            changes in proptest::collection::vec((short(), any::<bool>()), 0..40),
            keys in proptest::collection::vec(short(), 1..20),
        ) {
            let mut index = Index::<Bytes>::default();
            let mut all = BTreeSet::new();
            for (prefix, is_added) in changes {
                let prefix = Bytes::from(prefix);
                if is_added {
                    *index.get_or_default(&prefix) = prefix.clone();
                    all.insert(prefix);
                } else {
                    index.remove(&prefix);
                    all.remove(&prefix);
                }
            }
            for key in keys {
                let mut found = Vec::new();
                index.visit_matching(&key, |nth, item| found.push((nth, item.clone())));
                for (nth, item) in &mut found {
                    prop_assert_eq!(index.nth_mut(*nth), Some(&mut item.clone()));
                    *nth = item.len();
                }
                let wanted = all.iter().filter(|prefix| key.starts_with(prefix));
                let mut wanted: Vec<_> = wanted.map(|prefix| (prefix.len(), prefix.clone())).collect();
                wanted.sort_unstable();
                prop_assert_eq!(found, wanted);
            }
            let lengths: BTreeSet<usize> = all.iter().map(Bytes::len).collect();
            prop_assert_eq!(index.lengths.iter().map(|(length, _)| *length).collect::<BTreeSet<_>>(), lengths);
            prop_assert_eq!(index.is_empty(), all.is_empty());
            prop_assert_eq!(index.values_mut().map(|item| item.clone()).collect::<BTreeSet<_>>(), all);
        }
    }
}
