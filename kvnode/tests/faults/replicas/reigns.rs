//! B13: two primaries of one shard, because a person promoted a replica while the old primary went on by the old map.
//!
//! Both take writes; that is what a map in a file cannot prevent. Once they hear of each other the older reign ends,
//! and every write that was acknowledged is then either in the new primary or in the tail that the old one saves.

use super::{Written, entries, level, missing, said, saved_tails, write};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape, map_text},
    eventually,
    http::Ask,
    report::{self, Row},
};

#[tokio::test(flavor = "multi_thread")]
async fn b13_of_two_primaries_the_older_stops_and_keeps_its_tail() {
    let mut row = Row::begin("B13");
    let (rounds, writes) = if bar() { (5, 2_000) } else { (1, 200) };
    let (mut shared, mut tail, mut lost) = (0, 0, 0);
    for _ in 0..rounds {
        let two = Two::reign(writes, "").await;
        assert_eq!(two.old_goes_on().await, 0, "writes after they met");
        two.former().wait_not_ready("epoch").await;
        two.rejoin().await;
        let held = entries(two.promoted()).await;
        let saved = saved_tails(two.former());
        let acked = [&two.common[..], &two.by_old, &two.by_new].concat();
        row.writes.acked += acked.len();
        lost += missing(&acked, &held, &saved);
        shared += two.common.len() + two.by_new.len();
        tail += two.by_old.len() - missing(&two.by_old, &Default::default(), &saved);
        assert_eq!(
            entries(two.former()).await,
            held,
            "the old one follows the new"
        );
    }
    assert_eq!(lost, 0);
    row.rounds = rounds;
    row.figures = format!(
        "of {} acknowledged writes {shared} are in the new primary and {tail} in the tail that the old one saved; \
         0 acknowledged by the old one after it heard of the new reign",
        row.writes.acked
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn b13_control_an_old_primary_that_does_not_stop_loses_its_tail() {
    let two = Two::reign(200, "off=handshake").await;
    let after = two.old_goes_on().await;
    two.rejoin().await;
    let lost = missing(
        &two.by_old,
        &entries(two.promoted()).await,
        &saved_tails(two.former()),
    );
    assert!(after > 0 && lost > 0, "{after} {lost}");
    let found = format!(
        "the old primary acknowledged {after} more writes after it heard of the new reign; {lost} of {} of its \
         writes are neither in the new primary nor in a tail",
        two.by_old.len()
    );
    report::save_control("B13", "the older reign ends, its tail is saved", &found);
}

/// A shard whose old primary and promoted replica have both taken writes, and just heard of each other through a
/// third node.
struct Two {
    cluster: Cluster,
    new_map: String,
    common: Vec<Written>,
    by_old: Vec<Written>,
    by_new: Vec<Written>,
}

impl Two {
    async fn reign(writes: usize, faults: &str) -> Self {
        let cluster = Cluster::prepare(Shape {
            replicas: 2,
            ..Shape::default()
        });
        let (old, new, witness) = (
            cluster.primary(0),
            cluster.replica(0, 0),
            cluster.replica(0, 1),
        );
        old.set_faults(faults);
        cluster.start_all().await;
        let common = write(old, "common", writes).await;
        level(old, new).await;
        level(old, witness).await;
        // The old primary is cut off while the replica becomes one; then it goes on.
        old.pause();
        new.kill();
        witness.kill();
        let [a, b, c] = [new, old, witness].map(|node| node.address.clone());
        let new_map = map_text(2, &[a, b, c], 3);
        new.write_map(&new_map);
        new.spawn(&["--promote"]);
        new.wait_ready().await;
        old.resume();
        let by_new = write(new, "new", writes).await;
        let by_old = write(old, "old", writes).await;
        // A node that has followed the new primary comes to the old one, by the old map.
        witness.write_map(&new_map);
        witness.start().await;
        level(new, witness).await;
        witness.kill();
        witness.write_map(&cluster.map);
        witness.spawn(&[]);
        eventually("the old primary hears of the new reign", async || {
            let status = witness
                .try_send(Ask::new("GET", "/status"))
                .await
                .ok()?
                .json();
            let trouble = status["pull_trouble"].as_str()?.to_owned();
            trouble.contains("epoch").then_some(())
        })
        .await;
        Self {
            cluster,
            new_map,
            common,
            by_old,
            by_new,
        }
    }

    fn former(&self) -> &Node {
        self.cluster.primary(0)
    }

    fn promoted(&self) -> &Node {
        self.cluster.replica(0, 0)
    }

    /// How many of twenty writes the old primary still acknowledges.
    async fn old_goes_on(&self) -> usize {
        let mut acked = 0;
        for n in 0..20 {
            let put = Ask::new("PUT", format!("/kv/late{n}")).body("v");
            acked += usize::from(self.former().send(put).await.status == 204);
        }
        acked
    }

    /// A person makes the old primary a replica of the new one.
    async fn rejoin(&self) {
        let (old, new) = (self.former(), self.promoted());
        old.stop().await;
        old.write_map(&self.new_map);
        old.spawn(&[]);
        assert_eq!(old.ended().await, 3, "not without a person's word");
        old.spawn(&["--rejoin"]);
        said(old, "snapshot is in force", 1).await;
        old.wait_ready().await;
        level(new, old).await;
    }
}
