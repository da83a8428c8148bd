//! What of one request is done together: reads, looked up in groups; writes, queued as one and answered when as many
//! nodes have synced each as it must reach.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use kvclient::wire::{
    batch::{Op, OpResult, Terms},
    error::{Applied, ErrorCode},
};

use crate::{
    acknowledge::{Acknowledge, Owed},
    commit::{Commit, MAX_ANSWER_BYTES, WriteOp},
    timing::{Part, Queued, Timing},
};

/// Reads of one request that wait to be looked up.
#[derive(Debug, Default)]
pub(crate) struct PendingReads {
    /// Each with the place of its result.
    waiting: VecDeque<(usize, Op)>,
    /// Bytes of all values found so far.
    answer_bytes: usize,
}

impl PendingReads {
    /// Adds a read whose result belongs at `index`.
    pub(crate) fn push(&mut self, index: usize, op: Op) {
        self.waiting.push_back((index, op));
    }

    /// Whether none waits.
    pub(crate) fn is_answered(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next ones, at most so many.
    pub(crate) fn next(&self, most: usize) -> impl Iterator<Item = &Op> + Clone {
        self.waiting.iter().take(most).map(|(_, op)| op)
    }

    /// Bytes of values for which there is room in the answer.
    pub(crate) fn room_bytes(&self) -> usize {
        MAX_ANSWER_BYTES.saturating_sub(self.answer_bytes)
    }

    /// Answers the next one, or says that there is no room for its value.
    pub(crate) fn answer_next(
        &mut self,
        results: &mut [OpResult],
        result: impl FnOnce(&Op) -> OpResult,
    ) {
        let Some((at, op)) = self.waiting.pop_front() else {
            return;
        };
        let result = result(&op);
        self.answer_bytes += result.value.as_ref().map_or(0, Bytes::len);
        // The first value always fits: no single one is that large.
        results[at] = match self.answer_bytes > MAX_ANSWER_BYTES {
            true => answer_full(),
            false => result,
        };
    }
}

/// Writes of one request that wait to be queued, or for replicas.
#[derive(Debug, Default)]
pub(crate) struct PendingWrites {
    /// Where the results of `ops` belong.
    at: Vec<usize>,
    ops: Vec<WriteOp>,
    /// What was queued and waits for replicas too.
    owed: Vec<(usize, Owed)>,
}

impl PendingWrites {
    /// Makes room for so many.
    pub(crate) fn reserve(&mut self, ops: usize) {
        self.at.reserve(ops);
        self.ops.reserve(ops);
    }

    /// Adds a write whose result belongs at `index`.
    pub(crate) fn push(
        &mut self,
        index: usize,
        op: Op,
        arrived: Instant,
        acknowledge: Acknowledge<'_>,
    ) {
        let deadline = deadline(&op.terms, arrived);
        let owed = Owed::of(&op.terms, arrived);
        let refusal = owed.and_then(|owed| acknowledge.refuse(owed.ack));
        self.owed.extend(owed.map(|owed| (index, owed)));
        self.at.push(index);
        self.ops
            .push(WriteOp::new(op, deadline).refused_if_new(refusal));
    }

    /// Whether nothing waits to be queued.
    pub(crate) fn is_flushed(&self) -> bool {
        self.ops.is_empty()
    }

    /// Has all so far done: durable here and visible when it returns.
    pub(crate) async fn flush(
        &mut self,
        commit: &Commit,
        results: &mut [OpResult],
        timing: Option<&Arc<Timing>>,
    ) {
        if self.ops.is_empty() {
            return;
        }
        let ops = std::mem::take(&mut self.ops);
        let answers = commit.write_timed(ops, timing.map(Queued::now)).await;
        for (at, answer) in self.at.drain(..).zip(answers) {
            results[at] = answer;
        }
    }

    /// Waits for replicas, after [`Self::flush`]. Each write by its own time; what one waits for, others have had.
    pub(crate) async fn settle(
        self,
        commit: &Commit,
        acknowledge: Acknowledge<'_>,
        results: &mut [OpResult],
        timing: Option<&Arc<Timing>>,
    ) {
        for (at, owed) in self.owed {
            let before = timing.map(|timing| timing.elapsed());
            settle(commit, acknowledge, owed, &mut results[at]).await;
            if let (Some(timing), Some(before)) = (timing, before) {
                timing.took(Part::Replicas, timing.elapsed() - before);
            }
        }
    }
}

fn answer_full() -> OpResult {
    let message = "the values of this batch are too large together; ask for this key alone";
    OpResult::refused(ErrorCode::TooLarge, message, None)
}

/// Waits until a write has reached what it must; only one that was applied has to.
async fn settle(commit: &Commit, acknowledge: Acknowledge<'_>, owed: Owed, result: &mut OpResult) {
    let applied = result.applied == Some(Applied::Yes);
    if let (true, Some(position)) = (applied, result.position)
        && let Err(unknown) = acknowledge.reached(commit, owed, position).await
    {
        *result = unknown;
    }
    acknowledge.metrics.saw_ack(result);
}

/// When the caller of an op that came at `arrived` stops waiting.
pub(crate) fn deadline(terms: &Terms, arrived: Instant) -> Option<Instant> {
    let left = terms.time_left_ms?;
    Some(arrived + std::time::Duration::from_millis(left.into()))
}
