//! Ops whose callers went away: nothing is left of them that others would notice.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{pin::Pin, time::Duration};

use futures_util::{future::join_all, poll};
use kvclient::{Client, Consistency, GetOptions};
use support::{Cluster, Reply, found, stored, wait_until};
use tokio::task::JoinSet;

fn in_flight(kv: &Client) -> usize {
    kv.stats().nodes.iter().map(|node| node.in_flight).sum()
}

type Pending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Every kind of op, of so many callers each.
fn ops(kv: &Client, callers: usize) -> Vec<Pending> {
    let mut all: Vec<Pending> = Vec::new();
    for n in 0..callers {
        let (one, key) = (kv.clone(), format!("k{n}"));
        all.push(Box::pin(async move { drop(one.get(key).await) }));
        let (one, key) = (kv.clone(), format!("k{n}"));
        all.push(Box::pin(async move { drop(one.put(key, "v").await) }));
        let one = kv.clone();
        all.push(Box::pin(async move { drop(one.incr("n", 1).await) }));
        let (one, large) = (kv.clone(), vec![b'x'; 70 << 10]);
        all.push(Box::pin(async move { drop(one.put("large", large).await) }));
        let one = kv.clone();
        all.push(Box::pin(async move {
            drop(one.get_many(["a", "b", "c"]).await)
        }));
        let one = kv.clone();
        all.push(Box::pin(async move {
            drop(one.put_many([("a", "1"), ("a", "2")]).await);
        }));
        let batch = kv.atomic().put("{t}a", "1").incr("{t}b", 1);
        all.push(Box::pin(async move { drop(batch.commit().await) }));
    }
    all
}

async fn works_as_ever(kv: &Client) {
    kv.put("after", "v").await.unwrap();
    let strict = GetOptions::new().consistency(Consistency::Primary);
    assert!(kv.get_with("after", strict).await.unwrap().is_some());
    assert_eq!(in_flight(kv), 0);
}

#[tokio::test]
async fn dropped_before_they_were_polled() {
    let cluster = Cluster::start(2, 1).await;
    let kv = cluster.client();
    drop(ops(&kv, 20));
    assert_eq!((in_flight(&kv), kv.stats().ops), (0, 0));
    works_as_ever(&kv).await;
}

#[tokio::test]
async fn dropped_while_they_wait_and_while_they_are_sent() {
    let cluster = Cluster::start(2, 1).await;
    let nodes = || cluster.shards.iter().flatten();
    let kv = cluster.client();
    for polls in 1..4 {
        nodes().for_each(|node| node.pause());
        let mut pending = ops(&kv, 20);
        for _ in 0..polls {
            for op in &mut pending {
                assert!(poll!(op).is_pending());
            }
            wait_until("some are under way", || {
                nodes().any(|node| !node.ops().is_empty())
            })
            .await;
        }
        assert!(in_flight(&kv) >= 140, "{}", in_flight(&kv));
        drop(pending);
        assert_eq!(in_flight(&kv), 0, "after {polls} polls");
        nodes().for_each(|node| node.resume());
        works_as_ever(&kv).await;
        nodes().for_each(|node| node.forget_ops());
    }
}

#[tokio::test]
async fn dropped_one_by_one_beside_others_that_go_on() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|op| match op.action.is_write() {
        true => stored(1).late(3),
        false => found("v", 1).late(3),
    });
    let kv = cluster.client();
    let mut tasks = JoinSet::new();
    for n in 0..30 {
        let kv = kv.clone();
        tasks.spawn(async move {
            for round in 0..3 {
                let give_up = Duration::from_millis((n + round) % 6);
                let _ = tokio::time::timeout(give_up, kv.put("k", "v")).await;
                let _ = tokio::time::timeout(give_up, kv.get("k")).await;
            }
        });
    }
    let patient = join_all((0..10).map(|_| kv.get("k")));
    assert!(patient.await.iter().all(Result::is_ok));
    tasks.join_all().await;
    works_as_ever(&kv).await;
}

#[tokio::test]
async fn dropped_while_a_second_copy_is_under_way_or_they_pause() {
    let cluster = Cluster::start(1, 1).await;
    let kv = cluster.client();
    // Pays for second copies.
    for _ in 0..60 {
        kv.get("k").await.unwrap();
    }
    for reply in [Reply::Hang, Reply::Break] {
        for node in &cluster.shards[0] {
            let told = reply.clone();
            node.script(move |_| told.clone());
        }
        let patient = GetOptions::new().timeout(Duration::from_secs(60));
        let before = kv.stats();
        let mut read = Box::pin(kv.get_with("k", patient));
        let under_way = async {
            let is_there = || {
                let stats = kv.stats();
                stats.hedges > before.hedges || stats.retries > before.retries + 3
            };
            wait_until("it is not the first attempt any more", is_there).await;
        };
        tokio::select! {
            _ = &mut read => panic!("nobody answers"),
            () = under_way => {}
        }
        drop(read);
        assert_eq!(in_flight(&kv), 0, "{reply:?}");
    }
    for node in &cluster.shards[0] {
        node.script(|op| match op.action.is_write() {
            true => stored(1),
            false => found("v", 1),
        });
    }
    works_as_ever(&kv).await;
}
