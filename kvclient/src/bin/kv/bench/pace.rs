//! When the next op begins, and when the last one does.
//!
//! Closed loop: a task begins its next op when the one before has ended. What is timed is the service: while an answer is
//! late, the ops that would have come meanwhile are not made, so nobody waits for it but one op.
//!
//! Open loop: ops are due at a fixed rate, whatever the answers do. If all tasks are busy an op begins late, and its time
//! counts from when it was due: one answer that is late makes all that were due behind it late, as it does for users.
//! See Schroeder et al., "Open Versus Closed: A Cautionary Tale", NSDI 2006.
//!
//! Ops are let go by a thread of its own: the runtime's timers are whole milliseconds, ten times a read. It wakes up at
//! most every 200 us, so at more than 5,000 ops/s some begin up to so much late, and that counts too.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

/// Shortest sleep between two wake-ups: five thousand a second cost about 2 % of a core.
const SHORTEST_SLEEP: Duration = Duration::from_micros(200);

/// Longest sleep: how late a stop may be noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// What all tasks go by.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    /// Ops due before are warm-up.
    measured_from: Instant,
    until: Instant,
    /// Measured ops that may yet begin.
    left: Option<AtomicU64>,
    schedule: Option<Schedule>,
    is_stopped: AtomicBool,
}

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) ops: Option<u64>,
    /// Ops per second; `None`: as fast as the tasks are.
    pub(crate) rate: Option<u32>,
}

/// Ops that are due at a rate.
#[derive(Debug)]
struct Schedule {
    per_second: u32,
    /// A permit for each op that is due and not taken.
    due: Semaphore,
    released: AtomicU64,
    taken: AtomicU64,
}

impl Pace {
    pub(crate) fn new(began: Instant, limits: &Limits) -> Self {
        let schedule = |per_second| Schedule {
            per_second,
            due: Semaphore::new(0),
            released: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        };
        Self {
            began,
            measured_from: began + limits.warm_up,
            until: began + limits.warm_up + limits.duration,
            left: limits.ops.map(AtomicU64::new),
            schedule: limits.rate.map(schedule),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// Ops due before this are not to be counted.
    pub(crate) fn measured_from(&self) -> Instant {
        self.measured_from
    }

    /// Waits until the next op is to begin; says when that was. `None`: there is none any more. `now` is when the
    /// task's last op ended.
    pub(crate) async fn next(&self, now: Instant) -> Option<Instant> {
        let due = match &self.schedule {
            None => now,
            Some(schedule) => self.began + schedule.take().await?,
        };
        let is_over = now >= self.until || self.is_stopped.load(Ordering::Relaxed);
        (!is_over && self.count(due)).then_some(due)
    }

    /// Takes one of the ops that may yet begin, if it is a measured one.
    fn count(&self, due: Instant) -> bool {
        let Some(left) = self.left.as_ref().filter(|_| due >= self.measured_from) else {
            return true;
        };
        let fewer = |left: u64| left.checked_sub(1);
        let had = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        had.is_ok()
    }

    /// Begins no further ops.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        if let Some(schedule) = &self.schedule {
            schedule.due.close();
        }
    }

    /// Lets go what is due by now. How long until there is more; `None`: it is over.
    fn release(&self, now: Instant) -> Option<Duration> {
        let schedule = self.schedule.as_ref()?;
        if now >= self.until || self.is_stopped.load(Ordering::Relaxed) {
            self.stop();
            return None;
        }
        schedule.release(now - self.began);
        let next = schedule.due_at(schedule.released.load(Ordering::Relaxed));
        Some((self.began + next).saturating_duration_since(now))
    }

