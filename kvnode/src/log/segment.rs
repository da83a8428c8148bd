//! One segment: a preallocated file that holds a stretch of the chain.
//!
//! Named by its number in sixteen decimal digits, `0000000000000001.seg`. Its length never changes, so a sync of
//! appended frames moves no metadata. All integers are little-endian:
//!
//! ```text
//! offset  size  field
//!      0     4  magic       "KVLG"
//!      4     4  format      kvclient::wire::log::LOG_FORMAT
//!      8     8  number      the one in the file's name, from 1
//!     16    16  history     id of the shard's history
//!     32     8  base_seq    last seq before this segment
//!     40     4  base_epoch  its epoch
//!     44     4  base_crc    header CRC of the last frame before this segment, 0 if there is none
//!     48    12  zero
//!     60     4  crc         CRC32C of bytes 0..60
//!     64  4032  zero
//!   4096     -  frames, one behind the other; then zeros or the remains of the file's former life
//! ```
//!
//! Frames are believed only along the chain that starts at the base. Remains carry smaller seqs, so they never
//! continue it, and a recycled file need not be zeroed.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use bytes::Bytes;
use kvclient::{
    position::{Epoch, Position, Seq},
    wire::log::{Frame, LOG_FORMAT, Link},
};

use super::{
    error::LogError,
    files::{ZEROS, locked, segment_path, sync_dir},
    milestones::{Milestones, Place},
};

/// Bytes before the first frame: one page, so that no frame shares one with the header.
pub(super) const HEADER_BYTES: u64 = 4096;
const HEADER_USED_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"KVLG";

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Counts up by one from segment to segment.
    pub(super) number: u64,
    /// The history whose records it holds.
    pub(super) history: u128,
    /// What its first frame follows.
    pub(super) base: Link,
}

impl SegmentHeader {
    fn to_bytes(self) -> [u8; HEADER_USED_BYTES] {
        let mut bytes = [0; HEADER_USED_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&LOG_FORMAT.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.history.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.base.position.seq.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.base.position.epoch.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.base.crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header, or says what is wrong with it.
    fn parse(bytes: &[u8; HEADER_USED_BYTES]) -> Result<Self, String> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[..4] != MAGIC {
            return Err("this is not a log segment (its first four bytes are not KVLG)".into());
        }
        if u32_at(60) != crc32c::crc32c(&bytes[..60]) {
            return Err("the segment's header is damaged (its checksum is wrong)".into());
        }
        if u32_at(4) != LOG_FORMAT {
            let format = u32_at(4);
            return Err(format!(
                "the segment has format {format}, this program reads {LOG_FORMAT}"
            ));
        }
        let (seq, epoch): (Seq, Epoch) = (u64_at(32), u32_at(40));
        Ok(Self {
            number: u64_at(8),
            history: u128::from(u64_at(16)) | u128::from(u64_at(24)) << 64,
            base: Link {
                position: Position::new(epoch, seq),
                crc: u32_at(44),
            },
        })
    }
}

/// Whether a segment may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadWrite,
}

/// A preallocated file that is not a segment yet.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) bytes: u64,
}

/// An open segment. Shared by writer and readers; the files of removed ones live on while a reader has them.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    /// Length of the file.
    pub(super) bytes: u64,
    file: File,
    // Never held over a read or write of the file.
    milestones: Mutex<Milestones>,
}

impl Segment {
    /// Makes a spare the next segment. The order is what makes every crash harmless: the header is synced under
    /// the spare's name, so a file with a segment's name has a good header from its first moment; the directory
    /// is synced before the first frame, so no frame is written into a file that a crash could rename back.
    pub(super) fn begin(dir: &Path, spare: Spare, header: SegmentHeader) -> Result<Self, LogError> {
        let mut page = vec![0; ZEROS.len().min(len(HEADER_BYTES))];
        page[..HEADER_USED_BYTES].copy_from_slice(&header.to_bytes());
        let Spare {
            path: spare_path,
            file,
            bytes,
        } = spare;
        file.write_all_at(&page, 0)
            .map_err(LogError::io("write the header of", &spare_path))?;
        file.sync_data()
            .map_err(LogError::io("sync", &spare_path))?;
        let path = segment_path(dir, header.number);
        std::fs::rename(&spare_path, &path).map_err(LogError::io("rename", &spare_path))?;
        sync_dir(dir)?;
        Ok(Self::new(header, path, bytes, file))
    }

