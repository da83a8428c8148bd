//! Frames and records of the log: the same bytes on disk, between nodes and in a snapshot's tail.
//!
//! A frame is one group commit, written and synced together:
//!
//! ```text
//! offset  size  field       little-endian
//!      0     4  length      bytes of the body, >= 1
//!      4     4  body_crc    CRC32C of the body
//!      8     4  prev        header CRC of the frame before; for the first of all, 0
//!     12     4  epoch       reign that wrote it, >= 1
//!     16     8  first_seq   seq of the first record
//!     24     8  time_ms     shard time of its decisions, Unix milliseconds
//!     32     4  count       records in the body, >= 1
//!     36     4  crc         CRC32C of bytes 0..36
//!     40     -  body        `count` records, one behind the other
//! ```
//!
//! The next frame starts at seq `first_seq + count`, with an epoch not smaller and `prev` equal to this frame's
//! `crc`: a chain, so that the remains of a recycled segment are never taken for frames. Sixteen zero bytes are
//! not a frame, since the CRC of zeros is not zero.
//!
//! A record is one effect on one key:
//!
//! ```text
//! offset  size  field
//!      0     1  kind        1 put, 2 delete, 3 expire, 4 epoch_start
//!      1     1  flags       1 request mark, 2 delete by expiry, 4 expiry; others must be 0
//!      2     2  key_len     0 for epoch_start, else 1..=511
//!      4     4  value_len   put: the value; epoch_start: 8 + the node's address; else 0
//!      8     -  key
//!      -     -  value       put: raw; epoch_start: reign id u64, address as UTF-8
//!      -     8  expiry      if flagged (put, expire): Unix milliseconds, > 0
//!      -     -  mark        if flagged: client u128, n u64, floor u64, digest u64, outcome as u32 length + bytes
//! ```
//!
//! A record takes effect on a key if its seq is larger than the stored entry's. `delete` and `expire` on an absent
//! key do nothing. So replaying records is harmless, any number of times.

use bytes::Bytes;

use crate::{
    key::MAX_KEY_BYTES,
    position::{Epoch, Lineage, Position, Reign, Seq},
    wire::bytes::{DecodeError, Reader, put_len},
};

/// Names the layout above. It stands in segment headers, handshakes and snapshots.
pub const LOG_FORMAT: u32 = 1;

/// Size of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 40;

/// What a frame may hold at least, whatever the value limit.
pub const MIN_LARGEST_FRAME_BYTES: usize = 4 << 20;

/// The largest frame for a value limit: one value must fit with its key and marks.
pub const fn largest_frame_bytes(max_value_bytes: usize) -> usize {
    let one_value = max_value_bytes + (64 << 10);
    if one_value > MIN_LARGEST_FRAME_BYTES {
        one_value
    } else {
        MIN_LARGEST_FRAME_BYTES
    }
}

const FLAG_MARK: u8 = 1;
const FLAG_BY_EXPIRY: u8 = 2;
const FLAG_EXPIRY: u8 = 4;

/// The end of a chain: what the next frame has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Position of the last record.
    pub position: Position,
    /// Header CRC of the last frame, 0 before the first.
    pub crc: u32,
}

/// The forty bytes before a frame's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the body.
    pub body_bytes: u32,
    /// CRC32C of the body.
    pub body_crc: u32,
    /// Header CRC of the frame before.
    pub prev: u32,
    /// The reign that wrote it.
    pub epoch: Epoch,
    /// Seq of its first record.
    pub first_seq: Seq,
    /// Shard time of its decisions, Unix milliseconds.
    pub time_ms: u64,
    /// Number of its records.
    pub count: u32,
    /// CRC32C of the 36 bytes before.
    pub crc: u32,
}

/// Why a frame does not continue a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "frame {epoch}.{first_seq} (prev {prev:08x}) does not follow {after} (crc {after_crc:08x})"
)]
pub struct ChainError {
    /// Epoch of the frame.
    pub epoch: Epoch,
    /// Its first seq.
    pub first_seq: Seq,
    /// The header CRC it expects before it.
    pub prev: u32,
    /// Where the chain ends.
    pub after: Position,
    /// The header CRC there.
    pub after_crc: u32,
}

