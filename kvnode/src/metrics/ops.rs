//! Ops by what they are and what came of them, with the time that each took here: from its request's arrival until its
//! answer was made.

use std::time::Duration;

use kvclient::wire::{
    batch::{Action, Op, OpResult},
    error::{Applied, ErrorCode},
};

use super::histogram::{Histogram, Times};

/// What an op is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// Reads an entry.
    Get,
    /// Stores a value.
    Put,
    /// Removes an entry.
    Delete,
    /// Adds to a counter.
    Incr,
    /// Sets an expiry.
    Expire,
    /// Removes an expiry.
    Persist,
}

/// What came of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpOutcome {
    /// It was done.
    Ok,
    /// Its key is absent.
    NotFound,
    /// A condition did not hold, or the value is no number to add to.
    Conflict,
    /// Its key belongs to another shard.
    Redirected,
    /// It was not done, and the answer says what to change or when to come again.
    Refused,
    /// It was not done, by a fault of this node.
    Failed,
    /// A write that may have been applied, or may be yet.
    Unknown,
    /// Its client hung up before the answer was made. A write goes on all the same.
    Abandoned,
}

impl OpKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Get,
        Self::Put,
        Self::Delete,
        Self::Incr,
        Self::Expire,
        Self::Persist,
    ];

    /// The kind of an action.
    pub fn of(action: &Action) -> Self {
        match action {
            Action::Get => Self::Get,
            Action::Put { .. } => Self::Put,
            Action::Delete => Self::Delete,
            Action::Incr { .. } => Self::Incr,
            Action::Expire { .. } => Self::Expire,
            Action::Persist => Self::Persist,
        }
    }

    /// The kind of each.
    pub fn of_each(ops: &[Op]) -> Vec<Self> {
        ops.iter().map(|op| Self::of(&op.action)).collect()
    }

    /// As metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Incr => "incr",
            Self::Expire => "expire",
            Self::Persist => "persist",
        }
    }
}

impl OpOutcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::NotFound,
        Self::Conflict,
        Self::Redirected,
        Self::Refused,
        Self::Failed,
        Self::Unknown,
        Self::Abandoned,
    ];

    /// What came of the op that has this result.
    pub fn of(result: &OpResult) -> Self {
        match (result.status, result.applied) {
            (_, Some(Applied::Unknown)) => Self::Unknown,
            (200..=299 | 304, _) => Self::Ok,
            (404, _) => Self::NotFound,
            (409 | 412, _) => Self::Conflict,
            (307, _) => Self::Redirected,
            (500, _) => Self::Failed,
            _ if result.error_code() == Some(ErrorCode::StorageFailed) => Self::Failed,
            _ => Self::Refused,
        }
    }

    /// As metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Redirected => "redirected",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Abandoned => "abandoned",
        }
    }
}

const KINDS: usize = OpKind::ALL.len();
const OUTCOMES: usize = OpOutcome::ALL.len();

/// Times of ops, by kind and outcome.
#[derive(Debug, Default)]
pub struct Ops([[Histogram; OUTCOMES]; KINDS]);

impl Ops {
    /// Ops of one request were done, in that time. They are added up first, so that a batch costs what one op costs.
    pub fn add(&self, ops: impl Iterator<Item = (OpKind, OpOutcome)>, took: Duration) {
        let mut counts = [[0_u64; OUTCOMES]; KINDS];
        for (kind, outcome) in ops {
            counts[kind as usize][outcome as usize] += 1;
        }
        let histograms = self.0.iter().flatten();
        let counted = histograms.zip(counts.iter().flatten());
        for (histogram, &count) in counted.filter(|(_, count)| **count > 0) {
            histogram.add(took, count);
        }
    }

    /// Times of all kinds with all outcomes.
    pub fn each(&self) -> impl Iterator<Item = (OpKind, OpOutcome, Times)> {
        OpKind::ALL.into_iter().flat_map(move |kind| {
            let of_kind = move |outcome| (kind, outcome, self.times(kind, outcome));
            OpOutcome::ALL.into_iter().map(of_kind)
        })
    }

    fn times(&self, kind: OpKind, outcome: OpOutcome) -> Times {
        self.0[kind as usize][outcome as usize].times()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_lists() {
        for (at, kind) in OpKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
        for (at, outcome) in OpOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
    }

    #[test]
    fn every_refusal_has_its_outcome() {
        for code in ErrorCode::all() {
            for (applied, expected) in [
                (Some(Applied::Unknown), Some(OpOutcome::Unknown)),
                (Some(Applied::No), None),
                (None, None),
            ] {
                let outcome = OpOutcome::of(&OpResult::refused(code, "", applied));
                assert_ne!(outcome, OpOutcome::Ok, "{code:?}");
                assert!(
                    expected.is_none_or(|expected| outcome == expected),
                    "{code:?}"
                );
            }
        }
        let of = |code| OpOutcome::of(&OpResult::refused(code, "", Some(Applied::No)));
        assert_eq!(of(ErrorCode::NotFound), OpOutcome::NotFound);
        assert_eq!(of(ErrorCode::StorageFailed), OpOutcome::Failed);
        assert_eq!(of(ErrorCode::Damaged), OpOutcome::Failed);
        assert_eq!(of(ErrorCode::Behind), OpOutcome::Refused);
        assert_eq!(of(ErrorCode::ReadOnlyReplica), OpOutcome::Refused);
    }

    #[test]
    fn a_batch_is_counted_by_kind_and_outcome() {
        let ops = Ops::default();
        let batch = [
            (OpKind::Get, OpOutcome::Ok),
            (OpKind::Get, OpOutcome::NotFound),
            (OpKind::Get, OpOutcome::Ok),
            (OpKind::Put, OpOutcome::Conflict),
        ];
        ops.add(batch.into_iter(), Duration::from_micros(7));
        let counted: Vec<_> = ops
            .each()
            .map(|(kind, outcome, times)| (kind, outcome, times.count()))
            .filter(|(_, _, count)| *count > 0)
            .collect();
        assert_eq!(
            counted,
            [
                (OpKind::Get, OpOutcome::Ok, 2),
                (OpKind::Get, OpOutcome::NotFound, 1),
                (OpKind::Put, OpOutcome::Conflict, 1),
            ]
        );
        assert_eq!(
            ops.times(OpKind::Get, OpOutcome::Ok).sum(),
            Duration::from_micros(14)
        );
    }
}
