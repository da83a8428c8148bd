//! Shard time: what decides about expiry.
//!
//! On a primary: the wall clock as it was at start, moved on by the monotonic clock, so that a step of the wall
//! clock changes nothing; and never below the time of the last frame. On a replica: the primary's clock as of the
//! last pull, moved on by the time since. Times are Unix milliseconds.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A clock that follows frames and pulls.
#[derive(Debug)]
pub struct ShardClock {
    started: Instant,
    /// Added to the milliseconds since `started`.
    offset_ms: AtomicI64,
    /// Time of the newest frame.
    floor_ms: AtomicU64,
}

impl ShardClock {
    /// Starts at the wall clock, or at `last_frame_ms` if that is later.
    pub fn start(last_frame_ms: u64) -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            started: Instant::now(),
            offset_ms: AtomicI64::new(millis(wall)),
            floor_ms: AtomicU64::new(last_frame_ms),
        }
    }

    /// Now.
    pub fn now_ms(&self) -> u64 {
        let now = millis(self.started.elapsed()) + self.offset_ms.load(Ordering::Acquire);
        u64::try_from(now)
            .unwrap_or(0)
            .max(self.floor_ms.load(Ordering::Acquire))
    }

    /// A frame of this time exists: the clock does not fall below it any more.
    pub fn saw_frame(&self, time_ms: u64) {
        self.floor_ms.fetch_max(time_ms, Ordering::AcqRel);
    }

    /// Goes by another node's clock from now on.
    pub fn follow(&self, clock_ms: u64) {
        let clock = i64::try_from(clock_ms).unwrap_or(i64::MAX);
        self.offset_ms.store(
            clock.saturating_sub(millis(self.started.elapsed())),
            Ordering::Release,
        );
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_below_the_last_frame() {
        let far = 9_000_000_000_000;
        let clock = ShardClock::start(far);
        assert_eq!(clock.now_ms(), far);
        clock.saw_frame(far + 5);
        clock.saw_frame(far);
        assert_eq!(clock.now_ms(), far + 5);
    }

    #[test]
    fn a_replica_goes_by_its_primary() {
        let clock = ShardClock::start(0);
        clock.follow(50_000);
        assert!(
            (50_000..60_000).contains(&clock.now_ms()),
            "{}",
            clock.now_ms()
        );
        clock.follow(40_000);
        assert!(
            (40_000..50_000).contains(&clock.now_ms()),
            "{}",
            clock.now_ms()
        );
    }
}