impl FrameHeader {
    /// Reads a header if these forty bytes are one: sizes plausible and the CRC right. `None` is no judgement:
    /// zeros, remains and damage look the same from here.
    pub fn parse(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let header = Self {
            body_bytes: u32_at(0),
            body_crc: u32_at(4),
            prev: u32_at(8),
            epoch: u32_at(12),
            first_seq: u64_at(16),
            time_ms: u64_at(24),
            count: u32_at(32),
            crc: u32_at(36),
        };
        let plausible =
            header.body_bytes > 0 && header.count > 0 && header.epoch > 0 && header.first_seq > 0;
        (plausible && header.crc == crc32c::crc32c(&bytes[..36])).then_some(header)
    }

    /// The forty bytes of this header, with its CRC computed anew.
    pub fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.prev.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Seq of its last record, inclusive.
    pub fn last_seq(&self) -> Seq {
        self.first_seq + u64::from(self.count) - 1
    }

    /// Where the chain stands behind this frame.
    pub fn link(&self) -> Link {
        Link {
            position: Position {
                epoch: self.epoch,
                seq: self.last_seq(),
            },
            crc: self.crc,
        }
    }

    /// Length of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_bytes as usize
    }

    /// Checks that this frame continues the chain that ends in `link`.
    ///
    /// # Errors
    /// [`ChainError`]: not the next frame.
    pub fn check_follows(&self, link: &Link) -> Result<(), ChainError> {
        let follows = self.first_seq == link.position.seq + 1
            && self.epoch >= link.position.epoch
            && self.prev == link.crc;
        if follows {
            return Ok(());
        }
        Err(ChainError {
            epoch: self.epoch,
            first_seq: self.first_seq,
            prev: self.prev,
            after: link.position,
            after_crc: link.crc,
        })
    }
}

/// A whole frame whose checksums hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: FrameHeader,
    /// Header and body as they are on disk.
    pub bytes: Bytes,
}

impl Frame {
    /// Takes the first frame off `bytes`, which shrink by it.
    ///
    /// # Errors
    /// [`DecodeError`] if what stands there is not a whole frame with right checksums.
    pub fn split_from(bytes: &mut Bytes) -> Result<Self, DecodeError> {
        let error = |problem: String| DecodeError::new("log frame", problem);
        let head = bytes
            .first_chunk::<FRAME_HEADER_BYTES>()
            .ok_or_else(|| error(format!("{} bytes are no header", bytes.len())))?;
        let header = FrameHeader::parse(head)
            .ok_or_else(|| error("the header's checksum is wrong".into()))?;
        if bytes.len() < header.frame_bytes() {
            return Err(error(format!(
                "needs {} bytes, {} are there",
                header.frame_bytes(),
                bytes.len()
            )));
        }
        let whole = bytes.split_to(header.frame_bytes());
        if crc32c::crc32c(&whole[FRAME_HEADER_BYTES..]) != header.body_crc {
            return Err(error(format!(
                "the checksum of the body at seq {} is wrong",
                header.first_seq
            )));
        }
        Ok(Self {
            header,
            bytes: whole,
        })
    }

    /// Its records with their positions, in order.
    ///
    /// # Errors
    /// [`DecodeError`] if the body is not `count` records exactly; nothing of it may be used then.
    pub fn records(&self) -> Result<Vec<(Position, Record)>, DecodeError> {
        let mut reader = Reader::new("log record", self.bytes.slice(FRAME_HEADER_BYTES..));
        let mut records =
            Vec::with_capacity((self.header.count as usize).min(reader.remaining() / 8));
        for index in 0..u64::from(self.header.count) {
            let position = Position {
                epoch: self.header.epoch,
                seq: self.header.first_seq + index,
            };
            records.push((position, Record::decode(&mut reader)?));
        }
        reader.end()?;
        Ok(records)
    }
}

/// One effect on one key, or the start of a reign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key; empty for [`Effect::EpochStart`].
    pub key: Bytes,
    /// What happens to it.
    pub effect: Effect,
    /// Identity of the request that made it, if it had one.
    pub mark: Option<RequestMark>,
}

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The key has this value from now on.
    Put {
        /// The whole value.
        value: Bytes,
        /// Unix milliseconds from which on it is absent.
        expires_at_ms: Option<u64>,
    },
    /// The key is absent from now on.
    Delete {
        /// Whether its time had come, rather than somebody asked.
        by_expiry: bool,
    },
    /// The value stays, the expiry changes.
    Expire {
        /// Unix milliseconds from which on it is absent; `None`: never.
        expires_at_ms: Option<u64>,
    },
    /// A reign begins.
    EpochStart {
        /// Drawn at random.
        reign_id: u64,
        /// Address of the node that begins it.
        node: String,
    },
}

