//! What can go wrong in the store, in as few kinds as a caller can act on differently.

use kvclient::position::Position;

/// Why the store cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Stored bytes are not what was written. Answer 500 `damaged`, never the bytes. The store has counted it; other
    /// keys are not affected.
    #[error("{what} is damaged: {problem}")]
    Damaged {
        /// The entry's key, escaped, or the name of the row.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No room on the disk or in the map. Nothing was lost: reads go on, the flush is tried again each second.
    /// Refuse writes with 507.
    #[error("no room left: {0}")]
    Full(String),
    /// More reads at once than LMDB has slots for. Answer 503; try again.
    #[error("too many reads at once")]
    Busy,
    /// The directory holds something else than it should: another history, another format, an unfinished copy.
    /// Nothing was changed. Exit 3 and say so.
    #[error("the data is refused: {0}")]
    Refused(String),
    /// Anything else. What is on disk is no longer certain: stop, exit 5, let recovery decide.
    #[error("storage failed: {0}")]
    Fatal(String),
}

impl StoreError {
    /// The entry of `key` cannot be trusted.
    pub(super) fn damaged_entry(key: &[u8], problem: impl Into<String>) -> Self {
        Self::Damaged {
            what: format!("the entry of key \"{}\"", key.escape_ascii()),
            problem: problem.into(),
        }
    }

    /// A row other than an entry cannot be trusted.
    pub(super) fn damaged_row(what: impl Into<String>, problem: impl ToString) -> Self {
        Self::Damaged {
            what: what.into(),
            problem: problem.to_string(),
        }
    }

    /// What this failure means where stored data is read at start, and nothing was written: it is damaged.
    pub fn of_reading(self) -> Self {
        match self {
            Self::Fatal(why) => Self::Refused(format!("what is stored cannot be read: {why}")),
            other => other,
        }
    }

    /// A frame was offered that does not continue what is visible: a mistake of the caller.
    pub(super) fn gap(visible: Position, offered: Position) -> Self {
        Self::Fatal(format!(
            "records from {offered} do not follow {visible}, which is visible"
        ))
    }
}

impl From<heed::Error> for StoreError {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Mdb(heed::MdbError::MapFull) => {
                Self::Full("the map of LMDB is full; start with a larger map size".into())
            }
            heed::Error::Mdb(heed::MdbError::ReadersFull) => Self::Busy,
            heed::Error::Io(error) => Self::from(error),
            other => Self::Fatal(format!("LMDB: {other}")),
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::Full(error.to_string()),
            _ => Self::Fatal(error.to_string()),
        }
    }
}
