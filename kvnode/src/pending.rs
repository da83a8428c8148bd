//! Writes of one request: queued together, and answered when as many nodes have synced each as it must reach.

use std::time::Instant;

use kvclient::wire::{
    batch::{Op, OpResult, Terms},
    error::Applied,
};

use crate::{
    acknowledge::{Acknowledge, Owed},
    commit::{Commit, WriteOp},
};

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

    /// Has all so far done: durable here and visible when it returns.
    pub(crate) async fn flush(&mut self, commit: &Commit, results: &mut [OpResult]) {
        if self.ops.is_empty() {
            return;
        }
        let answers = commit.write(std::mem::take(&mut self.ops)).await;
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
    ) {
        for (at, owed) in self.owed {
            settle(commit, acknowledge, owed, &mut results[at]).await;
        }
    }
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
