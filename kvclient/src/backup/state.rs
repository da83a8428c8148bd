//! What a shard's entries were at one moment: the snapshot with the log applied to it, key by key.
//!
//! Each key comes once, in key order, with its final value and expiry. So whoever writes them out never has to remove a
//! key, shows no state in between, and can go on behind any key. Applying the log to the target record by record would
//! be simpler and wrong: an entry that expires while that lasts is gone when a later record prolongs its life.
//!
//! Memory is bounded. What the log does to each key is folded into a table of keys and places in files, values not
//! included. Where the table grows too large its last keys are left out, and when all before them are done the log is
//! read once more for those. The snapshot is read once.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use bytes::Bytes;

use super::{
    dir::BackupDir,
    entries::{Chunks, Entries},
    error::BackupError,
    fold::{Base, Fill, Folded, Place},
    manifest::ShardBackup,
    until::Until,
    verify::{Checked, for_each_frame},
};
use crate::{
    position::Position,
    wire::snapshot::{CHUNK_HEAD_BYTES, Chunk},
};

/// Bytes of the table. Keys of 20 bytes take some 150 each: 1.7 million of them in one reading of the log.
const TABLE_BYTES: usize = 256 << 20;

/// An entry as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Unix milliseconds from which on it is absent. May have passed.
    pub expires_at_ms: Option<u64>,
}

/// The entries of a shard at one moment, in key order.
pub struct States {
    dir: BackupDir,
    shard: ShardBackup,
    until: Until,
    table_bytes: usize,
    snapshot: Entries,
    table: BTreeMap<Bytes, Folded>,
    /// The first key that the table leaves out.
    left_out: Option<Bytes>,
    /// The shard's files, in the order of the manifest, for values.
    files: Vec<File>,
    reached: Position,
}

impl States {
    /// The entries of a shard behind a key, or all.
    ///
    /// # Errors
    /// [`BackupError::OutOfRange`]: the backup does not have that state. [`BackupError::File`],
    /// [`BackupError::Damaged`]: it cannot be read.
    pub fn open(
        dir: &BackupDir,
        shard: &ShardBackup,
        until: Until,
        after: Option<&[u8]>,
    ) -> Result<Self, BackupError> {
        Self::with_table(dir, shard, until, after, TABLE_BYTES)
    }

    /// The same with a table of about so many bytes. A smaller one reads the log more often.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_table(
        dir: &BackupDir,
        shard: &ShardBackup,
        until: Until,
        after: Option<&[u8]>,
        table_bytes: usize,
    ) -> Result<Self, BackupError> {
        until.check(shard).map_err(BackupError::OutOfRange)?;
        // The key that comes next.
        let from = after.map_or(Bytes::new(), |after| [after, &[0]].concat().into());
        let open = |name: &String| {
            let path = dir.file(shard.idx, name);
            File::open(&path).map_err(BackupError::file("open", &path))
        };
        let files = shard.files().map(|file| open(&file.name));
        let mut states = Self {
            dir: dir.clone(),
            shard: shard.clone(),
            until,
            table_bytes,
            snapshot: Entries::open(dir, shard, from.clone())?,
            table: BTreeMap::new(),
            left_out: None,
            files: files.collect::<Result<_, _>>()?,
            reached: shard.first,
        };
        states.fill(&from)?;
        Ok(states)
    }

    /// The position of the state: the end of the last frame that belongs to it.
    pub fn reached(&self) -> Position {
        self.reached
    }

    /// The next entry; `None` behind the last.
    ///
    /// # Errors
    /// [`BackupError::File`], [`BackupError::Damaged`].
    pub fn next_entry(&mut self) -> Result<Option<Restored>, BackupError> {
        loop {
            let stored = self.snapshot.peek()?.map(|entry| entry.key.clone());
            let changed = self.table.first_key_value().map(|(key, _)| key.clone());
            let next = [stored, changed].into_iter().flatten().min();
            let is_known = |key: &Bytes| self.left_out.as_ref().is_none_or(|end| key < end);
            match (next.filter(is_known), self.left_out.take()) {
                (Some(key), left_out) => {
                    self.left_out = left_out;
                    if let Some(restored) = self.merge(key)? {
                        return Ok(Some(restored));
                    }
                }
                (None, Some(from)) => self.fill(&from)?,
                (None, None) => return Ok(None),
            }
        }
    }

    /// What became of a key.
    fn merge(&mut self, key: Bytes) -> Result<Option<Restored>, BackupError> {
        let stored = self.snapshot.take(&key)?;
        let folded = self.table.remove(&key).unwrap_or_default();
        let mut state = stored.map(|entry| (entry.position.seq, entry.value, entry.expires_at_ms));
        let seq = state.as_ref().map_or(0, |(seq, ..)| *seq);
        if let Some((newer, base)) = folded.base.filter(|(newer, _)| *newer > seq) {
            state = match base {
                Base::Put {
                    place,
                    expires_at_ms,
                } => Some((newer, self.value(place)?, expires_at_ms)),
                Base::Delete => None,
            };
        }
        Ok(state.map(|(seq, value, expires_at_ms)| Restored {
            key,
            value,
            expires_at_ms: match folded.expire {
                Some((newer, expires_at_ms)) if newer > seq => expires_at_ms,
                _ => expires_at_ms,
            },
        }))
    }

    fn value(&mut self, place: Place) -> Result<Bytes, BackupError> {
        let file = &mut self.files[place.file];
        let mut value = vec![0; place.bytes];
        let read = file.seek(SeekFrom::Start(place.at));
        let read = read.and_then(|_| file.read_exact(&mut value));
        read.map_err(BackupError::file(
            "read",
            &self.dir.shard_dir(self.shard.idx),
        ))?;
        Ok(value.into())
    }

    /// Fills the table with keys from this one on.
    fn fill(&mut self, from: &Bytes) -> Result<(), BackupError> {
        let mut fill = Fill::new(self.until, from.clone(), self.table_bytes, self.shard.first);
        self.frames_of_snapshot(&mut fill)?;
        for (number, entry) in self.shard.log.iter().enumerate() {
            let path = self.dir.file(self.shard.idx, &entry.name);
            let mut file = Checked::open(&path, entry)?;
            for_each_frame(&path, &mut file, |bytes, at| {
                let taken = fill.frame(bytes, number + 1, at);
                taken.map_err(|error| BackupError::damaged(&path, error))
            })?;
        }
        self.table = fill.table;
        self.left_out = fill.left_out;
        self.reached = fill.reached;
        Ok(())
    }

    fn frames_of_snapshot(&self, fill: &mut Fill) -> Result<(), BackupError> {
        let path = self.dir.file(self.shard.idx, &self.shard.snapshot.name);
        let mut chunks = Chunks::open(&self.dir, &self.shard, self.shard.frames_at)?;
        while let Some((at, chunk)) = chunks.next_chunk()? {
            let Chunk::Frames(frames) = chunk else {
                return Ok(());
            };
            let mut rest = frames.clone();
            while !rest.is_empty() {
                let into = (frames.len() - rest.len()) as u64;
                let at = at + CHUNK_HEAD_BYTES as u64 + into;
                let taken = fill.frame(&mut rest, 0, at);
                taken.map_err(|error| BackupError::damaged(&path, error))?;
            }
        }
        Ok(())
    }
}