/// Identity of a write, remembered with its outcome so that a repeat is answered and not done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMark {
    /// The client's random id.
    pub client: u128,
    /// Counts up per client.
    pub n: u64,
    /// The lowest `n` the client still waits for; 0 if it did not say.
    pub floor: u64,
    /// xxh3-64 of the encoded op, to notice another op under a known id.
    pub digest: u64,
    /// The encoded answer (see [`super::batch`]).
    pub outcome: Bytes,
}

impl Record {
    /// A record without a request mark.
    pub fn new(key: Bytes, effect: Effect) -> Self {
        Self {
            key,
            effect,
            mark: None,
        }
    }

    /// The record that begins a reign.
    pub fn epoch_start(reign_id: u64, node: impl Into<String>) -> Self {
        Self::new(
            Bytes::new(),
            Effect::EpochStart {
                reign_id,
                node: node.into(),
            },
        )
    }

    /// The reign that this record begins, if it is one that does.
    pub fn reign_at(&self, position: Position) -> Option<Reign> {
        match self.effect {
            Effect::EpochStart { reign_id, .. } => Some(Reign {
                epoch: position.epoch,
                first_seq: position.seq,
                reign_id,
            }),
            Effect::Put { .. } | Effect::Delete { .. } | Effect::Expire { .. } => None,
        }
    }

    /// Length of the encoded record.
    pub fn encoded_bytes(&self) -> usize {
        let effect = match &self.effect {
            Effect::Put {
                value,
                expires_at_ms,
            } => value.len() + expires_at_ms.map_or(0, |_| 8),
            Effect::Delete { .. } => 0,
            Effect::Expire { expires_at_ms } => expires_at_ms.map_or(0, |_| 8),
            Effect::EpochStart { node, .. } => 8 + node.len(),
        };
        let mark = self
            .mark
            .as_ref()
            .map_or(0, |mark| 16 + 3 * 8 + 4 + mark.outcome.len());
        8 + self.key.len() + effect + mark
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, mut flags, value_len, expiry) = match &self.effect {
            Effect::Put {
                value,
                expires_at_ms,
            } => (1, 0, value.len(), *expires_at_ms),
            Effect::Delete { by_expiry } => {
                (2, if *by_expiry { FLAG_BY_EXPIRY } else { 0 }, 0, None)
            }
            Effect::Expire { expires_at_ms } => (3, 0, 0, *expires_at_ms),
            Effect::EpochStart { node, .. } => (4, 0, 8 + node.len(), None),
        };
        if expiry.is_some() {
            flags |= FLAG_EXPIRY;
        }
        if self.mark.is_some() {
            flags |= FLAG_MARK;
        }
        let key_len = u16::try_from(self.key.len()).expect("a key has at most 511 bytes");
        out.extend_from_slice(&[kind, flags]);
        out.extend_from_slice(&key_len.to_le_bytes());
        put_len(out, value_len);
        out.extend_from_slice(&self.key);
        match &self.effect {
            Effect::Put { value, .. } => out.extend_from_slice(value),
            Effect::EpochStart { reign_id, node } => {
                out.extend_from_slice(&reign_id.to_le_bytes());
                out.extend_from_slice(node.as_bytes());
            }
            Effect::Delete { .. } | Effect::Expire { .. } => {}
        }
        if let Some(expires_at_ms) = expiry {
            out.extend_from_slice(&expires_at_ms.to_le_bytes());
        }
        if let Some(mark) = &self.mark {
            mark.encode(out);
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let kind = reader.u8("kind")?;
        let flags = reader.u8("flags")?;
        let key_len = usize::from(reader.u16("key length")?);
        let value_len = reader.u32("value length")? as usize;
        let key = reader.bytes(key_len, "key")?;
        let value = reader.bytes(value_len, "value")?;
        let allowed = FLAG_MARK
            | match kind {
                1 | 3 => FLAG_EXPIRY,
                2 => FLAG_BY_EXPIRY,
                _ => 0,
            };
        if flags & !allowed != 0 {
            return Err(reader.error(format!("flags {flags:#x} are unknown for kind {kind}")));
        }
        let key_ok = if kind == 4 {
            key_len == 0
        } else {
            (1..=MAX_KEY_BYTES).contains(&key_len)
        };
        if !key_ok {
            return Err(reader.error(format!("kind {kind} with a key of {key_len} bytes")));
        }
        if matches!(kind, 2 | 3) && value_len != 0 {
            return Err(reader.error(format!("kind {kind} with a value of {value_len} bytes")));
        }
        let expires_at_ms = match flags & FLAG_EXPIRY {
            0 => None,
            _ => Some(reader.u64("expiry")?),
        };
        if expires_at_ms == Some(0) {
            return Err(reader.error("an expiry of 0"));
        }
        let effect = match kind {
            1 => Effect::Put {
                value,
                expires_at_ms,
            },
            2 => Effect::Delete {
                by_expiry: flags & FLAG_BY_EXPIRY != 0,
            },
            3 => Effect::Expire { expires_at_ms },
            4 => Self::decode_epoch_start(value)?,
            other => return Err(reader.error(format!("kind {other} is unknown"))),
        };
        let mark = match flags & FLAG_MARK {
            0 => None,
            _ => Some(RequestMark::decode(reader)?),
        };
        Ok(Self { key, effect, mark })
    }

