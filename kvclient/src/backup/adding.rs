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
        // Also where that is less than it was: then the shard's clock was set back, and what was said of it is void.
        known.complete_until_ms = before(&self.chain);
        if file.bytes() >= LOG_FILE_BYTES {
            self.file = None;
        }
        Ok(bytes)
    }

    /// Until when it is complete, if the primary was asked at this shard time and had no more. `None`: as entered, or
    /// so little more that it need not be entered yet.
    pub(super) fn complete_until(&self, asked_at_ms: u64, enter_every_ms: u64) -> Option<u64> {
        let entered = self.known.complete_until_ms;
        // Frames that came after the question are there, too.
        let until = asked_at_ms.max(before(&self.chain));
        (until < entered || until >= entered.saturating_add(enter_every_ms)).then_some(until)
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

/// The last millisecond that frames added so far have all of: others may yet be decided within that of the last.
fn before(chain: &Chain) -> u64 {
    chain.time_ms.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Lineage, Position};

    fn quiet(complete_until_ms: u64) -> Adding {
        Adding::new(ShardBackup {
            idx: 0,
            name: "s".to_owned(),
            slots: "0-16383".to_owned(),
            history: 1,
            lineage: Lineage::default(),
            first: Position::ZERO,
            first_time_ms: 0,
            last: Position::ZERO,
            last_crc: 0,
            complete_until_ms,
            entries: 0,
            frames_at: 0,
            snapshot: FileEntry {
                name: "snapshot".to_owned(),
                bytes: 0,
                crc32c: 0,
            },
            log: Vec::new(),
        })
    }

    #[test]
    fn a_quiet_shard_is_complete_until_it_was_asked() {
        let adding = quiet(1_000);
        for (asked_at_ms, enter_every_ms, expected) in [
            (1_000, 1, None),
            (1_001, 1, Some(1_001)),
            (5_999, 5_000, None),
            (6_000, 5_000, Some(6_000)),
        ] {
            let until = adding.complete_until(asked_at_ms, enter_every_ms);
            assert_eq!(until, expected, "asked at {asked_at_ms}");
        }
    }

    /// A node whose clock was set back while nothing was written goes on below the time that it told before.
    #[test]
    fn a_clock_that_was_set_back_takes_the_word_back() {
        let adding = quiet(100_000);
        assert_eq!(adding.complete_until(50_000, 5_000), Some(50_000));
    }
}
