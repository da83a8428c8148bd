//! Which node a read goes to: zones, policies, and what becomes of reads that a replica is too far behind for.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use kvclient::{
    CallHistory, Client, Consistency, ErrorKind, GetOptions, Key, Session, ShardMap, Why,
    policy::{Candidates, ReadPolicy, ReadRequest, StickyByKey},
    shard_map::{NodeEntry, Shard, even_slots},
    wire::error::ErrorCode,
};
use support::{Cluster, FakeNode, Reply, found, missing, refused, stored};

/// A primary in zone `a` and a replica each in `b` and `c`.
fn zoned(cluster: &Cluster) -> ShardMap {
    let nodes = cluster.shards[0].iter().zip(["a", "b", "c"]);
    let mut nodes = nodes.map(|(node, zone)| NodeEntry {
        address: node.address.clone(),
        zone: Some(zone.to_owned()),
    });
    let shard = Shard {
        name: "only".into(),
        idx: 0,
        slots: vec![even_slots(0, 1)],
        primary: nodes.next().unwrap(),
        replicas: nodes.collect(),
    };
    ShardMap::new(1, vec![shard]).unwrap()
}

async fn three_nodes() -> Cluster {
    let cluster = Cluster::start(1, 2).await;
    for node in &cluster.shards[0] {
        node.script(|op| match op.action.is_write() {
            true => stored(1),
            false => found("v", 1),
        });
    }
    cluster
}

fn asked(cluster: &Cluster) -> Vec<usize> {
    let nodes = cluster.shards[0].iter();
    nodes.map(|node| node.ops().len()).collect()
}

