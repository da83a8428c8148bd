//! A frame: one group commit, written and synced together.
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
//! `crc`: a chain, so that the remains of a recycled segment are never taken for frames. Forty zero bytes are
//! not a header, since the CRC of zeros is not zero.

use bytes::Bytes;

use super::record::Record;
use crate::{
    faults::{self, Guarantee},
    position::{Epoch, Position, Seq},
    wire::bytes::{DecodeError, Reader},
};

/// Size of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 40;

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
    /// Reads a header if these forty bytes are one: sizes plausible, no seq beyond the last there is, and the CRC
    /// right. `None` is no judgement: zeros, remains and damage look the same from here.
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
        let has_next = header.first_seq.checked_add(header.count.into()).is_some();
        (plausible && has_next && header.crc == crc32c::crc32c(&bytes[..36])).then_some(header)
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
        let follows = link.position.seq.checked_add(1) == Some(self.first_seq)
            && self.epoch >= link.position.epoch
            && self.prev == link.crc;
        if follows || faults::is_off(Guarantee::Chain) {
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
        let is_right = crc32c::crc32c(&whole[FRAME_HEADER_BYTES..]) == header.body_crc;
        if !is_right && !faults::is_off(Guarantee::FrameChecksums) {
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

    /// Makes room for records of so many bytes.
    pub fn reserve(&mut self, record_bytes: usize) {
        self.bytes.reserve(record_bytes);
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
