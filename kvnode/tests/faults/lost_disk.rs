//! K1: the primary's machine is lost with its disk, and a person makes a replica the primary. What was acknowledged
//! with `Kv-Ack: 1` is on one of the replicas; the furthest of them has all of it.

use std::time::{Duration, Instant};

use kvclient::{position::Position, wire::batch::Ack};
use rustix::process::Signal;

use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape, map_text},
    eventually, millis,
    oracle::{Oracle, Verdict},
    report::{self, Row},
    writers::{Load, Writers},
};

/// How far replicas are behind, so that what was written last is on none when the primary goes.
const BEHIND: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn k1_writes_acknowledged_by_a_replica_outlive_the_primary_s_disk() {
    let writes = if bar() { 10_000 } else { 500 };
    let mut row = Row::begin("K1");
    let mut slowest = Duration::ZERO;
    for replicas in [1, 2] {
        let lost = lose_primary(replicas, Some(Ack::Replicas(1)), writes).await;
        lost.writes.assert_whole("on the promoted replica");
        row.writes.add(lost.writes);
        row.rounds += 1;
        slowest = slowest.max(lost.promoted_in);
    }
    row.figures = format!(
        "one replica, then the furthest of two, {BEHIND:?} behind when the primary's directory was removed; takes writes {} \
         ms after it was started with --promote, at most",
        millis(slowest)
    );
    row.save();
}

/// Writes that only the primary had synced go with its disk.
#[tokio::test(flavor = "multi_thread")]
async fn k1_control_writes_acknowledged_by_the_primary_alone_go_with_it() {
    let lost = lose_primary(1, None, 500).await;
    let writes = lost.writes;
    assert!(writes.lost > 0, "{writes:?}");
    let found = format!(
        "of {} acknowledged writes the newest of {} keys lost",
        writes.acked, writes.lost
    );
    report::save_control("K1", "Kv-Ack: 1; the primary alone acknowledges", &found);
}

/// The steps of docs/operate.md, "A primary is lost", one after the other, with a primary whose disk is gone, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_promotes_a_replica_as_the_page_says() {
    let cluster = Cluster::start(Shape {
        replicas: 2,
        ..Shape::default()
    })
    .await;
    let (old, chosen, other) = (
        cluster.primary(0),
        cluster.replica(0, 0),
        cluster.replica(0, 1),
    );
    let before = old.put("k", "before").await;
    for replica in [chosen, other] {
        replica.wait_visible(before, "both have it").await;
    }
    // 1. The old primary does not run. Its disk is lost.
    old.kill();
    std::fs::remove_dir_all(&old.data).expect("its disk is lost");
    // 2. The one with the largest `durable`: here they are equal.
    assert_eq!(chosen.at("durable").await, other.at("durable").await);
    // 3. The newer map is on every machine.
    let addresses = [chosen, old, other].map(|node| node.address.clone());
    let text = map_text(2, &addresses, addresses.len());
    cluster
        .nodes()
        .iter()
        .for_each(|node| node.write_map(&text));
    // 4. Stopped, and started once with --promote.
    chosen.stop().await;
    chosen.spawn(&["--promote"]);
    chosen.wait_ready().await;
    let after = chosen.put("k", "after").await;
    assert!(after.epoch > before.epoch, "{after} {before}");
    // 5. SIGHUP to all others.
    other.signal(Signal::HUP);
    other
        .wait_visible(after, "it follows the new primary")
        .await;
    // 6. The old machine is back, with an empty disk.
    old.spawn(&["--rejoin"]);
    old.wait_ready().await;
    old.wait_visible(after, "it copied the new primary").await;
    for node in [old, chosen, other] {
        assert_eq!(node.get("k").await.as_deref(), Some(&b"after"[..]));
        assert!(node.is_running(), "{}", node.said());
    }
    // As the page ends: once more without the flag, which is for one start.
    for node in [old, chosen] {
        node.stop().await;
        node.start().await;
    }
    let last = chosen.put("k", "last").await;
    for node in [old, other] {
        node.wait_visible(last, "all follow").await;
    }
}

struct Lost {
    writes: Verdict,
    promoted_in: Duration,
}

/// Writes until so many are acknowledged, destroys the primary, promotes the furthest replica and judges it.
async fn lose_primary(replicas: usize, ack: Option<Ack>, writes: usize) -> Lost {
    let cluster = Cluster::start(Shape {
        replicas,
        linked: true,
        ..Shape::default()
    })
    .await;
    let primary = cluster.primary(0);
    let connected = Position::new(1, 1);
    for number in 0..replicas {
        let reason = "the replica has what the primary began with";
        cluster
            .replica(0, number)
            .wait_visible(connected, reason)
            .await;
        cluster.link(0, number).delay(BEHIND);
    }
    let load = Load {
        writers: 16,
        batch: 8,
        keys: 60,
        value_bytes: 100,
        run: 0,
    };
    let writers = Writers::start_with_ack(&cluster, load, ack);
    writers.wait_acked(writes).await;
    primary.kill();
    let mut oracles = [Oracle::default()];
    writers.stop(&mut oracles).await;
    std::fs::remove_dir_all(&primary.data).expect("its disk is lost");

    let promoted = furthest(&cluster).await;
    let promoted_in = promote(promoted, &cluster).await;
    Lost {
        writes: oracles[0].verdict(promoted).await,
        promoted_in,
    }
}

/// The replica with the largest `durable`, as a person finds it in `/status` once nothing is on its way any more.
async fn furthest(cluster: &Cluster) -> &Node {
    for number in 0..cluster.shape.replicas {
        cluster.link(0, number).cut();
    }
    let mut before = positions(cluster).await;
    let reached = eventually("replicas have what reached them", async || {
        tokio::time::sleep(BEHIND * 2).await;
        let now = positions(cluster).await;
        let same = now == before;
        before.clone_from(&now);
        same.then_some(now)
    })
    .await;
    let numbers = 0..reached.len();
    let best = numbers.max_by_key(|&number| reached[number]);
    cluster.replica(0, best.expect("a replica"))
}

/// `durable` of each replica.
async fn positions(cluster: &Cluster) -> Vec<Position> {
    let mut positions = Vec::new();
    for number in 0..cluster.shape.replicas {
        positions.push(cluster.replica(0, number).at("durable").await);
    }
    positions
}

/// Starts a replica as the primary of a map in which it is the first of its shard; how long that took.
async fn promote(replica: &Node, cluster: &Cluster) -> Duration {
    let mut addresses = vec![replica.address.clone()];
    let others = cluster.nodes().iter().map(|node| &node.address);
    addresses.extend(
        others
            .filter(|address| **address != replica.address)
            .cloned(),
    );
    replica.kill();
    replica.write_map(&map_text(9, &addresses, addresses.len()));
    let began = Instant::now();
    replica.spawn(&["--promote"]);
    replica.wait_ready().await;
    began.elapsed()
}