async fn read(kv: &Client, times: usize) {
    for _ in 0..times {
        assert!(kv.get("k").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn reads_stay_in_their_zone_while_they_can() {
    for (zone, expected) in [("a", [20, 0, 0]), ("b", [0, 20, 0]), ("c", [0, 0, 20])] {
        let cluster = three_nodes().await;
        let builder = Client::builder(zoned(&cluster))
            .zone(zone)
            .without_hedging();
        read(&builder.build().unwrap(), 20).await;
        assert_eq!(asked(&cluster), expected, "zone {zone}");
    }
    let cluster = three_nodes().await;
    let elsewhere = Client::builder(zoned(&cluster)).zone("z").build().unwrap();
    read(&elsewhere, 90).await;
    assert!(
        asked(&cluster).iter().all(|&count| count > 10),
        "no zone is as good as another"
    );
}

#[tokio::test]
async fn reads_leave_a_zone_whose_nodes_fail_and_come_back() {
    let cluster = three_nodes().await;
    let kv = Client::builder(zoned(&cluster)).zone("b").without_hedging();
    let kv = kv.build().unwrap();
    let near = cluster.replica(0, 0);
    near.stop();
    read(&kv, 30).await;
    assert_eq!(near.ops().len(), 0);
    assert!(kv.stats().nodes[1].is_ejected);
    kv.put("k", "v").await.unwrap();
    near.listen();
    support::wait_until("its probe is due", || !kv.stats().nodes[1].is_ejected).await;
    read(&kv, 10).await;
    assert_eq!(near.ops().len(), 10);
}

#[tokio::test]
async fn a_key_stays_with_one_node_until_that_fails() {
    let cluster = three_nodes().await;
    let builder = cluster.builder().read_policy(StickyByKey).without_hedging();
    let kv = builder.build().unwrap();
    let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    for _ in 0..3 {
        kv.get_many(&keys).await.unwrap();
    }
    let keys_at = |node: &FakeNode| -> HashSet<String> {
        node.ops().iter().map(|op| op.key.to_string()).collect()
    };
    let before: Vec<_> = cluster.shards[0].iter().map(keys_at).collect();
    assert_eq!(
        before.iter().map(HashSet::len).sum::<usize>(),
        30,
        "{before:?}"
    );
    assert!(before.iter().all(|keys| !keys.is_empty()), "{before:?}");
    cluster.replica(0, 0).stop();
    kv.get_many(&keys).await.unwrap();
    cluster.shards[0].iter().for_each(FakeNode::forget_ops);
    kv.get_many(&keys).await.unwrap();
    for place in [0, 2] {
        let after = keys_at(&cluster.shards[0][place]);
        assert!(
            before[place].is_subset(&after),
            "node {place} keeps its own"
        );
    }
}

/// Says what it is told to, whatever the candidates are.
#[derive(Debug)]
struct Says(usize);

impl ReadPolicy for Says {
    fn choose(&self, read: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
        assert!(candidates.len() >= 2, "nobody is asked about one");
        assert_eq!(candidates.iter().count(), candidates.len());
        assert_eq!(read.key.map(Key::as_bytes), Some(&b"k"[..]));
        self.0
    }
}

#[tokio::test]
async fn an_own_policy_decides_and_nonsense_means_the_first() {
    for (place, expected) in [
        (2, [0, 0, 9]),
        (1, [0, 9, 0]),
        (3, [9, 0, 0]),
        (usize::MAX, [9, 0, 0]),
    ] {
        let cluster = three_nodes().await;
        let builder = cluster.builder().read_policy(Says(place)).without_hedging();
        read(&builder.build().unwrap(), 9).await;
        assert_eq!(asked(&cluster), expected, "place {place}");
    }
}

#[tokio::test]
async fn an_own_policy_is_asked_again_after_a_failure() {
    let cluster = three_nodes().await;
    for replica in 0..2 {
        cluster.replica(0, replica).script(|_| Reply::Break);
    }
    let builder = cluster.builder().read_policy(Says(2)).without_hedging();
    read(&builder.build().unwrap(), 1).await;
    assert_eq!(asked(&cluster), [1, 1, 1]);
}

/// Replicas that hold nothing of what such reads want.
async fn lagging(replicas: usize) -> Cluster {
    let cluster = Cluster::start(1, replicas).await;
    cluster.primary(0).script(|op| match op.action.is_write() {
        true => stored(5),
        false => found("new", 5),
    });
    for replica in 0..replicas {
        cluster.replica(0, replica).script(|op| {
            let wants_level = op.terms.min_position.is_some() || op.terms.max_lag_ms.is_some();
            match wants_level {
                true => refused(ErrorCode::Behind, None),
                false => found("old", 1),
            }
        });
    }
    cluster
}

#[tokio::test]
async fn no_read_with_a_bound_on_lag_fails_that_has_time_and_few_go_on_at_once() {
    let cluster = lagging(2).await;
    let kv = cluster.client();
    let bound = Consistency::MaxLag(Duration::from_millis(100));
    // All of them choose a node before the first one hears that it is behind.
    let reads = 900;
    let keys: Vec<String> = (0..reads).map(|n| format!("k{n}")).collect();
    let options = GetOptions::new().consistency(bound);
    for entry in kv.get_many_with(&keys, options).await {
        assert_eq!(entry.unwrap().unwrap().value, "new");
    }
    let stats = kv.stats();
    assert!(
        stats.retries_held_back > 0,
        "the others paused first: {stats:?}"
    );
    let at_once = stats.retries - stats.retries_held_back;
    let budget = reads / 5 + 100;
    assert!(
        at_once <= budget,
        "{at_once} of {reads} reads went on at once; at most {budget} may"
    );
}

#[tokio::test]
async fn replicas_that_lag_do_not_send_all_reads_with_a_bound_to_the_primary() {
    // What the last read learnt of the replicas sent the next ones straight to the primary, past the budget.
    let cluster = lagging(2).await;
    let kv = cluster.client();
    let bound = Consistency::MaxLag(Duration::from_millis(100));
    let reads = 600;
    let began = Instant::now();
    let mut in_time = 0;
    for n in 0..reads {
        let options = GetOptions::new().consistency(bound);
        let read = kv.get_with(format!("k{n}"), options).await.unwrap();
        assert_eq!(read.unwrap().value, "new");
        in_time += usize::from(began.elapsed() < Duration::from_secs(2));
    }
    let refused: usize = (0..2).map(|at| cluster.replica(0, at).ops().len()).sum();
    assert!(
        refused > reads / 3,
        "{refused} of {reads} reads asked a replica first, {in_time} in time"
    );
}

#[tokio::test]
async fn a_read_of_what_was_just_written_goes_on_to_the_primary() {
    let cluster = lagging(2).await;
    let kv = cluster.client();
    kv.put("k", "new").await.unwrap();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(kv.get("k").await.unwrap().as_deref(), Some(&b"new"[..]));
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // Where the primary is gone, too, nobody has it: that is said in time.
    cluster.primary(0).stop();
    let short = || GetOptions::new().timeout(Duration::from_millis(150));
    let error = kv.get_with("k", short()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // Who does not insist is served.
    let eventual = short().consistency(Consistency::Eventual);
    assert_eq!(
        kv.get_with("k", eventual).await.unwrap().unwrap().value,
        "old"
    );
}

/// Two thirds of them at replicas that are behind; then at the other replica, if that has not said so yet, and at the
/// primary. All of these repeats are within their budget.
#[tokio::test]
async fn many_reads_of_what_was_just_written_do_not_wait_for_each_other() {
    let cluster = lagging(2).await;
    let kv = Client::builder(cluster.map(1)).build().unwrap();
    kv.put("k", "new").await.unwrap();
    let keys: Vec<String> = (0..800).map(|n| format!("k{n}")).collect();
    let values = kv.get_many(&keys).await.unwrap();
    assert!(values.iter().all(|value| value.as_deref() == Some(b"new")));
    let stats = kv.stats();
    assert_eq!(stats.retries_held_back, 0, "{stats:?}");
}

#[tokio::test]
async fn a_lost_position_is_told_once_to_all_who_share_a_session() {
    let cluster = Cluster::start(1, 1).await;
    for node in &cluster.shards[0] {
        node.script(|op| match op.terms.min_position {
            Some(position) if position.seq == 99 => refused(ErrorCode::PositionLost, None),
            _ => missing(3),
        });
    }
    let session = Session::from_token("kv1_0.1.99").unwrap();
    let history = CallHistory::new();
    let kv = cluster
        .client()
        .with_session(session)
        .with_history(&history);
    let reads = join_all((0..30).map(|n| {
        let kv = kv.clone();
        async move { kv.get(format!("k{n}")).await }
    }));
    let errors: Vec<_> = reads.await.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].lost_position().map(|at| at.seq), Some(99));
    assert!(
        errors[0].to_string().contains("position 1.99 is lost"),
        "{}",
        errors[0]
    );
    let again = history.attempts().into_iter();
    let again = again.filter(|one| one.why == Why::PositionForgotten);
    assert!(again.count() > 0, "{history}");
    kv.get("k").await.unwrap();
}
