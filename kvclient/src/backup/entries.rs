//! The chunks and the entries of a snapshot file, read one after the other.

use std::{iter::Peekable, path::PathBuf, vec::IntoIter};

use bytes::Bytes;

use super::{dir::BackupDir, error::BackupError, manifest::ShardBackup, verify::Checked};
use crate::wire::snapshot::{Chunk, Decoder, Entry, preamble};

/// The chunks of a snapshot file from a place on, and where each begins.
pub(super) struct Chunks {
    path: PathBuf,
    file: Checked,
    decoder: Decoder,
    /// What the decoder's count is behind the file's.
    ahead_bytes: u64,
}

impl Chunks {
    pub(super) fn open(
        dir: &BackupDir,
        shard: &ShardBackup,
        from: u64,
    ) -> Result<Self, BackupError> {
        let path = dir.file(shard.idx, &shard.snapshot.name);
        let mut decoder = Decoder::new();
        let stamp = preamble();
        decoder.push(&stamp);
        Ok(Self {
            file: Checked::open_at(&path, &shard.snapshot, from)?,
            path,
            decoder,
            ahead_bytes: from - (stamp.len() as u64).min(from),
        })
    }

    pub(super) fn next_chunk(&mut self) -> Result<Option<(u64, Chunk)>, BackupError> {
        loop {
            let stamp = preamble().len() as u64;
            let at = self.ahead_bytes + self.decoder.taken_bytes().max(stamp);
            let chunk = self.decoder.next_chunk();
            if let Some(chunk) = chunk.map_err(|error| BackupError::damaged(&self.path, error))? {
                return Ok(Some((at, chunk)));
            }
            match self.file.piece()? {
                Some(piece) => self.decoder.push(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// The entries of a snapshot, from a key on.
pub(super) struct Entries {
    chunks: Chunks,
    from: Bytes,
    page: Peekable<IntoIter<Entry>>,
    is_over: bool,
}

impl Entries {
    pub(super) fn open(
        dir: &BackupDir,
        shard: &ShardBackup,
        from: Bytes,
    ) -> Result<Self, BackupError> {
        Ok(Self {
            chunks: Chunks::open(dir, shard, preamble().len() as u64)?,
            from,
            page: Vec::new().into_iter().peekable(),
            is_over: false,
        })
    }

    pub(super) fn peek(&mut self) -> Result<Option<&Entry>, BackupError> {
        while self.page.peek().is_none() && !self.is_over {
            match self.chunks.next_chunk()? {
                Some((_, Chunk::Entries(entries))) => {
                    let from = &self.from;
                    let wanted = entries.into_iter().filter(|entry| entry.key >= from);
                    self.page = wanted.collect::<Vec<_>>().into_iter().peekable();
                }
                Some((_, Chunk::Header(_) | Chunk::Requests(_))) => {}
                Some((_, Chunk::Frames(_) | Chunk::End { .. })) | None => self.is_over = true,
            }
        }
        Ok(self.page.peek())
    }

    /// The next entry, if it is of this key.
    pub(super) fn take(&mut self, key: &Bytes) -> Result<Option<Entry>, BackupError> {
        self.peek()?;
        Ok(self.page.next_if(|entry| entry.key == *key))
    }
}
