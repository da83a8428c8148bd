//! Layouts of the tables `data` and `expiry`. Frozen: they are what is on disk. `requests` and `meta` have their own
//! files.
//!
//! `data`: the key as it is -> an entry, little-endian.
//!
//! ```text
//! offset  size  field
//!      0     4  epoch     position of the record that made the entry, >= 1
//!      4     8  seq       >= 1
//!     12     8  expiry    Unix milliseconds from which on it is absent; 0: never
//!     20     4  flags     0; others are for later and are refused
//!     24     4  crc       CRC32C of the key, bytes 0..24 and the value
//!     28     -  value
//! ```
//!
//! `expiry`: one row for each entry that expires -> its key. Big-endian, so that the rows stand in order of time; the
//! seq makes them unique.
//!
//! ```text
//!      0     8  time      the entry's expiry, big-endian
//!      8     8  seq       the entry's seq, big-endian
//! ```

use bytes::Bytes;
use kvclient::{
    faults::{self, Guarantee},
    position::Position,
    wire::bytes::put_position,
};
use xxhash_rust::xxh3::Xxh3;

/// Size of what stands before a value in `data`.
pub(super) const ENTRY_HEADER_BYTES: usize = 28;
const ENTRY_CRC_AT: usize = 24;

/// LMDB's page on nearly every machine. Where it is larger, estimates that go by it are too low.
const PAGE_BYTES: usize = 4096;

/// What stands before the rows on pages of their own.
const PAGE_HEADER_BYTES: usize = 16;

/// A key with its row up to here stands in LMDB's leaf pages, two or more to a page; a larger row has pages of its own.
pub(super) const INLINE_ROW_BYTES: usize = 2000;

/// One stored value with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position of the record that made it what it is.
    pub position: Position,
    /// Unix milliseconds from which on it is absent; `None`: never.
    pub expires_at_ms: Option<u64>,
    /// The value; empty if only keys were asked for.
    pub value: Bytes,
}

impl Entry {
    /// Whether its time has come at shard time `now_ms`: such an entry is absent for every reader.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }
}

/// An entry that is not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryRef<'a> {
    pub(super) position: Position,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) value: &'a [u8],
}

impl<'a> From<&'a Entry> for EntryRef<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            position: entry.position,
            expires_at_ms: entry.expires_at_ms,
            value: &entry.value,
        }
    }
}

/// An entry where it stands in a table, not copied yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredEntry<'a> {
    pub(super) position: Position,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) value: &'a [u8],
    /// Bytes 0..24, which the CRC covers.
    head: &'a [u8],
    crc: u32,
}

/// What a row of `data` cannot be.
pub(super) type Problem = &'static str;

impl<'a> StoredEntry<'a> {
    /// Takes a row apart without looking at the value.
    pub(super) fn parse(row: &'a [u8]) -> Result<Self, Problem> {
        let (header, value) = row
            .split_at_checked(ENTRY_HEADER_BYTES)
            .ok_or("it is shorter than its header")?;
        if u32_at(header, 20) != 0 {
            return Err("it has flags that this version does not know");
        }
        Ok(Self {
            position: Position::new(u32_at(header, 0), u64_at(header, 4)),
            expires_at_ms: Some(u64_at(header, 12)).filter(|&at| at > 0),
            value,
            head: &header[..ENTRY_CRC_AT],
            crc: u32_at(header, ENTRY_CRC_AT),
        })
    }

    /// Takes a row apart and checks all of it.
    pub(super) fn check(key: &[u8], row: &'a [u8]) -> Result<Self, Problem> {
        let entry = Self::parse(row)?;
        let is_right = entry.crc == crc_of([key, entry.head, entry.value]);
        if !is_right && !faults::is_off(Guarantee::EntryChecksums) {
            return Err("its checksum is wrong");
        }
        Ok(entry)
    }

    /// Copies it out of the table.
    pub(super) fn to_entry(self) -> Entry {
        Entry {
            value: Bytes::copy_from_slice(self.value),
            ..self.without_value()
        }
    }

    /// Copies all but the value.
    pub(super) fn without_value(self) -> Entry {
        Entry {
            position: self.position,
            expires_at_ms: self.expires_at_ms,
            value: Bytes::new(),
        }
    }

    /// What it adds to the sums, see [`entry_hash`].
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        entry_hash(key, self.position, self.expires_at_ms, self.value)
    }
}

/// Writes the row of an entry into `row`, which is emptied first.
pub(super) fn encode_entry(key: &[u8], entry: EntryRef, row: &mut Vec<u8>) {
    row.clear();
    put_position(row, entry.position);
    row.extend_from_slice(&entry.expires_at_ms.unwrap_or(0).to_le_bytes());
    row.extend_from_slice(&0_u32.to_le_bytes());
    let crc = crc_of([key, row, entry.value]);
    row.extend_from_slice(&crc.to_le_bytes());
    row.extend_from_slice(entry.value);
}

/// xxh3-64 over key, epoch u32, seq u64, expiry u64 (0: never), all little-endian, and value. Frozen, since primary
/// and replica compare sums of these.
pub(super) fn entry_hash(
    key: &[u8],
    position: Position,
    expires_at_ms: Option<u64>,
    value: &[u8],
) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(key);
    hasher.update(&position.epoch.to_le_bytes());
    hasher.update(&position.seq.to_le_bytes());
    hasher.update(&expires_at_ms.unwrap_or(0).to_le_bytes());
    hasher.update(value);
    hasher.digest()
}

