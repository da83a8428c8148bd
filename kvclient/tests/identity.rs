//! Request ids: a write is the same write however often it is sent, and nobody is told that it did not happen if it
//! may have.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use kvclient::{
    Client, Error, ErrorKind, Outcome, PutOptions,
    wire::{
        batch::{Action, Op, OpResult, RequestId},
        error::{Applied, ErrorCode},
    },
};
use support::{Cluster, FakeNode, Reply, key_of, redirect, refused, stored, wait_until};
use tokio::task::JoinSet;

/// Does something else for the first `count` ops.
fn at_first(
    count: usize,
    first: impl Fn(&Op) -> Reply + Send + Sync + 'static,
    then: impl Fn(&Op) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Op) -> Reply + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |op| match seen.fetch_add(1, SeqCst) < count {
        true => first(op),
        false => then(op),
    }
}

/// Counters of a node that remembers what it did under which id, as a real one does.
fn counters() -> impl Fn(&Op) -> OpResult + Send + Sync + 'static {
    let done: Mutex<HashMap<(u128, u64), OpResult>> = Mutex::default();
    move |op| {
        let mut done = done.lock().unwrap();
        // All of them add 1.
        let next = done.len() + 1;
        let id = op.terms.request_id.expect("every write has an id");
        assert_eq!(op.action, Action::Incr { delta: 1 });
        let result = done.entry((id.client, id.n)).or_insert_with(|| {
            let Reply::Answer(result) = stored(1) else {
                unreachable!("stored is an answer")
            };
            OpResult {
                status: 200,
                value: Some(next.to_string().into()),
                ..result
            }
        });
        result.clone()
    }
}

fn ids(node: &FakeNode) -> Vec<RequestId> {
    let ops = node.ops().into_iter();
    ops.map(|op| op.terms.request_id.expect("every write has an id"))
        .collect()
}

async fn put(kv: &Client, timeout_ms: u64) -> Result<kvclient::Written, Error> {
    let options = PutOptions::new().timeout(Duration::from_millis(timeout_ms));
    kv.put_with("k", "v", options).await
}

#[tokio::test]
async fn a_write_whose_answer_got_lost_is_repeated_and_done_once() {
    let cluster = Cluster::start(1, 0).await;
    let node = cluster.primary(0);
    let count = counters();
    let answered = AtomicUsize::new(0);
    // Every second answer is lost after the work was done.
    node.script(move |op| {
        let result = count(op);
        match answered.fetch_add(1, SeqCst) % 2 {
            0 => Reply::Break,
            _ => Reply::Answer(result),
        }
    });
    let kv = cluster.client();
    for expected in 1..=10 {
        assert_eq!(kv.incr("n", 1).await.unwrap(), expected);
    }
    let ids = ids(node);
    assert_eq!(ids.len(), 20);
    for (number, pair) in (1..).zip(ids.chunks(2)) {
        assert_eq!(pair[0], pair[1], "a repeat is the same write");
        let id = pair[0];
        assert_eq!(
            (id.n, id.floor),
            (number, number),
            "nothing before it is waited for"
        );
        assert_eq!(id.client, ids[0].client);
    }
}

#[tokio::test]
async fn an_id_lives_through_whatever_comes_between() {
    let cluster = Cluster::start(2, 0).await;
    let (first, second) = (cluster.primary(0), cluster.primary(1));
    let there = second.address.clone();
    let busy = |_: &Op| refused(ErrorCode::Overloaded, Some(Applied::No));
    // Too busy, then a break, then a redirect, then not ready, and only then done.
    let seen = AtomicUsize::new(0);
    first.script(move |op| match seen.fetch_add(1, SeqCst) {
        0 => busy(op),
        1 => Reply::Break,
        _ => redirect(&there),
    });
    second.script(at_first(
        1,
        |_| Reply::Http(503, String::new()),
        |_| stored(1),
    ));
    let key = key_of(&cluster.map(1), 0);
    cluster.client().put(&key, "v").await.unwrap();
    let all = [ids(first), ids(second)].concat();
    assert!(all.len() >= 5, "{all:?}");
    assert!(all.iter().all(|id| *id == all[0]), "{all:?}");
}

#[tokio::test]
async fn large_values_and_atomic_batches_keep_their_id_too() {
    let cluster = Cluster::start(1, 0).await;
    let node = cluster.primary(0);
    let kv = cluster.client();
    node.script(at_first(1, |_| Reply::Break, |_| stored(1)));
    kv.put("k", vec![b'x'; 100 << 10]).await.unwrap();
    let large = ids(node);
    assert_eq!(large.len(), 2);
    assert_eq!(large[0], large[1]);
    node.forget_ops();
    node.script(at_first(1, |_| Reply::Break, |_| stored(1)));
    let batch = kv.atomic().put("{k}1", "v").put("{k}2", "v");
    batch.commit().await.unwrap();
    let batches = node.batches();
    let of_batch: Vec<_> = batches.iter().map(|ops| ops[0].terms.request_id).collect();
    assert_eq!(of_batch.len(), 2);
    assert!(
        of_batch[0].is_some() && of_batch[0] == of_batch[1],
        "{of_batch:?}"
    );
    assert_ne!(of_batch[0], Some(large[0]), "a write of its own");
}

