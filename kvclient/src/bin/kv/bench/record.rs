//! What came of the ops: counts, times, failures.
//!
//! Tasks share a few tallies, each under a lock that is held for one entry of a histogram; a tally of each task's own
//! would be 200 KB, times hundreds of tasks. Once a second all are taken and added to the whole, which also tells
//! what the last second was like.
//!
//! Times are those of ops that were answered. One that failed is counted with its reason, and its time would say how long
//! the client is patient.

use std::{collections::BTreeMap, sync::Mutex};

use hdrhistogram::Histogram;
use kvclient::{Error, Outcome};
use tokio::time::Instant;

use super::workload::Kind;
use crate::{exit::Exit, failure};

/// Longest time that is told apart from longer ones: an hour. Three digits of each are kept.
const LONGEST_MICROS: u64 = 3_600_000_000;

const DIGITS: u8 = 3;

/// Tallies that tasks share: with two cores or ten, hardly ever do two want the same at once.
const TALLIES: usize = 16;

/// Where tasks write to.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Std mutex: never held over an await.
    tallies: Vec<Mutex<Tally>>,
    from: Instant,
}

/// When an op was due, begun and answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) due: Instant,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
}

/// What an op that was answered found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Something,
    Nothing,
}

/// Counts and times of many ops.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    kinds: BTreeMap<Kind, OfKind>,
    failures: BTreeMap<Reason, Failures>,
}

/// Ops of one kind that were answered.
#[derive(Debug)]
pub(crate) struct OfKind {
    /// Ops that found nothing.
    pub(crate) absent: u64,
    /// From begin to end, in microseconds.
    pub(crate) service: Histogram<u64>,
    /// From when it was due to its end, in microseconds.
    pub(crate) response: Histogram<u64>,
}

/// What kind of op failed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reason {
    pub(crate) kind: Kind,
    pub(crate) error: &'static str,
    pub(crate) is_unknown: bool,
}

/// Ops that failed alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    pub(crate) exit: Exit,
    /// What the first of them said.
    pub(crate) first: String,
}

impl Recorder {
    /// Of ops that are due at a time or later.
    pub(crate) fn new(from: Instant) -> Self {
        Self {
            tallies: (0..TALLIES).map(|_| Mutex::default()).collect(),
            from,
        }
    }

    /// Adds an op of a task.
    pub(crate) fn record(
        &self,
        task: usize,
        kind: Kind,
        times: Times,
        result: Result<Found, Error>,
    ) {
        if times.due < self.from {
            return;
        }
        let tally = &self.tallies[task % TALLIES];
        let mut tally = tally.lock().expect("no holder panics");
        match result {
            Ok(found) => tally.add(kind, times, found),
            Err(error) => tally.fail(kind, &error),
        }
    }

    /// What came since the last time this was called.
    pub(crate) fn take(&self) -> Tally {
        let mut all = Tally::default();
        for tally in &self.tallies {
            let taken = std::mem::take(&mut *tally.lock().expect("no holder panics"));
            all.merge(taken);
        }
        all
    }
}

impl Tally {
    fn add(&mut self, kind: Kind, times: Times, found: Found) {
        let of_kind = self.kinds.entry(kind).or_default();
        of_kind.absent += u64::from(found == Found::Nothing);
        let micros = |from| {
            let time = times.ended.saturating_duration_since(from);
            u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
        };
        of_kind.service.saturating_record(micros(times.begun));
        // In a closed loop both are the same, and one is enough.
        if times.due != times.begun {
            of_kind.response.saturating_record(micros(times.due));
        }
    }

    fn fail(&mut self, kind: Kind, error: &Error) {
        let reason = Reason {
            kind,
            error: failure::kind_name(error.kind()),
            is_unknown: error.outcome() == Outcome::Unknown,
        };
        let failures = self.failures.entry(reason);
        let failures = failures.or_insert_with(|| Failures {
            count: 0,
            exit: Exit::of(error.kind(), error.outcome()),
            first: error.to_string(),
        });
        failures.count += 1;
    }

