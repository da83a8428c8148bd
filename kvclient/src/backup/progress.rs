//! How far a restore has come: a small file, so that an interrupted one goes on where it was.
//!
//! It names the backup, the state that is restored, and the target by the histories of its shards. A target that was made
//! anew meanwhile has others, so entries that it lost are never taken for written.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    dir::{remove, replace},
    error::BackupError,
};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// The manifest's checksum.
    pub(super) backup: String,
    /// How far each shard's log is applied, as text.
    pub(super) until: String,
    /// Histories of the target's shards, in the order of its map.
    pub(super) target: Vec<String>,
    /// The shard of the backup that is being written.
    pub(super) shard: usize,
    /// Its last key that is written, base64.
    pub(super) after: Option<String>,
    /// Entries written so far.
    pub(super) entries: u64,
    /// Entries left out because their time is over.
    pub(super) expired: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct ProgressFile(pub(super) PathBuf);

impl Progress {
    pub(super) fn after_key(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.after.as_ref()?).ok()
    }

    pub(super) fn set_after(&mut self, key: &[u8]) {
        self.after = Some(STANDARD.encode(key));
    }
}

impl ProgressFile {
    /// What is in it, if that is of the same restore as `new`; else `new`, where there is no such file.
    pub(super) fn resume(&self, new: &Progress) -> Result<Option<Progress>, BackupError> {
        let path: &Path = &self.0;
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BackupError::file("read", path)(error)),
        };
        let other = |problem| BackupError::OtherRestore {
            path: path.to_owned(),
            problem,
        };
        let found: Progress =
            serde_json::from_slice(&text).map_err(|_| other("it cannot be read"))?;
        let has_key = found.after.is_none() || found.after_key().is_some();
        match () {
            () if found.backup != new.backup => Err(other("the backup has changed since")),
            () if found.until != new.until => Err(other("it restores another state")),
            () if found.target != new.target => Err(other("its target was another cluster")),
            () if !has_key => Err(other("it cannot be read")),
            () => Ok(Some(found)),
        }
    }

    pub(super) fn save(&self, progress: &Progress) -> Result<(), BackupError> {
        let text = serde_json::to_vec(progress).expect("texts and numbers become JSON");
        replace(&self.0, &text)
    }

    pub(super) fn remove(&self) -> Result<(), BackupError> {
        remove(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let mut progress = Progress {
            backup: "ab".to_owned(),
            until: "end".to_owned(),
            target: vec!["1".to_owned()],
            shard: 1,
            after: None,
            entries: 3,
            expired: 1,
        };
        progress.set_after(b"k\xff");
        progress
    }

    #[test]
    fn only_the_same_restore_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = ProgressFile(dir.path().join("restore.progress"));
        assert!(file.resume(&progress()).expect("none").is_none());
        file.save(&progress()).expect("written");
        let found = file.resume(&progress()).expect("the same");
        let found = found.expect("there");
        assert_eq!(found.after_key(), Some(b"k\xff".to_vec()));
        let changes: [fn(&mut Progress); 3] = [
            |progress| progress.backup = "ac".to_owned(),
            |progress| progress.until = "time".to_owned(),
            |progress| progress.target.push("2".to_owned()),
        ];
        for change in changes {
            let mut other = progress();
            change(&mut other);
            let refused = file.resume(&other).expect_err("another");
            assert!(
                matches!(refused, BackupError::OtherRestore { .. }),
                "{refused}"
            );
        }
        fs::write(&file.0, b"{").expect("written");
        assert!(file.resume(&progress()).is_err());
        file.remove().expect("removed");
        file.remove().expect("again does no harm");
    }
}