#[tokio::test]
async fn a_write_that_waits_holds_the_floor_and_no_other_shard_s() {
    let cluster = Cluster::start(2, 0).await;
    let map = cluster.map(1);
    let (kv, stuck) = (cluster.client(), key_of(&map, 0));
    let (node, key) = (cluster.primary(0), format!("{{{stuck}}}:other"));
    let held = stuck.clone();
    node.script(move |op| match op.key.as_bytes() == held.as_bytes() {
        true => Reply::Hang,
        false => stored(1),
    });
    let waits = tokio::spawn({
        let kv = kv.clone();
        async move { kv.put(stuck, "v").await }
    });
    wait_until("it is sent", || !node.ops().is_empty()).await;
    kv.put(&key, "v").await.unwrap();
    let other = cluster.primary(1);
    kv.put(key_of(&map, 1), "v").await.unwrap();
    assert_eq!((ids(node)[1].n, ids(node)[1].floor), (2, 1));
    assert_eq!((ids(other)[0].n, ids(other)[0].floor), (1, 1));
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    kv.put(&key, "v").await.unwrap();
    assert_eq!(
        (ids(node)[2].n, ids(node)[2].floor),
        (3, 3),
        "nobody waits for the first"
    );
}

#[tokio::test]
async fn many_writes_at_once_have_an_id_each() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let mut tasks = JoinSet::new();
    for n in 0..200 {
        let kv = kv.clone();
        tasks.spawn(async move { kv.put(format!("k{n}"), "v").await });
    }
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
    let mut ids = ids(cluster.primary(0));
    assert!(ids.iter().all(|id| 0 < id.floor && id.floor <= id.n));
    ids.sort_unstable_by_key(|id| id.n);
    ids.dedup_by_key(|id| id.n);
    assert_eq!(ids.len(), 200);
    // Another client is somebody else.
    cluster.client().put("k", "v").await.unwrap();
    let other = cluster.primary(0).ops().pop().unwrap().terms.request_id;
    assert_ne!(other.unwrap().client, ids[0].client);
}

/// A refusal would make it "not applied", had the first attempt not been lost.
#[tokio::test]
async fn once_unknown_a_write_is_never_called_not_applied() {
    let no = Some(Applied::No);
    for (code, applied, kind) in [
        (ErrorCode::PreconditionFailed, no, ErrorKind::Conflict),
        (ErrorCode::Forbidden, no, ErrorKind::Denied),
        (ErrorCode::NoSpace, no, ErrorKind::Full),
        (ErrorCode::TooLarge, no, ErrorKind::Invalid),
        (ErrorCode::NotReady, no, ErrorKind::Unavailable),
        (ErrorCode::RequestIdReused, no, ErrorKind::Invalid),
        (ErrorCode::RequestIdExpired, None, ErrorKind::Unavailable),
    ] {
        let cluster = Cluster::start(1, 0).await;
        let refusal = move |_: &Op| refused(code, applied);
        cluster
            .primary(0)
            .script(at_first(1, |_| Reply::Break, refusal));
        let error = put(&cluster.client(), 300).await.unwrap_err();
        let found = (error.kind(), error.outcome());
        assert_eq!(found, (kind, Outcome::Unknown), "{error}");
        assert!(error.attempts() >= 2, "{error}");
        assert!(
            error.to_string().contains("may have been applied"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_conflict_tells_the_position_it_met() {
    let cluster = Cluster::start(1, 0).await;
    let refusal = |_: &Op| {
        let Reply::Answer(mut result) = refused(ErrorCode::PreconditionFailed, Some(Applied::No))
        else {
            unreachable!("a refusal is an answer")
        };
        result.etag = Some(kvclient::Position::new(1, 7));
        Reply::Answer(result)
    };
    cluster
        .primary(0)
        .script(at_first(1, |_| Reply::Break, refusal));
    let error = put(&cluster.client(), 1_000).await.unwrap_err();
    assert_eq!(
        error.outcome(),
        Outcome::Unknown,
        "the entry may be the first attempt's own"
    );
    assert_eq!(error.position().map(|at| at.seq), Some(7));
}

#[tokio::test]
async fn without_ids_a_broken_write_is_not_repeated() {
    let cluster = Cluster::start(1, 0).await;
    let node = cluster.primary(0);
    node.script(at_first(1, |_| Reply::Break, |_| stored(1)));
    let kv = cluster.builder().without_request_ids().build().unwrap();
    let error = put(&kv, 1_000).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, Outcome::Unknown)
    );
    assert_eq!((error.attempts(), node.ops().len()), (1, 1));
    assert_eq!(node.ops()[0].terms.request_id, None);
    put(&kv, 1_000).await.unwrap();
}

#[tokio::test]
async fn reads_carry_no_id() {
    let cluster = Cluster::start(1, 0).await;
    cluster.client().get("k").await.unwrap();
    assert_eq!(cluster.primary(0).ops()[0].terms.request_id, None);
}

/// A success without its position was told as "damaged data", not applied.
#[tokio::test]
async fn a_success_that_cannot_be_read_may_have_been_applied() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|_| {
        Reply::Answer(OpResult {
            status: 204,
            applied: Some(Applied::Yes),
            ..OpResult::default()
        })
    });
    let kv = cluster.client();
    for error in [
        put(&kv, 500).await.unwrap_err(),
        kv.put("k", vec![b'x'; 100 << 10]).await.unwrap_err(),
        kv.delete("k").await.unwrap_err(),
        kv.incr("n", 1).await.unwrap_err(),
        kv.atomic().put("k", "v").commit().await.unwrap_err(),
    ] {
        let found = (error.kind(), error.outcome());
        assert_eq!(found, (ErrorKind::Corrupt, Outcome::Unknown), "{error}");
    }
}
