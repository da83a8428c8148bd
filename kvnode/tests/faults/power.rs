//! A2: power cuts. What was acknowledged before the cut is on the disk, and a node starts on it.
//!
//! The node's data is on a disk of its own (`loop_disk.rs`). At a random moment it is held still and the disk is copied;
//! another node starts on the copy and is compared with the ledger. The first node is then killed, so that nothing is
//! acknowledged after the copy that the ledger would ask for.

use std::time::Duration;

use crate::{
    loop_disk::{FileSystem, LoopDisk, Mounted},
    support::{
        bar,
        cluster::{Cluster, Node, Shape},
        oracle::{Oracle, Verdict},
        report::{self, Row},
        seeded,
        writers::{Load, Writers},
    },
};

/// Small enough that segments are recycled, on a disk that holds a few.
const FLAGS: &[&str] = &["--log-retention", "8MiB"];

/// When the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Under load: between sync and answer, in a flush, between two segments.
    Load,
    /// While the node starts for the first time.
    FirstStart,
    /// While it stops cleanly.
    Stop,
    /// While it recovers from a kill.
    Recovery,
    /// While a replica takes its first snapshot.
    Snapshot,
}

const SHORT: &[(Moment, usize)] = &[
    (Moment::Load, 1),
    (Moment::Stop, 1),
    (Moment::FirstStart, 1),
];
const FULL: &[(Moment, usize)] = &[
    (Moment::Load, 30),
    (Moment::FirstStart, 5),
    (Moment::Stop, 5),
    (Moment::Recovery, 5),
    (Moment::Snapshot, 5),
];

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_power_cut_takes_nothing_that_was_acknowledged() {
    if let Some(why) = FileSystem::Ext4.missing() {
        return report::save_skipped("A2", &why);
    }
    let mut row = Row::begin("A2");
    let mut figures = Vec::new();
    let (moments, kinds) = match bar() {
        true => (FULL, &[FileSystem::Ext4, FileSystem::Xfs][..]),
        false => (SHORT, &[FileSystem::Ext4][..]),
    };
    for &kind in kinds {
        if let Some(why) = kind.missing() {
            figures.push(format!("{kind:?} not tried ({why})"));
            continue;
        }
        for &(moment, cuts) in moments {
            // The second file system is there to be different, not to do all of it twice.
            let cuts = if kind == FileSystem::Xfs {
                cuts.div_ceil(5)
            } else {
                cuts
            };
            let verdict = strike(kind, moment, cuts, &mut row.writes).await;
            verdict.assert_whole(&format!("{moment:?} on {kind:?}"));
            row.rounds += cuts;
            figures.push(format!("{kind:?} {moment:?} {cuts}"));
        }
    }
    row.figures = format!("cuts: {}", figures.join(", "));
    row.save();
}

/// Without the log's syncs everything since the last one of somebody else is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a2_control_what_is_not_synced_is_lost() {
    if FileSystem::Ext4.missing().is_some() {
        return;
    }
    let shape = Shape {
        faults: "off=sync",
        ..Shape::default()
    };
    let mut oracles = [Oracle::default()];
    let (cluster, disk) = on_disk(shape, FileSystem::Ext4, 0);
    cluster.start_all().await;
    // So little that nothing is flushed: that would sync, and leave a floor by which the loss is noticed at start.
    let load = Load {
        writers: 4,
        batch: 4,
        keys: 10,
        value_bytes: 40,
        run: 0,
    };
    let copy = cut_under_load(&cluster, &disk, &mut oracles, load, 500).await;
    let verdict = judge_copy(copy, shape, &oracles[0]).await;
    assert!(verdict.lost > 0, "{verdict:?}");
    let found = format!(
        "1 cut, {} acknowledged writes to {} keys: {} keys lost",
        verdict.acked,
        oracles[0].keys(),
        verdict.lost
    );
    report::save_control("A2", "the log is synced", &found);
}

/// Cuts of one kind; what was written is added to `writes`.
async fn strike(kind: FileSystem, moment: Moment, cuts: usize, writes: &mut Verdict) -> Verdict {
    let mut all = Verdict::default();
    match moment {
        Moment::Load => all.add(cuts_under_load(kind, cuts).await),
        Moment::FirstStart => {
            for _ in 0..cuts {
                all.add(cut_first_start(kind).await);
            }
        }
        Moment::Stop | Moment::Recovery => {
            for _ in 0..cuts {
                all.add(cut_while(kind, moment).await);
            }
        }
        Moment::Snapshot => {
            for _ in 0..cuts {
                all.add(cut_snapshot(kind).await);
            }
        }
    }
    writes.add(all);
    all
}

fn shape() -> Shape {
    Shape {
        flags: FLAGS,
        ..Shape::default()
    }
}

