//! What all tasks of a load count together: ops, how many of them went well in time, pauses of each shard's writes, and
//! whatever a task saw that must not be.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kvclient::{ErrorKind, Outcome, Result};

use super::arena::SHARDS;
use crate::support::writers::Gap;

/// Within this an op counts as done in time: what a client allows it by default.
const IN_TIME: Duration = Duration::from_secs(5);

/// Violations that are kept as text.
const KEPT: usize = 20;

/// The count of everything.
#[derive(Debug)]
pub(super) struct Watch {
    stop: AtomicBool,
    ops: AtomicUsize,
    in_time: AtomicUsize,
    /// Writes that were refused since the disk was full.
    full: AtomicUsize,
    acked: AtomicUsize,
    unknown: AtomicUsize,
    gaps: Vec<Gap>,
    /// How many there were, and the first of them.
    violations: Mutex<(usize, Vec<String>)>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            ops: AtomicUsize::new(0),
            in_time: AtomicUsize::new(0),
            full: AtomicUsize::new(0),
            acked: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
            gaps: (0..SHARDS).map(|_| Gap::new()).collect(),
            violations: Mutex::default(),
        }
    }

    /// Ends all tasks after what they are at.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Does an op and counts it. A condition that does not hold is an answer.
    pub(super) async fn op<T>(&self, op: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let result = op.await;
        let is_answered = match &result {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::Conflict,
        };
        let is_in_time = is_answered && began.elapsed() <= IN_TIME;
        self.ops.fetch_add(1, Ordering::Relaxed);
        self.in_time
            .fetch_add(usize::from(is_in_time), Ordering::Relaxed);
        result
    }

    /// Does a write of a shard and counts it.
    pub(super) async fn write<T>(
        &self,
        shard: usize,
        write: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let result = self.op(write).await;
        let counter = match &result {
            Ok(_) => {
                self.gaps[shard].acknowledged();
                &self.acked
            }
            Err(error) if error.outcome() == Outcome::Unknown => &self.unknown,
            Err(error) if error.kind() == ErrorKind::Full => &self.full,
            Err(_) => return result,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Notes what must not be.
    pub(super) fn violation(&self, what: String) {
        let mut violations = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violations.0 += 1;
        if violations.1.len() < KEPT {
            violations.1.push(what);
        }
    }

    /// How many violations there were, and the first of them.
    pub(super) fn violations(&self) -> (usize, Vec<String>) {
        let violations = self.violations.lock();
        violations.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn acked(&self) -> usize {
        self.acked.load(Ordering::Relaxed)
    }

    pub(super) fn unknown(&self) -> usize {
        self.unknown.load(Ordering::Relaxed)
    }

    pub(super) fn full(&self) -> usize {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn ops(&self) -> usize {
        self.ops.load(Ordering::Relaxed)
    }

    /// Ops of a hundred thousand that went well in time.
    pub(super) fn available(&self) -> usize {
        self.in_time.load(Ordering::Relaxed) * 100_000 / self.ops().max(1)
    }

    /// The longest time without an acknowledged write of each shard, in ms.
    pub(super) fn longest_gaps_ms(&self) -> Vec<u64> {
        self.gaps.iter().map(Gap::longest_ms).collect()
    }
}
