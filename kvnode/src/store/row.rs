//! A key with what a memtable says about it, in one piece of memory.
//!
//! In a large memtable a lookup costs what its cache misses cost. So all that a lookup needs stands side by side, the
//! count of holders too. A row is copied from what it is made of and never holds the memory of a frame or request: one
//! small entry that stays would keep megabytes of its neighbours.
//!
//! ```text
//! offset  size  field       little-endian, in memory only
//!      0     4  epoch       position of the record behind it
//!      4     8  seq
//!     12     8  expiry      Unix milliseconds from which on it is absent; 0: never
//!     20     2  key_len
//!     22     2  live        1: an entry, 0: a tombstone
//!     24     -  key
//!      -     -  value
//! ```

use std::sync::Arc;

use bytes::Bytes;
use kvclient::position::{Position, Seq};

use super::{
    effect::Slot,
    tables::{Entry, EntryRef, u32_at, u64_at},
};

const HEADER_BYTES: usize = 24;

/// A value up to here is copied out: that costs less than to share it. Above it readers hold the row.
const COPIED_BYTES: usize = 1024;

/// What is fetched of a row before it is looked at, a byte for each line of the processor's cache; of a longer one the
/// rest follows by itself once it is copied.
const FETCHED_AT: [usize; 4] = [0, 64, 128, 192];

/// A key and its slot; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row(Arc<[u8]>);

impl Row {
    /// A row of its own memory.
    pub(super) fn new(key: &[u8], slot: Slot) -> Self {
        let key_len = u16::try_from(key.len()).expect("a key has at most 511 bytes");
        let value = slot.value();
        let mut row: Arc<[u8]> =
            std::iter::repeat_n(0, HEADER_BYTES + key.len() + value.len()).collect();
        let bytes = Arc::get_mut(&mut row).expect("nobody else has it yet");
        put_header(bytes, slot);
        bytes[20..22].copy_from_slice(&key_len.to_le_bytes());
        let (key_at, value_at) = bytes[HEADER_BYTES..].split_at_mut(key.len());
        key_at.copy_from_slice(key);
        value_at.copy_from_slice(value);
        Self(row)
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        &self.0[HEADER_BYTES..self.value_at()]
    }

    /// Seq of the record behind it; the larger one wins.
    pub(super) fn seq(&self) -> Seq {
        u64_at(&self.0, 4)
    }

    /// What it says about the key.
    pub(super) fn slot(&self) -> Slot<'_> {
        let position = Position::new(u32_at(&self.0, 0), self.seq());
        if self.0[22] == 0 {
            return Slot::Tombstone(position);
        }
        Slot::Live(EntryRef {
            position,
            expires_at_ms: Some(u64_at(&self.0, 12)).filter(|&at| at > 0),
            value: self.value(),
        })
    }

    /// Its place in an index of expiries, if it has one.
    pub(super) fn expiry(&self) -> Option<(u64, Seq)> {
        match self.slot() {
            Slot::Live(entry) => Some((entry.expires_at_ms?, entry.position.seq)),
            Slot::Tombstone(_) => None,
        }
    }

    /// The entry to answer with, unless it is a tombstone.
    pub(super) fn to_entry(&self) -> Option<Entry> {
        let Slot::Live(entry) = self.slot() else {
            return None;
        };
        let value = match entry.value.len() {
            ..=COPIED_BYTES => Bytes::copy_from_slice(entry.value),
            _ => Bytes::from_owner(SharedValue(self.clone())),
        };
        Some(Entry {
            position: entry.position,
            expires_at_ms: entry.expires_at_ms,
            value,
        })
    }

    /// Has the processor fetch it: whoever does so for several rows before he looks at the first waits for them
    /// together, not one by one.
    pub(super) fn fetch(&self) {
        let at = |at: usize| self.0.get(at).copied().unwrap_or_default();
        let sum = FETCHED_AT.iter().fold(0, |sum, &line| sum ^ at(line));
        std::hint::black_box(sum ^ at(self.0.len() - 1));
    }

    /// Says something else about the key in the same memory. Only if nobody else holds it and the value is as long;
    /// whether it was done.
    pub(super) fn overwrite(&mut self, slot: Slot) -> bool {
        let value_at = self.value_at();
        let fits = self.0.len() - value_at == slot.value().len();
        let Some(bytes) = Arc::get_mut(&mut self.0).filter(|_| fits) else {
            return false;
        };
        put_header(bytes, slot);
        bytes[value_at..].copy_from_slice(slot.value());
        true
    }

    /// Bytes of key and value.
    pub(super) fn content_bytes(&self) -> usize {
        self.0.len() - HEADER_BYTES
    }

    fn value(&self) -> &[u8] {
        &self.0[self.value_at()..]
    }

    fn value_at(&self) -> usize {
        HEADER_BYTES + usize::from(u16::from_le_bytes([self.0[20], self.0[21]]))
    }
}

/// Writes what the header says, but for the key's length.
fn put_header(bytes: &mut [u8], slot: Slot) {
    let (expires_at_ms, live) = match slot {
        Slot::Live(entry) => (entry.expires_at_ms.unwrap_or(0), 1_u16),
        Slot::Tombstone(_) => (0, 0),
    };
    let position = slot.position();
    bytes[0..4].copy_from_slice(&position.epoch.to_le_bytes());
    bytes[4..12].copy_from_slice(&position.seq.to_le_bytes());
    bytes[12..20].copy_from_slice(&expires_at_ms.to_le_bytes());
    bytes[22..24].copy_from_slice(&live.to_le_bytes());
}

/// A value that readers share with the memtable.
struct SharedValue(Row);

impl AsRef<[u8]> for SharedValue {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(position: Position, value: &[u8]) -> Slot<'_> {
        Slot::Live(EntryRef {
            position,
            expires_at_ms: None,
            value,
        })
    }

    #[test]
    fn a_row_says_what_it_was_made_of() {
        let position = Position::new(3, 1207);
        let large = vec![7; COPIED_BYTES + 1];
        for (key, expires_at_ms, value) in [
            (&b"k"[..], None, &b""[..]),
            (&[0xff; 511], Some(5), b"value"),
            (b"large", Some(u64::MAX), &large),
        ] {
            let slot = Slot::Live(EntryRef {
                position,
                expires_at_ms,
                value,
            });
            let row = Row::new(key, slot);
            assert_eq!((row.key(), row.slot(), row.seq()), (key, slot, 1207));
            assert_eq!(row.expiry(), expires_at_ms.map(|at| (at, 1207)));
            assert_eq!(row.content_bytes(), key.len() + value.len());
            let entry = row.to_entry().unwrap();
            assert_eq!(
                (entry.position, entry.expires_at_ms),
                (position, expires_at_ms)
            );
            drop(row);
            assert_eq!(entry.value, value);
        }
        let mut row = Row::new(b"k", Slot::Tombstone(position));
        let next = Position::new(4, 1208);
        let (held, empty) = (row.clone(), live(next, b""));
        assert!(!row.overwrite(empty), "somebody holds it");
        drop(held);
        assert!(!row.overwrite(live(next, b"v")), "the value is longer");
        assert!(row.overwrite(empty));
        assert_eq!(row, Row::new(b"k", empty));
        let gone = Row::new(b"k", Slot::Tombstone(position));
        assert_eq!(gone.slot(), Slot::Tombstone(position));
        assert_eq!((gone.to_entry(), gone.expiry()), (None, None));
    }
}
