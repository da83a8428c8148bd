//! A shard's log in a backup that is being added to: checked frames go into the last file, and now and then what is there
//! is synced and may be entered in the manifest.

use bytes::Bytes;

use super::{
    chain::Chain,
    dir::{BackupDir, Writing},
    error::BackupError,
    manifest::{FileEntry, ShardBackup},
};

/// A log file is followed by the next one from this size on: small enough to be copied elsewhere as a piece.
const LOG_FILE_BYTES: u64 = 256 << 20;

/// Bytes of frames that are synced and entered together.
const SYNC_BYTES: u64 = 32 << 20;

/// A shard's log that is being added to.
#[derive(Debug)]
pub(super) struct Adding {
    /// What may be entered.
    pub(super) known: ShardBackup,
    /// Where the frames that are written end.
    pub(super) chain: Chain,
    file: Option<Writing>,
    unsynced_bytes: u64,
}

impl Adding {
    /// The log of a shard of which this is known.
    pub(super) fn new(known: ShardBackup) -> Self {
        Self {
            chain: Chain {
                end: known.end(),
                lineage: known.lineage.clone(),
                time_ms: 0,
            },
            known,
            file: None,
            unsynced_bytes: 0,
        }
    }

    /// Writes frames that follow; the inner error is what is wrong with them.
    pub(super) fn add(
        &mut self,
        dir: &BackupDir,
        frames: &Bytes,
    ) -> Result<Result<(), String>, BackupError> {
        if frames.is_empty() {
            return Ok(Ok(()));
        }
        let mut chain = self.chain.clone();
        if let Err(error) = chain.take_all(frames.clone()) {
            return Ok(Err(error.to_string()));
        }
        self.file(dir)?.write(frames)?;
        self.chain = chain;
        self.unsynced_bytes += frames.len() as u64;
        Ok(Ok(()))
    }

    /// Whether so much is written that it should be synced.
    pub(super) fn is_due(&self) -> bool {
        self.unsynced_bytes >= SYNC_BYTES
    }

    /// Syncs what was written; how many bytes that were.
    pub(super) fn sync(&mut self) -> Result<u64, BackupError> {
        let bytes = std::mem::take(&mut self.unsynced_bytes);
        let Some(file) = self.file.as_ref().filter(|_| bytes > 0) else {
            return Ok(0);
        };
        let known = &mut self.known;
        if let Some(last) = known.log.last_mut() {
            *last = file.synced(&last.name)?;
        }
        known.last = self.chain.end.position;
        known.last_crc = self.chain.end.crc;
        known.lineage = self.chain.lineage.clone();
        // Others may have been decided within the same millisecond.
        let before = self.chain.time_ms.saturating_sub(1);
        known.complete_until_ms = known.complete_until_ms.max(before);
        if file.bytes() >= LOG_FILE_BYTES {
            self.file = None;
        }
        Ok(bytes)
    }

    /// The file that the next frame goes into.
    fn file(&mut self, dir: &BackupDir) -> Result<&mut Writing, BackupError> {
        if self.file.is_none() {
            let last = self.known.log.last();
            let entry = last.filter(|last| last.bytes < LOG_FILE_BYTES).cloned();
            let entry = entry.unwrap_or_else(|| {
                let next = self.chain.end.position.seq + 1;
                let new = FileEntry {
                    name: format!("log-{next:020}"),
                    bytes: 0,
                    crc32c: 0,
                };
                self.known.log.push(new.clone());
                new
            });
            self.file = Some(dir.open_log(self.known.idx, &entry)?);
        }
        Ok(self.file.as_mut().expect("just opened"))
    }
}
