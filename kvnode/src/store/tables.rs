//! Layouts of the tables `data`, `expiry` and `requests`. Frozen: they are what is on disk. `meta` has its own file.
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
//!
//! `requests`: client u128 and n u64, both big-endian -> what the request did, little-endian.
//!
//! ```text
//!      0     4  epoch     position of the record that the request made
//!      4     8  seq
//!     12     8  time_ms   shard time of that record's frame, Unix milliseconds
//!     20     8  floor     the lowest n the client still waited for; 0: it did not say
//!     28     8  digest    xxh3-64 of the encoded op
//!     36     4  crc       CRC32C of the row's key, bytes 0..36 and the outcome
//!     40     -  outcome   the encoded answer
//! ```

use bytes::Bytes;
use kvclient::{position::Position, wire::log::RequestMark};
use xxhash_rust::xxh3::Xxh3;

/// Size of what stands before a value in `data`.
pub(super) const ENTRY_HEADER_BYTES: usize = 28;
const ENTRY_CRC_AT: usize = 24;
const REQUEST_HEADER_BYTES: usize = 40;
const REQUEST_CRC_AT: usize = 36;

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
        if entry.crc != crc_of([key, entry.head, entry.value]) {
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
pub(super) fn encode_entry(key: &[u8], entry: &Entry, row: &mut Vec<u8>) {
    row.clear();
    put_position(row, entry.position);
    row.extend_from_slice(&entry.expires_at_ms.unwrap_or(0).to_le_bytes());
    row.extend_from_slice(&0_u32.to_le_bytes());
    let crc = crc_of([key, row, &entry.value]);
    row.extend_from_slice(&crc.to_le_bytes());
    row.extend_from_slice(&entry.value);
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

/// A write that is remembered with its outcome, so that a repeat is answered and not done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asked, and what was answered.
    pub mark: RequestMark,
    /// Position of the record that it made.
    pub position: Position,
    /// Shard time of that record's frame, Unix milliseconds.
    pub time_ms: u64,
}

/// Key of a row in `requests`.
pub(super) fn request_key(client: u128, n: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&client.to_be_bytes());
    key[16..].copy_from_slice(&n.to_be_bytes());
    key
}

/// The row of a request.
pub(super) fn encode_request(request: &Request) -> Vec<u8> {
    let mark = &request.mark;
    let mut row = Vec::with_capacity(REQUEST_HEADER_BYTES + mark.outcome.len());
    put_position(&mut row, request.position);
    for field in [request.time_ms, mark.floor, mark.digest] {
        row.extend_from_slice(&field.to_le_bytes());
    }
    let key = request_key(mark.client, mark.n);
    let crc = crc_of([&key, &row, &mark.outcome]);
    row.extend_from_slice(&crc.to_le_bytes());
    row.extend_from_slice(&mark.outcome);
    row
}

/// Reads what [`encode_request`] wrote under [`request_key`].
pub(super) fn decode_request(key: &[u8], row: &[u8]) -> Result<Request, Problem> {
    let (client, n) = key
        .split_first_chunk::<16>()
        .and_then(|(client, n)| Some((*client, *n.first_chunk::<8>()?)))
        .ok_or("its key is too short")?;
    let (head, outcome) = row
        .split_at_checked(REQUEST_HEADER_BYTES)
        .ok_or("it is shorter than its header")?;
    if u32_at(head, REQUEST_CRC_AT) != crc_of([key, &head[..REQUEST_CRC_AT], outcome]) {
        return Err("its checksum is wrong");
    }
    Ok(Request {
        mark: RequestMark {
            client: u128::from_be_bytes(client),
            n: u64::from_be_bytes(n),
            floor: u64_at(head, 20),
            digest: u64_at(head, 28),
            outcome: Bytes::copy_from_slice(outcome),
        },
        position: Position::new(u32_at(head, 0), u64_at(head, 4)),
        time_ms: u64_at(head, 12),
    })
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    kvclient::wire::bytes::put_position(out, position);
}

fn crc_of(parts: [&[u8]; 3]) -> u32 {
    parts
        .iter()
        .fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

/// The four bytes at `at`, which the caller knows are there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
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

    fn request() -> Request {
        Request {
            mark: RequestMark {
                client: 1,
                n: 2,
                floor: 1,
                digest: 5,
                outcome: Bytes::from_static(b"ok"),
            },
            position: Position::new(3, 1207),
            time_ms: 9,
        }
    }

    /// Frozen: rows on disk look like this.
    #[test]
    fn golden_rows() {
        let mut row = vec![1, 2, 3];
        encode_entry(b"user:1", &entry(), &mut row);
        assert_eq!(hex(&row), GOLDEN_ENTRY);
        assert_eq!(hex(&expiry_key(1, 2)), "00000000000000010000000000000002");
        assert_eq!(hex(&request_key(1, 2)), GOLDEN_REQUEST_KEY);
        assert_eq!(hex(&encode_request(&request())), GOLDEN_REQUEST);
        let entry = entry();
        let hash = entry_hash(b"user:1", entry.position, entry.expires_at_ms, &entry.value);
        assert_eq!(hash, GOLDEN_HASH);
    }

    const GOLDEN_ENTRY: &str = "03000000b7040000000000000068e5cf8b010000000000004a30c18a416461";
    const GOLDEN_REQUEST_KEY: &str = "000000000000000000000000000000010000000000000002";
    const GOLDEN_REQUEST: &str =
        "03000000b704000000000000090000000000000001000000000000000500000000000000005eadc16f6b";
    const GOLDEN_HASH: u64 = 11_002_040_197_908_456_843;

    #[test]
    fn every_bit_of_an_entry_matters() {
        let mut row = Vec::new();
        encode_entry(b"user:1", &entry(), &mut row);
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
    fn requests_come_back() {
        let key = request_key(1, 2);
        let row = encode_request(&request());
        assert_eq!(decode_request(&key, &row), Ok(request()));
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_request(&key, &bad).is_err(), "bit {bit}");
        }
        assert!(decode_request(&key[1..], &row).is_err());
        assert!(decode_request(&key, &row[..39]).is_err());
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
}
