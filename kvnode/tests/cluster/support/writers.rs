//! Writers under load: each puts batches of its own keys to one primary and tells the oracle what it was told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvclient::{
    attempt::Outcome as Attempted,
    key::Key,
    node_client::{NodeClient, NodeClientOptions},
    shard_map::Address,
    wire::{
        batch::{Ack, Action, Op, OpResult},
        error::Applied,
    },
};
use tokio::task::JoinSet;

use super::{
    cluster::Cluster,
    eventually, key_in, millis,
    oracle::{Oracle, Outcome},
};

/// Writers at work, spread over the shards of a cluster.
pub(crate) struct Writers {
    tasks: JoinSet<(usize, Oracle)>,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicUsize>,
    gap: Arc<Gap>,
}

/// The longest time in which nothing was acknowledged.
#[derive(Debug)]
pub(crate) struct Gap {
    began: Instant,
    /// When something last was, and the longest pause so far, in ms since `began`.
    last_ms: AtomicU64,
    longest_ms: AtomicU64,
}

impl Gap {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
            longest_ms: AtomicU64::new(0),
        }
    }

    /// Something is, now.
    pub(crate) fn acknowledged(&self) {
        let now = millis(self.began.elapsed());
        let last = self.last_ms.fetch_max(now, Ordering::Relaxed);
        self.longest_ms
            .fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }

    /// The longest time so far, in ms.
    pub(crate) fn longest_ms(&self) -> u64 {
        self.longest_ms.load(Ordering::Relaxed)
    }
}

/// What the writers of one run do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) writers: usize,
    /// Ops in a batch.
    pub(crate) batch: usize,
    /// Keys of each writer, written again and again.
    pub(crate) keys: usize,
    pub(crate) value_bytes: usize,
    /// Distinguishes the keys of this run from those of others.
    pub(crate) run: usize,
}

impl Writers {
    /// Starts them.
    pub(crate) fn start(cluster: &Cluster, load: Load) -> Self {
        Self::start_with_ack(cluster, load, None)
    }

    /// Starts them; each of their writes is acknowledged by others than the primary too.
    pub(crate) fn start_with_ack(cluster: &Cluster, load: Load, ack: Option<Ack>) -> Self {
        let client = NodeClient::new(NodeClientOptions::default()).expect("a client");
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let gap = Arc::new(Gap::new());
        let shards = cluster.shape.shards;
        let mut tasks = JoinSet::new();
        for number in 0..load.writers {
            let shard = number % shards;
            let mut writer = Writer {
                client: client.clone(),
                primary: cluster.primary(shard).to_address(),
                keys: (0..load.keys)
                    .map(|key| key_in(shard, shards, &format!("r{}w{number}k{key}:", load.run)))
                    .collect(),
                load,
                ack,
                oracle: Oracle::default(),
                acked: Arc::clone(&acked),
                gap: Arc::clone(&gap),
            };
            let stop = Arc::clone(&stop);
            tasks.spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    writer.write_batch(round).await;
                    round += 1;
                }
                (shard, writer.oracle)
            });
        }
        Self {
            tasks,
            stop,
            acked,
            gap,
        }
    }

    /// Writes that are acknowledged so far.
    pub(crate) fn acked(&self) -> usize {
        self.acked.load(Ordering::Relaxed)
    }

    /// The longest time so far in which no write was acknowledged, by whatever shard, in ms.
    pub(crate) fn longest_gap_ms(&self) -> u64 {
        self.gap.longest_ms()
    }

    /// Waits until so many writes are acknowledged.
    pub(crate) async fn wait_acked(&self, count: usize) {
        eventually(&format!("{count} writes are acknowledged"), async || {
            (self.acked() >= count).then_some(())
        })
        .await;
    }

    /// Ends them after their current batch; what each shard was told.
    pub(crate) async fn stop(mut self, oracles: &mut [Oracle]) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            let (shard, oracle) = ended.expect("a writer does not panic");
            oracles[shard].merge(oracle);
        }
    }
}

struct Writer {
    client: NodeClient,
    primary: Address,
    keys: Vec<String>,
    load: Load,
    ack: Option<Ack>,
    oracle: Oracle,
    acked: Arc<AtomicUsize>,
    gap: Arc<Gap>,
}

impl Writer {
    async fn write_batch(&mut self, round: usize) {
        let mut ops = Vec::with_capacity(self.load.batch);
        for n in 0..self.load.batch {
            let number = round * self.load.batch + n;
            let key = &self.keys[number % self.keys.len()];
            let mut op = put(key, number, self.load.value_bytes);
            op.terms.ack = self.ack;
            ops.push(op);
        }
        let answer = self
            .client
            .batch(&self.primary, &ops, Duration::from_secs(10))
            .await;
        match answer {
            Ok(answer) => {
                for (op, result) in ops.iter().zip(answer.results) {
                    self.note(op, outcome(&result));
                }
            }
            Err(error) if error.outcome() == Attempted::NotApplied => {
                // The node is down or not ready: no need to ask as fast as the machine can.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(_) => ops
                .iter()
                .for_each(|op| self.note(op, Some(Outcome::Unknown))),
        }
    }

    fn note(&mut self, op: &Op, outcome: Option<Outcome>) {
        let (Action::Put { value, .. }, Some(outcome)) = (&op.action, outcome) else {
            return;
        };
        if matches!(outcome, Outcome::Acked(_)) {
            self.acked.fetch_add(1, Ordering::Relaxed);
            self.gap.acknowledged();
        }
        self.oracle.wrote(&op.key, value.clone(), outcome);
    }
}

/// A value that names its key and number, so that a wrong or torn one shows.
fn put(key: &str, number: usize, value_bytes: usize) -> Op {
    let mut value = format!("{key}#{number}#");
    while value.len() < value_bytes {
        value.push(char::from(
            b'a' + u8::try_from(number % 26).expect("below 26"),
        ));
    }
    let action = Action::Put {
        value: Bytes::from(value),
        ttl_ms: None,
    };
    Op::new(Key::new(key.to_owned()).expect("a key"), action)
}

/// `None` if the write surely did not take place.
fn outcome(result: &OpResult) -> Option<Outcome> {
    match (result.applied, result.position) {
        (Some(Applied::Yes), Some(position)) => Some(Outcome::Acked(position)),
        (Some(Applied::No), _) => None,
        _ => Some(Outcome::Unknown),
    }
}