    /// Adds what another one has.
    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, theirs) in other.kinds {
            let ours = self.kinds.entry(kind).or_default();
            ours.absent += theirs.absent;
            add(&mut ours.service, &theirs.service);
            add(&mut ours.response, &theirs.response);
        }
        for (reason, theirs) in other.failures {
            match self.failures.get_mut(&reason) {
                Some(ours) => ours.count += theirs.count,
                None => drop(self.failures.insert(reason, theirs)),
            }
        }
    }

    /// The kinds that were answered at all.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (Kind, &OfKind)> {
        self.kinds.iter().map(|(kind, of_kind)| (*kind, of_kind))
    }

    /// How ops failed.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (Reason, &Failures)> {
        self.failures.iter().map(|(reason, all)| (*reason, all))
    }

    /// Ops that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.kinds().map(|(_, of_kind)| of_kind.service.len()).sum()
    }

    /// Ops that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failures().map(|(_, failures)| failures.count).sum()
    }

    /// The time that 99 of 100 ops did not pass, whatever their kind, in microseconds.
    pub(crate) fn p99_micros(&self) -> u64 {
        let mut all = histogram();
        for (_, of_kind) in self.kinds() {
            add(&mut all, of_kind.users_wait());
        }
        all.value_at_quantile(0.99)
    }
}

impl OfKind {
    /// What users wait for: from when an op was due, where that is known.
    pub(crate) fn users_wait(&self) -> &Histogram<u64> {
        match self.response.is_empty() {
            true => &self.service,
            false => &self.response,
        }
    }
}

impl Default for OfKind {
    fn default() -> Self {
        Self {
            absent: 0,
            service: histogram(),
            response: histogram(),
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST_MICROS, DIGITS).expect("the bounds are sound")
}

fn add(ours: &mut Histogram<u64>, theirs: &Histogram<u64>) {
    if !theirs.is_empty() {
        ours.add(theirs).expect("they have the same bounds");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn times(from: Instant, due_ms: u64, begun_ms: u64, ended_ms: u64) -> Times {
        let at = |ms| from + Duration::from_millis(ms);
        Times {
            due: at(due_ms),
            begun: at(begun_ms),
            ended: at(ended_ms),
        }
    }

    async fn an_error() -> Error {
        let kv = kvclient::Client::connect(Vec::<String>::new()).await;
        kv.expect_err("no node is named")
    }

    #[tokio::test]
    async fn all_tasks_come_together_and_warm_up_does_not_count() {
        let began = Instant::now();
        let recorder = Recorder::new(began + Duration::from_millis(10));
        let read = |task, due_ms, found| {
            let times = times(began, due_ms, due_ms + 1, due_ms + 3);
            recorder.record(task, Kind::Read, times, Ok(found));
        };
        read(0, 9, Found::Something);
        read(1, 10, Found::Something);
        read(1 + TALLIES, 11, Found::Nothing);
        read(2, 12, Found::Something);
        recorder.record(
            3,
            Kind::Scan,
            times(began, 20, 20, 21),
            Err(an_error().await),
        );
        let mut whole = recorder.take();
        assert_eq!((whole.answered(), whole.failed()), (3, 1));
        let (kind, reads) = whole.kinds().next().unwrap();
        assert_eq!((kind, reads.absent), (Kind::Read, 1));
        // Three digits: from 2,048 us on to two of them.
        assert_eq!((reads.service.max(), reads.response.max()), (2_000, 3_001));
        let (reason, failures) = whole.failures().next().unwrap();
        assert_eq!((reason.error, failures.exit), ("invalid", Exit::Wrong));
        assert_eq!(recorder.take().answered(), 0);
        read(2, 12, Found::Something);
        whole.merge(recorder.take());
        assert_eq!(whole.answered(), 4);
        assert_eq!(whole.p99_micros(), 3_001);
    }

    #[test]
    fn in_a_closed_loop_there_is_one_time() {
        let began = Instant::now();
        let recorder = Recorder::new(began);
        recorder.record(0, Kind::Update, times(began, 5, 5, 9), Ok(Found::Something));
        let whole = recorder.take();
        let (_, updates) = whole.kinds().next().unwrap();
        assert!(updates.response.is_empty());
        assert_eq!(whole.p99_micros(), updates.service.max());
    }
}
