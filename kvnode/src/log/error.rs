//! What can go wrong with the log, in as few kinds as the node acts on differently.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the log did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The data is not what it must be, or the request cannot be right. Names file, byte and seq. Do not retry,
    /// change nothing: at start, exit 3.
    #[error("{0}")]
    Refused(String),
    /// The disk had no room to preallocate a segment. Nothing was written and nothing is lost; may be retried.
    #[error("no room on disk for another log segment: {0}")]
    NoSpace(#[source] io::Error),
    /// A read, write or sync failed in another way. What was being appended is of unknown outcome: exit 5.
    #[error("cannot {action} {}: {source}", file.display())]
    Io {
        /// What was tried: `write`, `sync`, ...
        action: &'static str,
        /// With which file or directory.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LogError {
    /// For `map_err`: a failed `action` on `file`.
    pub(super) fn io(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_path_buf();
        move |source| Self::Io {
            action,
            file,
            source,
        }
    }

    /// For `map_err` while preallocating, where a full disk is no disaster.
    pub(super) fn preallocating(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let io = Self::io("preallocate", file);
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(source),
            _ => io(source),
        }
    }

    /// Data at byte `at` of `file`, where `seq` should be, is not what it must be.
    pub(super) fn damage(file: &Path, at: u64, seq: u64, what: impl std::fmt::Display) -> Self {
        Self::Refused(format!("{}, byte {at}, seq {seq}: {what}", file.display()))
    }
}
