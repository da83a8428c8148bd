//! Writes that must be on more disks than the primary's: what is sent, what is tried again, and whom it holds up.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvclient::{
    Ack, Client, DeleteOptions, ErrorKind, Outcome, PutOptions,
    wire::{
        batch::{Action, Op, OpResult},
        error::{Applied, ErrorCode},
    },
};
use support::{Cluster, Reply, refused, stored, wait_until};
use tokio::time::timeout;

const TOO_FEW: fn() -> Reply = || refused(ErrorCode::TooFewReplicas, Some(Applied::No));
const TIME_OVER: fn() -> Reply = || refused(ErrorCode::AckTimeout, Some(Applied::Unknown));

/// Any op's success.
fn done(op: &Op) -> Reply {
    let Reply::Answer(result) = stored(1) else {
        unreachable!("it is an answer");
    };
    let value = match op.action {
        Action::Incr { .. } => Some("1".into()),
        _ => None,
    };
    Reply::Answer(OpResult { value, ..result })
}

async fn node() -> (Cluster, Client) {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(done);
    let kv = cluster.client();
    (cluster, kv)
}

/// So many of these, then success.
fn after(count: usize, reply: fn() -> Reply) -> impl Fn(&Op) -> Reply + Send + Sync + 'static {
    let asked = AtomicUsize::new(0);
    move |_| match asked.fetch_add(1, SeqCst) < count {
        true => reply(),
        false => stored(1),
    }
}

/// The acks of what the node was sent since last asked.
fn acks(cluster: &Cluster) -> Vec<Option<Ack>> {
    let node = cluster.primary(0);
    let acks = node.ops().iter().map(|op| op.terms.ack).collect();
    node.forget_ops();
    acks
}

/// Every op that writes, each once: by its own options where it has some.
async fn write_all(kv: &Client, put: PutOptions, delete: DeleteOptions) {
    let day = Duration::from_secs(86_400);
    kv.put_with("k", "v", put).await.unwrap();
    kv.delete_with("k", delete).await.unwrap();
    kv.put_many_with([("k", "v")], put).await.remove(0).unwrap();
    let deleted = kv.delete_many_with(["k"], delete).await.remove(0);
    deleted.unwrap();
    kv.incr("k", 1).await.unwrap();
    kv.touch("k", day).await.unwrap();
    kv.persist("k").await.unwrap();
}

#[tokio::test]
async fn a_write_says_who_must_have_it() {
    let (cluster, kv) = node().await;
    let (put, delete) = (PutOptions::new(), DeleteOptions::new());
    write_all(&kv, put, delete).await;
    assert_eq!(acks(&cluster), [None; 7], "the primary, by default");
    let one = Some(Ack::Replicas(1));
    write_all(&kv, put.ack(one), delete.ack(Ack::Replicas(1))).await;
    assert_eq!(acks(&cluster), [one, one, one, one, None, None, None]);
    let safe = cluster.builder().ack(Ack::Majority).build().unwrap();
    for safe in [safe, kv.with_ack(Ack::Majority)] {
        let most = Some(Ack::Majority);
        write_all(&safe, put, delete).await;
        assert_eq!(acks(&cluster), [most; 7], "what the client says");
        write_all(&safe, put.ack(None), delete.ack(None)).await;
        let expected = [None, None, None, None, most, most, most];
        assert_eq!(acks(&cluster), expected, "what the op says counts more");
        write_all(&safe.with_ack(None), put, delete).await;
        assert_eq!(acks(&cluster), [None; 7]);
        safe.get("k").await.unwrap();
        assert_eq!(acks(&cluster), [None], "a read waits for nobody");
    }
}

#[tokio::test]
async fn an_update_stores_under_its_ack() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let options = PutOptions::new().ack(Ack::All);
    kv.update_with("k", options, |_| Some("v")).await.unwrap();
    assert_eq!(acks(&cluster), [None, Some(Ack::All)], "a read, a write");
}