    /// Opens the segment `number` and checks that it is one of this history.
    pub(super) fn open(
        path: PathBuf,
        number: u64,
        history: u128,
        access: Access,
    ) -> Result<Self, LogError> {
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .open(&path)
            .map_err(LogError::io("open", &path))?;
        let metadata = file.metadata();
        let bytes = metadata.map_err(LogError::io("examine", &path))?.len();
        let refuse = |what: String| LogError::Refused(format!("{}: {what}", path.display()));
        if bytes < HEADER_BYTES {
            return Err(refuse(format!("{bytes} bytes are too few for a segment")));
        }
        let mut head = [0; HEADER_USED_BYTES];
        file.read_exact_at(&mut head, 0)
            .map_err(LogError::io("read", &path))?;
        let header = SegmentHeader::parse(&head).map_err(refuse)?;
        if header.history != history {
            return Err(refuse(format!(
                "this segment belongs to history {:032x}, this node to {history:032x}; was a file or directory copied from another shard?",
                header.history
            )));
        }
        if header.number != number {
            return Err(refuse(format!(
                "this is segment {}, renamed; give it its name back",
                header.number
            )));
        }
        Ok(Self::new(header, path, bytes, file))
    }

    fn new(header: SegmentHeader, path: PathBuf, bytes: u64, file: File) -> Self {
        let start = Place {
            at: HEADER_BYTES,
            link: header.base,
        };
        Self {
            header,
            path,
            bytes,
            file,
            milestones: Mutex::new(Milestones::new(start)),
        }
    }

    /// Where its first frame begins, or will begin.
    pub(super) fn start(&self) -> Place {
        Place {
            at: HEADER_BYTES,
            link: self.header.base,
        }
    }

    /// Seq of the last record before it.
    pub(super) fn base_seq(&self) -> Seq {
        self.header.base.position.seq
    }

    /// Bytes from `at` on, at most `bytes` of them, fewer at the end of the file.
    pub(super) fn read(&self, at: u64, bytes: usize) -> Result<Bytes, LogError> {
        let mut buffer = vec![0; bytes.min(len(self.bytes.saturating_sub(at)))];
        self.file
            .read_exact_at(&mut buffer, at)
            .map_err(LogError::io("read", &self.path))?;
        Ok(buffer.into())
    }

    /// Writes; not durable before [`Self::sync`].
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), LogError> {
        debug_assert!(at >= HEADER_BYTES && at + bytes.len() as u64 <= self.bytes);
        self.file
            .write_all_at(bytes, at)
            .map_err(LogError::io("write", &self.path))
    }

    /// Writes zeros from `at` to the end of the file.
    pub(super) fn zero_from(&self, mut at: u64) -> Result<(), LogError> {
        while at < self.bytes {
            let zeros = &ZEROS[..ZEROS.len().min(len(self.bytes - at))];
            self.write(at, zeros)?;
            at += zeros.len() as u64;
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        self.file
            .sync_data()
            .map_err(LogError::io("sync", &self.path))
    }

    /// Remembers where appended frames lie. They begin at `from`; gives the place behind them.
    pub(super) fn appended(&self, from: Place, frames: &[Frame]) -> Place {
        let mut milestones = locked(&self.milestones);
        milestones.set_newest(from);
        frames.iter().fold(from, |place, frame| {
            let next = place.behind(&frame.header);
            milestones.pass(next);
            next
        })
    }

    /// Remembers that a frame ends at `place`; to be told of every frame in turn.
    pub(super) fn pass(&self, place: Place) {
        locked(&self.milestones).pass(place);
    }

    /// A place at or before the frame that holds `seq + 1`, near to it if it is known.
    pub(super) fn place_before(&self, seq: Seq) -> Place {
        locked(&self.milestones).before(seq)
    }

    /// How far the places of frames are known.
    pub(super) fn known_end(&self) -> Place {
        locked(&self.milestones).end()
    }

    /// The file, no longer a segment. Keeps its name until the caller renames it.
    pub(super) fn into_spare(self) -> Spare {
        Spare {
            path: self.path,
            file: self.file,
            bytes: self.bytes,
        }
    }

    /// A copy of this segment whose writes fail.
    #[cfg(test)]
    pub(super) fn read_only_twin(&self) -> Self {
        let number = self.header.number;
        Self::open(self.path.clone(), number, self.header.history, Access::Read)
            .expect("it was just open")
    }
}

/// A number of bytes in memory; what does not fit is asked for in vain anyway.
pub(super) fn len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            number: 7,
            history: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
            base: Link {
                position: Position::new(3, 0x0102_0304_0506),
                crc: 0xdead_beef,
            },
        }
    }

    /// Frozen: segments on disk begin like this.
    #[test]
    fn golden_header() {
        let hex: String = header()
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            concat!(
                "4b564c47010000000700000000000000ffeeddccbbaa99887766554433221100",
                "060504030201000003000000efbeadde00000000000000000000000002b0fddc",
            )
        );
        assert_eq!(SegmentHeader::parse(&header().to_bytes()), Ok(header()));
    }

    #[test]
    fn every_bit_of_the_header_matters() {
        for bit in 0..HEADER_USED_BYTES * 8 {
            let mut bytes = header().to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::parse(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_format_is_named() {
        let mut bytes = header().to_bytes();
        bytes[4] = 9;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        let problem = SegmentHeader::parse(&bytes).expect_err("format 9");
        assert!(problem.contains("format 9"), "{problem}");
    }
}
