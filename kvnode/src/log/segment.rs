//! One segment: a preallocated file that holds a stretch of the chain.
//!
//! Named by its number in sixteen decimal digits, `0000000000000001.seg`. It begins with a page for its header
//! ([`super::header`]); frames follow, one behind the other, and then zeros or the remains of the file's former
//! life. Its length never changes, so a sync of appended frames moves no metadata.
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
    faults::{self, Guarantee},
    position::Seq,
    wire::log::Frame,
};

use super::{
    error::LogError,
    files::{ZEROS, locked, segment_path, sync_dir},
    header::{HEADER_BYTES, HEADER_USED_BYTES, SegmentHeader},
    milestones::{Milestones, Place},
};

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
        let mut page = vec![0; len(HEADER_BYTES)];
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
        faults::point("segment.header_synced");
        let path = segment_path(dir, header.number);
        std::fs::rename(&spare_path, &path).map_err(LogError::io("rename", &spare_path))?;
        faults::point("segment.renamed");
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
        let written = self.file.write_all_at(bytes, at);
        heeded(written.map_err(LogError::io("write", &self.path)))
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
        if faults::is_off(Guarantee::Sync) {
            return Ok(());
        }
        let synced = self.file.sync_data();
        heeded(synced.map_err(LogError::io("sync", &self.path)))
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

/// What became of a write or sync; failures pass for success once that is switched off.
fn heeded(outcome: Result<(), LogError>) -> Result<(), LogError> {
    match faults::is_off(Guarantee::StopOnStorageError) {
        true => Ok(()),
        false => outcome,
    }
}

/// A number of bytes in memory; what does not fit is asked for in vain anyway.
pub(super) fn len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
