//! Which node an op goes to, and what happens when that node is not there.

mod support;

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use kvclient::{Client, Consistency, ErrorKind, GetOptions, Outcome, PutOptions};
use support::{Cluster, FakeNode, Reply, found, key_of, keys_of, map, refused, stored};

use kvclient::wire::{
    batch::{Action, Op},
    error::{Applied, ErrorCode},
};

#[tokio::test]
async fn ops_go_to_the_shard_that_owns_the_key() {
    let cluster = Cluster::start(3, 0).await;
    let (kv, map) = (cluster.client(), cluster.map(1));
    for shard in 0..3 {
        let key = key_of(&map, shard);
        kv.put(&key, "v").await.unwrap();
        assert_eq!(kv.get(&key).await.unwrap().as_deref(), Some(&b"v"[..]));
        assert_eq!(cluster.primary(shard).ops().len(), 2, "shard {shard}");
        let route = kv.route(&key).unwrap();
        assert_eq!(route.primary, cluster.primary(shard).address);
    }
}

#[tokio::test]
async fn a_hash_tag_keeps_keys_together() {
    let cluster = Cluster::start(3, 0).await;
    let kv = cluster.client();
    for name in ["cart", "name", "mail", "post"] {
        kv.put(format!("{{user:1}}:{name}"), "v").await.unwrap();
    }
    let busy = (0..3).filter(|&shard| !cluster.primary(shard).ops().is_empty());
    assert_eq!(busy.count(), 1);
}

#[tokio::test]
async fn writes_go_to_the_primary_and_reads_to_all() {
    let cluster = Cluster::start(1, 2).await;
    for node in &cluster.shards[0] {
        node.script(|op| match op.action.is_write() {
            true => stored(1),
            false => found("v", 1),
        });
    }
    let kv = cluster.client();
    for n in 0..120 {
        kv.put(format!("k{n}"), "v").await.unwrap();
        kv.get(format!("k{n}")).await.unwrap();
    }
    for replica in 0..2 {
        let ops = cluster.replica(0, replica).ops();
        assert!(
            ops.iter().all(|op| !op.action.is_write()),
            "a write went to a replica"
        );
        assert!(
            ops.len() > 15,
            "replica {replica} got {} of 120 reads",
            ops.len()
        );
    }
    assert!(
        cluster.primary(0).ops().len() > 135,
        "the primary reads too"
    );
}

#[tokio::test]
async fn a_strict_read_asks_the_primary_and_a_tool_one_node() {
    let cluster = Cluster::start(1, 1).await;
    let kv = cluster.client();
    for _ in 0..10 {
        let strict = GetOptions::new().consistency(Consistency::Primary);
        kv.get_with("k", strict).await.unwrap();
    }
    assert_eq!(cluster.replica(0, 0).ops().len(), 0);
    let replica = cluster.replica(0, 0).address.clone();
    kv.get_with("k", GetOptions::new().node(replica))
        .await
        .unwrap();
    assert_eq!(cluster.replica(0, 0).ops().len(), 1);
    let stranger = GetOptions::new().node("h:1".parse().unwrap());
    let error = kv.get_with("k", stranger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn odd_timeouts_are_taken_as_they_are_meant() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let never = PutOptions::new().timeout(Duration::MAX);
    kv.put_with("k", "v", never).await.unwrap();
    let at_once = PutOptions::new().timeout(Duration::ZERO);
    let error = kv.put_with("k", "v", at_once).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, Outcome::NotApplied)
    );
    assert_eq!(cluster.primary(0).ops().len(), 1);
}

