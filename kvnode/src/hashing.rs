//! Hashing for tables in memory whose keys come from outside.
//!
//! xxh3-64 under a random seed that is drawn for each table and never shown: fast on short keys, and who does not know
//! the seed cannot prepare keys that meet in one place. It is no cryptographic promise; answers do not tell hashes, and
//! a table that is unlucky is slow, not wrong. Never for what is stored or sent: those hashes have fixed seeds.

use std::hash::{BuildHasher, Hasher, RandomState};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A seed of its own, with which hashes are made.
#[derive(Debug, Clone)]
pub struct Seeded {
    seed: u64,
}

impl Default for Seeded {
    fn default() -> Self {
        // The standard library has the randomness of the operating system at hand.
        let seed = RandomState::new().hash_one(0);
        Self { seed }
    }
}

impl Seeded {
    /// The hash of a key.
    pub fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }
}

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.seed)
    }
}

/// Hashes the parts of a key one by one, each under the hash of those before it.
#[derive(Debug)]
pub struct SeededHasher(u64);

impl Hasher for SeededHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_hashes_in_its_own_way() {
        let (one, other) = (Seeded::default(), Seeded::default());
        assert_eq!(one.hash(b"key"), one.hash(b"key"));
        assert_ne!(one.hash(b"key"), one.hash(b"kez"));
        assert_ne!(one.hash(b"key"), other.hash(b"key"));
        assert_eq!(one.hash_one((1, 2)), one.hash_one((1, 2)));
        assert_ne!(one.hash_one((1, 2)), one.hash_one((2, 1)));
        assert_ne!(one.hash_one((1, 2)), other.hash_one((1, 2)));
    }
}
