//! Nodes that fail are left alone, probed now and then, and asked again once they answer.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::join_all;
use kvclient::{
    CallHistory, Client, Consistency, GetOptions, NodeStats, Why,
    policy::{Candidates, ReadPolicy, ReadRequest},
    wire::error::ErrorCode,
};
use support::{Cluster, FakeNode, Reply, found, refused};
use tokio::time::{sleep, timeout};

/// Time of an attempt, where nobody answers and where somebody does.
const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(5);

/// More than the longest first ejection, and less than a second one.
const PROBE_DUE: Duration = Duration::from_millis(1_020);

/// A replica if there is one to be had: whoever can be chosen is.
#[derive(Debug)]
struct Last;

impl ReadPolicy for Last {
    fn choose(&self, _: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
        candidates.len() - 1
    }
}

/// A primary that answers, and a replica that every read prefers.
async fn pair(
    attempt: Duration,
    replica: impl Fn() -> Reply + Send + Sync + 'static,
) -> (Cluster, Client) {
    let cluster = Cluster::start(1, 1).await;
    cluster.primary(0).script(|_| found("v", 1));
    cluster.replica(0, 0).script(move |_| replica());
    let builder = cluster.builder().read_policy(Last).without_hedging();
    let kv = builder.attempt_timeout(attempt).build().unwrap();
    (cluster, kv)
}

fn stats_of(kv: &Client, node: &FakeNode) -> NodeStats {
    let mut nodes = kv.stats().nodes.into_iter();
    nodes.find(|stats| stats.address == node.address).unwrap()
}

async fn read(kv: &Client) {
    assert!(kv.get("k").await.unwrap().is_some());
}

#[tokio::test]
async fn a_silent_node_gets_one_probe_at_a_time_and_comes_back() {
    let is_back = Arc::new(AtomicBool::new(false));
    let answers = is_back.clone();
    let reply = move || match answers.load(SeqCst) {
        true => found("v", 1),
        false => Reply::Hang,
    };
    let (cluster, kv) = pair(SHORT, reply).await;
    let replica = cluster.replica(0, 0);
    for _ in 0..10 {
        read(&kv).await;
    }
    assert_eq!(replica.ops().len(), 1, "the first read found out");
    let stats = stats_of(&kv, replica);
    assert!(stats.is_ejected);
    assert_eq!((stats.ejections, stats.errors, stats.in_flight), (1, 1, 0));

    sleep(PROBE_DUE).await;
    is_back.store(true, SeqCst);
    let history = CallHistory::new();
    let noted = kv.with_history(&history);
    join_all((0..20).map(|_| read(&noted))).await;
    let attempts = history.attempts();
    let probes = attempts.iter().filter(|one| one.why == Why::Probe);
    assert_eq!(probes.count(), 1, "{history}");
    assert!(!stats_of(&kv, replica).is_ejected);
    let before = replica.ops().len();
    for _ in 0..10 {
        read(&kv).await;
    }
    assert_eq!(replica.ops().len(), before + 10, "as usual again");
}

#[tokio::test]
async fn a_probe_that_fails_is_the_only_read_that_pays() {
    let (cluster, kv) = pair(SHORT, || Reply::Hang).await;
    let replica = cluster.replica(0, 0);
    read(&kv).await;
    sleep(PROBE_DUE).await;
    join_all((0..20).map(|_| read(&kv))).await;
    for _ in 0..10 {
        read(&kv).await;
    }
    assert_eq!(replica.ops().len(), 2, "one at first and one probe");
    let stats = stats_of(&kv, replica);
    assert_eq!((stats.is_ejected, stats.ejections), (true, 2));
}

