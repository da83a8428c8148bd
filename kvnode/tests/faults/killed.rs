//! A1: kill -9 under load. What was acknowledged is there after the restart, whole.

use std::time::{Duration, Instant};

use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    millis,
    oracle::{Oracle, Verdict},
    report::{self, Row},
    seeded,
    writers::{Load, Writers},
};

/// In one of eight nothing is lost.
const CONTROL_ROUNDS: u32 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_node_killed_under_load_loses_nothing() {
    let mut row = Row::begin("A1");
    row.rounds = if bar() { 100 } else { 5 };
    let killed = kill(row.rounds, "").await;
    killed.writes.assert_whole("after kill -9");
    row.writes = killed.writes;
    row.longest_gap_ms = Some(killed.longest_gap_ms);
    row.figures = format!(
        "ready again after {} ms (median), {} ms at most",
        killed.restarts[killed.restarts.len() / 2].as_millis(),
        killed.restarts[killed.restarts.len() - 1].as_millis()
    );
    row.save();
}

/// Answers that leave before the write are not kept by a node that dies between them.
#[tokio::test(flavor = "multi_thread")]
async fn a1_control_answers_before_the_write_are_lost() {
    let off = "off=answer_after_sync,crash=log.before_write:40";
    let mut rounds = 0;
    let killed = loop {
        rounds += 1;
        let killed = kill(1, off).await;
        // A node may die so fast that the answers die with it.
        if killed.writes.lost > 0 || rounds == CONTROL_ROUNDS {
            break killed;
        }
    };
    assert!(killed.writes.lost > 0, "{:?}", killed.writes);
    let found = format!(
        "{} acknowledged writes lost in {rounds} rounds",
        killed.writes.lost
    );
    report::save_control("A1", "answers wait for the sync", &found);
}

struct Killed {
    writes: Verdict,
    longest_gap_ms: u64,
    /// Ascending.
    restarts: Vec<Duration>,
}

/// Rounds of load, death and restart, each judged before anything is written again. With faults the node dies where
/// they say.
async fn kill(rounds: usize, faults: &'static str) -> Killed {
    let mut rng = seeded();
    let shape = Shape {
        faults,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let node = cluster.primary(0);
    let mut oracles = [Oracle::default()];
    let mut killed = Killed {
        writes: Verdict::default(),
        longest_gap_ms: 0,
        restarts: Vec::new(),
    };
    for run in 0..rounds {
        let load = Load {
            writers: 8,
            batch: 1 + rng.usize(..8),
            keys: 60,
            value_bytes: rng.usize(20..2_000),
            run,
        };
        let writers = Writers::start(&cluster, load);
        match faults {
            "" => {
                writers.wait_acked(rng.usize(100..800)).await;
                node.kill();
            }
            _ => assert_ne!(node.ended().await, 0),
        }
        let died = Instant::now();
        writers.stop(&mut oracles).await;
        killed.restarts.push(restart(node).await);
        let (lost, twice) = (killed.writes.lost, killed.writes.duplicated);
        killed.writes = oracles[0].verdict(node).await;
        killed.writes.lost += lost;
        killed.writes.duplicated += twice;
        node.put("after", "the restart").await;
        killed.longest_gap_ms = killed.longest_gap_ms.max(millis(died.elapsed()));
    }
    killed.restarts.sort_unstable();
    killed
}

/// Starts the node again, with nothing switched off; how long it took until it was ready.
async fn restart(node: &Node) -> Duration {
    let began = Instant::now();
    node.set_faults("");
    node.start().await;
    began.elapsed()
}
