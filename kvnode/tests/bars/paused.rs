//! Bar: replicas that stand still (SIGSTOP) cost no read more than a second, fail none, and are used again when they
//! go on; and the shards that have none of them do not notice.
//!
//! A paused node is the worst kind of gone: it accepts connections and says nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kvclient::Client;

use crate::{
    common::{addresses, builder},
    readers::{Readers, Reads, stats_of, store_keys},
    support::{
        bar,
        cluster::{Cluster, Node, Shape},
        eventually,
        report::{self, Row},
        seeded,
    },
};

const SHARDS: usize = 3;
const KEYS: usize = 3_000;

/// No read may take longer.
const LONGEST: Duration = Duration::from_secs(1);

/// What reads have in the control run.
const PATIENCE: Duration = Duration::from_secs(3);

/// Good answers after which a replica counts as used.
const USED: u64 = 20;

/// How much longer reads of the other shards may take, their 99th percentile.
const MOST_RATIO: f64 = 1.2;

const SHAPE: Shape = Shape {
    shards: SHARDS,
    replicas: 1,
    linked: false,
    flags: &[],
    faults: "",
};

/// A node that stands still until this is dropped.
struct Paused<'a>(&'a Node);

impl<'a> Paused<'a> {
    fn new(node: &'a Node) -> Self {
        node.pause();
        Self(node)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_replicas_that_stand_still_delay_their_own_shards_reads_a_little_and_no_others() {
    let mut row = Row::begin("D4");
    every_replica_stands_still(&mut row).await;
    row.figures.push_str("; ");
    row.figures.push_str(&one_stands_still().await);
    row.save();
}

/// With nothing but patience, a read waits for a node that stands still for as long as it has time.
#[tokio::test(flavor = "multi_thread")]
async fn d4_control_without_second_copies_and_short_attempts_reads_wait() {
    let mut rng = seeded();
    let cluster = Cluster::start(SHAPE).await;
    let (_, keys) = filled(&cluster).await;
    let patient = builder(&cluster, &addresses(&cluster))
        .without_hedging()
        .attempt_timeout(PATIENCE)
        .timeout(PATIENCE);
    let client = patient.build().expect("a client");
    let replicas: Vec<&Node> = (0..SHARDS).map(|shard| cluster.replica(shard, 0)).collect();
    let readers = Readers::start(vec![client.clone(); 16], &keys, &mut rng);
    wait_used(&client, &replicas).await;
    let paused: Vec<Paused<'_>> = replicas.iter().map(|node| Paused::new(node)).collect();
    tokio::time::sleep(PATIENCE).await;
    drop(paused);
    let reads = readers.stop().await;
    let slowest = reads.times().slowest();
    assert!(slowest > LONGEST, "{slowest:?}");
    let found = format!(
        "reads took up to {slowest:.1?}, {} failed",
        reads.failures.len()
    );
    report::save_control(
        "D4",
        "second copies of reads, and the time limit of an attempt",
        &found,
    );
}

async fn every_replica_stands_still(row: &mut Row) {
    let (rounds, tasks, pause) = match bar() {
        true => (5, 64, Duration::from_secs(10)),
        false => (1, 16, Duration::from_secs(2)),
    };
    let mut rng = seeded();
    let cluster = Cluster::start(SHAPE).await;
    let (client, keys) = filled(&cluster).await;
    let replicas: Vec<&Node> = (0..SHARDS).map(|shard| cluster.replica(shard, 0)).collect();
    let (mut slowest_of_all, mut all, mut last_used) = (Duration::ZERO, 0, Duration::ZERO);
    for round in 1..=rounds {
        let readers = Readers::start(vec![client.clone(); tasks], &keys, &mut rng);
        wait_used(&client, &replicas).await;
        let (before, stats) = (readers.done(), client.stats());
        let ejections = ejections(&client, &replicas);
        let paused: Vec<Paused<'_>> = replicas.iter().map(|node| Paused::new(node)).collect();
        tokio::time::sleep(pause).await;
        drop(paused);
        let resumed = Instant::now();
        let meanwhile = readers.done() - before;
        wait_used(&client, &replicas).await;
        let used_after = resumed.elapsed();
        let reads = readers.stop().await;
        report(round, &reads, meanwhile);
        eprintln!(
            "bar 1: round {round}: {} hedges, {} retries, replicas used again {used_after:.1?} after they went on",
            client.stats().hedges - stats.hedges,
            client.stats().retries - stats.retries
        );
        assert!(reads.failures.is_empty(), "{:#?}", reads.failures);
        let slowest = reads.times().slowest();
        assert!(slowest <= LONGEST, "a read took {slowest:?}");
        (slowest_of_all, all) = (slowest_of_all.max(slowest), all + meanwhile);
        last_used = last_used.max(used_after);
        // Else they did not stand still.
        assert!(ejections_since(&client, &replicas, &ejections) > 0);
    }
    row.rounds = rounds * SHARDS;
    row.figures = format!(
        "{all} reads while all {SHARDS} replicas stood still {pause:?}, {rounds} times: none failed, slowest \
         {slowest_of_all:.1?}, used again within {last_used:.1?}"
    );
}

/// Windows with and without the pause alternate, so that whatever else this machine does meets both.
async fn one_stands_still() -> String {
    let (pairs, tasks, window) = match bar() {
        true => (15, 64, Duration::from_secs(2)),
        false => (1, 16, Duration::from_millis(500)),
    };
    let mut rng = seeded();
    let cluster = Cluster::start(SHAPE).await;
    let (client, keys) = filled(&cluster).await;
    let replica = cluster.replica(0, 0);
    let (mut before, mut paused, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = async |p99s: &mut Vec<Duration>| {
        let readers = Readers::start(vec![client.clone(); tasks], &keys, &mut rng);
        let reads = readers.stop_after(window).await;
        p99s.push(reads.of(1..SHARDS).percentile(99));
        failures.extend(reads.failures);
    };
    let mut warm_up = Vec::new();
    read(&mut warm_up).await;
    for _ in 0..pairs {
        read(&mut before).await;
        let guard = Paused::new(replica);
        read(&mut paused).await;
        drop(guard);
        // Whether it is used again is the other test's; here its second is over before the next window begins.
        eventually("the replica answers again", async || {
            read(&mut warm_up).await;
            let stats = stats_of(&client, &replica.address);
            (!stats.is_ejected).then_some(())
        })
        .await;
    }
    let (before, paused) = (median(before), median(paused));
    let ratio = paused.as_secs_f64() / before.as_secs_f64();
    let figures = format!(
        "p99 of the other two shards, median of {pairs} windows of {window:?}, {tasks} tasks: {before:.1?} before, \
         {paused:.1?} with one shard's replica paused: {ratio:.2} times as long"
    );
    eprintln!("bar 1: {figures}");
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(!bar() || ratio <= MOST_RATIO, "{ratio:.2}");
    figures
}

/// A client of the cluster, and the keys that are on every node.
async fn filled(cluster: &Cluster) -> (Client, Arc<[String]>) {
    let client = builder(cluster, &addresses(cluster)).build();
    let client = client.expect("a client");
    let keys = store_keys(&client, KEYS).await;
    for shard in 0..SHARDS {
        let end = cluster.primary(shard).at("durable").await;
        let replica = cluster.replica(shard, 0);
        replica.wait_visible(end, "it has all keys").await;
    }
    (client, keys)
}

fn ejections(client: &Client, nodes: &[&Node]) -> Vec<u64> {
    let of = |node: &&Node| stats_of(client, &node.address).ejections;
    nodes.iter().map(of).collect()
}

fn ejections_since(client: &Client, nodes: &[&Node], before: &[u64]) -> u64 {
    let now = ejections(client, nodes);
    let more = now.iter().zip(before).map(|(now, before)| now - before);
    more.min().unwrap_or(0)
}

/// Waits until each of the nodes has given some more good answers.
async fn wait_used(client: &Client, nodes: &[&Node]) {
    let good = |node: &Node| {
        let stats = stats_of(client, &node.address);
        stats.ops - stats.errors
    };
    for node in nodes {
        let before = good(node);
        eventually(&format!("{} is used", node.address), async || {
            (good(node) >= before + USED).then_some(())
        })
        .await;
    }
}

fn report(round: usize, reads: &Reads, meanwhile: usize) {
    let mut times = reads.times();
    eprintln!(
        "bar 1: round {round}: {} reads, {meanwhile} of them while all {SHARDS} replicas stood still: {} failed, p50 \
         {:.1?}, p99 {:.1?}, slowest {:.1?}",
        times.count(),
        reads.failures.len(),
        times.percentile(50),
        times.percentile(99),
        times.slowest()
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
