//! B1: a replica killed -9 again and again while its primary is written to. It catches up by the log alone.

use std::time::Instant;

use super::{differing, entries, level};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape, equal_logs},
    millis,
    oracle::{Oracle, Verdict},
    report::{self, Row},
    seeded,
    writers::{Load, Writers},
};

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_replica_killed_under_load_catches_up_by_the_log() {
    let mut row = Row::begin("B1");
    let (kills, writes) = if bar() { (20, 100_000) } else { (5, 3_000) };
    let run = run(kills, writes, "").await;
    assert_eq!(run.differing, 0, "of {} keys", run.keys);
    run.writes.assert_whole("on the replica");
    row.rounds = kills;
    row.writes = run.writes;
    row.longest_gap_ms = Some(run.longest_gap_ms);
    row.figures = format!(
        "no snapshot; {} bytes of log equal; {} of {} keys differ; caught up {} records in {} ms: {} records/s",
        run.log_bytes,
        run.differing,
        run.keys,
        run.behind,
        run.caught_up_ms,
        run.behind * 1_000 / run.caught_up_ms.max(1)
    );
    row.save();
}

/// A replica that leaves out records has the same log and other entries: only a comparison of entries finds that.
#[tokio::test(flavor = "multi_thread")]
async fn b1_control_records_that_a_replica_leaves_out_are_found() {
    let run = run(1, 500, "off=apply_all").await;
    assert!(run.differing > 0 && run.writes.lost > 0, "{run:?}");
    let found = format!(
        "{} of {} keys differ, though the logs are equal",
        run.differing, run.keys
    );
    report::save_control("B1", "the replica applies every record", &found);
}

#[derive(Debug)]
struct Run {
    /// As the replica has them.
    writes: Verdict,
    longest_gap_ms: u64,
    log_bytes: usize,
    keys: usize,
    differing: usize,
    /// Records that the replica lacked when it was started for the last time, and how long it took them.
    behind: u64,
    caught_up_ms: u64,
}

async fn run(kills: usize, writes: usize, faults: &str) -> Run {
    let mut rng = seeded();
    let cluster = Cluster::prepare(Shape::pair());
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    replica.set_faults(faults);
    cluster.start_all().await;
    let writers = Writers::start(
        &cluster,
        Load {
            writers: 4,
            batch: 8,
            keys: writes / 10,
            value_bytes: 60,
            run: 0,
        },
    );
    let share = writes / (kills + 1);
    for kill in 0..kills {
        writers.wait_acked(kill * share + rng.usize(..share)).await;
        replica.kill();
        writers
            .wait_acked(writers.acked() + rng.usize(..share))
            .await;
        start(replica).await;
    }
    writers.wait_acked(writes - share).await;
    let held = replica.at("durable").await;
    replica.kill();
    writers
        .wait_acked(writes.max(writers.acked() + share))
        .await;
    let longest_gap_ms = writers.longest_gap_ms();
    let mut oracles = [Oracle::default()];
    writers.stop(&mut oracles).await;

    let began = Instant::now();
    start(replica).await;
    let end = level(primary, replica).await;
    let caught_up_ms = millis(began.elapsed());
    let log_bytes = equal_logs(primary, replica).await;
    let (ours, theirs) = (entries(primary).await, entries(replica).await);
    assert_eq!(replica.at("visible").await, end);
    assert_eq!(primary.status().await["truncated"], 0);
    assert!(
        !replica.said().contains("takes a snapshot"),
        "{}",
        replica.said()
    );
    Run {
        writes: oracles[0].verdict(replica).await,
        longest_gap_ms,
        log_bytes,
        keys: ours.len(),
        differing: differing(&ours, &theirs),
        behind: end.seq - held.seq,
        caught_up_ms,
    }
}

/// Starts it after a kill; what it did before was done without a snapshot.
async fn start(replica: &Node) {
    assert!(
        !replica.said().contains("takes a snapshot"),
        "{}",
        replica.said()
    );
    replica.start().await;
}
