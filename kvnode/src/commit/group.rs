//! What will become one frame, with the answers that wait for it.
//!
//! All of it goes if the frame is refused: changes, marks of requests, and the answers that rest on them.

use std::{collections::HashMap, time::Duration};

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

use super::{
    command::{AppendError, AtomicAnswer},
    identity::Identity,
    marks::Marks,
    remembered::Known,
};
use crate::{hashing::Seeded, store::Entry, timing::Queued};

/// What will become one frame, with the answers that wait for it.
pub(super) struct Group {
    pub(super) builder: FrameBuilder,
    pub(super) records: Vec<(Position, Record)>,
    /// The entries as the first `indexed` records leave them; `None`: removed.
    changed: HashMap<Bytes, Option<Entry>, Seeded>,
    /// Plain puts ask for no entry, so records are indexed only once somebody does.
    indexed: usize,
    /// Of the records.
    marks: Marks,
    pub(super) time_ms: u64,
    /// What the sync of its last frame took, if it has had one.
    pub(super) synced_in: Option<Duration>,
    pub(super) waiting: Vec<Waiting>,
}

/// Answers that may leave once the frame is synced.
pub(super) enum Waiting {
    Writes {
        answers: Answers,
        reply: oneshot::Sender<Vec<OpResult>>,
        timed: Option<Queued>,
    },
    Atomic {
        answer: AtomicAnswer,
        rests: Rests,
        reply: oneshot::Sender<AtomicAnswer>,
    },
    Expired {
        deleted: usize,
        /// How many of them are in frames before this one.
        settled: usize,
        reply: oneshot::Sender<usize>,
    },
}

/// What an answer rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rests {
    /// Perhaps on records of the frame at hand.
    OnFrame,
    /// On what is durable already.
    OnDurable,
}

/// Answers to the ops of one command, in order.
pub(super) struct Answers {
    results: Vec<OpResult>,
    /// How many of them, at the front, stand whatever becomes of the frame at hand.
    settled: usize,
    /// Those behind them that stand all the same, in order: they tell of older frames.
    standing: Vec<usize>,
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
            changed: HashMap::default(),
            indexed: 0,
            marks: Marks::default(),
            time_ms,
            synced_in: None,
            waiting: Vec::new(),
        }
    }

    /// Makes room for so many ops at once, whose records take at most so many bytes.
    pub(super) fn reserve(&mut self, ops: usize, record_bytes: usize) {
        self.builder.reserve(record_bytes);
        self.records.reserve(ops);
    }

    /// Sends the answers that waited for the frame just written or refused.
    pub(super) fn answer(&mut self, refusal: Option<&Refusal>) {
        for waiting in self.waiting.drain(..) {
            match waiting {
                Waiting::Writes {
                    mut answers,
                    reply,
                    timed,
                } => {
                    answers.settle(refusal);
                    if let Some(timed) = timed {
                        timed.synced(self.synced_in);
                    }
                    let _ = reply.send(answers.results);
                }
                Waiting::Atomic {
                    answer,
                    rests,
                    reply,
                } => {
                    let _ = reply.send(match refusal {
                        Some(refusal) if rests == Rests::OnFrame => Err(refusal.to_result()),
                        _ => answer,
                    });
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

    /// Adds a record. `current` is the entry before it, if it was read.
    pub(super) fn push(&mut self, position: Position, record: Record, current: Option<Entry>) {
        self.builder.push(&record);
        if let Some(current) = current {
            self.index();
            let after = entry_after(position, &record, Some(current));
            self.changed.insert(record.key.clone(), after);
            self.indexed += 1;
        }
        if let Some(mark) = &record.mark {
            self.marks.add(mark);
        }
        self.records.push((position, record));
    }

    /// The entry as this group leaves it so far, if it changes it; `Some(None)`: removed.
    pub(super) fn changed(&mut self, key: &Bytes) -> Option<&Option<Entry>> {
        self.index();
        self.changed.get(key)
    }

    fn index(&mut self) {
        for (position, record) in &self.records[self.indexed..] {
            let after = entry_after(*position, record, None);
            self.changed.insert(record.key.clone(), after);
        }
        self.indexed = self.records.len();
    }

    /// The end of what is decided so far, when the log ends at `durable`.
    pub(super) fn end(&self, durable: Position) -> Position {
        self.records
            .last()
            .map_or(durable, |(position, _)| *position)
    }

    /// What the frame at hand knows of a request.
    pub(super) fn look_up(&mut self, identity: &Identity) -> Known {
        match self.marks.find(&identity.id, &self.records) {
            None => Known::New,
            Some(mark) if mark.digest == identity.digest => Known::First(mark.outcome.clone()),
            Some(_) => Known::Reused,
        }
    }

    /// Takes out what becomes a frame; what comes next is decided without it.
    pub(super) fn take(&mut self) -> (FrameBuilder, Vec<(Position, Record)>) {
        self.changed.clear();
        self.indexed = 0;
        self.marks.clear();
        (
            std::mem::take(&mut self.builder),
            std::mem::take(&mut self.records),
        )
    }
}

impl Answers {
    /// Room for so many.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            results: Vec::with_capacity(count),
            settled: 0,
            standing: Vec::new(),
        }
    }

    /// Adds the next.
    pub(super) fn push(&mut self, result: OpResult, rests: Rests) {
        if rests == Rests::OnDurable {
            self.standing.push(self.results.len());
        }
        self.results.push(result);
    }

    /// From here on all so far stand, but if the frame was refused they say so.
    ///
    /// Refusals among them too: a 404 behind a delete, or a 412 with the ETag of a put, would tell of records that
    /// never were.
    pub(super) fn settle(&mut self, refusal: Option<&Refusal>) {
        if let Some(refusal) = refusal {
            for (at, result) in self.results.iter_mut().enumerate().skip(self.settled) {
                if self.standing.binary_search(&at).is_err() {
                    *result = refusal.to_result();
                }
            }
        }
        self.settled = self.results.len();
        self.standing.clear();
    }
}

impl Refusal {
    /// Says of an op decided on records of a frame that was refused that it was not done, and why.
    pub(super) fn to_result(&self) -> OpResult {
        let (code, message) = match self {
            Self::NoSpace(why) => (
                ErrorCode::NoSpace,
                format!("no space left for writes, reads go on: {why}"),
            ),
            Self::Unfit(why) => (
                ErrorCode::StorageFailed,
                format!("the log does not take these writes, nothing was stored: {why}"),
            ),
        };
        OpResult::refused(code, message, Some(Applied::No))
    }
}

/// How a record leaves an entry; `current` is the entry before it.
pub(super) fn entry_after(
    position: Position,
    record: &Record,
    current: Option<Entry>,
) -> Option<Entry> {
    match (&record.effect, current) {
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
    }
}
