//! A primary that is gone while many want it, and the map that says where it went.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use futures_util::{StreamExt, future::join_all};
use kvclient::{Client, Consistency, ErrorKind, GetOptions};
use support::{Cluster, FakeNode, key_of, keys_of, map, wait_until};
use tokio::{task::JoinSet, time::timeout};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn many_ops_at_a_dead_primary_are_a_bounded_number_of_attempts() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).stop();
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(100));
    let time = Duration::from_millis(400);
    let builder = cluster.builder().pauses(first, longest).timeout(time);
    let kv = builder.build().unwrap();
    let ops = 1_500_u64;
    let mut tasks = JoinSet::new();
    for n in 0..ops {
        let kv = kv.clone();
        tasks.spawn(async move { kv.put(format!("k{n}"), "v").await.unwrap_err() });
    }
    for error in tasks.join_all().await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let stats = kv.stats();
    // A thousand repeats to begin with, a fifth of the ops, and one each time the longest pause is over.
    let quick = 1_000 + ops / 5;
    let slow = ops * u64::try_from(time.as_millis() / longest.as_millis()).unwrap();
    assert!(stats.retries <= quick + slow, "{stats:?}");
    let at_once = stats.retries.saturating_sub(stats.retries_held_back);
    assert!(at_once <= quick, "{stats:?}");
    assert!(stats.retries_held_back > 0, "{stats:?}");
}

#[tokio::test]
async fn writes_wait_out_a_restart() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let node = cluster.primary(0);
    kv.put("k", "v").await.unwrap();
    node.stop();
    let writes = join_all((0..50).map(|n| kv.put(format!("k{n}"), "v")));
    let restart = async {
        wait_until("the writes notice", || kv.stats().retries >= 20).await;
        node.listen();
    };
    let (writes, ()) = tokio::join!(writes, restart);
    assert!(writes.iter().all(Result::is_ok), "{writes:?}");
}

#[tokio::test]
async fn two_hundred_failures_are_one_refresh() {
    // The shard has moved; all find out at once, and nobody but them is to pay for it.
    let (gone, seed, moved) = (
        FakeNode::reserve(),
        FakeNode::start().await,
        FakeNode::start().await,
    );
    let old = map(1, &[vec![gone.address.clone()], vec![seed.address.clone()]]);
    seed.set_map(&map(
        2,
        &[vec![moved.address.clone()], vec![seed.address.clone()]],
    ));
    let kv = Client::builder(old.clone()).build().unwrap();
    let keys: Vec<String> = keys_of(&old, 0).take(200).collect();
    let ops = keys.iter().map(|key| kv.put(key, "v"));
    let written = join_all(ops).await;
    assert!(written.iter().all(Result::is_ok));
    assert_eq!(moved.ops().len(), 200);
    assert!(
        seed.map_requests() <= 2,
        "{} map requests",
        seed.map_requests()
    );
    assert!(kv.stats().refreshes <= 2, "{:?}", kv.stats());
}

#[tokio::test]
async fn a_failing_node_costs_one_map_request_an_interval() {
    let cluster = Cluster::start(2, 0).await;
    for shard in 0..2 {
        cluster.primary(shard).set_map(&cluster.map(1));
    }
    cluster.primary(0).stop();
    let interval = Duration::from_millis(100);
    let kv = cluster
        .builder()
        .refresh_interval(interval)
        .build()
        .unwrap();
    let key = key_of(&cluster.map(1), 0);
    let began = Instant::now();
    let options = GetOptions::new().timeout(Duration::from_millis(450));
    kv.get_with(&key, options).await.unwrap_err();
    let intervals = began.elapsed().as_millis() / interval.as_millis();
    let asked = cluster.primary(1).map_requests() as u128;
    assert!(
        (1..=1 + intervals).contains(&asked),
        "{asked} in {intervals} intervals"
    );
}

#[tokio::test]
async fn map_changes_tell_of_the_map_in_force_and_then_of_newer_ones() {
    let cluster = Cluster::start(1, 0).await;
    let node = cluster.primary(0);
    let kv = cluster.client();
    let mut maps = kv.map_changes();
    let mut late = kv.map_changes();
    assert_eq!(maps.next().await.unwrap().version(), 1);
    assert!(
        timeout(Duration::from_millis(20), maps.next())
            .await
            .is_err(),
        "nothing new"
    );
    for version in [2, 3] {
        node.set_map(&cluster.map(version));
        kv.refresh().await.unwrap();
        let newer = timeout(SOON, maps.next()).await.unwrap().unwrap();
        assert_eq!(newer.version(), version);
    }
    // What a look missed does not come later.
    assert_eq!(late.next().await.unwrap().version(), 3);
    // An op hears of a newer map, too.
    node.set_map(&cluster.map(4));
    kv.get("k").await.unwrap();
    assert_eq!(
        timeout(SOON, maps.next()).await.unwrap().unwrap().version(),
        4
    );
    // It does not keep the client alive.
    drop(kv);
    assert!(timeout(SOON, maps.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn many_who_refresh_at_once_share_it() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    cluster.primary(0).set_map(&cluster.map(2));
    let refreshed = join_all((0..100).map(|_| kv.refresh())).await;
    assert!(refreshed.iter().all(Result::is_ok));
    assert_eq!(kv.map().version(), 2);
    let requests = cluster.primary(0).map_requests();
    assert!(requests <= 2, "{requests} requests for 100 calls");
}

#[tokio::test]
async fn a_primary_that_is_gone_leaves_the_replica_to_readers() {
    let cluster = Cluster::start(1, 1).await;
    cluster.replica(0, 0).script(|_| support::found("v", 1));
    cluster.primary(0).stop();
    let kv = cluster
        .builder()
        .timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    for _ in 0..20 {
        assert!(kv.get("k").await.unwrap().is_some());
    }
    let write = kv.put("k", "v").await.unwrap_err();
    assert_eq!(write.kind(), ErrorKind::Unavailable, "{write}");
    let strict = GetOptions::new().consistency(Consistency::Primary);
    let read = kv.get_with("k", strict).await.unwrap_err();
    assert_eq!(
        read.node(),
        Some(&cluster.primary(0).address),
        "it alone may answer"
    );
}
