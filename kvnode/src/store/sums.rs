//! Counts and sums of all entries, in 64 ranges of slots.
//!
//! They change in the same transaction as the entries, so they prove at any time that the tables hold what was put
//! into them; and two nodes at the same position can compare them without reading an entry. A sum is the wrapping sum
//! of entry hashes: order does not matter, and taking an entry out is one subtraction. That catches accidents, not a
//! forger.

use kvclient::slot::Slot;
use xxhash_rust::xxh3::xxh3_64;

/// Number of ranges: slot / 256.
pub(super) const RANGES: usize = 64;

/// Size of [`Sums::to_bytes`].
pub(super) const SUMS_BYTES: usize = RANGES * 16;

/// Entries of one range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RangeSum {
    /// Number of entries.
    pub count: u64,
    /// Wrapping sum of their hashes.
    pub sum: u64,
}

/// All 64 ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums(Box<[RangeSum; RANGES]>);

impl Default for Sums {
    fn default() -> Self {
        Self(Box::new([RangeSum::default(); RANGES]))
    }
}

impl Sums {
    /// Counts an entry in.
    pub(super) fn add(&mut self, key: &[u8], hash: u64) {
        let range = self.range(key);
        range.count = range.count.wrapping_add(1);
        range.sum = range.sum.wrapping_add(hash);
    }

    /// Counts an entry out.
    pub(super) fn remove(&mut self, key: &[u8], hash: u64) {
        let range = self.range(key);
        range.count = range.count.wrapping_sub(1);
        range.sum = range.sum.wrapping_sub(hash);
    }

    fn range(&mut self, key: &[u8]) -> &mut RangeSum {
        &mut self.0[usize::from(Slot::of_bytes(key).number()) / 256]
    }

    /// The ranges, by slot.
    pub fn ranges(&self) -> &[RangeSum; RANGES] {
        &self.0
    }

    /// Number of all entries.
    pub fn entries(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum, range| sum.wrapping_add(range.count))
    }

    /// One number for all of it: xxh3-64 over count u64 and sum u64 of each range, little-endian, by slot.
    pub fn digest(&self) -> u64 {
        xxh3_64(&self.to_bytes())
    }

    /// Per range count u64 and sum u64, little-endian, by slot.
    pub(super) fn to_bytes(&self) -> [u8; SUMS_BYTES] {
        let mut bytes = [0; SUMS_BYTES];
        for (range, out) in self.0.iter().zip(bytes.chunks_exact_mut(16)) {
            out[..8].copy_from_slice(&range.count.to_le_bytes());
            out[8..].copy_from_slice(&range.sum.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub(super) fn from_bytes(bytes: &[u8; SUMS_BYTES]) -> Self {
        let mut sums = Self::default();
        for (range, stored) in sums.0.iter_mut().zip(bytes.as_chunks::<8>().0.chunks(2)) {
            range.count = u64::from_le_bytes(stored[0]);
            range.sum = u64::from_le_bytes(stored[1]);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let (mut one, mut other) = (Sums::default(), Sums::default());
        one.add(b"a", 1);
        one.add(b"b", u64::MAX);
        one.remove(b"a", 1);
        one.add(b"c", 7);
        other.add(b"c", 7);
        other.add(b"b", u64::MAX);
        assert_eq!(one, other);
        assert_eq!(one.entries(), 2);
        other.remove(b"c", 8);
        assert_ne!(one.digest(), other.digest());
    }

    #[test]
    fn entries_are_counted_where_their_slot_is() {
        let mut sums = Sums::default();
        sums.add(b"user:1", 5);
        let range = usize::from(Slot::of_bytes(b"user:1").number()) / 256;
        assert_eq!(sums.ranges()[range], RangeSum { count: 1, sum: 5 });
        assert_eq!(Sums::from_bytes(&sums.to_bytes()), sums);
    }
}
