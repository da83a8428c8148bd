//! Nodes that are killed and come back.

use std::time::Duration;

use kvclient::{Consistency, ErrorKind, GetOptions};
use tokio::task::JoinSet;

use crate::{
    clients::{TIMEOUT, Tally, in_time, of, reads, stats_of, with_map},
    support::{
        cluster::{Cluster, Shape},
        eventually,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_is_missed_by_nobody_and_found_again() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (kv, replica) = (of(&cluster), cluster.replica(0, 0));
    kv.put("k", "v").await.unwrap();
    reads(&kv, "k", "v", 20).await;
    replica.kill();
    reads(&kv, "k", "v", 40).await;
    in_time(TIMEOUT, kv.put("k", "w")).await.unwrap();
    assert!(stats_of(&kv, replica).is_ejected);
    replica.start().await;
    let before = stats_of(&kv, replica);
    eventually("the replica answers reads again", async || {
        reads(&kv, "k", "w", 1).await;
        let stats = stats_of(&kv, replica);
        let answers = (stats.ops - stats.errors) - (before.ops - before.errors);
        (answers >= 5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_leaves_its_replica_to_readers_and_writes_wait_for_it() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (kv, primary) = (of(&cluster), cluster.primary(0));
    let written = kv.put("k", "v").await.unwrap();
    let replica = cluster.replica(0, 0);
    replica
        .wait_visible(written.position, "the replica has it")
        .await;
    primary.kill();
    reads(&kv, "k", "v", 30).await;
    let strict = GetOptions::new().consistency(Consistency::Primary);
    let error = in_time(TIMEOUT, kv.get_with("k", strict))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.node(), Some(&primary.to_address()));
    let write = tokio::spawn({
        let patient = with_map(&cluster.map).timeout(Duration::from_secs(20));
        let kv = patient.build().unwrap();
        async move { kv.put("k", "w").await }
    });
    primary.start().await;
    write.await.unwrap().unwrap();
    assert_eq!(primary.get("k").await.as_deref(), Some(&b"w"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_counts_once_over_kills_of_its_primary() {
    let cluster = Cluster::start(Shape::default()).await;
    let patient = with_map(&cluster.map).timeout(Duration::from_secs(20));
    let kv = patient.build().unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let kv = kv.clone();
        tasks.spawn(async move {
            let mut tally = Tally::default();
            for _ in 0..60 {
                tally.note(&kv.incr("n", 1).await);
            }
            tally
        });
    }
    for round in 1..=2 {
        eventually("the next increments are done", async || {
            (kv.stats().ops >= round * 120).then_some(())
        })
        .await;
        cluster.primary(0).kill();
        cluster.primary(0).start().await;
    }
    let mut all = Tally::default();
    for tally in tasks.join_all().await {
        all.acked += tally.acked;
        all.unknown += tally.unknown;
    }
    assert_eq!(
        (all.acked, all.unknown),
        (480, 0),
        "each was repeated until it was answered"
    );
    all.check(cluster.primary(0).get("n").await.as_ref());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_shard_does_not_disturb_the_others() {
    let cluster = Cluster::start(Shape {
        shards: 2,
        ..Shape::default()
    })
    .await;
    let kv = of(&cluster);
    let (dead, alive) = (cluster.key_in(0, "k"), cluster.key_in(1, "k"));
    cluster.primary(0).kill();
    let (failed, ()) = tokio::join!(in_time(TIMEOUT, kv.put(&dead, "v")), async {
        for _ in 0..50 {
            kv.put(&alive, "v").await.unwrap();
            reads(&kv, &alive, "v", 1).await;
        }
    });
    let error = failed.unwrap_err();
    assert_eq!(
        (error.kind(), error.shard()),
        (ErrorKind::Unavailable, Some("s0"))
    );
    assert!(error.attempts() > 1, "{error}");
}