    fn decode_epoch_start(value: Bytes) -> Result<Effect, DecodeError> {
        let mut reader = Reader::new("epoch_start record", value);
        let reign_id = reader.u64("reign id")?;
        let node = reader.bytes(reader.remaining(), "node")?;
        let node = String::from_utf8(node.to_vec())
            .map_err(|_| reader.error("the node's address is not UTF-8"))?;
        Ok(Effect::EpochStart { reign_id, node })
    }
}

impl RequestMark {
    /// Appends the mark: client, n, floor, digest, outcome behind its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client.to_le_bytes());
        out.extend_from_slice(&self.n.to_le_bytes());
        out.extend_from_slice(&self.floor.to_le_bytes());
        out.extend_from_slice(&self.digest.to_le_bytes());
        super::bytes::put_sized(out, &self.outcome);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes end too early.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            client: reader.u128("client")?,
            n: reader.u64("request number")?,
            floor: reader.u64("floor")?,
            digest: reader.u64("digest")?,
            outcome: reader.sized("outcome")?,
        })
    }
}

/// Collects the records of one frame.
#[derive(Debug)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameBuilder {
    /// An empty frame.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; FRAME_HEADER_BYTES],
            count: 0,
        }
    }

    /// Adds a record behind those already in.
    pub fn push(&mut self, record: &Record) {
        record.encode(&mut self.bytes);
        self.count += 1;
    }

    /// Whether no record is in.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of records in.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Length the frame would have now.
    pub fn frame_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Closes the frame as the one that follows `after`.
    ///
    /// # Panics
    /// If it has no record: an empty frame is not a frame.
    pub fn finish(self, after: &Link, epoch: Epoch, time_ms: u64) -> Frame {
        assert!(self.count > 0, "a frame holds at least one record");
        let mut bytes = self.bytes;
        let body = &bytes[FRAME_HEADER_BYTES..];
        let header = FrameHeader {
            body_bytes: u32::try_from(body.len()).expect("frames are limited far below 4 GiB"),
            body_crc: crc32c::crc32c(body),
            prev: after.crc,
            epoch,
            first_seq: after.position.seq + 1,
            time_ms,
            count: self.count,
            crc: 0,
        };
        let head = header.to_bytes();
        bytes[..FRAME_HEADER_BYTES].copy_from_slice(&head);
        let header = FrameHeader::parse(&head).expect("just made");
        Frame {
            header,
            bytes: bytes.into(),
        }
    }
}

/// Most reigns that a handshake names; more would not fit in a request's head.
pub const LINEAGE_TEXT_REIGNS: usize = 64;

