//! A4: death at each named point (`kvclient::faults::POINTS`). Whatever was half done there, nothing is lost.
//!
//! Points lie where a node comes to them: under load, at its start, on a replica that pulls, on one that takes a
//! snapshot. A node that did not die where it should fails the test.

use kvclient::faults::POINTS;

use super::ledger::{Ledger, restart};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    oracle::Verdict,
    report::{self, Row},
    seeded,
    writers::{Load, Writers},
};

/// A point, and how often it may be passed before the process dies there.
type Point = (&'static str, std::ops::Range<u64>);

const UNDER_LOAD: &[Point] = &[
    ("log.before_write", 2..60),
    ("log.before_sync", 2..60),
    ("log.after_sync", 2..60),
    ("commit.before_publish", 2..60),
    ("commit.before_answer", 2..60),
    ("flush.before_commit", 1..9),
    ("flush.after_commit", 1..9),
    ("segment.given_free", 1..3),
];
/// Where no segment is used again, so that each that is begun is a new one.
const NEW_SEGMENTS: &[Point] = &[
    ("spare.synced", 1..2),
    ("segment.header_synced", 1..2),
    ("segment.renamed", 1..2),
];
const AT_START: &[Point] = &[("recovery.rewritten", 1..2), ("reign.appended", 1..2)];
const PULLING: &[Point] = &[("log.window_written", 1..5), ("puller.appended", 1..20)];
/// The marker is replaced twice, CURRENT once between.
const COPYING: &[Point] = &[
    ("file.written", 1..4),
    ("file.renamed", 1..4),
    ("generation.named", 1..2),
    ("generation.current", 1..2),
    ("snapshot.piece_stored", 1..2),
    ("snapshot.before_force", 1..2),
    ("snapshot.in_force", 1..2),
];

#[tokio::test(flavor = "multi_thread")]
async fn a4_death_at_each_point_loses_nothing() {
    let all = [UNDER_LOAD, NEW_SEGMENTS, AT_START, PULLING, COPYING].concat();
    let forgotten: Vec<_> = POINTS
        .iter()
        .filter(|point| all.iter().all(|(name, _)| name != *point))
        .collect();
    assert!(forgotten.is_empty(), "never reached: {forgotten:?}");
    let mut row = Row::begin("A4");
    let rounds = if bar() { 20 } else { 1 };
    let (loaded, began, started, pulled, copied) = tokio::join!(
        under_load(UNDER_LOAD, shape(0), rounds),
        under_load(NEW_SEGMENTS, Shape::default(), rounds),
        at_start(rounds),
        pulling(rounds),
        copying(rounds)
    );
    for writes in [loaded, began, started, pulled, copied] {
        row.writes.add(writes);
    }
    row.writes.assert_whole("after death at a point");
    row.rounds = rounds * all.len();
    row.figures = format!(
        "{} points, each died at {rounds} times, as its last words say",
        all.len()
    );
    row.save();
}

/// Where the frame is not yet written, answers that have left are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a4_control_answers_before_the_point_are_lost() {
    let mut lost = Vec::new();
    for (nth, point) in ["log.before_write", "segment.header_synced"]
        .iter()
        .enumerate()
    {
        let cluster = Cluster::start(shape(0)).await;
        let node = cluster.primary(0);
        node.kill();
        let mut ledger = Ledger::default();
        let faults = format!("off=answer_after_sync,crash={point}:{}", [40, 1][nth]);
        let writers = dying(&cluster, node, &faults, nth, &[]);
        died_at(node, point).await;
        ledger.close(writers).await;
        restart(node).await;
        ledger.judge(node).await;
        assert!(ledger.writes.lost > 0, "{point}: {:?}", ledger.writes);
        lost.push(format!("{} at {point}", ledger.writes.lost));
    }
    let found = format!(
        "acknowledged writes lost in 1 death each: {}",
        lost.join(", ")
    );
    report::save_control("A4", "answers wait for the sync", &found);
}

fn shape(replicas: usize) -> Shape {
    Shape {
        replicas,
        flags: &["--log-retention", "1MiB"],
        ..Shape::default()
    }
}

fn load(run: usize) -> Load {
    Load {
        writers: 8,
        batch: 4,
        keys: 8,
        value_bytes: 2_000,
        run,
    }
}

/// Starts a node that will die, and writers to the primary.
fn dying(cluster: &Cluster, node: &Node, faults: &str, run: usize, extra: &[&str]) -> Writers {
    node.set_faults(faults);
    node.spawn(extra);
    Writers::start(cluster, load(run))
}

async fn died_at(node: &Node, point: &str) {
    let (code, said) = (node.ended().await, node.said());
    let words = format!("KV_FAULTS: dies at {point}");
    assert!(
        code != 0 && said.contains(&words),
        "{point}: ended with {code}: {said}"
    );
}

/// Each point of a list so many times: its faults, and a number for the round.
fn deaths(points: &[Point], rounds: usize) -> Vec<(&'static str, String, usize)> {
    let mut rng = seeded();
    let mut all = Vec::new();
    for (name, passes) in points {
        for _ in 0..rounds {
            let faults = format!("crash={name}:{}", rng.u64(passes.clone()));
            all.push((*name, faults, all.len() + 1));
        }
    }
    all
}

async fn under_load(points: &[Point], shape: Shape, rounds: usize) -> Verdict {
    let cluster = Cluster::start(shape).await;
    let node = cluster.primary(0);
    let mut ledger = Ledger::default();
    for (point, faults, run) in deaths(points, rounds) {
        node.kill();
        let writers = dying(&cluster, node, &faults, run, &[]);
        died_at(node, point).await;
        ledger.close(writers).await;
        restart(node).await;
        ledger.judge(node).await;
    }
    ledger.writes
}

async fn at_start(rounds: usize) -> Verdict {
    let cluster = Cluster::start(shape(0)).await;
    let node = cluster.primary(0);
    let mut ledger = Ledger::default();
    for (point, faults, run) in deaths(AT_START, rounds) {
        let writers = Writers::start(&cluster, load(run));
        writers.wait_acked(100).await;
        node.kill();
        ledger.close(writers).await;
        node.set_faults(&faults);
        node.spawn(&[]);
        died_at(node, point).await;
        restart(node).await;
        ledger.judge(node).await;
    }
    ledger.writes
}

async fn pulling(rounds: usize) -> Verdict {
    on_a_replica(PULLING, rounds, &[]).await
}

async fn copying(rounds: usize) -> Verdict {
    on_a_replica(COPYING, rounds, &["--rejoin"]).await
}

/// The replica dies while its primary is under load, and is judged once it is level again.
async fn on_a_replica(points: &[Point], rounds: usize, extra: &[&str]) -> Verdict {
    let cluster = Cluster::start(shape(1)).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    primary.put("something", "to copy").await;
    let mut ledger = Ledger::default();
    for (point, faults, run) in deaths(points, rounds) {
        replica.kill();
        let writers = dying(&cluster, replica, &faults, run, extra);
        died_at(replica, point).await;
        ledger.close(writers).await;
        restart(replica).await;
        let end = primary.at("durable").await;
        replica.wait_visible(end, "the replica is level").await;
        ledger.judge(replica).await;
    }
    ledger.writes
}
