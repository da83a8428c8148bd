//! The last minutes of a node, second by second: what charts are drawn from, so that whoever opens a page sees what was
//! before.
//!
//! Pure: a ring of samples, the oldest of which make room. `sampler.rs` fills it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;

use crate::metrics::Times;

/// Time from one sample to the next.
pub const EVERY: Duration = Duration::from_millis(EVERY_MS);

const EVERY_MS: u64 = 1_000;

/// Samples kept: ten minutes.
const KEPT: usize = 600;

/// One second of a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// When it ended, in Unix milliseconds. Larger than that of the sample before.
    pub at_ms: u64,
    /// Reads in that second.
    pub reads: u64,
    /// Writes in that second.
    pub writes: u64,
    /// Reads and writes among them that were refused, failed, or have an unknown outcome.
    pub failed: u64,
    /// Time within which half of the reads ended, in microseconds; `None` if there were none.
    pub read_p50_us: Option<f64>,
    /// Time within which 99 % of the reads ended.
    pub read_p99_us: Option<f64>,
    /// Time within which half of the writes ended.
    pub write_p50_us: Option<f64>,
    /// Time within which 99 % of the writes ended.
    pub write_p99_us: Option<f64>,
    /// How far behind the primary; `None` if this node cannot know.
    pub lag_ms: Option<u64>,
    /// Length of the log's files.
    pub log_bytes: u64,
    /// Bytes of LMDB in use.
    pub lmdb_bytes: u64,
    /// Memory that is no file's; `None` where the system does not tell.
    pub memory_bytes: Option<u64>,
    /// Watches that were open.
    pub watches: usize,
}

/// What was counted since a node started.
#[derive(Debug, Default, Clone)]
pub struct Counted {
    /// Times of all reads.
    pub reads: Times,
    /// Times of all writes.
    pub writes: Times,
    /// How many were refused, failed, or have an unknown outcome.
    pub failed: u64,
}

impl Counted {
    /// What was counted since then, as the first fields of a sample.
    pub fn since(&self, then: &Self) -> Sample {
        let reads = self.reads.since(&then.reads);
        let writes = self.writes.since(&then.writes);
        Sample {
            at_ms: 0,
            reads: reads.count(),
            writes: writes.count(),
            failed: self.failed.saturating_sub(then.failed),
            read_p50_us: reads.within_us(0.5),
            read_p99_us: reads.within_us(0.99),
            write_p50_us: writes.within_us(0.5),
            write_p99_us: writes.within_us(0.99),
            lag_ms: None,
            log_bytes: 0,
            lmdb_bytes: 0,
            memory_bytes: None,
            watches: 0,
        }
    }
}

/// The samples.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Std mutex: held to add or to copy, never over an await.
    samples: Mutex<VecDeque<Sample>>,
}

impl Vitals {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the newest one. If the clock was set back, those before are told by the clock as it is now: the last of them
    /// a second before this one, with the same time between them as before.
    pub fn add(&self, sample: Sample) {
        let mut samples = self.lock();
        if let Some(last_ms) = samples.back().map(|last| last.at_ms)
            && last_ms >= sample.at_ms
        {
            let back_ms = last_ms - sample.at_ms + EVERY_MS;
            samples.retain_mut(|before| {
                let at_ms = before.at_ms.checked_sub(back_ms);
                before.at_ms = at_ms.unwrap_or_default();
                at_ms.is_some()
            });
        }
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Those that were taken after a moment, oldest first.
    pub fn after(&self, at_ms: u64) -> Vec<Sample> {
        let samples = self.lock();
        let known = samples.partition_point(|sample| sample.at_ms <= at_ms);
        samples.range(known..).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Histogram;

    use super::*;

    fn sample(at_ms: u64) -> Sample {
        let at = Counted::default().since(&Counted::default());
        Sample { at_ms, ..at }
    }

    fn times(vitals: &Vitals, after_ms: u64) -> Vec<u64> {
        let samples = vitals.after(after_ms);
        samples.iter().map(|sample| sample.at_ms).collect()
    }

    #[test]
    fn the_oldest_make_room() {
        let vitals = Vitals::default();
        assert_eq!(times(&vitals, 0), [0; 0]);
        (1..=KEPT as u64 + 5).for_each(|at| vitals.add(sample(at)));
        let kept = times(&vitals, 0);
        assert_eq!((kept.len(), kept[0]), (KEPT, 6));
        assert_eq!(times(&vitals, KEPT as u64 + 3), [604, 605]);
        assert_eq!(times(&vitals, 9_999), [0; 0]);
    }

    /// Until the clock was where it had been, a sample came a millisecond after the other: ten minutes in half a second.
    #[test]
    fn a_clock_that_is_set_back_neither_turns_the_order_nor_squeezes_time() {
        let vitals = Vitals::default();
        for at in [100_000, 101_002, 40_000, 41_001, 41_001] {
            vitals.add(sample(at));
        }
        assert_eq!(times(&vitals, 0), [36_998, 38_000, 39_000, 40_001, 41_001]);
        // What would lie before all time is forgotten.
        vitals.add(sample(2_500));
        assert_eq!(times(&vitals, 0), [500, 1_500, 2_500]);
    }

    #[test]
    fn a_sample_holds_what_came_in_its_second() {
        let reads = Histogram::default();
        let look = |failed| Counted {
            reads: reads.times(),
            failed,
            ..Counted::default()
        };
        reads.add(Duration::from_micros(1_000), 7);
        let before = look(2);
        reads.add(Duration::from_micros(4), 2);
        let sample = look(5).since(&before);
        assert_eq!((sample.reads, sample.writes, sample.failed), (2, 0, 3));
        assert_eq!(
            (sample.read_p50_us, sample.read_p99_us),
            (Some(3.0), Some(3.98))
        );
        assert_eq!(sample.write_p50_us, None);
    }
}
