//! A read that takes long is asked a second time elsewhere; the first answer counts.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use kvclient::{
    CallHistory, Client, ClientBuilder, Consistency, GetOptions, NodeStats, Stats, Why,
    policy::{Candidates, ReadPolicy, ReadRequest},
    wire::error::ErrorCode,
};
use support::{Cluster, Reply, found, refused, stored};
use tokio::time::sleep;

/// Reads that pay for one second copy.
const READS_PER_COPY: u64 = 20;

/// Longer than any second copy waits here, and within one attempt.
const SLOW_MS: u64 = 350;

/// The replica for as long as it may be asked.
#[derive(Debug)]
struct Last;

impl ReadPolicy for Last {
    fn choose(&self, _: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
        candidates.len() - 1
    }
}

/// A pair whose replica, which every read prefers, can be made slow.
struct Pair {
    cluster: Cluster,
    kv: Client,
    is_slow: Arc<AtomicBool>,
}

impl Pair {
    async fn start(slow: Reply, settings: impl Fn(ClientBuilder) -> ClientBuilder) -> Self {
        let cluster = Cluster::start(1, 1).await;
        cluster.primary(0).script(|op| match op.action.is_write() {
            true => stored(1).late(SLOW_MS),
            false => found("primary", 1),
        });
        let is_slow = Arc::new(AtomicBool::new(false));
        let switch = is_slow.clone();
        cluster
            .replica(0, 0)
            .script(move |_| match switch.load(SeqCst) {
                true => slow.clone(),
                false => found("replica", 1),
            });
        let builder = cluster.builder().read_policy(Last);
        let kv = settings(builder).build().unwrap();
        Self {
            cluster,
            kv,
            is_slow,
        }
    }

    async fn read(&self) -> String {
        let value = self.kv.get("k").await.unwrap().unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    }

    /// Reads from the fast replica until so many second copies are paid for. A busy machine may use some meanwhile.
    async fn save_up(&self, copies: u64) -> Stats {
        for _ in 0..2_000 {
            let stats = self.kv.stats();
            if stats.ops >= (stats.hedges + copies) * READS_PER_COPY {
                return stats;
            }
            self.read().await;
        }
        panic!("all is spent at once: {:?}", self.kv.stats());
    }

    fn slow_down(&self) {
        self.is_slow.store(true, SeqCst);
    }
}

fn late(text: &str) -> Reply {
    found(text, 1).late(SLOW_MS)
}

#[tokio::test]
async fn the_faster_copy_of_a_slow_read_wins() {
    let pair = Pair::start(late("replica"), |builder| builder).await;
    let before = pair.save_up(2).await;
    pair.slow_down();
    let history = CallHistory::new();
    let began = Instant::now();
    let value = pair.kv.with_history(&history).get("k").await.unwrap();
    assert_eq!(value.as_deref(), Some(&b"primary"[..]));
    let took = began.elapsed();
    assert!(took < Duration::from_millis(SLOW_MS), "{took:?}\n{history}");

    let attempts = history.attempts();
    let whys: Vec<Why> = attempts.iter().map(|one| one.why).collect();
    assert_eq!(
        whys,
        [Why::Hedge, Why::Chosen],
        "in the order of their ends"
    );
    let (copy, first) = (&attempts[0], &attempts[1]);
    assert_eq!(copy.end, "200");
    assert_eq!(first.end, "outrun by the other copy");
    assert_eq!(first.node, pair.cluster.replica(0, 0).address);
    assert_eq!(first.after, Duration::ZERO, "{history}");
    assert!(copy.after > first.after, "the copy left later: {history}");
    assert!(
        history.to_string().contains(", hedge: 200 in "),
        "{history}"
    );

    let stats = pair.kv.stats();
    let more = |of: fn(&Stats) -> u64| of(&stats) - of(&before);
    assert_eq!((more(|all| all.hedges), more(|all| all.hedges_won)), (1, 1));
    let by_primary = |of: fn(&NodeStats) -> u64| of(&stats.nodes[0]) - of(&before.nodes[0]);
    let hedges = (
        by_primary(|node| node.hedges),
        by_primary(|node| node.hedges_won),
    );
    assert_eq!(hedges, (1, 1));
    assert!(stats.nodes.iter().all(|node| node.in_flight == 0));
}

