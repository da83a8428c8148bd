//! The model: a `BTreeMap`, a clock, and what was done under which request id. It knows the rules of ops as the
//! protocol states them, and nothing of logs, frames, memtables and LMDB.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvclient::{
    position::Position,
    wire::{
        batch::{Action, Condition, Op, OpResult, RequestId},
        error::Applied,
    },
};

use super::steps::TOO_LARGE;

/// A client that was silent for less is remembered; it is up to 600 s.
const REMEMBERED_MS: u64 = 500_000;

/// An entry as it is stored, expired or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: Bytes,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) position: Position,
}

/// An answer without its words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) applied: Option<Applied>,
    pub(super) position: Option<Position>,
    pub(super) etag: Option<Position>,
    pub(super) ttl_ms: Option<u64>,
    pub(super) value: Option<Bytes>,
}

impl From<&OpResult> for Answer {
    fn from(result: &OpResult) -> Self {
        Self {
            status: result.status,
            applied: result.applied,
            position: result.position,
            etag: result.etag,
            ttl_ms: result.ttl_ms,
            value: result.value.clone(),
        }
    }
}

impl Answer {
    pub(super) fn refused(status: u16) -> Self {
        Self {
            status,
            applied: Some(Applied::No),
            ..Self::default()
        }
    }
}

/// A request that is done.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) id: RequestId,
    pub(super) request: Request,
    at_ms: u64,
}

/// A request with its outcome.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Op(Box<Op>, Answer),
    Atomic(Vec<Op>, Vec<Answer>),
}

/// A shard.
#[derive(Debug, Clone, Default)]
pub(super) struct Plain {
    pub(super) entries: BTreeMap<Bytes, Entry>,
    /// Position of the last record.
    pub(super) end: Position,
    pub(super) now_ms: u64,
    /// Time of the last record.
    pub(super) last_ms: u64,
    pub(super) done: Vec<Done>,
}

impl Plain {
    /// Another reign begins.
    pub(super) fn reign(&mut self) {
        self.end.epoch += 1;
        self.next();
    }

    fn next(&mut self) -> Position {
        self.end.seq += 1;
        self.last_ms = self.now_ms;
        self.end
    }

    /// The entry that a reader sees.
    pub(super) fn live(&self, key: &[u8]) -> Option<&Entry> {
        let entry = self.entries.get(key)?;
        let is_live = entry.expires_at_ms.is_none_or(|at| self.now_ms < at);
        is_live.then_some(entry)
    }

