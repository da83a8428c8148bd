//! Tasks that read random keys one after the other, as a busy program does, and what that took.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kvclient::{Client, NodeStats};
use tokio::task::JoinSet;

use crate::support::shard_of;

/// What a client counts of one node.
pub(crate) fn stats_of(client: &Client, address: &str) -> NodeStats {
    let mut nodes = client.stats().nodes.into_iter();
    let found = nodes.find(|node| node.address.to_string() == address);
    found.expect("a node of the map")
}

/// Stores so many keys, `read:0` and so on, of a few bytes each.
pub(crate) async fn store_keys(client: &Client, count: usize) -> Arc<[String]> {
    let keys: Arc<[String]> = (0..count).map(|n| format!("read:{n}")).collect();
    let items = keys.iter().map(|key| (key, key.clone()));
    client.put_many(items).await.expect("all are stored");
    keys
}

/// Tasks that read random keys, one after the other.
pub(crate) struct Readers {
    tasks: JoinSet<Reads>,
    stop: Arc<AtomicBool>,
    /// Reads that are over.
    done: Arc<AtomicUsize>,
}

/// What reads came to.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Times of the reads of each shard.
    pub(crate) by_shard: Vec<Times>,
    /// Reads that failed or showed another value than the one stored, as text.
    pub(crate) failures: Vec<String>,
}

impl Readers {
    /// Starts one task for each client.
    pub(crate) fn start(
        clients: impl IntoIterator<Item = Client>,
        keys: &Arc<[String]>,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut tasks = JoinSet::new();
        for client in clients {
            let reader = Reader {
                shards: client.map().shards().len(),
                client,
                keys: Arc::clone(keys),
                rng: rng.fork(),
                stop: Arc::clone(&stop),
                done: Arc::clone(&done),
            };
            tasks.spawn(reader.run());
        }
        Self { tasks, stop, done }
    }

    /// Reads that are over.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Lets them read for so long, then ends them.
    pub(crate) async fn stop_after(self, window: Duration) -> Reads {
        tokio::time::sleep(window).await;
        self.stop().await
    }

    /// Ends them after the read that each is at.
    pub(crate) async fn stop(mut self) -> Reads {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Reads::default();
        while let Some(ended) = self.tasks.join_next().await {
            all.merge(ended.expect("a reader does not panic"));
        }
        all
    }
}

struct Reader {
    client: Client,
    shards: usize,
    keys: Arc<[String]>,
    rng: fastrand::Rng,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Reader {
    async fn run(mut self) -> Reads {
        let mut reads = Reads {
            by_shard: vec![Times::default(); self.shards],
            failures: Vec::new(),
        };
        while !self.stop.load(Ordering::Relaxed) {
            let key = &self.keys[self.rng.usize(..self.keys.len())];
            let began = Instant::now();
            let answer = self.client.get(key).await;
            reads.by_shard[shard_of(key.as_bytes(), self.shards)].push(began.elapsed());
            self.done.fetch_add(1, Ordering::Relaxed);
            match answer {
                Ok(Some(value)) if value == key.as_bytes() => {}
                other => reads.failures.push(format!("{key}: {other:?}")),
            }
        }
        reads
    }
}

impl Reads {
    fn merge(&mut self, other: Self) {
        self.by_shard
            .resize_with(other.by_shard.len(), Times::default);
        for (mine, theirs) in self.by_shard.iter_mut().zip(other.by_shard) {
            mine.merge(theirs);
        }
        self.failures.extend(other.failures);
    }

    /// Times of the reads of these shards.
    pub(crate) fn of(&self, shards: impl IntoIterator<Item = usize>) -> Times {
        let mut times = Times::default();
        for shard in shards {
            times.merge(self.by_shard[shard].clone());
        }
        times
    }

    /// Times of all reads.
    pub(crate) fn times(&self) -> Times {
        self.of(0..self.by_shard.len())
    }
}

/// What ops took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The longest; zero if there is none.
    pub(crate) fn slowest(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }

    /// The time within which so many in a hundred were over; zero if there is none.
    pub(crate) fn percentile(&mut self, percent: usize) -> Duration {
        let place = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        match self.0.is_empty() {
            true => Duration::ZERO,
            false => *self.0.select_nth_unstable(place).1,
        }
    }
}