#[tokio::test]
async fn three_failures_in_a_row_eject() {
    for reply in [
        Reply::Http(500, "oops".into()),
        Reply::Http(200, "rubbish".into()),
        Reply::Break,
        refused(ErrorCode::NotReady, None),
    ] {
        let told = reply.clone();
        let (cluster, kv) = pair(LONG, move || told.clone()).await;
        let replica = cluster.replica(0, 0);
        for _ in 0..10 {
            read(&kv).await;
            // Failures that come closer together count once.
            sleep(Duration::from_millis(12)).await;
        }
        assert_eq!(replica.ops().len(), 3, "{reply:?}");
        assert!(stats_of(&kv, replica).is_ejected, "{reply:?}");
    }
}

#[tokio::test]
async fn refusals_and_redirects_do_not_eject() {
    for reply in [
        refused(ErrorCode::Behind, None),
        refused(ErrorCode::Overloaded, None),
        refused(ErrorCode::Damaged, None),
    ] {
        let told = reply.clone();
        let (cluster, kv) = pair(LONG, move || told.clone()).await;
        for _ in 0..5 {
            let eventual = GetOptions::new()
                .consistency(Consistency::Eventual)
                .timeout(Duration::from_millis(60));
            // All the same whether it has an answer from the other one in time.
            let _ = kv.get_with("k", eventual).await;
            sleep(Duration::from_millis(12)).await;
        }
        let stats = stats_of(&kv, cluster.replica(0, 0));
        assert!(
            stats.errors >= 5 && !stats.is_ejected,
            "{reply:?}: {stats:?}"
        );
    }
}

#[tokio::test]
async fn when_all_are_ejected_all_are_still_asked() {
    let cluster = Cluster::start(1, 2).await;
    for node in &cluster.shards[0] {
        node.stop();
    }
    let kv = cluster.client();
    let fails = async || {
        let soon = GetOptions::new().timeout(Duration::from_millis(60));
        kv.get_with("k", soon).await.unwrap_err();
    };
    fails().await;
    assert!(kv.stats().nodes.iter().all(|node| node.is_ejected));
    for node in &cluster.shards[0] {
        node.script(|_| found("v", 1));
        node.listen();
    }
    read(&kv).await;
    for node in &cluster.shards[0] {
        node.stop();
    }
    // Any of them is the last resort.
    for node in &cluster.shards[0] {
        fails().await;
        node.listen();
        read(&kv).await;
        node.stop();
    }
}

#[tokio::test]
async fn an_ejected_primary_still_gets_its_writes() {
    let cluster = Cluster::start(1, 1).await;
    let (primary, kv) = (cluster.primary(0), cluster.client());
    cluster.replica(0, 0).script(|_| found("v", 1));
    primary.stop();
    let late = tokio::spawn({
        let kv = kv.clone();
        async move { kv.put("k", "v").await }
    });
    support::wait_until("it is ejected", || stats_of(&kv, primary).is_ejected).await;
    primary.listen();
    late.await.unwrap().unwrap();
    assert!(!stats_of(&kv, primary).is_ejected, "the write found out");
}

#[tokio::test]
async fn reads_whose_callers_went_away_tell_of_a_silent_node() {
    // Whoever waits only 110 ms goes away before the attempt is over, and a node that had never answered was asked for
    // ever.
    let (cluster, kv) = pair(LONG, || Reply::Hang).await;
    let patience = Duration::from_millis(110);
    let mut lost = 0;
    for _ in 0..15 {
        lost += usize::from(timeout(patience, kv.get("k")).await.is_err());
        // Longer than others are preferred after a read that was lost.
        sleep(Duration::from_millis(25)).await;
    }
    assert!(lost <= 3, "{lost} of 15 reads were lost");
    assert!(stats_of(&kv, cluster.replica(0, 0)).is_ejected);
}

#[tokio::test]
async fn a_read_with_little_time_does_not_spend_it_all_at_one_node() {
    let (cluster, kv) = pair(LONG, || Reply::Hang).await;
    let options = GetOptions::new().timeout(Duration::from_millis(400));
    assert!(kv.get_with("k", options).await.unwrap().is_some());
    assert_eq!(cluster.replica(0, 0).ops().len(), 1);
}
