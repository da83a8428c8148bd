//! What answers took in the last seconds: percentiles from a histogram that forgets.
//!
//! Four buckets per power of two of microseconds, so a percentile is off by a fifth at most. All counts are halved
//! once a second, so what is older than a few seconds hardly counts. Recording is one relaxed add; every 100 ms one of
//! the recorders also works out the percentiles, which others then read for nothing.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

const PER_OCTAVE: u32 = 4;
const BUCKETS: usize = 32 * PER_OCTAVE as usize;

/// Fewer answers than this tell nothing.
const ENOUGH: u64 = 20;

const SUM_UP_EVERY_MS: u64 = 100;
const HALVE_EVERY: u64 = 10;

/// Times of answers.
#[derive(Debug)]
pub(crate) struct Latency {
    began: Instant,
    counts: Box<[AtomicU32; BUCKETS]>,
    next_sum_ms: AtomicU64,
    sums: AtomicU64,
    /// Microseconds; 0: too few answers to tell.
    p50_us: AtomicU32,
    p95_us: AtomicU32,
    p99_us: AtomicU32,
}

/// Median and tail of what answers took in the last seconds, each off by a fifth at most. There are none while
/// fewer than 20 answers count.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// match kv.stats().read_latency {
///     Some(reads) if reads.p99 > 10 * reads.p50 => println!("some reads hang: {:?}", reads.p99),
///     Some(reads) => println!("reads take {:?}", reads.p50),
///     None => println!("fewer than 20 reads of late"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half of the answers were faster.
    pub p50: Duration,
    /// 95 of 100 answers were faster.
    pub p95: Duration,
    /// 99 of 100 answers were faster.
    pub p99: Duration,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            counts: Box::new([const { AtomicU32::new(0) }; BUCKETS]),
            next_sum_ms: AtomicU64::new(0),
            sums: AtomicU64::new(0),
            p50_us: AtomicU32::new(0),
            p95_us: AtomicU32::new(0),
            p99_us: AtomicU32::new(0),
        }
    }

    /// Notes an answer that came at `now` after `took`.
    pub(crate) fn record(&self, took: Duration, now: Instant) {
        self.counts[bucket(took)].fetch_add(1, Relaxed);
        let now_ms = millis(now - self.began);
        let due = self.next_sum_ms.load(Relaxed);
        if now_ms < due {
            return;
        }
        let next = now_ms + SUM_UP_EVERY_MS;
        // One of those who notice does it.
        let claimed = self
            .next_sum_ms
            .compare_exchange(due, next, Relaxed, Relaxed);
        if claimed.is_ok() {
            self.sum_up();
            if self.sums.fetch_add(1, Relaxed) % HALVE_EVERY == HALVE_EVERY - 1 {
                self.halve();
            }
        }
    }

    /// The 95th percentile, if enough answers came.
    pub(crate) fn p95(&self) -> Option<Duration> {
        read(&self.p95_us)
    }

    /// The median, if enough answers came.
    pub(crate) fn p50(&self) -> Option<Duration> {
        read(&self.p50_us)
    }

    /// All percentiles, if enough answers came.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        self.sum_up();
        Some(Percentiles {
            p50: read(&self.p50_us)?,
            p95: read(&self.p95_us)?,
            p99: read(&self.p99_us)?,
        })
    }

    fn sum_up(&self) {
        let counts = self.counts.each_ref().map(|count| count.load(Relaxed));
        let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let at = |share: f64| match total >= ENOUGH {
            true => percentile_us(&counts, total, share),
            false => 0,
        };
        self.p50_us.store(at(0.50), Relaxed);
        self.p95_us.store(at(0.95), Relaxed);
        self.p99_us.store(at(0.99), Relaxed);
    }

    fn halve(&self) {
        for count in self.counts.iter() {
            let before = count.load(Relaxed);
            // What is added meanwhile stays.
            count.fetch_sub(before - before / 2, Relaxed);
        }
    }
}

/// The middle of the bucket below whose upper end lies this share of all.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of a few seconds, times a share"
)]
fn percentile_us(counts: &[u32; BUCKETS], total: u64, share: f64) -> u32 {
    let mut left = (total as f64 * share).ceil() as u64;
    for (bucket, &count) in counts.iter().enumerate() {
        if u64::from(count) >= left {
            return middle_us(bucket);
        }
        left -= u64::from(count);
    }
    u32::MAX
}

fn bucket(took: Duration) -> usize {
    let us = u32::try_from(took.as_micros())
        .unwrap_or(u32::MAX)
        .max(PER_OCTAVE);
    let octave = us.ilog2();
    let quarter = (us >> (octave - 2)) & (PER_OCTAVE - 1);
    (octave * PER_OCTAVE + quarter) as usize
}

fn middle_us(bucket: usize) -> u32 {
    let (octave, quarter) = (bucket / PER_OCTAVE as usize, bucket % PER_OCTAVE as usize);
    let width = (1_u64 << octave) / u64::from(PER_OCTAVE);
    let start = (1_u64 << octave) + width * quarter as u64;
    u32::try_from(start + width / 2).unwrap_or(u32::MAX)
}

fn read(us: &AtomicU32) -> Option<Duration> {
    match us.load(Relaxed) {
        0 => None,
        us => Some(Duration::from_micros(us.into())),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_about(found: Duration, wanted_us: u64) -> bool {
        let us = u64::try_from(found.as_micros()).unwrap();
        us * 5 >= wanted_us * 4 && us * 4 <= wanted_us * 5
    }

    #[tokio::test(start_paused = true)]
    async fn percentiles_are_off_by_a_fifth_at_most() {
        for scale in [1, 7, 1_000, 40_000] {
            let latency = Latency::new();
            for us in (1..=1_000).map(|at| at * scale + 4) {
                latency.record(Duration::from_micros(us), Instant::now());
            }
            let found = latency.percentiles().expect("enough");
            for (found, share) in [(found.p50, 500), (found.p95, 950), (found.p99, 990)] {
                assert!(is_about(found, share * scale + 4), "{found:?}: {scale} us");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_long_ago_is_forgotten() {
        let latency = Latency::new();
        let record = |ms| latency.record(Duration::from_millis(ms), Instant::now());
        (0..1_000).for_each(|_| record(80));
        for _ in 0..300 {
            tokio::time::advance(Duration::from_millis(50)).await;
            (0..5).for_each(|_| record(1));
        }
        let found = latency.percentiles().expect("enough");
        assert!(is_about(found.p99, 1_000), "{found:?}");
    }

    #[test]
    fn few_answers_tell_nothing() {
        let latency = Latency::new();
        assert_eq!(latency.percentiles(), None);
        (1..ENOUGH).for_each(|_| latency.record(Duration::from_millis(1), Instant::now()));
        assert_eq!((latency.percentiles(), latency.p95()), (None, None));
    }

    #[test]
    fn the_longest_and_the_shortest_have_their_place() {
        let latency = Latency::new();
        for took in [Duration::ZERO, Duration::MAX] {
            latency.record(took, Instant::now());
        }
    }
}