#[tokio::test]
async fn a_copy_that_is_slower_or_fails_changes_nothing() {
    for copy in [
        Reply::Hang,
        Reply::Break,
        refused(ErrorCode::NotReady, None),
    ] {
        let pair = Pair::start(found("replica", 1).late(200), |builder| builder).await;
        let before = pair.save_up(2).await;
        let told = copy.clone();
        pair.cluster.primary(0).script(move |_| told.clone());
        pair.slow_down();
        assert_eq!(pair.read().await, "replica", "{copy:?}");
        let stats = pair.kv.stats();
        let hedges = (
            stats.hedges - before.hedges,
            stats.hedges_won - before.hedges_won,
        );
        assert_eq!(hedges, (1, 0), "{copy:?}");
    }
}

#[tokio::test]
async fn a_node_that_never_answers_is_outrun_and_then_ejected() {
    let pair = Pair::start(Reply::Hang, |builder| builder).await;
    let before = pair.save_up(6).await;
    pair.slow_down();
    let replica = pair.cluster.replica(0, 0);
    replica.forget_ops();
    for _ in 0..8 {
        assert_eq!(pair.read().await, "primary");
        // Those that come closer together count once.
        sleep(Duration::from_millis(12)).await;
    }
    assert_eq!(replica.ops().len(), 3, "outrun three times");
    let stats = pair.kv.stats();
    let replica = &stats.nodes[1];
    assert!(replica.is_ejected, "{stats:?}");
    assert_eq!(stats.hedges_won - before.hedges_won, 3);
}

#[tokio::test]
async fn second_copies_are_few() {
    // Every twentieth read stalls, and then every second: copies stay at one in twenty, and what was saved up.
    let cluster = Cluster::start(1, 1).await;
    let count = AtomicUsize::new(0);
    cluster.primary(0).script(|_| found("v", 1));
    cluster
        .replica(0, 0)
        .script(move |_| match count.fetch_add(1, SeqCst) % 2 {
            0 => found("v", 1).late(12),
            _ => found("v", 1),
        });
    let kv = cluster.builder().read_policy(Last).build().unwrap();
    let reads = 120;
    for _ in 0..reads {
        kv.get("k").await.unwrap();
    }
    let stats = kv.stats();
    assert!(
        stats.hedges <= reads / 20,
        "{} copies of {reads} reads",
        stats.hedges
    );
    assert_eq!(stats.ops, reads);
}

#[tokio::test]
async fn without_hedging_none_is_sent() {
    let pair = Pair::start(late("replica"), ClientBuilder::without_hedging).await;
    for _ in 0..2 * READS_PER_COPY {
        pair.read().await;
    }
    pair.slow_down();
    assert_eq!(pair.read().await, "replica", "it is waited for");
    assert_eq!(pair.kv.stats().hedges, 0);
    assert_eq!(pair.cluster.primary(0).ops().len(), 0);
}

#[tokio::test]
async fn neither_writes_nor_reads_of_one_node_have_copies() {
    let pair = Pair::start(late("replica"), |builder| builder).await;
    let before = pair.save_up(5).await;
    pair.slow_down();
    let here = pair.cluster.replica(0, 0).address.clone();
    let strict = GetOptions::new().consistency(Consistency::Primary);
    let (put, bound, primary) = tokio::join!(
        pair.kv.put("k", "v"),
        pair.kv.get_with("k", GetOptions::new().node(here)),
        pair.kv.get_with("k", strict),
    );
    assert!(put.is_ok() && bound.is_ok() && primary.is_ok());
    assert_eq!(pair.kv.stats().hedges, before.hedges);
    let ops = pair.cluster.primary(0).ops();
    let writes = ops.iter().filter(|op| op.action.is_write());
    assert_eq!(writes.count(), 1);
}