    /// What has expired, in the order in which it did.
    pub(super) fn due(&self) -> Vec<(Bytes, Position)> {
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, _)| self.live(key).is_none())
            .map(|(key, entry)| {
                (
                    entry.expires_at_ms,
                    entry.position.seq,
                    key.clone(),
                    entry.position,
                )
            })
            .collect();
        due.sort();
        due.into_iter().map(|(_, _, key, at)| (key, at)).collect()
    }

    /// Deletes those of these that are still there and still due; how many they were.
    pub(super) fn sweep(&mut self, due: &[(Bytes, Position)]) -> usize {
        let mut deleted = 0;
        for (key, position) in due {
            let is_same = |entry: &Entry| entry.position == *position;
            if self.entries.get(key).is_some_and(is_same) && self.live(key).is_none() {
                self.entries.remove(key);
                self.next();
                deleted += 1;
            }
        }
        deleted
    }

    /// A write of its own: its answer.
    pub(super) fn write(&mut self, op: &Op) -> Answer {
        if is_too_large(op) {
            return Answer::refused(413);
        }
        let before = self.end;
        let answer = self.change(op);
        if let Some(id) = op.terms.request_id.filter(|_| self.end != before) {
            let request = Request::Op(Box::new(op.clone()), answer.clone());
            self.remember(id, request);
        }
        answer
    }

    /// Ops of which all are done or none.
    pub(super) fn atomic(
        &mut self,
        ops: &[Op],
        id: Option<RequestId>,
    ) -> Result<Vec<Answer>, Answer> {
        let before = self.clone();
        let mut answers = Vec::new();
        for op in ops {
            let answer = match op.action {
                Action::Get => self.read(op),
                _ => self.change(op),
            };
            if answer.status >= 400 && answer.status != 404 {
                *self = before;
                return Err(answer);
            }
            answers.push(answer);
        }
        if ops.iter().any(is_too_large) {
            *self = before;
            return Err(Answer::refused(413));
        }
        if let Some(id) = id.filter(|_| self.end != before.end) {
            let request = Request::Atomic(ops.to_vec(), answers.clone());
            self.remember(id, request);
        }
        Ok(answers)
    }

    fn remember(&mut self, id: RequestId, request: Request) {
        let at_ms = self.now_ms;
        self.done.push(Done { id, request, at_ms });
    }

    /// The nth request from the newest, if it is surely remembered.
    pub(super) fn done_before(&self, nth: usize) -> Option<&Done> {
        let done = self.done.iter().rev().nth(nth)?;
        (self.now_ms.saturating_sub(done.at_ms) < REMEMBERED_MS).then_some(done)
    }

    /// Whether its client has said since that it waits for it no more.
    pub(super) fn is_forgotten(&self, id: RequestId) -> bool {
        let same = |done: &&Done| done.id.client == id.client;
        self.done
            .iter()
            .filter(same)
            .any(|done| done.id.floor > id.n)
    }

    /// The answer to a read.
    pub(super) fn read(&self, op: &Op) -> Answer {
        let Some(entry) = self.live(op.key.as_bytes()) else {
            return Answer {
                status: 404,
                position: Some(self.end),
                ..Answer::default()
            };
        };
        let is_known = op.terms.condition == Some(Condition::Differs(entry.position));
        Answer {
            status: if is_known { 304 } else { 200 },
            applied: None,
            position: Some(self.end),
            etag: Some(entry.position),
            ttl_ms: entry.expires_at_ms.map(|at| at - self.now_ms),
            value: (!is_known).then(|| entry.value.clone()),
        }
    }

    fn change(&mut self, op: &Op) -> Answer {
        let key = op.key.to_bytes();
        let current = self.live(&key).cloned();
        let position = current.as_ref().map(|entry| entry.position);
        let holds = match op.terms.condition {
            None => true,
            Some(Condition::Absent) => position.is_none(),
            Some(Condition::Exists) => position.is_some(),
            Some(Condition::Is(wanted)) => position == Some(wanted),
            Some(Condition::Differs(other)) => position != Some(other),
        };
        if !holds {
            return Answer {
                etag: position,
                ..Answer::refused(412)
            };
        }
        let after = |ttl_ms: u64| Some(self.now_ms.saturating_add(ttl_ms));
        match (&op.action, current) {
            (Action::Put { value, ttl_ms }, _) => {
                self.store(key, value.clone(), ttl_ms.and_then(after))
            }
            (Action::Incr { delta }, current) => self.count(key, *delta, current),
            (_, None) => Answer::refused(404),
            (Action::Delete, Some(_)) => {
                self.entries.remove(&key);
                let position = Some(self.next());
                Answer {
                    position,
                    etag: None,
                    ..written(self.end)
                }
            }
            (Action::Expire { ttl_ms }, Some(entry)) => {
                self.store(key, entry.value, after(*ttl_ms))
            }
            (Action::Persist, Some(entry)) => self.store(key, entry.value, None),
            (Action::Get, _) => Answer::refused(400),
        }
    }

    fn count(&mut self, key: Bytes, delta: i64, current: Option<Entry>) -> Answer {
        let (old, expires_at_ms) = match current {
            None => (Some(0), None),
            Some(entry) => {
                let text = String::from_utf8_lossy(&entry.value).into_owned();
                let number: Option<i64> = text.parse().ok();
                (
                    number.filter(|number| number.to_string() == text),
                    entry.expires_at_ms,
                )
            }
        };
        let Some(new) = old.and_then(|old| old.checked_add(delta)) else {
            return Answer::refused(409);
        };
        let value = Bytes::from(new.to_string());
        Answer {
            status: 200,
            value: Some(value.clone()),
            ..self.store(key, value, expires_at_ms)
        }
    }

    fn store(&mut self, key: Bytes, value: Bytes, expires_at_ms: Option<u64>) -> Answer {
        let position = self.next();
        let entry = Entry {
            value,
            expires_at_ms,
            position,
        };
        self.entries.insert(key, entry);
        Answer {
            ttl_ms: expires_at_ms.map(|at| at - self.now_ms),
            ..written(position)
        }
    }
}

/// Whether it fits no frame, not even alone.
fn is_too_large(op: &Op) -> bool {
    matches!(&op.action, Action::Put { value, .. } if value.len() >= TOO_LARGE)
}

fn written(position: Position) -> Answer {
    Answer {
        status: 204,
        applied: Some(Applied::Yes),
        position: Some(position),
        etag: Some(position),
        ..Answer::default()
    }
}