#[tokio::test]
async fn all_writes_of_an_atomic_batch_carry_its_ack() {
    let (cluster, kv) = node().await;
    let (one, most) = (Some(Ack::Replicas(1)), Some(Ack::Majority));
    let strong = PutOptions::new().ack(Ack::All);
    let batch = kv.atomic().get("{t}a").put("{t}a", "1");
    let batch = batch.put_with("{t}b", "2", strong);
    batch.clone().commit().await.unwrap();
    assert_eq!(acks(&cluster), [None, None, Some(Ack::All)]);
    batch.clone().ack(one).commit().await.unwrap();
    assert_eq!(acks(&cluster), [None, one, Some(Ack::All)]);
    let safe = kv.with_ack(Ack::Majority);
    safe.atomic().incr("{t}n", 1).commit().await.unwrap();
    assert_eq!(acks(&cluster), [most]);
    safe.atomic()
        .incr("{t}n", 1)
        .ack(None)
        .commit()
        .await
        .unwrap();
    assert_eq!(acks(&cluster), [None]);
}

/// The node is to say how far it got before this client stops listening.
#[tokio::test]
async fn a_node_waits_for_replicas_less_long_than_its_client_for_the_node() {
    let (cluster, kv) = node().await;
    let put = PutOptions::new();
    let all = put.ack(Ack::All);
    kv.put("k", "v").await.unwrap();
    kv.put_with("k", "v", all).await.unwrap();
    let short = all.timeout(Duration::from_millis(400));
    kv.put_with("k", "v", short).await.unwrap();
    let hour = all.timeout(Duration::from_secs(3_600));
    kv.put_with("k", "v", hour).await.unwrap();
    let plain = cluster.builder().without_request_ids().build().unwrap();
    plain.put_with("k", "v", hour).await.unwrap();
    let waits: Vec<_> = cluster
        .primary(0)
        .ops()
        .iter()
        .map(|op| op.terms.wait_ms)
        .collect();
    let between = |wait: Option<u32>, from, to| wait.is_some_and(|ms| (from..=to).contains(&ms));
    assert_eq!(waits[0], None, "it waits for nobody");
    assert!(
        between(waits[1], 1_200, 1_250),
        "{waits:?}: of 1.5 s an attempt"
    );
    assert!(between(waits[2], 250, 300), "{waits:?}: of 400 ms");
    assert!(
        between(waits[3], 1_200, 1_250),
        "{waits:?}: then it is repeated"
    );
    assert_eq!(waits[4], None, "it cannot be repeated: all its time");
    let lefts: Vec<_> = cluster
        .primary(0)
        .ops()
        .iter()
        .map(|op| op.terms.time_left_ms)
        .collect();
    assert!(lefts[4].unwrap() > 3_000_000);
}

#[tokio::test]
async fn a_large_value_carries_its_ack_too() {
    let (cluster, kv) = node().await;
    let large = Bytes::from(vec![b'x'; 300_000]);
    let all = PutOptions::new().ack(Ack::All);
    kv.put_with("k", large.clone(), all).await.unwrap();
    assert_eq!(acks(&cluster), [Some(Ack::All)]);
    let short = all.timeout(Duration::from_secs(2));
    kv.put_with("k", large, short).await.unwrap();
    let op = cluster.primary(0).ops().remove(0);
    assert!(
        op.terms.wait_ms.is_some_and(|ms| ms < 2_000),
        "{:?}",
        op.terms
    );
}

#[tokio::test]
async fn a_number_of_replicas_that_cannot_be_said_is_refused() {
    let (cluster, kv) = node().await;
    for count in [0, 254, 255] {
        let ack = Ack::Replicas(count);
        let put = kv.put_with("k", "v", PutOptions::new().ack(ack)).await;
        let incr = kv.with_ack(ack).incr("k", 1).await.map(|_| ());
        let batch = kv.atomic().put_with("k", "v", PutOptions::new().ack(ack));
        let atomic = batch.commit().await.map(|_| ());
        for result in [put.map(|_| ()), incr, atomic] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{count}");
            assert_eq!(error.outcome(), Outcome::NotApplied);
        }
    }
    assert_eq!(acks(&cluster), [], "nothing was sent");
}

