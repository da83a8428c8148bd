//! kill -9 under load: what was acknowledged is there afterwards, whole, and both logs are the same bytes.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    cluster::{Cluster, Node, Shape, equal_logs},
    oracle::Oracle,
    seeded, slow,
    writers::{Load, Writers},
};

/// How close together all nodes are killed.
const KILLED_WITHIN: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_under_load_keeps_what_it_acknowledged() {
    let mut rng = seeded();
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let mut oracles = [Oracle::default()];
    for run in 0..if slow() { 20 } else { 5 } {
        let load = Load {
            writers: 8,
            batch: 1 + rng.usize(..8),
            keys: 60,
            value_bytes: rng.usize(20..2_000),
            run,
        };
        let writers = Writers::start(&cluster, load);
        writers.wait_acked(rng.usize(100..800)).await;
        node.kill();
        writers.stop(&mut oracles).await;
        node.start().await;
        let losses = oracles[0].losses(node).await;
        assert!(losses.is_empty(), "round {run}: {losses:#?}");
    }
    eprintln!(
        "{} acknowledged, {} unknown, 0 lost",
        oracles[0].acked, oracles[0].unknown
    );
    node.stop().await;
    let (code, text) = check(node);
    assert_eq!(code, 0, "{text}");
}

/// Rounds of: 16 writers, all nodes of three shards with a replica each killed within 100 ms, restarted.
#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_lose_nothing() {
    let mut rng = seeded();
    let (rounds, least) = if slow() { (10, 20_000) } else { (3, 3_000) };
    let shape = Shape {
        shards: 3,
        replicas: 1,
        flags: &["--checkpoint-every", "500"],
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let mut oracles = [(); 3].map(|()| Oracle::default());
    let mut slowest_kill = Duration::ZERO;
    for run in 0..rounds {
        let load = Load {
            writers: 16,
            batch: 1 + rng.usize(..8),
            keys: 100,
            value_bytes: rng.usize(20..500),
            run,
        };
        let writers = Writers::start(&cluster, load);
        writers.wait_acked(least / rounds + rng.usize(..500)).await;
        let began = Instant::now();
        for node in cluster.nodes() {
            node.signal(Signal::KILL);
        }
        slowest_kill = slowest_kill.max(began.elapsed());
        for node in cluster.nodes() {
            assert_eq!(node.ended().await, -9, "{}", node.said());
        }
        writers.stop(&mut oracles).await;
        cluster.start_all().await;
        for (shard, oracle) in oracles.iter().enumerate() {
            let losses = oracle.losses(cluster.primary(shard)).await;
            assert!(losses.is_empty(), "round {run}, shard {shard}: {losses:#?}");
        }
    }
    let mut common_bytes = 0;
    for (shard, oracle) in oracles.iter().enumerate() {
        let (primary, replica) = (cluster.primary(shard), cluster.replica(shard, 0));
        let end = primary.at("durable").await;
        replica
            .wait_visible(end, "the replica is level again")
            .await;
        let losses = oracle.losses(replica).await;
        assert!(losses.is_empty(), "replica of shard {shard}: {losses:#?}");
        common_bytes += equal_logs(primary, replica).await;
    }
    let acked: usize = oracles.iter().map(|oracle| oracle.acked).sum();
    let unknown: usize = oracles.iter().map(|oracle| oracle.unknown).sum();
    eprintln!(
        "{rounds} rounds, {acked} acknowledged, {unknown} unknown, 0 lost; {common_bytes} bytes of log equal; killed \
         within {slowest_kill:?}"
    );
    assert!(acked >= least, "only {acked} writes were acknowledged");
    assert!(slowest_kill <= KILLED_WITHIN, "{slowest_kill:?}");
}

fn check(node: &Node) -> (i32, String) {
    let data = node.data.to_str().expect("UTF-8");
    Node::run(&["check", "--data", data])
}