    /// Lets ops go until it is over; for a thread of its own.
    pub(crate) fn run(&self) {
        while let Some(wait) = self.release(Instant::now()) {
            thread::park_timeout(wait.clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
        }
    }

    /// Ops that were due and never begun, since all tasks were busy. None if it ended before its time.
    pub(crate) fn never_begun(&self) -> u64 {
        let used_up = |left: &AtomicU64| left.load(Ordering::Relaxed) == 0;
        match &self.schedule {
            Some(schedule) if !self.left.as_ref().is_some_and(used_up) => {
                let released = schedule.released.load(Ordering::Relaxed);
                released - schedule.taken.load(Ordering::Relaxed).min(released)
            }
            _ => 0,
        }
    }
}

impl Schedule {
    /// When an op is due, from the beginning.
    fn due_at(&self, number: u64) -> Duration {
        let second = u128::from(self.per_second);
        let nanos = u128::from(number) * 1_000_000_000 / second;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn release(&self, elapsed: Duration) {
        let due = elapsed.as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        // The one at the very beginning too.
        let due = u64::try_from(due).unwrap_or(u64::MAX).saturating_add(1);
        let more = due.saturating_sub(self.released.load(Ordering::Relaxed));
        self.released.fetch_add(more, Ordering::Relaxed);
        self.due.add_permits(usize::try_from(more).unwrap_or(0));
    }

    /// Waits for the next op that is due; when that was.
    async fn take(&self) -> Option<Duration> {
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        Some(self.due_at(number))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{task::JoinHandle, time::sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(rate: Option<u32>) -> Limits {
        Limits {
            warm_up: Duration::ZERO,
            duration: 2 * SECOND,
            ops: None,
            rate,
        }
    }

    /// The same as [`Pace::run`], by the paused clock.
    fn run_paused(pace: &Arc<Pace>) -> JoinHandle<()> {
        let pace = Arc::clone(pace);
        tokio::spawn(async move {
            while pace.release(Instant::now()).is_some() {
                sleep(Duration::from_millis(1)).await;
            }
        })
    }

    /// Times from due to end and from begin to end, of one task whose op number 10 takes a second and others 1 ms.
    async fn times_with_a_stall(rate: Option<u32>) -> (Vec<Duration>, Vec<Duration>) {
        let pace = Arc::new(Pace::new(Instant::now(), &limits(rate)));
        let running = run_paused(&pace);
        let (mut response, mut service) = (Vec::new(), Vec::new());
        let mut now = Instant::now();
        while let Some(due) = pace.next(now).await {
            let begun = Instant::now();
            sleep(match response.len() {
                10 => SECOND,
                _ => Duration::from_millis(1),
            })
            .await;
            now = Instant::now();
            response.push(now - due);
            service.push(now - begun);
        }
        running.await.unwrap();
        (response, service)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_behind_a_stalled_op_is_late_too() {
        let (response, service) = times_with_a_stall(Some(100)).await;
        let late = |times: &[Duration]| {
            let late = times.iter().filter(|time| **time > SECOND / 20);
            late.count()
        };
        // At 100 ops/s some 95 were due while one stood still and the backlog was worked off at 1,000 a second.
        assert_eq!(late(&service), 1);
        assert!((95..120).contains(&late(&response)), "{}", late(&response));
        assert!(response[11] > SECOND * 9 / 10, "{:?}", response[11]);
        // Ops go on as they are due: as many as without the stall.
        assert!((195..=201).contains(&response.len()), "{}", response.len());
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_closed_loop_only_the_service_is_known() {
        let (response, service) = times_with_a_stall(None).await;
        assert_eq!(response, service);
        let late = service.iter().filter(|time| **time > SECOND / 20);
        assert_eq!(late.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_task_had_time_for_is_told() {
        let pace = Arc::new(Pace::new(Instant::now(), &limits(Some(1_000))));
        let running = run_paused(&pace);
        let mut begun = 0;
        let mut now = Instant::now();
        while pace.next(now).await.is_some() {
            begun += 1;
            sleep(SECOND / 10).await;
            now = Instant::now();
        }
        running.await.unwrap();
        assert_eq!(begun, 20);
        assert!(pace.never_begun() > 1_970, "{}", pace.never_begun());
    }

    #[tokio::test(start_paused = true)]
    async fn warm_up_is_beside_the_number_of_ops() {
        let limits = Limits {
            warm_up: SECOND,
            ops: Some(30),
            ..limits(Some(100))
        };
        let pace = Arc::new(Pace::new(Instant::now(), &limits));
        let running = run_paused(&pace);
        let mut begun = (0, 0);
        while let Some(due) = pace.next(Instant::now()).await {
            match due < pace.measured_from() {
                true => begun.0 += 1,
                false => begun.1 += 1,
            }
        }
        assert_eq!(begun, (100, 30));
        assert_eq!(pace.never_begun(), 0);
        pace.stop();
        running.await.unwrap();
    }

    #[test]
    fn a_rate_does_not_drift() {
        let pace = Pace::new(Instant::now(), &limits(Some(7)));
        let schedule = pace.schedule.unwrap();
        assert_eq!(schedule.due_at(0), Duration::ZERO);
        assert_eq!(schedule.due_at(7_000_000), 1_000_000 * SECOND);
        schedule.release(SECOND);
        assert_eq!(schedule.released.load(Ordering::Relaxed), 8);
    }
}