/// The newest reigns of a lineage as text for a header: `epoch.first_seq.reign_id` (the id as hex), comma-separated,
/// oldest first.
pub fn lineage_to_text(lineage: &Lineage) -> String {
    let reigns = lineage.reigns();
    let newest = &reigns[reigns.len().saturating_sub(LINEAGE_TEXT_REIGNS)..];
    let texts: Vec<String> = newest
        .iter()
        .map(|r| format!("{}.{}.{:x}", r.epoch, r.first_seq, r.reign_id))
        .collect();
    texts.join(",")
}

/// Reads what [`lineage_to_text`] wrote.
///
/// # Errors
/// [`DecodeError`] if it is something else.
pub fn lineage_from_text(text: &str) -> Result<Lineage, DecodeError> {
    let mut lineage = Lineage::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let mut parts = item.splitn(3, '.');
        let mut part = || parts.next().unwrap_or_default();
        let reign = (|| {
            let (epoch, first_seq, reign_id) = (part(), part(), part());
            Some(Reign {
                epoch: epoch.parse().ok()?,
                first_seq: first_seq.parse().ok()?,
                reign_id: u64::from_str_radix(reign_id, 16).ok()?,
            })
        })();
        let reign =
            reign.ok_or_else(|| DecodeError::new("lineage", format!("{item:?} is not a reign")))?;
        lineage
            .push(reign)
            .map_err(|error| DecodeError::new("lineage", error.to_string()))?;
    }
    Ok(lineage)
}

/// The whole lineage as bytes: count u32, then per reign epoch u32, first seq u64, reign id u64.
pub fn encode_lineage(lineage: &Lineage, out: &mut Vec<u8>) {
    put_len(out, lineage.reigns().len());
    for reign in lineage.reigns() {
        out.extend_from_slice(&reign.epoch.to_le_bytes());
        out.extend_from_slice(&reign.first_seq.to_le_bytes());
        out.extend_from_slice(&reign.reign_id.to_le_bytes());
    }
}

