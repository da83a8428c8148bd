//! Why a backup cannot be written, read or restored: what is wrong, where, and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::position::Position;

/// Why it went no further. Whatever was complete before is still there, whichever of these it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what the manifest or its format says.
    #[error("{}: {problem}; this backup cannot be relied on, take another one", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no backup in the directory.
    #[error("{} holds no backup", .0.display())]
    Missing(PathBuf),
    /// A backup that was begun and never became whole.
    #[error(
        "{} holds half a backup: {shards} of its shards were copied before it was interrupted; \
         back up into it again to complete it",
        dir.display()
    )]
    Half {
        /// The directory.
        dir: PathBuf,
        /// Shards that are there.
        shards: usize,
    },
    /// Somebody writes into the directory.
    #[error("{} is in use by another backup or restore; wait until it has ended, or stop it", .0.display())]
    Busy(PathBuf),
    /// The backup is another cluster's.
    #[error("{} is a backup of another cluster: {problem}; choose another directory", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// How that shows.
        problem: String,
    },
    /// The backup has writes that the cluster has lost.
    #[error(
        "the backup of shard {shard} reaches {have}, but the cluster went on without its last writes{}; \
         keep this backup, which has them, and choose another directory",
        common.map_or(String::new(), |at| format!(" from {at} on"))
    )]
    Ahead {
        /// Name of the shard.
        shard: String,
        /// Where the backup ends.
        have: Position,
        /// The last position both have, if it is known.
        common: Option<Position>,
    },
    /// No node gives what is needed.
    #[error("no node of shard {shard} gives its copy: {problem}")]
    Unreachable {
        /// Name of the shard.
        shard: String,
        /// What each of them said.
        problem: String,
    },
    /// The backup does not have the state that is wanted.
    #[error("{0}")]
    OutOfRange(String),
    /// The target has entries already.
    #[error(
        "the target is not empty; restore into an empty cluster, or allow it to overwrite and to leave what is there"
    )]
    NotEmpty,
    /// The notes of an interrupted restore do not fit this one.
    #[error(
        "{} is the progress of another restore ({problem}); finish that one, or remove the file and empty the target",
        path.display()
    )]
    OtherRestore {
        /// The file.
        path: PathBuf,
        /// What differs.
        problem: &'static str,
    },
    /// The target refused a write, or did not answer.
    #[error("the target did not take an entry: {0}")]
    Target(#[from] crate::error::Error),
}

impl BackupError {
    /// For `map_err`: the file at a path could not be used.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// The file at a path is not what it should be.
    pub(crate) fn damaged(path: &Path, problem: impl ToString) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }
}
