//! How long things took, counted by powers of two of a microsecond.
//!
//! Threads add without waiting for each other, and many of one length at once. Who reads meanwhile may see an add half done:
//! a time that is counted and not yet in the sum. Counts never fall.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Bounds of 1 us, 2 us, 4 us and so on up to 8.4 s, and what took longer.
const BUCKETS: usize = 25;

/// Times as they are counted.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// Times that were counted up to a moment, or between two.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Times {
    buckets: [u64; BUCKETS],
    sum_ns: u64,
}

impl Histogram {
    /// So many things took that long.
    pub fn add(&self, took: Duration, count: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)].fetch_add(count, Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(count), Relaxed);
    }

    /// What was counted so far.
    pub fn times(&self) -> Times {
        Times {
            buckets: array::from_fn(|at| self.buckets[at].load(Relaxed)),
            sum_ns: self.sum_ns.load(Relaxed),
        }
    }
}

impl Times {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// Each bucket's upper bound in seconds, infinite for the last, and how many are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = (0..BUCKETS).map(|at| match at {
            LAST => f64::INFINITY,
            at => bound_us(at) / 1e6,
        });
        bounds.zip(self.buckets)
    }

    /// These and those.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        self.with(others, u64::wrapping_add)
    }

    /// What came since then.
    #[must_use]
    pub fn since(&self, then: &Self) -> Self {
        self.with(then, u64::saturating_sub)
    }

    /// The time in microseconds within which this share of them ended, told between the bounds of a bucket. `None` if
    /// there are none.
    pub fn within_us(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share;
        let mut below = 0.0;
        for (at, &count) in self.buckets.iter().enumerate() {
            let here = count as f64;
            if here > 0.0 && below + here >= wanted {
                let lower = at.checked_sub(1).map_or(0.0, bound_us);
                // Of what is beyond all bounds no more is known.
                let upper = if at == LAST { lower } else { bound_us(at) };
                return Some(lower + (upper - lower) * (wanted - below) / here);
            }
            below += here;
        }
        None
    }

    fn with(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            buckets: array::from_fn(|at| of(self.buckets[at], other.buckets[at])),
            sum_ns: of(self.sum_ns, other.sum_ns),
        }
    }
}

const LAST: usize = BUCKETS - 1;

/// The first bucket whose bound is not below this.
fn bucket(ns: u64) -> usize {
    let us = ns.div_ceil(1_000).max(1);
    let power = u64::BITS - (us - 1).leading_zeros();
    (power as usize).min(LAST)
}

fn bound_us(bucket: usize) -> f64 {
    (1_u64 << bucket) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times_us: &[u64]) -> Times {
        let histogram = Histogram::default();
        for us in times_us {
            histogram.add(Duration::from_micros(*us), 1);
        }
        histogram.times()
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        for (ns, at) in [
            (0, 0),
            (1, 0),
            (1_000, 0),
            (1_001, 1),
            (2_000, 1),
            (2_001, 2),
            (4_000, 2),
            (1_024_000, 10),
            (1_024_001, 11),
            (8_388_608_000, 23),
            (8_388_608_001, 24),
            (u64::MAX, 24),
        ] {
            assert_eq!(bucket(ns), at, "{ns} ns");
        }
    }

    #[test]
    fn buckets_go_up_to_everything() {
        let times = of(&[1, 3, 3, 60_000_000]);
        let filled: Vec<_> = times.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(1e-6, 1), (4e-6, 2), (f64::INFINITY, 1)]);
        assert_eq!(times.buckets().count(), BUCKETS);
        assert_eq!(
            (times.count(), times.sum()),
            (4, Duration::from_micros(60_000_007))
        );
    }

    #[test]
    fn shares_are_told_within_their_bucket() {
        assert_eq!(of(&[]).within_us(0.5), None);
        let times = of(&[100; 10]);
        assert_eq!(times.within_us(0.5), Some(96.0), "between 64 and 128");
        assert_eq!(times.within_us(1.0), Some(128.0));
        let mixed = of(&[[1; 99].as_slice(), &[1_000]].concat());
        assert!(mixed.within_us(0.5).is_some_and(|us| us <= 1.0));
        assert!(mixed.within_us(0.999).is_some_and(|us| us > 512.0));
        let longest = of(&[60_000_000]).within_us(0.99);
        assert_eq!(longest, Some(8_388_608.0), "at least that");
    }

    #[test]
    fn what_came_between_two_looks() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_micros(5), 3);
        let before = histogram.times();
        histogram.add(Duration::from_micros(50), 2);
        let since = histogram.times().since(&before);
        assert_eq!(since, of(&[50, 50]));
        assert_eq!(before.and(&since), histogram.times());
    }
}
