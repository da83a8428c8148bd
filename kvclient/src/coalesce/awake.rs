//! Waiting awake for an answer that is almost there.
//!
//! A thread that has gone to sleep takes 15 to 30 us to be woken on an otherwise idle machine: as much as a node on it
//! needs for a read. So an op that is alone, and whose lane's answers have come within a short time of late, looks again
//! and again instead. Tasks that are ready run in between, and other programs too: each look offers them the processor.
//!
//! What it may cost is bounded: only as long as one exchange of the process is under way, for that short time at most, and
//! not on a single processor. Answers that take longer, be it for a network or a disk, are slept for.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        LazyLock,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    thread,
    time::Duration,
};

use tokio::{task::yield_now, time::Instant};

/// Exchanges of this process, whichever client makes them: processors are the process's.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// With one processor the node runs when this thread sleeps.
static HAS_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|count| count.get() > 1));

/// Weight of the answers before against the last one, in an average.
const WEIGHT: u32 = 8;

/// What lone ops of a lane took of late, and whether to wait for the next one awake.
#[derive(Debug)]
pub(super) struct Awake {
    /// Longest wait.
    longest: Duration,
    recent_us: AtomicU32,
}

/// An exchange that others shall know of.
pub(super) struct UnderWay;

impl Awake {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            recent_us: AtomicU32::new(0),
        }
    }

    /// Waits for the end of an exchange: awake if that is to be expected soon, and then for not longer than that.
    pub(super) async fn wait<T>(&self, exchange: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let mut exchange = pin!(exchange);
        let soon = match self.is_due_soon() && UNDER_WAY.load(Relaxed) == 0 {
            true => look(exchange.as_mut(), began + self.longest).await,
            false => None,
        };
        let done = match soon {
            Some(done) => done,
            None => exchange.await,
        };
        self.note(began.elapsed());
        done
    }

    fn is_due_soon(&self) -> bool {
        let expected = Duration::from_micros(self.recent_us.load(Relaxed).into());
        expected < self.longest && *HAS_PROCESSORS
    }

    fn note(&self, took: Duration) {
        // One that is very late is no reason to forget all others.
        let most = self.longest.saturating_mul(WEIGHT);
        let took_us = u32::try_from(took.min(most).as_micros()).unwrap_or(u32::MAX);
        let recent = self.recent_us.load(Relaxed);
        // Two who do it at once: one is forgotten.
        self.recent_us
            .store(recent - recent / WEIGHT + took_us / WEIGHT, Relaxed);
    }
}

/// Looks until an exchange is over, others are under way too, or it is time to sleep.
async fn look<T>(mut exchange: Pin<&mut impl Future<Output = T>>, until: Instant) -> Option<T> {
    while UNDER_WAY.load(Relaxed) <= 1 && Instant::now() < until {
        let look = poll_fn(|context| Poll::Ready(exchange.as_mut().poll(context)));
        if let Poll::Ready(done) = look.await {
            return Some(done);
        }
        // The node may have been woken on this very processor, and wait for it.
        thread::yield_now();
        // The runtime runs what is ready, and asks the kernel what has arrived.
        yield_now().await;
    }
    None
}

impl UnderWay {
    pub(super) fn begin() -> Self {
        UNDER_WAY.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(100);

    fn after(took_us: &[u64]) -> Awake {
        let awake = Awake::new(LONGEST);
        for us in took_us {
            awake.note(Duration::from_micros(*us));
        }
        awake
    }

    fn expected(awake: &Awake) -> u32 {
        awake.recent_us.load(Relaxed)
    }

    #[test]
    fn what_took_long_of_late_is_slept_for() {
        assert!(expected(&after(&[40; 100])) < 50);
        assert!(expected(&after(&[200; 100])) > 150);
        let awake = after(&[200; 100]);
        (0..100).for_each(|_| awake.note(Duration::from_micros(40)));
        assert!(expected(&awake) < 100, "it has become fast");
    }

    #[test]
    fn one_answer_that_is_late_is_soon_forgotten() {
        let awake = after(&[40; 100]);
        awake.note(Duration::from_secs(3_600));
        (0..10).for_each(|_| awake.note(Duration::from_micros(40)));
        assert!(expected(&awake) < 100);
    }

    #[test]
    fn who_shall_not_wait_awake_does_not() {
        assert!(!Awake::new(Duration::ZERO).is_due_soon());
        assert!(!after(&[200; 100]).is_due_soon());
    }

    #[tokio::test]
    async fn an_answer_that_comes_late_after_all_is_waited_for() {
        let awake = Awake::new(LONGEST);
        let late = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            7
        };
        assert_eq!(awake.wait(late).await, 7);
        assert!(expected(&awake) > 90);
    }
}
