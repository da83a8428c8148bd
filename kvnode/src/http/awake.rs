//! Waiting awake for the next read of a client that does one after the other.
//!
//! A thread that has gone to sleep takes up to 25 us to be woken on another processor: several times as long as a read.
//! So after a lone read that soon followed another one, the worker looks again and again for the next request instead.
//! What else is ready on it runs in between, and other threads, too: each look offers them the processor.
//!
//! What it may cost is bounded: a worker whose lone reads are further apart than `--busy-poll-us` sleeps at once, and no
//! wait is longer than that. Reads in batches keep their worker busy anyway, writes wait for the disk, and on a single
//! processor somebody else runs while the worker sleeps.

use std::{
    cell::Cell,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use actix_web::rt;
use kvclient::wire::batch::{Op, OpResult};
use tokio::task::yield_now;

use crate::service::Service;

/// Weight of the gaps before against the last one, in their average.
const WEIGHT: u32 = 8;

static HAS_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|count| count.get() > 1));

thread_local! {
    static WORKER: Worker = const { Worker::new() };
}

/// One worker's lone reads.
#[derive(Debug)]
struct Worker {
    last: Cell<Option<Instant>>,
    /// From one to the next, of late; long for one that came after a longer while.
    average_gap: Cell<Duration>,
    /// How long to look.
    until: Cell<Option<Instant>>,
    looks: Cell<bool>,
}

/// Does ops in order, one result each.
///
/// # Cancel safety
/// That of [`Service::execute`].
pub(super) async fn execute(service: &Service, ops: Vec<Op>) -> Vec<OpResult> {
    let is_lone_read = matches!(&*ops, [op] if !op.action.is_write());
    let results = service.execute(ops).await;
    if is_lone_read && *HAS_PROCESSORS {
        await_next(service.config.busy_poll);
    }
    results
}

/// Does one op.
///
/// # Cancel safety
/// That of [`Service::execute`].
pub(super) async fn execute_one(service: &Service, op: Op) -> OpResult {
    let results = execute(service, vec![op]).await;
    results.into_iter().next().unwrap_or_default()
}

/// Has this worker look for the next request, if it is to be expected.
fn await_next(longest: Duration) {
    let is_new =
        WORKER.with(|worker| worker.note(Instant::now(), longest) && !worker.looks.replace(true));
    if is_new {
        rt::spawn(look());
    }
}

/// Keeps this worker awake for as long as it is worth it.
async fn look() {
    while WORKER.with(|worker| worker.is_to_look(Instant::now())) {
        // Whoever asks may wait for this very processor.
        thread::yield_now();
        // The runtime runs what is ready, and asks the kernel what has arrived.
        yield_now().await;
    }
    WORKER.with(|worker| worker.looks.set(false));
}

impl Worker {
    const fn new() -> Self {
        Self {
            last: Cell::new(None),
            average_gap: Cell::new(Duration::MAX),
            until: Cell::new(None),
            looks: Cell::new(false),
        }
    }

    /// A lone read is done; whether to look for the next one.
    fn note(&self, now: Instant, longest: Duration) -> bool {
        // Bounded, so that one long pause is soon forgotten.
        let most = longest * WEIGHT;
        let gap = self.last.replace(Some(now)).map_or(most, |last| now - last);
        let before = self.average_gap.get().min(most);
        let average = before - before / WEIGHT + gap.min(most) / WEIGHT;
        self.average_gap.set(average);
        let is_soon = average < longest;
        self.until.set(is_soon.then(|| now + longest));
        is_soon
    }

    fn is_to_look(&self, now: Instant) -> bool {
        self.until.get().is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(200);

    /// A worker after reads with these gaps, and whether it looks for the next one.
    fn after(gaps_us: impl IntoIterator<Item = u64>, longest: Duration) -> (Worker, Instant, bool) {
        let (worker, mut now) = (Worker::new(), Instant::now());
        let mut looks = worker.note(now, longest);
        for us in gaps_us {
            now += Duration::from_micros(us);
            looks = worker.note(now, longest);
        }
        (worker, now, looks)
    }

    fn looks(gaps_us: impl IntoIterator<Item = u64>) -> bool {
        after(gaps_us, LONGEST).2
    }

    #[test]
    fn only_reads_that_come_soon_one_after_the_other_are_waited_for() {
        assert!(!looks([]), "the first one");
        assert!(!looks([50; 2]), "two may be chance");
        assert!(looks([50; 40]));
        assert!(!looks([300; 1_000]));
    }

    #[test]
    fn a_pause_ends_it_and_is_soon_forgotten() {
        let pause = 60_000_000;
        assert!(!looks([50; 40].into_iter().chain([pause])));
        assert!(looks([50; 40].into_iter().chain([pause]).chain([50; 20])));
    }

    #[test]
    fn no_wait_is_longer_than_allowed() {
        let (worker, last, _) = after([50; 40], LONGEST);
        assert!(worker.is_to_look(last + LONGEST / 2));
        assert!(!worker.is_to_look(last + LONGEST));
    }

    #[test]
    fn who_may_not_wait_awake_never_does() {
        assert!(!after([0; 1_000], Duration::ZERO).2);
        assert!(!after([50; 1_000], Duration::ZERO).2);
    }

    #[test]
    fn a_worker_that_looks_does_other_work_and_ends() {
        rt::System::new().block_on(look_and_work());
    }

    async fn look_and_work() {
        let longest = Duration::from_millis(200);
        (0..100).for_each(|_| await_next(longest));
        let looks = || WORKER.with(|worker| worker.looks.get());
        assert!(looks());
        let other = rt::spawn(async { 7 });
        assert_eq!(other.await.ok(), Some(7));
        assert!(looks(), "it is not over yet");
        rt::time::sleep(longest * 2).await;
        assert!(!looks());
    }
}
