//! Reads a whole backup and checks all of it: lengths, checksums, the order of entries, the chain of frames, the ends.
//!
//! Whoever restores does this first, so that nothing is written from a backup that is damaged.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

use super::{
    copy::{CheckedCopy, CopyCheck},
    dir::BackupDir,
    error::BackupError,
    manifest::{FileEntry, Manifest, ShardBackup},
};
use crate::wire::log::{FRAME_HEADER_BYTES, FrameHeader};

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Largest frame that any node writes, and then some.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Entries in the snapshots.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Checks every file that a manifest names.
///
/// # Errors
/// [`BackupError::Damaged`] names the first file that is not as it should be.
pub fn verify(dir: &BackupDir, manifest: &Manifest) -> Result<Verified, BackupError> {
    let mut sum = Verified::default();
    for shard in &manifest.shards {
        verify_shard(dir, shard)?;
        sum.entries += shard.entries;
        sum.bytes += shard.files().map(|file| file.bytes).sum::<u64>();
    }
    Ok(sum)
}

fn verify_shard(dir: &BackupDir, shard: &ShardBackup) -> Result<(), BackupError> {
    let path = dir.file(shard.idx, &shard.snapshot.name);
    let copy = verify_snapshot(&path, &shard.snapshot)?;
    let header = &copy.header;
    let is_its = header.history == shard.history
        && (&header.shard, &header.slots) == (&shard.name, &shard.slots)
        && (copy.chain.end.position, copy.entries) == (shard.first, shard.entries)
        && copy.frames_at == shard.frames_at;
    if !is_its {
        return Err(BackupError::damaged(
            &path,
            "it is not the snapshot that the manifest names",
        ));
    }
    let mut chain = copy.chain;
    for entry in &shard.log {
        let path = dir.file(shard.idx, &entry.name);
        let mut file = Checked::open(&path, entry)?;
        for_each_frame(&path, &mut file, |bytes, _| {
            let taken = chain.take(bytes);
            taken.map_err(|error| BackupError::damaged(&path, error))?;
            Ok(())
        })?;
        file.finish()?;
    }
    match chain.end == shard.end() {
        true => Ok(()),
        false => {
            let problem = format!(
                "its frames end at {}, the manifest says {}",
                chain.end.position, shard.last
            );
            Err(BackupError::damaged(&dir.shard_dir(shard.idx), problem))
        }
    }
}

fn verify_snapshot(path: &Path, entry: &FileEntry) -> Result<CheckedCopy, BackupError> {
    let mut file = Checked::open(path, entry)?;
    let mut check = CopyCheck::new();
    while let Some(piece) = file.piece()? {
        let taken = check.push(&piece);
        taken.map_err(|error| BackupError::damaged(path, error))?;
    }
    file.finish()?;
    check
        .finish()
        .map_err(|error| BackupError::damaged(path, error))
}

/// Gives the frames of a file one by one: bytes that begin with it and hold no more, and where in the file it begins.
pub(crate) fn for_each_frame(
    path: &Path,
    file: &mut Checked,
    mut take: impl FnMut(&mut Bytes, u64) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let mut buffer = BytesMut::new();
    let mut at = 0;
    loop {
        match frame_bytes(&buffer) {
            Ok(Some(len)) => {
                let mut frame = buffer.split_to(len).freeze();
                take(&mut frame, at)?;
                at += len as u64;
            }
            Ok(None) => match file.piece()? {
                Some(piece) => buffer.extend_from_slice(&piece),
                None if buffer.is_empty() => return Ok(()),
                None => {
                    return Err(BackupError::damaged(
                        path,
                        "it ends in the middle of a frame",
                    ));
                }
            },
            Err(problem) => {
                return Err(BackupError::damaged(
                    path,
                    format!("{problem} at byte {at}"),
                ));
            }
        }
    }
}

/// Length of the first frame, once all of it is there.
fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let Some(head) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = FrameHeader::parse(head).ok_or("no frame begins")?;
    match header.frame_bytes() {
        len if len > MAX_FRAME_BYTES => Err("a frame is larger than any may be"),
        len => Ok((bytes.len() >= len).then_some(len)),
    }
}

/// A file that is read to the length that the manifest gives, its checksum compared in the end.
pub(crate) struct Checked {
    path: PathBuf,
    file: File,
    left_bytes: u64,
    crc32c: u32,
    expected: u32,
}

impl Checked {
    pub(crate) fn open(path: &Path, entry: &FileEntry) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::file("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            left_bytes: entry.bytes,
            crc32c: 0,
            expected: entry.crc32c,
        })
    }

    /// The same from a place in the file on; its checksum cannot be compared then.
    pub(crate) fn open_at(path: &Path, entry: &FileEntry, from: u64) -> Result<Self, BackupError> {
        let mut checked = Self::open(path, entry)?;
        let sought = checked.file.seek(SeekFrom::Start(from));
        sought.map_err(BackupError::file("read", path))?;
        checked.left_bytes = entry.bytes.saturating_sub(from);
        Ok(checked)
    }

    /// The next bytes; `None` at the end.
    pub(crate) fn piece(&mut self) -> Result<Option<Bytes>, BackupError> {
        if self.left_bytes == 0 {
            return Ok(None);
        }
        let wanted = usize::try_from(self.left_bytes);
        let wanted = wanted.map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let mut piece = vec![0; wanted];
        let read = self.file.read(&mut piece);
        let read = read.map_err(BackupError::file("read", &self.path))?;
        if read == 0 {
            let problem = format!("{} bytes are missing at its end", self.left_bytes);
            return Err(BackupError::damaged(&self.path, problem));
        }
        piece.truncate(read);
        self.left_bytes -= read as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &piece);
        Ok(Some(piece.into()))
    }

    /// Compares the checksum; to be called when all was read.
    pub(crate) fn finish(self) -> Result<(), BackupError> {
        match self.crc32c == self.expected {
            true => Ok(()),
            false => Err(BackupError::damaged(&self.path, "its checksum is wrong")),
        }
    }
}
