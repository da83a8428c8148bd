//! Ops that are being done: counted when they end, also if nobody waits for their results any more.
//!
//! The future of a request is dropped when its client hangs up; what it was doing is then counted as abandoned.

use std::{mem, time::Instant};

use super::ops::{OpKind, OpOutcome, Ops};

/// Ops of one request. Dropped before their end they count as abandoned.
#[derive(Debug)]
pub struct Counting<'a> {
    ops: &'a Ops,
    kinds: Vec<OpKind>,
    arrived: Instant,
}

impl<'a> Counting<'a> {
    /// Ops of these kinds begin, of a request that arrived then.
    pub fn begin(ops: &'a Ops, kinds: Vec<OpKind>, arrived: Instant) -> Self {
        Self {
            ops,
            kinds,
            arrived,
        }
    }

    /// This came of each.
    pub fn end(mut self, outcomes: impl Iterator<Item = OpOutcome>) {
        let kinds = mem::take(&mut self.kinds);
        self.ops
            .add(kinds.into_iter().zip(outcomes), self.arrived.elapsed());
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        if self.kinds.is_empty() {
            return;
        }
        let ops = self.kinds.iter().map(|kind| (*kind, OpOutcome::Abandoned));
        self.ops.add(ops, self.arrived.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_before_its_end_is_counted_as_abandoned() {
        let ops = Ops::default();
        let begin = || Counting::begin(&ops, vec![OpKind::Get, OpKind::Put], Instant::now());
        drop(begin());
        begin().end([OpOutcome::Ok; 2].into_iter());
        let counted: Vec<_> = ops
            .each()
            .filter(|(_, _, times)| times.count() > 0)
            .map(|(kind, outcome, times)| (kind, outcome, times.count()))
            .collect();
        assert_eq!(
            counted,
            [
                (OpKind::Get, OpOutcome::Ok, 1),
                (OpKind::Get, OpOutcome::Abandoned, 1),
                (OpKind::Put, OpOutcome::Ok, 1),
                (OpKind::Put, OpOutcome::Abandoned, 1),
            ]
        );
    }
}