/// A cluster of which one node has a disk of its own.
fn on_disk(shape: Shape, kind: FileSystem, node: usize) -> (Cluster, Mounted) {
    let cluster = Cluster::prepare(shape);
    let disk = LoopDisk::make(kind).mount(&cluster.nodes()[node].data);
    (cluster, disk.expect("it could be mounted before"))
}

/// One node that loses its power again and again, and each time goes on where a kill left it.
async fn cuts_under_load(kind: FileSystem, cuts: usize) -> Verdict {
    let (cluster, disk) = on_disk(shape(), kind, 0);
    let mut oracles = [Oracle::default()];
    let (mut all, mut rng) = (Verdict::default(), seeded());
    for run in 0..cuts {
        cluster.start_all().await;
        let load = Load {
            writers: 8,
            batch: 1 + rng.usize(..8),
            keys: 20,
            value_bytes: rng.usize(20..3_000),
            run,
        };
        let acked = rng.usize(100..800);
        let copy = cut_under_load(&cluster, &disk, &mut oracles, load, acked).await;
        all = judge_copy(copy, shape(), &oracles[0])
            .await
            .with_losses_of(all);
    }
    all
}

/// Load, until so many writes are acknowledged; then the power goes.
async fn cut_under_load(
    cluster: &Cluster,
    disk: &Mounted,
    oracles: &mut [Oracle],
    load: Load,
    acked: usize,
) -> LoopDisk {
    let node = cluster.primary(0);
    let writers = Writers::start(cluster, load);
    writers.wait_acked(acked).await;
    let copy = power_goes(node, disk);
    writers.stop(oracles).await;
    copy
}

/// Starts another node on the copy and compares.
async fn judge_copy(copy: LoopDisk, shape: Shape, oracle: &Oracle) -> Verdict {
    let other = Cluster::prepare(Shape {
        faults: "",
        ..shape
    });
    let _disk = copy.mount(&other.primary(0).data).expect("it mounts");
    other.start_all().await;
    let verdict = oracle.verdict(other.primary(0)).await;
    other.primary(0).kill();
    verdict
}

/// A node that nobody has written to starts, and its power goes on the way.
async fn cut_first_start(kind: FileSystem) -> Verdict {
    let (cluster, disk) = on_disk(shape(), kind, 0);
    let node = cluster.primary(0);
    node.spawn(&[]);
    pause_up_to(120).await;
    let copy = power_goes(node, &disk);
    judge_copy(copy, shape(), &Oracle::default()).await
}

/// The disk as it is at this moment; the node comes no further.
fn power_goes(node: &Node, disk: &Mounted) -> LoopDisk {
    node.pause();
    let copy = disk.cut();
    node.kill();
    copy
}

/// Load, then a clean stop, or a kill and a start; on its way the power goes.
async fn cut_while(kind: FileSystem, moment: Moment) -> Verdict {
    let (cluster, disk) = on_disk(shape(), kind, 0);
    let mut oracles = [Oracle::default()];
    let node = cluster.primary(0);
    cluster.start_all().await;
    let load = Load {
        writers: 4,
        batch: 4,
        keys: 30,
        value_bytes: 500,
        run: 0,
    };
    let writers = Writers::start(&cluster, load);
    writers.wait_acked(300).await;
    match moment {
        Moment::Stop => node.signal(rustix::process::Signal::TERM),
        _ => {
            node.kill();
            node.spawn(&[]);
        }
    }
    pause_up_to(60).await;
    let copy = power_goes(node, &disk);
    writers.stop(&mut oracles).await;
    judge_copy(copy, shape(), &oracles[0]).await
}

/// A replica takes a snapshot, and its power goes on the way. On the copy it starts again, and becomes its primary's
/// equal.
async fn cut_snapshot(kind: FileSystem) -> Verdict {
    let shape = Shape {
        replicas: 1,
        flags: &["--log-retention", "1MiB"],
        ..Shape::default()
    };
    let (cluster, disk) = on_disk(shape, kind, 1);
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let mut oracles = [Oracle::default()];
    primary.start().await;
    let load = Load {
        writers: 8,
        batch: 8,
        keys: 100,
        value_bytes: 6_000,
        run: 0,
    };
    let writers = Writers::start(&cluster, load);
    // More than two segments: the first is gone, and the log alone does not reach back.
    writers.wait_acked(2_500).await;
    writers.stop(&mut oracles).await;
    assert!(primary.status().await["truncated"].as_u64() > Some(0));
    replica.spawn(&[]);
    pause_up_to(400).await;
    let copy = power_goes(replica, &disk);
    drop(disk);
    let _disk = copy.mount(&replica.data).expect("it mounts");
    start_level(replica, primary).await;
    let verdict = oracles[0].verdict(replica).await;
    replica.kill();
    verdict
}

async fn start_level(replica: &Node, primary: &Node) {
    replica.start().await;
    let at = primary.at("durable").await;
    replica.wait_visible(at, "the replica is level again").await;
}

async fn pause_up_to(most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(..most_ms))).await;
}
