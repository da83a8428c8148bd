//! B6: what a primary sends is changed on the way. Nothing of it is taken, and the replica goes on by itself.
//!
//! The links know what a replica asks for next, so each changed answer is judged on its own: had anything of it been
//! taken, the next pull would begin elsewhere. Several replicas are struck at once, since each waits a little after
//! every failure. HTTP around the bodies stays intact, or the client library would find most of it first.

use std::time::Duration;

use super::{FORGETFUL, assert_equal, differing, entries, level, said, write_beyond_retention};
use crate::support::{
    bar,
    cluster::{Cluster, Shape},
    eventually,
    link::{
        Link,
        mutate::{Change, Mutator, Tally},
    },
    oracle::{Oracle, Verdict},
    report::{self, Row},
    seeded,
    writers::{Load, Writers},
};

/// Small frames, so that many come in an answer.
const LOAD: Load = Load {
    writers: 3,
    batch: 1,
    keys: 50,
    value_bytes: 60,
    run: 0,
};

/// A snapshot here has more pieces than these, so that one of them is changed in every stream.
const PIECES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn b6_a_stream_that_is_changed_on_the_way_is_refused() {
    let mut row = Row::begin("B6");
    let (replicas, pulls, copies) = if bar() { (8, 1_225, 25) } else { (4, 71, 4) };
    let linked = Shape {
        replicas,
        linked: true,
        ..Shape::default()
    };
    // All of the log is there: changed answers hold replicas up while others write, and none may need a copy for it.
    let (tally, writes) = {
        let cluster = Cluster::start(linked).await;
        let changed = change_pulls(&cluster, Change::ALL, pulls).await;
        for number in 0..replicas {
            assert_equal(cluster.primary(0), cluster.replica(0, number)).await;
        }
        changed
    };
    let cluster = Cluster::start(Shape {
        flags: FORGETFUL,
        ..linked
    })
    .await;
    let streams = change_snapshots(&cluster, copies).await;
    assert_eq!(tally.applied + streams.applied, 0, "{tally:?} {streams:?}");
    row.rounds = tally.changed + streams.changed;
    row.writes = writes;
    row.figures = format!(
        "{} answers to pulls and {} snapshot streams changed on the way to {replicas} replicas, all through the \
         proxy: 0 applied; all logs and entries equal afterwards",
        tally.changed, streams.changed
    );
    row.save();
}

/// Without checksums and chain the same changes are believed.
#[tokio::test(flavor = "multi_thread")]
async fn b6_control_changed_bytes_are_believed() {
    const CHANGES: usize = 40;
    let cluster = Cluster::prepare(Shape {
        linked: true,
        ..Shape::pair()
    });
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    replica.set_faults("off=frame_checksums,off=chain");
    cluster.start_all().await;
    let writers = Writers::start(&cluster, LOAD);
    let link = cluster.link(0, 0);
    link.mutate(Mutator::new(seeded().fork(), &[Change::Flip], 2, CHANGES));
    // A replica that believes them stops as soon as it compares its sums with the primary's: before the last change, or
    // behind it, and then it never becomes level.
    let is_found_out = || replica.said().contains("sums of this replica differ");
    eventually("answers are changed on the way", async || {
        (is_found_out() || link.tally().changed >= CHANGES).then_some(())
    })
    .await;
    writers.stop(&mut [Oracle::default()]).await;
    let level = level(primary, replica);
    let stopped = async {
        while !is_found_out() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::select! {
        biased;
        () = stopped => "they were taken, and the replica's sums differ from the primary's".to_owned(),
        _ = level => {
            let differing = differing(&entries(primary).await, &entries(replica).await);
            let tally = link.tally();
            assert!(tally.applied > 0 && differing > 0, "{tally:?} {differing}");
            format!(
                "{} of {} changed answers were taken, {differing} keys differ",
                tally.applied, tally.changed
            )
        }
    };
    report::save_control("B6", "checksums and chain of frames", &found);
}

/// Changes about every other answer until so many were changed on each link, while writes go on, and lets the replicas
/// become level.
async fn change_pulls(
    cluster: &Cluster,
    changes: &'static [Change],
    each: usize,
) -> (Tally, Verdict) {
    let mut rng = seeded();
    let writers = Writers::start(cluster, LOAD);
    let links = links(cluster);
    for link in &links {
        link.mutate(Mutator::new(rng.fork(), changes, 2, each));
    }
    wait_changed(&links, each).await;
    let mut oracles = [Oracle::default()];
    writers.stop(&mut oracles).await;
    for number in 0..links.len() {
        level(cluster.primary(0), cluster.replica(0, number)).await;
    }
    let verdict = oracles[0].verdict(cluster.primary(0)).await;
    (tally(&links), verdict)
}

/// Lets every replica need a snapshot, and changes the streams until so many were changed on each link.
async fn change_snapshots(cluster: &Cluster, each: usize) -> Tally {
    let mut rng = seeded();
    let primary = cluster.primary(0);
    let links = links(cluster);
    for link in &links {
        link.cut();
    }
    let old = primary.at("durable").await;
    write_beyond_retention(primary, old.seq).await;
    for link in &links {
        link.heal();
        link.mutate(Mutator::new(rng.fork(), Change::BYTES, PIECES, each));
    }
    wait_changed(&links, each).await;
    let mut applied = 0;
    for number in 0..links.len() {
        let replica = cluster.replica(0, number);
        level(primary, replica).await;
        let snapshots = replica.said().matches("takes a snapshot").count();
        assert!(
            snapshots > each / 2,
            "{snapshots} streams for {each} changes"
        );
        said(replica, "snapshot is in force", 1).await;
        applied += replica.said().matches("snapshot is in force").count() - 1;
        assert_equal(primary, replica).await;
    }
    let tally = tally(&links);
    Tally {
        applied: tally.applied + applied,
        ..tally
    }
}

fn links(cluster: &Cluster) -> Vec<&Link> {
    (0..cluster.shape.replicas)
        .map(|number| cluster.link(0, number))
        .collect()
}

/// Waits until so many bodies were changed on each link, as long as it goes on.
async fn wait_changed(links: &[&Link], each: usize) {
    for step in (0..each).step_by(5).skip(1).chain([each]) {
        for link in links {
            eventually("answers are changed on the way", async || {
                (link.tally().changed >= step).then_some(())
            })
            .await;
        }
    }
}

fn tally(links: &[&Link]) -> Tally {
    let mut all = Tally::default();
    for link in links {
        all.changed += link.tally().changed;
        all.applied += link.tally().applied;
    }
    all
}
