//! Watchers of a row: what each is told is counted, and held against what was written.
//!
//! A watcher of everything must be told each write once. Watchers of prefixes share the keys without a rest, so that
//! together they must be told each write once, too. No position may come twice or before an earlier one of its shard;
//! a write has one position, so as many events as writes are all of them.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use futures_util::TryStreamExt;
use kvclient::{Change, Event, Watch, position::Position};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::paced::{Call, writes};
use crate::{
    cluster::Cluster,
    load::{KEY_BYTES, KEY_DIGITS, key},
};

/// Keys of one prefix: those whose numbers differ in the last two digits.
pub(super) const KEYS_A_PREFIX: usize = 100;
const PREFIX_BYTES: usize = KEY_BYTES - 2;

/// Watchers of everything.
const OF_ALL: usize = 10;

/// Longest wait for the rest of the events once all is written.
const REST: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// Watchers that are at work, and how many events each was told; those of everything come last.
pub(super) trait Tally {
    fn counts(&self) -> Vec<usize>;

    /// They end only if they fail.
    fn tasks(&mut self) -> &mut JoinSet<anyhow::Result<()>>;

    /// Waits until everybody was told of so many writes, and not more.
    async fn told(&mut self, writes: usize) -> anyhow::Result<()> {
        let until = Instant::now() + REST;
        loop {
            self.tasks()
                .try_join_next()
                .map_or(Ok(()), |ended| ended?)?;
            let counts = of_writes(&self.counts());
            if counts.iter().all(|count| *count == writes) {
                return Ok(());
            }
            let may_come = counts.iter().all(|count| *count <= writes) && Instant::now() < until;
            ensure!(may_come, "of {writes} writes were told: {counts:?}");
            sleep(POLL).await;
        }
    }
}

/// How often each write was told so far, by each watcher of everything and by those of prefixes together.
fn of_writes(counts: &[usize]) -> Vec<usize> {
    let (prefixes, all) = counts.split_at(counts.len() - OF_ALL);
    let together = prefixes.iter().sum();
    all.iter().copied().chain([together]).collect()
}

/// What all watchers watch: so many prefixes, then everything, by each that does.
pub(super) fn wanted(prefixes: usize) -> impl Iterator<Item = String> {
    let prefix = |nth| key(nth * KEYS_A_PREFIX).to_string()[..PREFIX_BYTES].to_owned();
    (0..prefixes).map(prefix).chain(vec![String::new(); OF_ALL])
}

/// Watchers at work until this is dropped.
pub(super) struct Watchers {
    seen: Vec<Arc<Seen>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// What one watcher was told.
#[derive(Debug)]
struct Seen {
    /// Empty: everything.
    prefix: String,
    count: AtomicUsize,
    deliveries: Mutex<Vec<(usize, Instant)>>,
}

impl Watchers {
    /// Starts them all and waits until they listen.
    pub(super) async fn start(cluster: &Cluster, prefixes: usize) -> anyhow::Result<Self> {
        let kv = cluster.client()?;
        let seen: Vec<_> = wanted(prefixes).map(Seen::of).map(Arc::new).collect();
        let mut starting = JoinSet::new();
        for seen in seen.iter().cloned() {
            let mut watch = kv.watch(&seen.prefix);
            starting.spawn(async move { watch.ready().await.map(|()| (seen, watch)) });
        }
        let mut tasks = JoinSet::new();
        while let Some(started) = starting.join_next().await {
            let (seen, watch) = started??;
            tasks.spawn(follow(watch, seen));
        }
        Ok(Self { seen, tasks })
    }

    /// How long after the acknowledgement of its call each event came, zero if before. Everybody has been told.
    pub(super) fn lags(&self, calls: &[Call<Instant>]) -> anyhow::Result<Vec<Duration>> {
        let (prefixes, all) = self.seen.split_at(self.seen.len() - OF_ALL);
        let mut lags = Vec::new();
        for together in all.chunks(1).chain([prefixes]) {
            let mut deliveries: Vec<_> = together.iter().flat_map(|seen| seen.take()).collect();
            deliveries.sort_unstable();
            let told = deliveries.iter().map(|(write, _)| *write);
            ensure!(told.eq(0..writes(calls)), "not every write was told once");
            let times = calls
                .iter()
                .flat_map(|call| call.writes.clone().map(|_| call.noted));
            let times = deliveries.iter().zip(times);
            lags.extend(times.map(|((_, told), acknowledged)| told.duration_since(acknowledged)));
        }
        Ok(lags)
    }
}

impl Tally for Watchers {
    fn counts(&self) -> Vec<usize> {
        let counts = self.seen.iter().map(|seen| seen.count.load(Relaxed));
        counts.collect()
    }

    fn tasks(&mut self) -> &mut JoinSet<anyhow::Result<()>> {
        &mut self.tasks
    }
}

impl Seen {
    fn of(prefix: String) -> Self {
        Self {
            prefix,
            count: AtomicUsize::new(0),
            deliveries: Mutex::default(),
        }
    }

    fn take(&self) -> Vec<(usize, Instant)> {
        mem::take(
            &mut self
                .deliveries
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn note(&self, event: &Event) -> anyhow::Result<()> {
        let key = &event.key;
        ensure!(
            key.as_bytes().starts_with(self.prefix.as_bytes()),
            "{key} was not asked for"
        );
        let delivery = (write_of(event)?, Instant::now());
        let mut deliveries = self
            .deliveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        deliveries.push(delivery);
        self.count.fetch_add(1, Relaxed);
        Ok(())
    }
}

async fn follow(mut watch: Watch, seen: Arc<Seen>) -> anyhow::Result<()> {
    let mut lasts: Vec<Position> = Vec::new();
    while let Some(event) = watch.try_next().await? {
        let shard = usize::from(event.shard_idx);
        lasts.resize(lasts.len().max(shard + 1), Position::ZERO);
        let position = event.position;
        ensure!(position > lasts[shard], "{position} after {}", lasts[shard]);
        lasts[shard] = position;
        seen.note(&event)?;
    }
    bail!("a watch has ended")
}

/// The number of the write, which its value begins with as a key's text.
fn write_of(event: &Event) -> anyhow::Result<usize> {
    let Change::Put { value, .. } = &event.change else {
        bail!("{} was not put", event.key);
    };
    let digits = value.get(KEY_BYTES - KEY_DIGITS..KEY_BYTES);
    let digits = str::from_utf8(digits.context("a value too short")?)?;
    Ok(digits.parse()?)
}