/// What an entry takes in LMDB on pages of its own; 0 if it stands in a leaf page.
pub(super) fn own_pages_bytes(key_bytes: usize, value_bytes: usize) -> usize {
    let row_bytes = ENTRY_HEADER_BYTES + value_bytes;
    match key_bytes + row_bytes {
        ..=INLINE_ROW_BYTES => 0,
        _ => (PAGE_HEADER_BYTES + row_bytes).next_multiple_of(PAGE_BYTES),
    }
}

/// Key of a row in `expiry`.
pub(super) fn expiry_key(at_ms: u64, seq: u64) -> [u8; 16] {
    (u128::from(at_ms) << 64 | u128::from(seq)).to_be_bytes()
}

/// Time and seq of a row in `expiry`; `None` if it is not sixteen bytes long.
pub(super) fn parse_expiry_key(key: &[u8]) -> Option<(u64, u64)> {
    let (time, seq) = key.split_first_chunk()?;
    Some((
        u64::from_be_bytes(*time),
        u64::from_be_bytes(seq.try_into().ok()?),
    ))
}

/// CRC32C of three pieces in a row.
pub(super) fn crc_of(parts: [&[u8]; 3]) -> u32 {
    parts
        .iter()
        .fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

/// The u32 at `at`; the caller knows that it is there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The u64 at `at`; the caller knows that it is there.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn entry() -> Entry {
        Entry {
            position: Position::new(3, 1207),
            expires_at_ms: Some(1_700_000_000_000),
            value: Bytes::from_static(b"Ada"),
        }
    }

    /// Frozen: rows on disk look like this.
    #[test]
    fn golden_rows() {
        let mut row = vec![1, 2, 3];
        encode_entry(b"user:1", (&entry()).into(), &mut row);
        assert_eq!(hex(&row), GOLDEN_ENTRY);
        assert_eq!(hex(&expiry_key(1, 2)), "00000000000000010000000000000002");
        let entry = entry();
        let hash = entry_hash(b"user:1", entry.position, entry.expires_at_ms, &entry.value);
        assert_eq!(hash, GOLDEN_HASH);
    }

    const GOLDEN_ENTRY: &str = "03000000b7040000000000000068e5cf8b010000000000004a30c18a416461";
    const GOLDEN_HASH: u64 = 11_002_040_197_908_456_843;

    #[test]
    fn every_bit_of_an_entry_matters() {
        let mut row = Vec::new();
        encode_entry(b"user:1", (&entry()).into(), &mut row);
        assert_eq!(
            StoredEntry::check(b"user:1", &row).map(StoredEntry::to_entry),
            Ok(entry())
        );
        assert!(StoredEntry::check(b"user:2", &row).is_err());
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(StoredEntry::check(b"user:1", &bad).is_err(), "bit {bit}");
        }
        for len in 0..row.len() {
            assert!(
                StoredEntry::check(b"user:1", &row[..len]).is_err(),
                "cut to {len}"
            );
        }
    }

    #[test]
    fn large_values_have_pages_of_their_own() {
        let cases = [
            (100, 0),
            (4_096 - 44, 4_096),
            (4_096 - 43, 8_192),
            (4_096, 8_192),
            (65_536, 17 * 4_096),
        ];
        for (value_bytes, own_bytes) in cases {
            assert_eq!(own_pages_bytes(16, value_bytes), own_bytes);
        }
    }

    #[test]
    fn expiry_keys_stand_in_order_of_time() {
        let in_order = [(0, 9), (1, 0), (1, 255), (1, 256), (256, 1), (u64::MAX, 0)];
        let keys: Vec<_> = in_order
            .iter()
            .map(|&(at, seq)| expiry_key(at, seq))
            .collect();
        assert!(keys.is_sorted());
        assert_eq!(parse_expiry_key(&keys[2]), Some((1, 255)));
        assert_eq!(parse_expiry_key(&keys[2][1..]), None);
    }

    #[test]
    fn an_entry_is_absent_from_its_expiry_on() {
        let entry = entry();
        let at = 1_700_000_000_000;
        assert!(!entry.is_expired(at - 1));
        assert!(entry.is_expired(at));
    }

    proptest! {
        /// Under a right checksum too, a row is an entry in one way only, or none.
        #[test]
        fn any_row_is_an_entry_or_refused(
            key in prop::collection::vec(any::<u8>(), 0..20),
            mut row in prop::collection::vec(any::<u8>(), 0..60),
            has_no_flags in any::<bool>(),
        ) {
            prop_assert!(StoredEntry::check(&key, &row).is_err());
            let _ = parse_expiry_key(&row);
            if row.len() < ENTRY_HEADER_BYTES {
                return Ok(());
            }
            if has_no_flags {
                row[20..24].fill(0);
            }
            let crc = crc_of([&key, &row[..ENTRY_CRC_AT], &row[ENTRY_HEADER_BYTES..]]);
            row[ENTRY_CRC_AT..ENTRY_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            if let Ok(entry) = StoredEntry::check(&key, &row) {
                let mut again = Vec::new();
                encode_entry(&key, (&entry.to_entry()).into(), &mut again);
                prop_assert_eq!(again, row);
            }
        }
    }
}
