//! Who wants a key: from prefixes to what is kept for them.
//!
//! A key is looked up once for each length of prefix that is in use, which are few however many prefixes there are.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

/// Items by prefix, one for each.
#[derive(Debug)]
pub(super) struct Index<T> {
    items: HashMap<Bytes, T>,
    /// Lengths of the prefixes, each with the number of prefixes that have it.
    lengths: BTreeMap<usize, usize>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            items: HashMap::new(),
            lengths: BTreeMap::new(),
        }
    }
}

impl<T> Index<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The item of this very prefix.
    pub(super) fn get_mut(&mut self, prefix: &[u8]) -> Option<&mut T> {
        self.items.get_mut(prefix)
    }

    /// The item of this very prefix, which is made if there is none.
    pub(super) fn get_or_default(&mut self, prefix: &Bytes) -> &mut T
    where
        T: Default,
    {
        self.items.entry(prefix.clone()).or_insert_with(|| {
            *self.lengths.entry(prefix.len()).or_default() += 1;
            T::default()
        })
    }

    /// Removes the item of this very prefix.
    pub(super) fn remove(&mut self, prefix: &[u8]) {
        if self.items.remove(prefix).is_none() {
            return;
        }
        if let Some(prefixes) = self.lengths.get_mut(&prefix.len()) {
            *prefixes -= 1;
            if *prefixes == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    /// Visits the items whose prefix the key begins with, and the length of each prefix; shorter ones first.
    pub(super) fn visit_matching(&mut self, key: &[u8], mut visit: impl FnMut(usize, &mut T)) {
        for &length in self.lengths.range(..=key.len()).map(|(length, _)| length) {
            if let Some(item) = self.items.get_mut(&key[..length]) {
                visit(length, item);
            }
        }
    }

    /// All items.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.values_mut()
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
                index.visit_matching(&key, |length, item| found.push((length, item.clone())));
                let wanted = all.iter().filter(|prefix| key.starts_with(prefix));
                let mut wanted: Vec<_> = wanted.map(|prefix| (prefix.len(), prefix.clone())).collect();
                wanted.sort_unstable();
                prop_assert_eq!(found, wanted);
            }
            let lengths: BTreeSet<usize> = all.iter().map(Bytes::len).collect();
            prop_assert_eq!(index.lengths.keys().copied().collect::<BTreeSet<_>>(), lengths);
            prop_assert_eq!(index.values_mut().map(|item| item.clone()).collect::<BTreeSet<_>>(), all);
        }
    }
}