/// Reads what [`encode_lineage`] wrote.
///
/// # Errors
/// [`DecodeError`] if it is something else.
pub fn decode_lineage(reader: &mut Reader) -> Result<Lineage, DecodeError> {
    let mut lineage = Lineage::new();
    for _ in 0..reader.u32("number of reigns")? {
        let reign = Reign {
            epoch: reader.u32("epoch")?,
            first_seq: reader.u64("first seq")?,
            reign_id: reader.u64("reign id")?,
        };
        lineage
            .push(reign)
            .map_err(|error| reader.error(error.to_string()))?;
    }
    Ok(lineage)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(key: &str, value: &str) -> Record {
        Record::new(
            Bytes::copy_from_slice(key.as_bytes()),
            Effect::Put {
                value: Bytes::copy_from_slice(value.as_bytes()),
                expires_at_ms: None,
            },
        )
    }

    fn frame(records: &[Record]) -> Frame {
        let mut builder = FrameBuilder::new();
        records.iter().for_each(|record| builder.push(record));
        builder.finish(
            &Link {
                position: Position::new(2, 41),
                crc: 0xdead_beef,
            },
            3,
            1_700_000_000_000,
        )
    }

    /// Frozen: logs on disk look like this.
    #[test]
    fn golden_frame() {
        let mark = RequestMark {
            client: 1,
            n: 2,
            floor: 1,
            digest: 5,
            outcome: Bytes::from_static(b"ok"),
        };
        let records = [
            Record {
                mark: Some(mark),
                ..put("k", "vv")
            },
            Record::new(
                Bytes::from_static(b"gone"),
                Effect::Delete { by_expiry: true },
            ),
            Record::new(
                Bytes::from_static(b"t"),
                Effect::Expire {
                    expires_at_ms: Some(9),
                },
            ),
            Record::epoch_start(7, "a:1"),
        ];
        let hex: String = frame(&records)
            .bytes
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = concat!(
        "69000000cc1266dbefbeadde030000002a000000000000000068e5cf8b0100000400000007e4007801010100",
        "020000006b767601000000000000000000000000000000020000000000000001000000000000000500000000",
        "000000020000006f6b0202040000000000676f6e650304010000000000740900000000000000040000000b00",
        "00000700000000000000613a31",
    );

    #[test]
    fn every_single_bit_matters() {
        let good = frame(&[put("k", "v"), put("k2", "v2")]);
        assert_eq!(Frame::split_from(&mut good.bytes.clone()), Ok(good.clone()));
        for bit in 0..good.bytes.len() * 8 {
            let mut bad = good.bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Frame::split_from(&mut bad.into()).is_err(),
                "bit {bit} flipped unnoticed"
            );
        }
        for len in 0..good.bytes.len() {
            assert!(
                Frame::split_from(&mut good.bytes.slice(..len)).is_err(),
                "cut to {len} unnoticed"
            );
        }
        assert!(FrameHeader::parse(&[0; FRAME_HEADER_BYTES]).is_none());
    }

    #[test]
    fn a_chain_is_checked() {
        let header = frame(&[put("k", "v")]).header;
        let link = Link {
            position: Position::new(2, 41),
            crc: 0xdead_beef,
        };
        assert_eq!(header.check_follows(&link), Ok(()));
        for wrong in [
            Link {
                position: Position::new(2, 40),
                ..link
            },
            Link {
                position: Position::new(2, 42),
                ..link
            },
            Link {
                position: Position::new(4, 41),
                ..link
            },
            Link { crc: 1, ..link },
        ] {
            assert!(header.check_follows(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn lineage_travels_as_text_and_bytes() {
        let mut lineage = Lineage::new();
        for epoch in 1..=3_u32 {
            lineage
                .push(Reign {
                    epoch,
                    first_seq: u64::from(epoch) * 10,
                    reign_id: u64::MAX,
                })
                .expect("grows");
        }
        assert_eq!(
            lineage_from_text(&lineage_to_text(&lineage)),
            Ok(lineage.clone())
        );
        assert_eq!(lineage_from_text(""), Ok(Lineage::new()));
        assert!(lineage_from_text("1.2").is_err());
        let mut bytes = Vec::new();
        encode_lineage(&lineage, &mut bytes);
        assert_eq!(
            decode_lineage(&mut Reader::new("lineage", bytes.into())),
            Ok(lineage)
        );
    }

    fn any_bytes(max: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let key = proptest::collection::vec(any::<u8>(), 1..=MAX_KEY_BYTES).prop_map(Bytes::from);
        let expiry = proptest::option::of(1..u64::MAX);
        let effect = prop_oneof![
            (any_bytes(300), expiry.clone()).prop_map(|(value, expires_at_ms)| Effect::Put {
                value,
                expires_at_ms
            }),
            any::<bool>().prop_map(|by_expiry| Effect::Delete { by_expiry }),
            expiry.prop_map(|expires_at_ms| Effect::Expire { expires_at_ms }),
            (any::<u64>(), "[a-z]{0,9}:[0-9]{1,5}")
                .prop_map(|(reign_id, node)| Effect::EpochStart { reign_id, node }),
        ];
        let mark = (
            any::<u128>(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any_bytes(20),
        )
            .prop_map(|(client, n, floor, digest, outcome)| RequestMark {
                client,
                n,
                floor,
                digest,
                outcome,
            });
        (key, effect, proptest::option::of(mark)).prop_map(|(key, effect, mark)| match effect {
            Effect::EpochStart { .. } => Record {
                key: Bytes::new(),
                effect,
                mark,
            },
            _ => Record { key, effect, mark },
        })
    }

    proptest! {
        #[test]
        fn records_come_back(records in proptest::collection::vec(any_record(), 1..8)) {
            let frame = frame(&records);
            let encoded: usize = records.iter().map(Record::encoded_bytes).sum();
            prop_assert_eq!(frame.bytes.len(), FRAME_HEADER_BYTES + encoded);
            let read = frame.records().expect("just written");
            prop_assert_eq!(read.first().map(|(p, _)| *p), Some(Position::new(3, 42)));
            prop_assert_eq!(read.into_iter().map(|(_, r)| r).collect::<Vec<_>>(), records);
        }

        #[test]
        fn rubbish_is_an_error_and_no_panic(body in proptest::collection::vec(any::<u8>(), 1..400), count in 1..9_u32) {
            let head = FrameHeader {
                body_bytes: u32::try_from(body.len()).expect("short"), body_crc: crc32c::crc32c(&body), prev: 0,
                epoch: 1, first_seq: 1, time_ms: 0, count, crc: 0,
            };
            let bytes: Bytes = [&head.to_bytes()[..], &body].concat().into();
            let frame = Frame::split_from(&mut bytes.clone()).expect("checksums are right");
            let _ = frame.records();
        }
    }
}
