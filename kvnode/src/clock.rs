//! Shard time: what decides about expiry.
//!
//! On a primary: the wall clock as it was at start, moved on by the monotonic clock, so that a step of the wall
//! clock changes nothing; and never below the time of the last frame. On a replica: the primary's clock as of the
//! last pull, moved on by the time since. Times are Unix milliseconds.
//!
//! Invariant: it never goes back, for any thread, or what was expired would be there again. If the clock it follows
//! is behind what it has said, it stands until that has caught up.

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
    /// The later of the newest frame's time and of what anybody was told.
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

    /// Now. Every read of an entry asks, so it writes at most once in a millisecond.
    pub fn now_ms(&self) -> u64 {
        let now =
            millis(self.started.elapsed()).saturating_add(self.offset_ms.load(Ordering::Acquire));
        let now = u64::try_from(now).unwrap_or(0);
        let floor = self.floor_ms.load(Ordering::Acquire);
        if now <= floor {
            return floor;
        }
        self.floor_ms.fetch_max(now, Ordering::AcqRel).max(now)
    }

    /// A frame of this time exists: the clock does not fall below it any more.
    pub fn saw_frame(&self, time_ms: u64) {
        self.floor_ms.fetch_max(time_ms, Ordering::AcqRel);
    }

    /// Goes by another node's clock from now on, as soon as that is not behind what this one has said.
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
        for primary in [50_000, 9_000_000] {
            clock.follow(primary);
            let now = clock.now_ms();
            assert!((primary..primary + 10_000).contains(&now), "{now}");
        }
    }

    /// A pull with a smaller time than the one before moved a replica's clock back, and entries that readers had seen
    /// expire were there again.
    #[test]
    fn a_reader_never_sees_time_go_back() {
        let clock = ShardClock::start(0);
        clock.follow(50_000);
        let before = clock.now_ms();
        clock.follow(40_000);
        let now = clock.now_ms();
        assert!((before..60_000).contains(&now), "{now} after {before}");
        clock.follow(60_000);
        assert!(clock.now_ms() >= 60_000, "it goes on");
    }
}
