//! What a key was at a position, as far as the log goes back.
//!
//! A position within a frame means the end of that frame, as a restore has it: what was synced together became visible
//! together, and half an atomic batch was never there to be read.
//!
//! The log is read from its beginning to the position, so it costs as much as there is of that. What was written before
//! the log begins is known only if nothing has changed it since. Otherwise the answer is that it is not known, and never
//! a value that may have been another.

use bytes::Bytes;
use kvclient::{
    position::{Position, Seq},
    wire::log::{Effect, Record},
};

use crate::{
    log::{Log, LogError, Walked},
    storage::Storage,
    store::{Entry, StoreError},
};

/// Bytes of frames read in one step: a few milliseconds of work.
const STEP_BYTES: usize = 1 << 20;

/// A key at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Past {
    /// The entry, expired or not, or none, and the shard's time at that position in Unix milliseconds.
    Known(Option<Entry>, u64),
    /// The log does not go back far enough: to the seq behind this one.
    Truncated(Seq),
}

/// Why it could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What is stored now.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was given up.
    #[error("reading the past was given up: {0}")]
    GivenUp(String),
}

/// What the records read so far say of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Read {
    /// Nothing: it is what it was before the log begins.
    Nothing,
    /// The value of before, but with another expiry.
    Moved,
    /// All of it.
    Entry(Option<Entry>),
}

/// What `key` was when the log had come to the end of the frame that has `at`, which is visible on this node. Blocks, for
/// as long as it takes to read the log, or until it is no longer `wanted`, which is looked at in each step.
///
/// # Errors
/// [`PastError`]: log or store cannot be read, or nobody wants to know any more.
pub fn entry_at(
    storage: &Storage,
    key: &[u8],
    at: Position,
    wanted: &dyn Fn() -> bool,
) -> Result<Past, PastError> {
    let truncated = storage.log.truncated();
    if truncated > 0 && at.seq <= truncated {
        return Ok(Past::Truncated(truncated));
    }
    let (mut read, mut last_ms) = (Read::Nothing, 0);
    let seen = walk(
        &storage.log,
        truncated,
        at,
        wanted,
        |position, time_ms, record| {
            last_ms = time_ms;
            if record.key == key {
                read.take(position, record);
            }
        },
    );
    let Walked::To(at) = seen? else {
        return Ok(Past::Truncated(storage.log.truncated()));
    };
    match read {
        Read::Entry(entry) => Ok(Past::Known(entry, last_ms)),
        Read::Nothing if truncated == 0 => Ok(Past::Known(None, last_ms)),
        Read::Nothing | Read::Moved => from_now(storage, key, at, last_ms, wanted),
    }
}

/// What the key was before the log begins and still was at `at`: what it is now, if nothing has changed it since.
fn from_now(
    storage: &Storage,
    key: &[u8],
    at: Position,
    time_ms: u64,
    wanted: &dyn Fn() -> bool,
) -> Result<Past, PastError> {
    let unknown = || Past::Truncated(storage.log.truncated());
    match storage.store.get(key)? {
        Some(entry) if entry.position.seq <= at.seq => Ok(Past::Known(Some(entry), time_ms)),
        Some(_) => Ok(unknown()),
        None => {
            // Absent now, so absent then, unless it was removed meanwhile.
            let mut was_changed = false;
            let visible = storage.store.visible();
            let seen = walk(&storage.log, at.seq, visible, wanted, |_, _, record| {
                was_changed |= record.key == key;
            });
            Ok(match seen? {
                Walked::To(_) if !was_changed => Past::Known(None, time_ms),
                Walked::To(_) | Walked::Truncated => unknown(),
            })
        }
    }
}

/// Visits all records behind `after` up to the end of the frame that has `until`; gives that end.
fn walk(
    log: &Log,
    after: Seq,
    until: Position,
    wanted: &dyn Fn() -> bool,
    mut visit: impl FnMut(Position, u64, &Record),
) -> Result<Walked, PastError> {
    let mut end = until;
    let mut at = after;
    while at < until.seq {
        if !wanted() {
            return Err(PastError::GivenUp("whoever asked has gone".into()));
        }
        match log.visit_after(at, until, STEP_BYTES, &mut visit)? {
            Walked::To(position) => (at, end) = (position.seq, position),
            Walked::Truncated => return Ok(Walked::Truncated),
        }
    }
    Ok(Walked::To(end))
}

impl Read {
    fn take(&mut self, position: Position, record: &Record) {
        match (&record.effect, &mut *self) {
            (
                Effect::Put {
                    value,
                    expires_at_ms,
                },
                _,
            ) => {
                *self = Self::Entry(Some(Entry {
                    position,
                    expires_at_ms: *expires_at_ms,
                    // A copy: the record is a part of what was read with it.
                    value: Bytes::copy_from_slice(value),
                }));
            }
            (Effect::Delete { .. }, _) => *self = Self::Entry(None),
            (Effect::Expire { expires_at_ms }, Self::Entry(Some(entry))) => {
                entry.position = position;
                entry.expires_at_ms = *expires_at_ms;
            }
            (Effect::Expire { .. }, Self::Nothing | Self::Moved) => *self = Self::Moved,
            (Effect::Expire { .. }, Self::Entry(None)) | (Effect::EpochStart { .. }, _) => {}
        }
    }
}
