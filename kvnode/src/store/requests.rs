//! Remembered requests: a write that is repeated under its id is answered with the first outcome and not done again.
//!
//! Layout of the table `requests`. Frozen: it is what is on disk.
//!
//! `requests`: client u128 and n u64, both big-endian -> what the request did, little-endian.
//!
//! ```text
//!      0     4  epoch     position of the record that the request made
//!      4     8  seq
//!     12     8  time_ms   shard time of that record's frame, Unix milliseconds
//!     20     8  floor     the lowest n that is not forgotten; 0: the client did not say, see `kept_from`
//!     28     8  digest    xxh3-64 of the encoded op
//!     36     4  crc       CRC32C of the row's key, bytes 0..36 and the outcome
//!     40     -  outcome   the encoded answer
//! ```
//!
//! How long they are remembered is said here once, for the commit thread, memtables and the table alike.

use std::collections::VecDeque;

use kvclient::{
    position::Position,
    wire::{bytes::put_position, log::RequestMark},
};

use super::tables::{Problem, crc_of, u32_at, u64_at};

const HEADER_BYTES: usize = 40;
const CRC_AT: usize = 36;

/// Requests of one client that are kept if it names no floor.
const KEPT_REQUESTS: u64 = 1_024;

/// A client that made no record for so long is forgotten, in milliseconds of shard time.
pub const IDLE_MS: u64 = 600_000;

/// Requests of all clients that are kept; above it the oldest go. With 40 bytes of outcome each they take a quarter
/// of a gigabyte in memory and a tenth on disk.
pub const MAX_REQUESTS: usize = 1_000_000;

/// The lowest n of its client that is still remembered beside a request of this n and floor.
pub fn kept_from(n: u64, floor: u64) -> u64 {
    match floor {
        0 => n.saturating_sub(KEPT_REQUESTS - 1),
        floor => floor,
    }
}

/// Identity of a request: client, then its n.
pub type RequestId = (u128, u64);

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

impl Request {
    /// What it is remembered under.
    pub fn id(&self) -> RequestId {
        (self.mark.client, self.mark.n)
    }
}

/// Requests of one client, by n: nearly the order in which they come and go, so a queue that is searched if need be.
#[derive(Debug, Default)]
pub(super) struct ClientRequests(VecDeque<Request>);

impl ClientRequests {
    /// Adds a request; gives those that go for it: what had its n, and what lies below the floor it names.
    pub(super) fn add(&mut self, request: Request) -> impl Iterator<Item = Request> {
        let n = request.mark.n;
        let floor = kept_from(n, request.mark.floor);
        self.make_room();
        let place = match self.0.back() {
            Some(last) if n <= last.mark.n => self.0.binary_search_by_key(&n, |kept| kept.mark.n),
            _ => Err(self.0.len()),
        };
        let replaced = match place {
            Ok(at) => Some(std::mem::replace(&mut self.0[at], request)),
            Err(at) => {
                self.0.insert(at, request);
                None
            }
        };
        let forgotten = std::iter::from_fn(move || self.0.pop_front_if(|kept| kept.mark.n < floor));
        replaced.into_iter().chain(forgotten)
    }

    /// Grows by doubling from one on, since most clients may have one, and shrinks when most of it has gone.
    fn make_room(&mut self) {
        let (len, capacity) = (self.0.len(), self.0.capacity());
        if len == capacity {
            self.0.reserve_exact(len.max(1));
        } else if len < capacity / 4 {
            self.0.shrink_to(capacity / 2);
        }
    }

    /// All of them, by n.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.0.iter()
    }
}

/// Key of a row in `requests`.
pub(super) fn request_key(client: u128, n: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&client.to_be_bytes());
    key[16..].copy_from_slice(&n.to_be_bytes());
    key
}

/// Reads what [`request_key`] wrote; `None` if it is shorter.
pub(super) fn parse_request_key(key: &[u8]) -> Option<RequestId> {
    let (client, n) = key.split_first_chunk::<16>()?;
    let n = n.first_chunk::<8>()?;
    Some((u128::from_be_bytes(*client), u64::from_be_bytes(*n)))
}

/// The row of a request.
pub(super) fn encode_request(request: &Request) -> Vec<u8> {
    let mark = &request.mark;
    let mut row = Vec::with_capacity(HEADER_BYTES + mark.outcome.len());
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
    let (client, n) = parse_request_key(key).ok_or("its key is too short")?;
    let (head, outcome) = row
        .split_at_checked(HEADER_BYTES)
        .ok_or("it is shorter than its header")?;
    if u32_at(head, CRC_AT) != crc_of([key, &head[..CRC_AT], outcome]) {
        return Err("its checksum is wrong");
    }
    Ok(Request {
        mark: RequestMark {
            client,
            n,
            floor: u64_at(head, 20),
            digest: u64_at(head, 28),
            outcome: outcome.into(),
        },
        position: Position::new(u32_at(head, 0), u64_at(head, 4)),
        time_ms: u64_at(head, 12),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn request() -> Request {
        Request {
            mark: RequestMark {
                client: 1,
                n: 2,
                floor: 1,
                digest: 5,
                outcome: b"ok"[..].into(),
            },
            position: Position::new(3, 1207),
            time_ms: 9,
        }
    }

    /// Frozen: rows on disk look like this.
    #[test]
    fn golden_row() {
        assert_eq!(hex(&request_key(1, 2)), GOLDEN_KEY);
        assert_eq!(hex(&encode_request(&request())), GOLDEN_ROW);
    }

    const GOLDEN_KEY: &str = "000000000000000000000000000000010000000000000002";
    const GOLDEN_ROW: &str =
        "03000000b704000000000000090000000000000001000000000000000500000000000000005eadc16f6b";

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

    proptest! {
        /// Under a right checksum too, a row is a request in one way only, or none.
        #[test]
        fn any_row_is_a_request_or_refused(
            key in any::<[u8; 24]>(),
            mut row in prop::collection::vec(any::<u8>(), 0..80),
            len in 0..=24_usize,
        ) {
            prop_assert!(decode_request(&key[..len], &row).is_err());
            if row.len() < HEADER_BYTES {
                return Ok(());
            }
            let crc = crc_of([&key, &row[..CRC_AT], &row[HEADER_BYTES..]]);
            row[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            let request = decode_request(&key, &row).expect("its checksum is right");
            prop_assert_eq!(encode_request(&request), row);
            prop_assert_eq!(request_key(request.mark.client, request.mark.n), key);
        }
    }
}
