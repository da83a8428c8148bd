//! Deciding ops of which all are done or none.
//!
//! They are drafted in order, each against the entries as the group and the ops before left them. Only if all can be
//! done, and their records fit the frame at hand or one of their own, do they become part of the group. So a refusal
//! leaves nothing to take back, and what is done is in one frame: whoever reads sees all of it or nothing.

use std::{collections::HashMap, time::Instant};

use bytes::Bytes;
use kvclient::{
    position::Position,
    wire::{
        batch::{Action, Op, OpResult, decode_results, encode_results},
        error::{Applied, ErrorCode},
        log::Record,
    },
};
use tokio::sync::oneshot;

use super::{
    command::{AtomicAnswer, AtomicOps},
    decide,
    group::{Group, Rests, Waiting, entry_after},
    thread::{Committer, Failed},
    writes::{refuse_late, refuse_read, unreadable},
};
use crate::store::Entry;

/// Values in the answer to one batch: what a client reads at once. A thousand values of the default limit would
/// be a gigabyte.
pub const MAX_ANSWER_BYTES: usize = 32 << 20;

/// What a batch would do.
#[derive(Default)]
struct Draft {
    /// Each with the entry before it.
    records: Vec<(Position, Record, Option<Entry>)>,
    /// The entries as the ops so far leave them; `None`: removed.
    changed: HashMap<Bytes, Option<Entry>>,
    results: Vec<OpResult>,
    answer_bytes: usize,
}

impl Draft {
    fn record_bytes(&self) -> usize {
        let bytes = |(_, record, _): &(Position, Record, Option<Entry>)| record.encoded_bytes();
        self.records.iter().map(bytes).sum()
    }

    fn push(&mut self, position: Position, record: Record, current: Option<Entry>) {
        let after = entry_after(position, &record, current.clone());
        self.changed.insert(record.key.clone(), after);
        self.records.push((position, record, current));
    }
}

impl Committer {
    /// Decides a batch and has its answer wait for the frame.
    pub(super) fn decide_atomic(
        &mut self,
        group: &mut Group,
        batch: AtomicOps,
        reply: oneshot::Sender<AtomicAnswer>,
    ) -> Result<(), Failed> {
        let (answer, rests) = self.atomic_answer(group, &batch)?;
        let rests = match group.builder.is_empty() {
            true => Rests::OnDurable,
            false => rests,
        };
        group.waiting.push(Waiting::Atomic {
            answer,
            rests,
            reply,
        });
        Ok(())
    }

    fn atomic_answer(
        &mut self,
        group: &mut Group,
        batch: &AtomicOps,
    ) -> Result<(AtomicAnswer, Rests), Failed> {
        if let Some(refusal) = self.refuse_without_reign() {
            return Ok((Err(refusal), Rests::OnFrame));
        }
        let repeat = batch
            .identity
            .and_then(|identity| self.repeat(group, &identity));
        if let Some((first, rests)) = repeat {
            let answer = match first {
                Ok(outcome) => decode_results(Bytes::copy_from_slice(&outcome)).map_err(unreadable),
                Err(refusal) => Err(refusal),
            };
            return Ok((answer, rests));
        }
        let refusal = batch.refusal.as_deref().cloned();
        let answer = match refusal.or_else(|| refuse_late(batch.deadline, Instant::now())) {
            Some(refusal) => Err(refusal),
            None => self.decide_new_batch(group, batch)?,
        };
        Ok((answer, Rests::OnFrame))
    }

    fn decide_new_batch(
        &mut self,
        group: &mut Group,
        batch: &AtomicOps,
    ) -> Result<AtomicAnswer, Failed> {
        loop {
            let draft = match self.draft(group, batch)? {
                Ok(draft) => draft,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let record_bytes = draft.record_bytes();
            if self.fits(group, record_bytes) {
                for (position, record, current) in draft.records {
                    group.push(position, record, current);
                }
                return Ok(Ok(draft.results));
            }
            if group.builder.is_empty() {
                return Ok(Err(self.larger_than_one_frame(batch, record_bytes)));
            }
            // What others wrote is in the way. The positions change with it, so it is drafted anew.
            self.close(group)?;
        }
    }

    /// What the batch would do now, or the refusal of one of its ops.
    fn draft(
        &mut self,
        group: &mut Group,
        batch: &AtomicOps,
    ) -> Result<Result<Draft, OpResult>, Failed> {
        let mut draft = Draft::default();
        for (at, op) in batch.ops.iter().enumerate() {
            let result = self.draft_one(group, &mut draft, op)?;
            if is_refusal(&result) {
                return Ok(Err(named(at, op, result)));
            }
            draft.answer_bytes += result.value.as_ref().map_or(0, Bytes::len);
            if draft.answer_bytes > MAX_ANSWER_BYTES {
                let message = "the values of this batch are too large together; nothing was done";
                let refusal = OpResult::refused(ErrorCode::TooLarge, message, Some(Applied::No));
                return Ok(Err(named(at, op, refusal)));
            }
            draft.results.push(result);
        }
        if let (Some(identity), Some((_, first, _))) = (&batch.identity, draft.records.first_mut())
        {
            let outcome = encode_results(draft.results.iter());
            first.mark = Some(self.mark(identity, &outcome));
        }
        Ok(Ok(draft))
    }

    fn draft_one(&self, group: &mut Group, draft: &mut Draft, op: &Op) -> Result<OpResult, Failed> {
        let key = op.key.to_bytes();
        let current = match draft.changed.get(&key) {
            Some(changed) => changed
                .clone()
                .filter(|entry| !entry.is_expired(group.time_ms)),
            None if !decide::needs_current(op) => None,
            None => match self.current(group, &key) {
                Ok(current) => current,
                Err(error) => return refuse_read(error),
            },
        };
        let end = match draft.records.last() {
            Some((position, _, _)) => *position,
            None => group.end(self.log.end().position),
        };
        if op.action == Action::Get {
            return Ok(decide::read_result(op, current, group.time_ms, end));
        }
        let next = Position::new(self.epoch, end.seq + 1);
        let decision = decide::decide(
            op.action.clone(),
            op.terms.condition,
            current.as_ref(),
            group.time_ms,
            next,
        );
        if let Some(effect) = decision.effect {
            draft.push(next, Record::new(key, effect), current);
        }
        Ok(decision.result)
    }

    fn larger_than_one_frame(&self, batch: &AtomicOps, record_bytes: usize) -> OpResult {
        let message = format!(
            "the {} ops take {record_bytes} bytes in the log, and all of an atomic batch has to fit one frame, which has \
             at most {} on this node (--max-value-size, --log-segment-size); nothing was done. Send fewer or smaller ops",
            batch.ops.len(),
            self.max_frame_bytes
        );
        OpResult::refused(ErrorCode::TooLarge, message, Some(Applied::No))
    }
}

/// Whether a result is a reason not to do the others. That a key is absent is one only if a condition says so.
fn is_refusal(result: &OpResult) -> bool {
    result
        .error_code()
        .is_some_and(|code| code != ErrorCode::NotFound)
}

/// A refusal of a batch, for one op of it, counted from 1.
pub fn named(at: usize, op: &Op, mut refusal: OpResult) -> OpResult {
    refusal.applied = Some(Applied::No);
    if let Some(error) = &mut refusal.error {
        error.message = format!("op {} (key \"{}\"): {}", at + 1, op.key, error.message);
    }
    refusal
}