/// In one batch with writes that wait, others would wait as well.
#[tokio::test]
async fn writes_that_wait_hold_up_no_others() {
    let (cluster, kv) = node().await;
    let node = cluster.primary(0);
    node.script(|op| match op.terms.ack {
        Some(_) => Reply::Hang,
        None => done(op),
    });
    let safe = kv.with_ack(Ack::All);
    let waiting = tokio::spawn(async move {
        let items = (0..20).map(|n| (format!("w{n}"), "v"));
        safe.put_many(items).await
    });
    wait_until("they are on their way", || node.ops().len() == 20).await;
    let began = Instant::now();
    for n in 0..20 {
        let items = (0..20).map(|item| (format!("k{n}.{item}"), "v"));
        kv.put_many(items).await.unwrap();
    }
    assert!(!waiting.is_finished());
    assert!(
        began.elapsed() < Duration::from_millis(1_500),
        "before the first is repeated"
    );
    let apart = |batch: &Vec<Op>| {
        let waiting = batch.iter().filter(|op| op.terms.ack.is_some()).count();
        waiting == 0 || waiting == batch.len()
    };
    assert!(node.batches().iter().all(apart));
    waiting.abort();
}

#[tokio::test]
async fn too_few_replicas_are_waited_for_as_long_as_there_is_time() {
    let (cluster, kv) = node().await;
    let node = cluster.primary(0);
    node.script(after(3, TOO_FEW));
    let all = PutOptions::new().ack(Ack::All);
    kv.put_with("k", "v", all).await.unwrap();
    assert_eq!(node.ops().len(), 4, "they came back");

    node.script(|_| TOO_FEW());
    let short = all.timeout(Duration::from_millis(150));
    for kv in [kv, cluster.builder().without_request_ids().build().unwrap()] {
        let error = kv.put_with("k", "v", short).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("too_few_replicas: as the script says"),
            "{text}"
        );
        assert!(error.attempts() > 2, "{error}");
        let stats = kv.stats();
        assert_eq!(stats.nodes[0].ejections, 0, "the node is well: {stats:?}");
    }
}

#[tokio::test]
async fn an_ack_that_does_not_come_in_time_is_asked_for_again_under_the_same_id() {
    let (cluster, kv) = node().await;
    let node = cluster.primary(0);
    node.script(after(3, TIME_OVER));
    let all = PutOptions::new().ack(Ack::All);
    kv.put_with("k", "v", all).await.unwrap();
    let ids: Vec<_> = node.ops().iter().map(|op| op.terms.request_id).collect();
    assert_eq!(ids.len(), 4);
    assert!(
        ids[0].is_some() && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );

    node.script(|_| TIME_OVER());
    let short = all.timeout(Duration::from_millis(150));
    let error = kv.put_with("k", "v", short).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, Outcome::Unknown)
    );
    assert!(error.to_string().contains("ack_timeout"), "{error}");
    assert!(error.attempts() > 2, "{error}");
    let stats = kv.stats();
    assert_eq!(stats.nodes[0].ejections, 0, "the node is well: {stats:?}");

    // What may have been applied stays so, whatever is said of the repeat.
    let seen = AtomicUsize::new(0);
    node.script(move |_| match seen.fetch_add(1, SeqCst) {
        0 => TIME_OVER(),
        _ => TOO_FEW(),
    });
    let error = kv.put_with("k", "v", short).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
}

#[tokio::test]
async fn without_an_id_an_ack_that_does_not_come_is_unknown() {
    let (cluster, _) = node().await;
    cluster.primary(0).script(|_| TIME_OVER());
    let kv = cluster.builder().without_request_ids().build().unwrap();
    let put = kv.put_with("k", "v", PutOptions::new().ack(Ack::All));
    let error = timeout(Duration::from_secs(3), put)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, Outcome::Unknown)
    );
    assert_eq!(cluster.primary(0).ops().len(), 1, "it is not sent again");
}
