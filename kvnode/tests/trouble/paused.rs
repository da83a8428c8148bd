//! Nodes held still by SIGSTOP: their machines take connections and bytes, and nobody answers.

use std::{
    fs::{self, DirEntry},
    time::Duration,
};

use futures_util::future::join_all;
use kvclient::{Consistency, ErrorKind, GetOptions, Outcome, PutOptions};

use crate::{
    clients::{TIMEOUT, Tally, in_time, of, reads, stats_of, with_map},
    support::{
        cluster::{Cluster, Node, Shape},
        eventually,
    },
};

/// A node that is held still for as long as this lives.
struct Paused<'a>(&'a Node);

impl<'a> Paused<'a> {
    /// Waits until the last of its threads stands still: until then it may answer.
    async fn new(node: &'a Node) -> Self {
        node.pause();
        let paused = Self(node);
        let threads = format!("/proc/{}/task", node.pid());
        let stands_still = |thread: DirEntry| {
            let status = fs::read_to_string(thread.path().join("status"));
            status.is_ok_and(|status| status.contains("State:\tT"))
        };
        eventually("all threads stand still", async || {
            let mut threads = fs::read_dir(&threads).ok()?.flatten();
            threads.all(stands_still).then_some(())
        })
        .await;
        paused
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_replica_is_left_alone_and_found_again() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (kv, replica) = (of(&cluster), cluster.replica(0, 0));
    kv.put("k", "v").await.unwrap();
    let paused = Paused::new(replica).await;
    reads(&kv, "k", "v", 60).await;
    for n in 0..20 {
        in_time(TIMEOUT, kv.put("k", format!("{n}"))).await.unwrap();
    }
    reads(&kv, "k", "19", 20).await;
    let stats = stats_of(&kv, replica);
    assert!(stats.is_ejected, "{stats:?}");
    drop(paused);
    eventually("the replica answers reads again", async || {
        reads(&kv, "k", "19", 1).await;
        (!stats_of(&kv, replica).is_ejected && stats_of(&kv, replica).ops > stats.ops + 5)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_primary_leaves_its_replica_to_readers() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (kv, primary) = (of(&cluster), cluster.primary(0));
    let written = kv.put("k", "v").await.unwrap();
    let replica = cluster.replica(0, 0);
    replica
        .wait_visible(written.position, "the replica has it")
        .await;
    let _paused = Paused::new(primary).await;
    // They want at least what this client wrote, which the replica holds.
    reads(&kv, "k", "v", 60).await;
    let strict = GetOptions::new().consistency(Consistency::Primary);
    let short = Duration::from_millis(700);
    let read = kv.get_with("k", strict.timeout(short));
    let error = in_time(short, read).await.unwrap_err();
    let found = (error.kind(), error.outcome());
    assert_eq!(
        found,
        (ErrorKind::Unavailable, Outcome::NotApplied),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_paused_primary_ends_honestly() {
    let cluster = Cluster::start(Shape::default()).await;
    let primary = cluster.primary(0);
    let patient = with_map(&cluster.map).timeout(Duration::from_secs(20));
    let kv = patient.build().unwrap();
    let mut tally = Tally::default();
    tally.note(&kv.incr("n", 1).await);
    let paused = Paused::new(primary).await;
    let short = PutOptions::new().timeout(Duration::from_millis(800));
    let given_up = in_time(TIMEOUT, kv.put_with("k", "v", short)).await;
    let error = given_up.unwrap_err();
    let found = (error.kind(), error.outcome());
    assert_eq!(found, (ErrorKind::Unavailable, Outcome::Unknown), "{error}");
    // Increments that are sent again and again meanwhile count once.
    let late: Vec<_> = (0..10)
        .map(|_| {
            let kv = kv.clone();
            tokio::spawn(async move { kv.incr("n", 1).await })
        })
        .collect();
    eventually("they were repeated", async || {
        (kv.stats().retries >= 10).then_some(())
    })
    .await;
    drop(paused);
    for incr in late {
        let result = incr.await.unwrap();
        assert!(result.is_ok(), "{result:?}");
        tally.note(&result);
    }
    assert_eq!((tally.acked, tally.unknown), (11, 0));
    tally.check(primary.get("n").await.as_ref());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_are_paused_ops_fail_in_time_and_then_go_on() {
    let cluster = Cluster::start(Shape::pair()).await;
    let kv = of(&cluster);
    kv.put("k", "v").await.unwrap();
    let paused = join_all(cluster.nodes().iter().map(Paused::new)).await;
    let (read, write) = tokio::join!(
        in_time(TIMEOUT, kv.get("k")),
        in_time(TIMEOUT, kv.put("other", "v")),
    );
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(write.unwrap_err().outcome(), Outcome::Unknown);
    let stats = kv.stats();
    assert!(
        stats
            .nodes
            .iter()
            .all(|node| node.is_ejected && node.in_flight == 0),
        "{stats:?}"
    );
    drop(paused);
    eventually("reads go through again", async || kv.get("k").await.ok()).await;
    in_time(TIMEOUT, kv.put("k", "w")).await.unwrap();
    reads(&kv, "k", "w", 20).await;
}
