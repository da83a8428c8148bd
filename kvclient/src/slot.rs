//! From a key to its slot: one of 16,384 fixed buckets of the hash space.
//!
//! `slot = xxh3_64(hash tag or key, seed 0) mod 16384`. XXH3's output is frozen since xxHash 0.8.0, "identical
//! across systems and across future versions" (release notes of v0.8.0), so any language can compute it.
//! Values made with another implementation are in `tests/slots.tsv`. Changing anything here strands data.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::key::Key;

/// Number of slots. Fixed for the life of the format.
pub const SLOT_COUNT: u16 = 16_384;

/// One of the [`SLOT_COUNT`] buckets of the hash space.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::{Key, slot::Slot};
///
/// let (cart, name) = (Key::new("{user:1}:cart")?, Key::new("{user:1}:name")?);
/// assert_eq!(Slot::of(&cart), Slot::of(&name)); // a common hash tag
/// assert_eq!(Slot::of(&cart), Slot::of_bytes(b"user:1"));
/// assert_eq!(Slot::new(16_383).map(Slot::number), Some(16_383)); // the last one
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot that owns a key.
    pub fn of(key: &Key) -> Self {
        Self::of_bytes(key.as_bytes())
    }

    /// The slot of bytes that are known to be a key, without making a [`Key`] of them.
    pub fn of_bytes(key: &[u8]) -> Self {
        let hash = xxh3_64(hash_tag(key));
        let bucket = hash % u64::from(SLOT_COUNT);
        Self(u16::try_from(bucket).expect("a remainder below 16384 fits"))
    }

    /// A slot by number.
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOT_COUNT).then_some(Self(number))
    }

    /// The slot's number, 0 to 16,383.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of a key that is hashed: what stands between its first `{` and the first `}` behind that, if there
/// is at least one byte between them; else the whole key.
///
/// ```
/// assert_eq!(kvclient::slot::hash_tag(b"{user:1}:cart"), b"user:1");
/// assert_eq!(kvclient::slot::hash_tag(b"a{}b"), b"a{}b");
/// ```
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let tag = || {
        let open = key.iter().position(|&b| b == b'{')?;
        let rest = &key[open + 1..];
        let len = rest.iter().position(|&b| b == b'}')?;
        (len > 0).then(|| &rest[..len])
    };
    tag().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .map(|c| u8::try_from(c.to_digit(16).expect("hex")).expect("below 16"))
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    #[test]
    fn agrees_with_another_implementation() {
        let rows = include_str!("../tests/slots.tsv")
            .lines()
            .filter(|line| !line.starts_with('#'));
        let mut seen = 0;
        for row in rows {
            let [key, tag, hash, slot] = row.split('\t').collect::<Vec<_>>()[..] else {
                panic!("row {row}")
            };
            let key = bytes(key);
            assert_eq!(hash_tag(&key), bytes(tag), "tag of {row}");
            assert_eq!(
                format!("{:x}", xxh3_64(hash_tag(&key))),
                hash.trim_start_matches('0'),
                "hash of {row}"
            );
            assert_eq!(
                Slot::of_bytes(&key).number().to_string(),
                slot,
                "slot of {row}"
            );
            seen += 1;
        }
        assert!(seen > 30, "only {seen} vectors");
    }
}
