//! What will become one frame, with the answers that wait for it.

use std::collections::HashMap;

use bytes::Bytes;
use kvclient::{
    position::Position,
    wire::{
        batch::OpResult,
        error::{Applied, ErrorCode},
        log::{Effect, FrameBuilder, Record},
    },
};
use tokio::sync::oneshot;

use super::command::AppendError;
use crate::store::Entry;

/// What will become one frame, with the answers that wait for it.
pub(super) struct Group {
    pub(super) builder: FrameBuilder,
    pub(super) records: Vec<(Position, Record)>,
    /// The entries as this group leaves them; `None`: removed.
    pub(super) changed: HashMap<Bytes, Option<Entry>>,
    pub(super) time_ms: u64,
    pub(super) waiting: Vec<Waiting>,
}

/// Answers that may leave once the frame is synced.
pub(super) enum Waiting {
    Writes {
        results: Vec<OpResult>,
        /// How many of them, at the front, stand whatever becomes of this frame.
        settled: usize,
        reply: oneshot::Sender<Vec<OpResult>>,
    },
    Expired {
        deleted: usize,
        /// How many of them are in frames before this one.
        settled: usize,
        reply: oneshot::Sender<usize>,
    },
}

/// Why a frame was not written, and that it was not.
#[derive(Debug)]
pub(super) enum Refusal {
    NoSpace(String),
    /// It is larger than this node's log takes, or does not follow the log's end.
    Unfit(String),
}

impl From<Refusal> for AppendError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoSpace(why) => Self::NoSpace(why),
            Refusal::Unfit(why) => Self::Malformed(why),
        }
    }
}

impl Group {
    /// An empty group, decided at this shard time.
    pub(super) fn new(time_ms: u64) -> Self {
        Self {
            builder: FrameBuilder::new(),
            records: Vec::new(),
            changed: HashMap::new(),
            time_ms,
            waiting: Vec::new(),
        }
    }

    /// Sends the answers that waited for the frame just written or refused.
    pub(super) fn answer(&mut self, refusal: Option<&Refusal>) {
        for waiting in self.waiting.drain(..) {
            match waiting {
                Waiting::Writes {
                    mut results,
                    settled,
                    reply,
                } => {
                    refuse_all(&mut results[settled..], refusal);
                    let _ = reply.send(results);
                }
                Waiting::Expired {
                    deleted,
                    settled,
                    reply,
                } => {
                    let _ = reply.send(if refusal.is_some() { settled } else { deleted });
                }
            }
        }
    }

    /// Adds a record and remembers how it leaves the entry. `current` is the entry before it, if it was read.
    pub(super) fn push(&mut self, position: Position, record: Record, current: Option<Entry>) {
        let after = match (&record.effect, current) {
            (
                Effect::Put {
                    value,
                    expires_at_ms,
                },
                _,
            ) => Some(Entry {
                position,
                expires_at_ms: *expires_at_ms,
                value: value.clone(),
            }),
            (Effect::Expire { expires_at_ms }, Some(entry)) => Some(Entry {
                position,
                expires_at_ms: *expires_at_ms,
                ..entry
            }),
            (Effect::Expire { .. } | Effect::Delete { .. } | Effect::EpochStart { .. }, _) => None,
        };
        self.builder.push(&record);
        self.changed.insert(record.key.clone(), after);
        self.records.push((position, record));
    }
}

/// Says of ops decided on records of a frame that was refused that they were not done, and why.
///
/// Refusals among them too: a 404 behind a delete, or a 412 with the ETag of a put, would tell of records that never
/// were.
pub(super) fn refuse_all(results: &mut [OpResult], refusal: Option<&Refusal>) {
    let (code, message) = match refusal {
        None => return,
        Some(Refusal::NoSpace(why)) => (
            ErrorCode::NoSpace,
            format!("no space left for writes, reads go on: {why}"),
        ),
        Some(Refusal::Unfit(why)) => (
            ErrorCode::StorageFailed,
            format!("the log does not take these writes, nothing was stored: {why}"),
        ),
    };
    results.fill(OpResult::refused(code, message, Some(Applied::No)));
}