#[tokio::test]
async fn a_read_goes_on_when_a_node_is_gone_or_breaks() {
    let cluster = Cluster::start(1, 2).await;
    cluster.primary(0).script(|_| found("v", 1));
    cluster.replica(0, 0).stop();
    cluster.replica(0, 1).script(|_| Reply::Break);
    let kv = cluster.client();
    for _ in 0..20 {
        assert!(kv.get("k").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_read_leaves_a_node_that_hangs() {
    let cluster = Cluster::start(1, 1).await;
    cluster.primary(0).script(|_| found("v", 1));
    cluster.replica(0, 0).script(|_| Reply::Hang);
    let kv = cluster
        .builder()
        .attempt_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    for _ in 0..10 {
        assert!(kv.get("k").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn reads_pay_for_a_silent_node_once() {
    // Every read that drew the silent node waited for a whole attempt before it asked another.
    let cluster = Cluster::start(1, 2).await;
    cluster.replica(0, 0).script(|_| Reply::Hang);
    let kv = cluster
        .builder()
        .attempt_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    for _ in 0..50 {
        kv.get("k").await.unwrap();
    }
    assert_eq!(cluster.replica(0, 0).ops().len(), 1);
    // It stays the last resort.
    cluster.replica(0, 0).script(|_| found("v", 1));
    cluster.replica(0, 1).stop();
    cluster.primary(0).stop();
    assert!(kv.get("k").await.unwrap().is_some());
}

#[tokio::test]
async fn a_write_waits_for_a_node_that_restarts() {
    let node = FakeNode::reserve();
    let kv = Client::builder(map(1, &[vec![node.address.clone()]]))
        .build()
        .unwrap();
    let put = tokio::spawn(async move { kv.put("k", "v").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!put.is_finished(), "it waits while nobody listens");
    node.listen();
    put.await.unwrap().unwrap();
    assert_eq!(node.ops().len(), 1);
}

#[tokio::test]
async fn without_an_id_a_write_of_unknown_outcome_is_not_repeated() {
    let cluster = Cluster::start(1, 0).await;
    for (reply, kind) in [
        (Reply::Break, ErrorKind::Unavailable),
        (Reply::Hang, ErrorKind::Unavailable),
        (Reply::Http(200, "rubbish".into()), ErrorKind::Corrupt),
        (Reply::Http(500, String::new()), ErrorKind::Unavailable),
        (
            refused(ErrorCode::StorageFailed, Some(Applied::Unknown)),
            ErrorKind::Unavailable,
        ),
        (
            refused(ErrorCode::AckTimeout, Some(Applied::Unknown)),
            ErrorKind::Unavailable,
        ),
    ] {
        cluster.primary(0).forget_ops();
        let told = reply.clone();
        cluster.primary(0).script(move |_| told.clone());
        let options = PutOptions::new().timeout(Duration::from_millis(300));
        let error = cluster
            .builder()
            .without_request_ids()
            .build()
            .unwrap()
            .put_with("k", "v", options)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (kind, Outcome::Unknown),
            "{reply:?}: {error}"
        );
        assert_eq!(error.attempts(), 1, "{reply:?}");
        assert_eq!(cluster.primary(0).ops().len(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn a_write_that_was_not_applied_is_repeated() {
    let cluster = Cluster::start(1, 0).await;
    let left = std::sync::atomic::AtomicI32::new(3);
    cluster
        .primary(0)
        .script(move |_| match left.fetch_sub(1, SeqCst) {
            1.. => refused(ErrorCode::NotReady, Some(Applied::No)),
            _ => stored(7),
        });
    let written = cluster.client().put("k", "v").await.unwrap();
    assert_eq!(written.position.seq, 7);
    assert_eq!(cluster.primary(0).ops().len(), 4);
}

#[tokio::test]
async fn the_deadline_holds_whatever_happens() {
    let nobody = FakeNode::reserve();
    let hangs = FakeNode::start().await;
    hangs.script(|_| Reply::Hang);
    for (node, outcome) in [(&nobody, Outcome::NotApplied), (&hangs, Outcome::Unknown)] {
        let map = map(1, &[vec![node.address.clone()]]);
        let kv = Client::builder(map)
            .timeout(Duration::from_millis(200))
            .build()
            .unwrap();
        let start = Instant::now();
        let write = kv.put("k", "v").await.unwrap_err();
        let read = kv.get("k").await.unwrap_err();
        assert!(
            start.elapsed() < Duration::from_millis(1_000),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(
            (write.kind(), write.outcome()),
            (ErrorKind::Unavailable, outcome)
        );
        assert_eq!(
            (read.kind(), read.outcome()),
            (ErrorKind::Unavailable, Outcome::NotApplied)
        );
        assert_eq!(read.node(), Some(&node.address));
    }
}

#[tokio::test]
async fn time_left_travels_with_each_op() {
    let cluster = Cluster::start(1, 0).await;
    let options = PutOptions::new().timeout(Duration::from_millis(900));
    cluster.client().put_with("k", "v", options).await.unwrap();
    let time_left_ms = cluster.primary(0).ops()[0].terms.time_left_ms.unwrap();
    assert!((1..=900).contains(&time_left_ms), "{time_left_ms}");
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let cluster = Cluster::start(1, 0).await;
    for (code, kind) in [
        (ErrorCode::PreconditionFailed, ErrorKind::Conflict),
        (ErrorCode::TooLarge, ErrorKind::Invalid),
        (ErrorCode::Forbidden, ErrorKind::Denied),
        (ErrorCode::NoSpace, ErrorKind::Full),
    ] {
        cluster
            .primary(0)
            .script(move |_| refused(code, Some(Applied::No)));
        let error = cluster.client().put("k", "v").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (kind, Outcome::NotApplied),
            "{error}"
        );
        assert_eq!((error.op(), error.shard()), ("put", Some("shard0")));
    }
    let error = cluster.client().get("").await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Invalid, 0));
}

#[tokio::test]
async fn many_keys_travel_by_node_and_only_what_failed_is_repeated() {
    let cluster = Cluster::start(2, 0).await;
    let map = cluster.map(1);
    let keys: Vec<String> = keys_of(&map, 0)
        .take(20)
        .chain(keys_of(&map, 1).take(20))
        .collect();
    // Every third key of shard 0 is refused once.
    let refused_once = std::sync::Mutex::new(std::collections::HashSet::new());
    cluster.primary(0).script(move |op| {
        let mut seen = refused_once.lock().unwrap();
        let is_third = seen.len() < 7 && !seen.contains(&op.key);
        match is_third && seen.insert(op.key.clone()) {
            true => refused(ErrorCode::NotReady, None),
            false => found("v", 1),
        }
    });
    let mut expected = vec![Some("v"); 20];
    expected.extend([None; 20]);
    let values = cluster.client().get_many(&keys).await.unwrap();
    let texts: Vec<_> = values
        .iter()
        .map(|v| v.as_deref().map(|v| std::str::from_utf8(v).unwrap()))
        .collect();
    assert_eq!(texts, expected);
    assert_eq!(
        cluster.primary(0).batches()[0].len(),
        20,
        "all in one request"
    );
    assert_eq!(
        cluster.primary(0).ops().len(),
        27,
        "the seven refused ones came again"
    );
    assert_eq!(cluster.primary(1).batches().len(), 1);
}

#[tokio::test]
async fn many_results_stand_in_the_order_of_the_items() {
    let cluster = Cluster::start(3, 0).await;
    let kv = cluster.client();
    let items: Vec<(String, String)> = (0..100)
        .map(|n| (format!("k{n}"), format!("v{n}")))
        .collect();
    kv.put_many(items.clone()).await.unwrap();
    let keys = items.iter().map(|(key, _)| key);
    let values = kv.get_many(keys.clone()).await.unwrap();
    for ((_, written), read) in items.iter().zip(values) {
        assert_eq!(read.as_deref(), Some(written.as_bytes()));
    }
    assert_eq!(kv.delete_many(keys.take(2)).await.unwrap(), [true, true]);
    let results = kv.get_many_with(["k0", "", "k99"], GetOptions::new()).await;
    assert!(matches!(results[0], Ok(None)));
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Invalid);
    assert!(matches!(results[2], Ok(Some(_))));
}

#[tokio::test]
async fn many_items_on_one_key_act_in_their_order() {
    // The first value is too large to travel with others, and is refused once: the second one, which went beside
    // it, was stored first and then overwritten.
    let cluster = Cluster::start(1, 0).await;
    let seen = std::sync::atomic::AtomicBool::new(false);
    cluster.primary(0).script(move |op| {
        let is_large = value_bytes(op) > 1_000;
        match is_large && !seen.swap(true, SeqCst) {
            true => Reply::Http(
                429,
                r#"{"error":"too_many_requests","message":"later"}"#.into(),
            ),
            false => stored(1),
        }
    });
    let kv = cluster.client();
    let large = "x".repeat(100 << 10);
    let items = [("k", &*large), ("k", "2"), ("other", ""), ("k", "33")];
    let items = items.map(|(key, value)| (key, value.to_owned()));
    let results = kv.put_many_with(items, PutOptions::new()).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let ops = cluster.primary(0).ops();
    let puts = ops.iter().filter(|op| op.key.as_bytes() == b"k");
    let sizes: Vec<usize> = puts.map(value_bytes).collect();
    assert_eq!(sizes, [100 << 10, 100 << 10, 1, 2]);
}

fn value_bytes(op: &Op) -> usize {
    match &op.action {
        Action::Put { value, .. } => value.len(),
        _ => 0,
    }
}

#[tokio::test]
async fn many_items_on_one_key_share_their_time() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|_| Reply::Hang);
    let options = PutOptions::new().timeout(Duration::from_millis(100));
    let items = [("k", "1"), ("k", "2")];
    let results = cluster.client().put_many_with(items, options).await;
    let failed = results.into_iter().map(Result::unwrap_err);
    let outcomes: Vec<Outcome> = failed.map(|error| error.outcome()).collect();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::NotApplied]);
}

#[tokio::test]
async fn a_key_that_stands_twice_is_removed_once() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    kv.put("k", "v").await.unwrap();
    assert_eq!(kv.delete_many(["k", "k"]).await.unwrap(), [true, false]);
}

#[tokio::test]
async fn counters_and_expiries() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    assert_eq!(kv.incr("n", 5).await.unwrap(), 5);
    assert_eq!(kv.incr("n", -7).await.unwrap(), -2);
    assert!(kv.touch("n", Duration::from_secs(9)).await.unwrap());
    assert!(kv.persist("n").await.unwrap());
    assert!(kv.delete("n").await.unwrap());
    assert!(!kv.delete("n").await.unwrap());
    assert!(!kv.touch("n", Duration::from_secs(9)).await.unwrap());
    let error = kv.touch("n", Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// "For ever" is what a program means by it: adding it to a point in time must not panic.
#[tokio::test]
async fn the_longest_time_is_for_ever() {
    let cluster = Cluster::start(1, 0).await;
    let gate = AtomicUsize::new(0);
    cluster
        .primary(0)
        .script(move |_| match gate.fetch_add(1, SeqCst) {
            0 => Reply::Break,
            1 => refused(ErrorCode::Overloaded, Some(Applied::No)),
            _ => stored(1),
        });
    let kv = Client::builder(cluster.map(1))
        .timeout(Duration::MAX)
        .attempt_timeout(Duration::MAX)
        .write_attempt_timeout(Duration::MAX)
        .catch_up_wait(Duration::MAX)
        .refresh_interval(Duration::MAX)
        .pauses(Duration::from_millis(5), Duration::MAX)
        .build()
        .unwrap();
    kv.put("k", "v").await.unwrap();
    cluster.primary(0).script(|_| found("v", 1));
    let lag = GetOptions::new().consistency(Consistency::MaxLag(Duration::MAX));
    assert!(kv.get_with("k", lag).await.unwrap().is_some());
    assert!(kv.get("k").await.unwrap().is_some());
    cluster.primary(0).set_map(&cluster.map(1));
    kv.refresh().await.unwrap();
    cluster.primary(0).set_map(&cluster.map(2));
    kv.put("k", "v").await.unwrap();
    let mut scan = kv.scan("").timeout(Duration::MAX);
    assert!(scan.next().await.unwrap().is_err(), "nobody scans here");
    let mut watch = kv.watch("").timeout(Duration::MAX).silence(Duration::MAX);
    assert!(watch.next().await.unwrap().is_err(), "nor watches");
}
