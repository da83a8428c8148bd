//! Requests that took long: counted all, told a few a second, so that a slow disk does not fill the log.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// So many of a second are told.
const TOLD: u64 = 10;

const SECOND: Duration = Duration::from_secs(1);

/// Slow requests of a node.
#[derive(Debug, Default)]
pub struct Slow {
    count: AtomicU64,
    /// Std mutex: taken by slow requests only, for a few loads and stores.
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    since: Option<Instant>,
    in_second: u64,
    passed_over: u64,
}

impl Slow {
    /// One more. `Some`: it is to be told, with how many were passed over since the last one that was.
    pub fn add(&self, now: Instant) -> Option<u64> {
        self.count.fetch_add(1, Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.since.is_none_or(|since| now - since >= SECOND) {
            told.since = Some(now);
            told.in_second = 0;
        }
        if told.in_second == TOLD {
            told.passed_over += 1;
            return None;
        }
        told.in_second += 1;
        Some(std::mem::take(&mut told.passed_over))
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_a_second_are_told_and_the_others_counted() {
        let (slow, now) = (Slow::default(), Instant::now());
        let told = |at: Instant| (0..15).filter_map(|_| slow.add(at)).collect::<Vec<_>>();
        assert_eq!(told(now), [0; 10]);
        assert_eq!(told(now + SECOND / 2), [0; 0]);
        let mut next = vec![20];
        next.resize(10, 0);
        assert_eq!(told(now + SECOND), next);
        assert_eq!(slow.count(), 45);
    }
}
