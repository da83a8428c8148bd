//! Tasks at work: each makes one op after the other, until the pace has no more for it.

use std::{io::IsTerminal, pin::pin, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use futures_util::TryStreamExt;
use kvclient::{Client, Error};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    keys::{Added, Chooser, PREFIX, key},
    pace::{Limits, Pace},
    record::{Found, Recorder, Tally, Times},
    workload::{Distribution, Kind, Workload},
};
use crate::{failure::Failure, out::Out, stop::stopped};

const SECOND: Duration = Duration::from_secs(1);

/// Longest scan, as in YCSB; lengths are drawn from 1 to this.
const SCAN_ENTRIES: usize = 100;

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) distribution: Distribution,
    pub(crate) keys: u64,
    pub(crate) value: Bytes,
    pub(crate) tasks: usize,
    pub(crate) seed: u64,
    pub(crate) limits: Limits,
    pub(crate) progress: Progress,
}

/// Whether somebody watches it run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A line a second, if standard error is a terminal.
    Shown,
    Hidden,
}

impl Progress {
    pub(crate) fn is_seen(self) -> bool {
        self == Self::Shown && std::io::stderr().is_terminal()
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tally: Tally,
    /// From the end of the warm-up to the end of the last op.
    pub(crate) elapsed: Duration,
    /// Ops that were due and never begun.
    pub(crate) never_begun: u64,
    pub(crate) was_interrupted: bool,
}

/// What the tasks share.
struct Work {
    kv: Client,
    plan: Plan,
    added: Added,
    pace: Pace,
    recorder: Recorder,
}

/// Keeps tasks at work until the time is over, the ops are made, or somebody says stop.
///
/// # Errors
/// Signals cannot be received. Ops that fail are counted.
pub(crate) async fn run(kv: &Client, plan: Plan, out: &mut Out) -> Result<Measured, Failure> {
    let pace = Pace::new(Instant::now(), &plan.limits);
    let work = Arc::new(Work {
        kv: kv.clone(),
        added: Added::new(plan.keys),
        recorder: Recorder::new(pace.measured_from()),
        pace,
        plan,
    });
    let mut tasks = JoinSet::new();
    for number in 0..work.plan.tasks {
        tasks.spawn(Arc::clone(&work).one_task(number));
    }
    let pacer = pacer(&work)?;
    let watched = watch(&work, &mut tasks, out).await;
    work.pace.stop();
    // It looks at least every 50 ms.
    let _ = pacer.map(thread::JoinHandle::join);
    watched
}

/// The thread that lets ops go, if they are due at a rate.
fn pacer(work: &Arc<Work>) -> Result<Option<thread::JoinHandle<()>>, Failure> {
    if work.plan.limits.rate.is_none() {
        return Ok(None);
    }
    let work = Arc::clone(work);
    let thread = thread::Builder::new().name("pace".into());
    let spawned = thread.spawn(move || work.pace.run());
    spawned
        .map(Some)
        .map_err(|error| Failure::Local(format!("a thread: {error}")))
}

/// Waits for all tasks, tells what each second was like, and passes on that they shall stop.
async fn watch(work: &Work, tasks: &mut JoinSet<()>, out: &mut Out) -> Result<Measured, Failure> {
    let mut tally = Tally::default();
    let mut seconds = interval_at(Instant::now() + SECOND, SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut stop = pin!(stopped());
    let mut was_interrupted = false;
    loop {
        tokio::select! {
            told = &mut stop, if !was_interrupted => {
                told?;
                was_interrupted = true;
                work.pace.stop();
            }
            now = seconds.tick() => {
                let last = work.recorder.take();
                progress(work, now, &last, out);
                tally.merge(last);
            }
            ended = tasks.join_next() => match ended {
                None => break,
                Some(ended) => ended.map_err(|error| Failure::Local(format!("a task: {error}")))?,
            },
        }
    }
    let elapsed = work.pace.measured_from().elapsed();
    tally.merge(work.recorder.take());
    Ok(Measured {
        tally,
        elapsed,
        never_begun: work.pace.never_begun(),
        was_interrupted,
    })
}

fn progress(work: &Work, now: Instant, last: &Tally, out: &mut Out) {
    if !work.plan.progress.is_seen() {
        return;
    }
    let measured = now.saturating_duration_since(work.pace.measured_from());
    let text = match measured < SECOND {
        true => "warming up".to_owned(),
        false => format!(
            "{} s: {} ops/s, p99 {} us, {} failed",
            measured.as_secs(),
            last.answered(),
            last.p99_micros(),
            last.failed()
        ),
    };
    out.note(&text);
}

impl Work {
    async fn one_task(self: Arc<Self>, number: usize) {
        let plan = &self.plan;
        let mut rng = Rng::with_seed(plan.seed.wrapping_add(number as u64));
        let mut keys = Chooser::new(plan.distribution, plan.keys);
        let mut now = Instant::now();
        while let Some(due) = self.pace.next(now).await {
            let kind = plan.workload.pick(&mut rng);
            // In a closed loop an op is due when the one before has ended.
            let begun = match plan.limits.rate {
                Some(_) => Instant::now(),
                None => due,
            };
            let result = self.op(kind, &mut keys, &mut rng).await;
            now = Instant::now();
            let times = Times {
                due,
                begun,
                ended: now,
            };
            self.recorder.record(number, kind, times, result);
        }
    }

    async fn op(&self, kind: Kind, keys: &mut Chooser, rng: &mut Rng) -> Result<Found, Error> {
        if kind == Kind::Insert {
            return self.insert().await;
        }
        let key = key(keys.choose(self.added.there(), rng));
        match kind {
            Kind::Read => self.read(&key).await,
            Kind::Scan => Box::pin(self.scan(&key, rng.usize(1..=SCAN_ENTRIES))).await,
            Kind::ReadModifyWrite => {
                let found = self.read(&key).await?;
                self.put(&key).await.map(|_| found)
            }
            Kind::Update | Kind::Insert => self.put(&key).await,
        }
    }

    async fn read(&self, key: &str) -> Result<Found, Error> {
        let value = self.kv.get(key).await?;
        Ok(found(value.is_some()))
    }

    async fn put(&self, key: &str) -> Result<Found, Error> {
        self.kv.put(key, self.plan.value.clone()).await?;
        Ok(Found::Something)
    }

    async fn insert(&self) -> Result<Found, Error> {
        let number = self.added.claim();
        let put = self.put(&key(number)).await;
        self.added.settle(number);
        put
    }

    /// So many entries from a key on, over all shards, to the last of them.
    async fn scan(&self, start: &str, entries: usize) -> Result<Found, Error> {
        let mut scan = self.kv.scan(PREFIX).start(start).limit(entries);
        let mut found_any = false;
        while scan.try_next().await?.is_some() {
            found_any = true;
        }
        Ok(found(found_any))
    }
}

fn found(is_there: bool) -> Found {
    match is_there {
        true => Found::Something,
        false => Found::Nothing,
    }
}
