//! B7 to B9: replica and primary whose logs do not belong together. The replica keeps everything, serves none of it,
//! and says so; nothing is truncated on either side.

use std::{collections::BTreeMap, path::Path};

use kvclient::position::Position;

use super::{Written, entries, level, missing, said, saved_tails, write};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape, map_text},
    eventually,
    http::Ask,
    report::{self, Row},
};

#[tokio::test(flavor = "multi_thread")]
async fn b7_a_replica_with_a_tail_of_its_own_keeps_and_hides_it() {
    let mut row = Row::begin("B7");
    let (rounds, writes) = if bar() { (10, 2_000) } else { (1, 300) };
    let mut saved = 0;
    for _ in 0..rounds {
        let (cluster, own, end) = parted(writes, "").await;
        let replica = cluster.replica(0, 0);
        replica.wait_not_ready("diverged/").await;
        for number in 0..writes {
            let answer = replica.ask("GET", &format!("/kv/own{number}")).await;
            assert_eq!((answer.status, &*answer.error()), (503, "replica_diverged"));
        }
        let tail = saved_tails(replica);
        assert_eq!(missing(&own, &BTreeMap::new(), &tail), 0);
        assert_eq!(tail.len(), writes + 1, "the reign and its writes, no more");
        assert_eq!(tail[0]["kind"], "epoch_start");
        assert_eq!(replica.at("durable").await, end, "nothing is truncated");
        saved += tail.len() - 1;
    }
    row.rounds = rounds;
    row.writes.acked = rounds * writes;
    row.figures = format!(
        "{saved} writes that only the replica had: all saved in diverged/, exactly these, none served, none truncated"
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn b7_control_a_replica_that_gives_way_loses_its_tail() {
    let (cluster, own, _) = parted(300, "off=handshake").await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    said(replica, "snapshot is in force", 1).await;
    level(primary, replica).await;
    let lost = missing(&own, &entries(replica).await, &saved_tails(replica));
    assert!(lost > 0);
    let found = format!(
        "{lost} of {} acknowledged writes gone without a trace",
        own.len()
    );
    report::save_control("B7", "a replica whose log has parted keeps it", &found);
}

/// A pair whose replica was a primary of its own for a while, and holds writes named `own` that its primary does not;
/// the primary has gone on meanwhile. The replica was just started.
async fn parted(writes: usize, faults: &str) -> (Cluster, Vec<Written>, Position) {
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    write(primary, "common", 50).await;
    level(primary, replica).await;
    primary.stop().await;
    replica.stop().await;
    let marker = replica.data.join("node.toml");
    let as_replica = std::fs::read_to_string(&marker).expect("a marker");
    replica.write_map(&map_text(7, std::slice::from_ref(&replica.address), 1));
    replica.spawn(&["--promote"]);
    replica.wait_ready().await;
    let own = write(replica, "own", writes).await;
    let end = replica.at("durable").await;
    replica.stop().await;
    std::fs::write(&marker, as_replica).expect("the marker as it was");
    let addresses = [primary.address.clone(), replica.address.clone()];
    replica.write_map(&map_text(1, &addresses, 2));
    primary.start().await;
    write(primary, "theirs", 50).await;
    replica.set_faults(faults);
    replica.spawn(&[]);
    (cluster, own, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn b8_a_replica_refuses_a_primary_that_is_shorter() {
    let mut row = Row::begin("B8");
    let writes = if bar() { 5_000 } else { 300 };
    let mut kept = 0;
    for meets in [Meets::AtStart, Meets::Later] {
        let (cluster, newer, end) = restored(writes, meets, "").await;
        let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
        match meets {
            Meets::AtStart => {
                // Its replica's next pull gives it a second reason, which takes the place of the first in /readyz.
                primary.wait_not_ready("").await;
                eventually("the primary says who has more", async || {
                    primary.said().contains("longer log").then_some(())
                })
                .await;
                assert_takes_no_writes(primary).await;
            }
            Meets::Later => {
                replica.wait_not_ready("diverged/").await;
                let tail = saved_tails(replica);
                assert_eq!(missing(&newer, &BTreeMap::new(), &tail), 0);
            }
        }
        let held = entries(replica).await;
        assert_eq!(missing(&newer, &held, &[]), 0, "{meets:?}");
        assert_eq!(replica.at("durable").await, end, "nothing is truncated");
        kept += newer.len();
    }
    row.rounds = 2;
    row.writes.acked = kept;
    row.figures = format!(
        "{kept} writes that the restored primary lacked: 0 keys removed from the replica; the primary takes no writes \
         beside it, and is not followed if it took some alone"
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn b8_control_a_shorter_primary_that_is_followed_removes_keys() {
    let (cluster, newer, _) = restored(300, Meets::AtStart, "off=handshake").await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    primary.wait_ready().await;
    let after = primary.put("after", "v").await;
    eventually("the replica follows its primary", async || {
        (replica.get("after").await.is_some()).then_some(())
    })
    .await;
    let removed = missing(&newer, &entries(replica).await, &saved_tails(replica));
    assert!(removed > 0, "{after}");
    let found = format!(
        "{removed} of {} acknowledged writes removed from the replica",
        newer.len()
    );
    report::save_control("B8", "a shorter primary is refused", &found);
}

/// When a replica meets the primary that was restored.
#[derive(Debug, Clone, Copy)]
enum Meets {
    /// It is there when the primary starts.
    AtStart,
    /// It comes when the primary has taken writes.
    Later,
}

/// A pair whose primary was started on a copy of its data from before `writes` writes, which its replica has; what
/// they are, and where the replica ends.
async fn restored(writes: usize, meets: Meets, faults: &str) -> (Cluster, Vec<Written>, Position) {
    let cluster = Cluster::prepare(Shape::pair());
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    for node in cluster.nodes() {
        node.set_faults(faults);
    }
    cluster.start_all().await;
    write(primary, "older", 50).await;
    primary.stop().await;
    let backup = cluster.dir().join("backup");
    copy_dir(&primary.data, &backup);
    primary.start().await;
    let newer = write(primary, "newer", writes).await;
    let end = level(primary, replica).await;
    primary.stop().await;
    std::fs::remove_dir_all(&primary.data).expect("removed");
    std::fs::rename(&backup, &primary.data).expect("moved");
    match meets {
        Meets::AtStart => primary.spawn(&[]),
        Meets::Later => {
            replica.stop().await;
            primary.start().await;
            write(primary, "alone", 20).await;
            replica.spawn(&[]);
        }
    }
    (cluster, newer, end)
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

async fn assert_takes_no_writes(node: &Node) {
    let answer = node.send(Ask::new("PUT", "/kv/k").body("no")).await;
    assert_eq!((answer.status, &*answer.error()), (503, "not_ready"));
    assert_eq!(answer.header("kv-applied"), Some("no"));
}

#[tokio::test(flavor = "multi_thread")]
async fn b9_replicas_keep_everything_when_their_primary_comes_back_empty() {
    let mut row = Row::begin("B9");
    let writes = if bar() { 5_000 } else { 300 };
    for lost in [Lost::Data, Lost::Everything, Lost::EverythingUnnoticed] {
        let (cluster, written, end) = emptied(writes, lost, "").await;
        let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
        match lost {
            Lost::Data => {
                assert_eq!(primary.ended().await, 3, "{}", primary.said());
                assert!(primary.said().contains("never be followed"));
            }
            Lost::Everything => {
                primary.wait_not_ready("empty").await;
                assert_takes_no_writes(primary).await;
            }
            Lost::EverythingUnnoticed => {
                replica.wait_not_ready("history").await;
                assert_eq!(
                    missing(&written, &BTreeMap::new(), &saved_tails(replica)),
                    0
                );
            }
        }
        assert_eq!(
            missing(&written, &entries(replica).await, &[]),
            0,
            "{lost:?}"
        );
        assert_eq!(replica.at("durable").await, end, "nothing is truncated");
    }
    row.rounds = 3;
    row.writes.acked = 3 * writes;
    row.figures = format!(
        "with its marker the primary refuses to start (exit 3), without it takes no writes beside its replica, and \
         begun anew unnoticed is not followed: 0 of {} keys removed from replicas",
        3 * writes
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn b9_control_an_empty_primary_that_is_followed_empties_its_replica() {
    let (cluster, written, _) = emptied(300, Lost::EverythingUnnoticed, "off=handshake").await;
    let replica = cluster.replica(0, 0);
    eventually("the replica follows its primary", async || {
        let answer = replica.try_send(Ask::new("GET", "/kv/anew0")).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    let removed = missing(&written, &entries(replica).await, &saved_tails(replica));
    assert_eq!(removed, written.len());
    let found = format!(
        "{removed} of {} keys removed from the replica",
        written.len()
    );
    report::save_control("B9", "another history is refused", &found);
}

/// What the primary's machine lost.
#[derive(Debug, Clone, Copy)]
enum Lost {
    /// All but the marker that says that there was something.
    Data,
    /// All.
    Everything,
    /// All, and it took writes anew before its replica came.
    EverythingUnnoticed,
}

/// A pair whose primary was started after such a loss; what its replica holds, and where that ends.
async fn emptied(writes: usize, lost: Lost, faults: &str) -> (Cluster, Vec<Written>, Position) {
    let cluster = Cluster::prepare(Shape::pair());
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    for node in cluster.nodes() {
        node.set_faults(faults);
    }
    cluster.start_all().await;
    let written = write(primary, "kept", writes).await;
    let end = level(primary, replica).await;
    primary.kill();
    let marker = std::fs::read_to_string(primary.data.join("node.toml")).expect("a marker");
    std::fs::remove_dir_all(&primary.data).expect("removed");
    match lost {
        Lost::Data => {
            std::fs::create_dir_all(&primary.data).expect("a directory");
            std::fs::write(primary.data.join("node.toml"), marker).expect("the marker");
            primary.spawn(&[]);
        }
        Lost::Everything => primary.spawn(&[]),
        Lost::EverythingUnnoticed => {
            replica.kill();
            primary.start().await;
            write(primary, "anew", 20).await;
            replica.spawn(&[]);
        }
    }
    (cluster, written, end)
}
