//! Concurrent ops to one node travel together, and nobody waits for it.

mod support;

use std::time::Duration;

use bytes::Bytes;
use kvclient::{ErrorKind, GetOptions, Outcome, PutOptions};
use support::{Cluster, Reply, found, stored, wait_until};
use tokio::{task::JoinSet, time::timeout};

#[tokio::test]
async fn a_lone_op_leaves_at_once() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    for _ in 0..5 {
        kv.get("k").await.unwrap();
        kv.put("k", "v").await.unwrap();
    }
    assert_eq!(cluster.primary(0).batches().len(), 10);
    assert!(cluster.primary(0).connections() <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ops_of_many_tasks_travel_together() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let kv = kv.clone();
        tasks.spawn(async move {
            for n in 0..50 {
                kv.put(format!("k{task}"), format!("{n}")).await.unwrap();
                let read = kv.get(format!("k{task}")).await.unwrap();
                assert_eq!(read, Some(Bytes::from(format!("{n}"))));
            }
        });
    }
    tasks.join_all().await;
    let batches = cluster.primary(0).batches();
    let ops: usize = batches.iter().map(Vec::len).sum();
    assert_eq!(ops, 6_400);
    let ratio = ops / batches.len();
    assert!(ratio >= 8, "{ratio} ops a batch with 64 tasks");
    let kinds = |batch: &Vec<kvclient::wire::batch::Op>| {
        let writes = batch.iter().filter(|op| op.action.is_write()).count();
        writes == 0 || writes == batch.len()
    };
    assert!(batches.iter().all(kinds), "reads and writes travel apart");
    assert!(
        cluster.primary(0).connections() <= 4,
        "one connection per lane, or little more"
    );
}

#[tokio::test]
async fn ops_gather_while_a_batch_is_under_way() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let node = cluster.primary(0);
    node.pause();
    let mut tasks = JoinSet::new();
    for n in 0..100 {
        let kv = kv.clone();
        tasks.spawn(async move { kv.put(format!("k{n}"), "v").await });
    }
    wait_until(
        "the first op and, its turn being long, the others are sent",
        || node.batches().len() == 2,
    )
    .await;
    node.resume();
    tasks
        .join_all()
        .await
        .into_iter()
        .for_each(|result| assert!(result.is_ok()));
    let sizes: Vec<usize> = node.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 99]);
}

#[tokio::test]
async fn a_batch_has_its_limits() {
    let cluster = Cluster::start(1, 0).await;
    let node = cluster.primary(0);
    node.script(|_| stored(1));
    let kv = cluster.client();
    let small = (0..2_500).map(|n| (format!("k{n}"), "v"));
    kv.put_many(small).await.unwrap();
    assert!(node.batches().iter().all(|batch| batch.len() <= 1_000));
    node.forget_ops();
    let value = Bytes::from(vec![0; 60_000]);
    kv.put_many((0..100).map(|n| (format!("k{n}"), value.clone())))
        .await
        .unwrap();
    let largest = node.batches().iter().map(Vec::len).max();
    assert!(
        largest <= Some(19),
        "{largest:?} values of 60 kB are over 1 MiB"
    );
}

#[tokio::test]
async fn more_than_the_queue_holds_waits_its_turn() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|_| stored(1));
    let value = Bytes::from(vec![0; 60_000]);
    // 24 MB for a queue of 8 MiB.
    let items = (0..400).map(|n| (format!("k{n}"), value.clone()));
    cluster.client().put_many(items).await.unwrap();
    assert_eq!(cluster.primary(0).ops().len(), 400);
}

#[tokio::test]
async fn a_large_value_travels_alone() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let large = Bytes::from(vec![b'x'; 300_000]);
    let items = [
        ("a", Bytes::from_static(b"small")),
        ("b b/%", large.clone()),
        ("c", "small".into()),
    ];
    kv.put_many(items).await.unwrap();
    let mut sizes: Vec<usize> = cluster.primary(0).batches().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2]);
    assert_eq!(kv.get("b b/%").await.unwrap(), Some(large));
}

#[tokio::test]
async fn a_caller_that_goes_away_disturbs_nobody() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let node = cluster.primary(0);
    node.pause();
    // The first is in its caller's own future, the second in the queue.
    let mut first = Box::pin(kv.put("a", "v"));
    assert!(timeout(Duration::from_millis(5), &mut first).await.is_err());
    let mut second = Box::pin(kv.put("b", "v"));
    assert!(timeout(Duration::ZERO, &mut second).await.is_err());
    let third = tokio::spawn({
        let kv = kv.clone();
        async move { kv.put("c", "v").await }
    });
    tokio::task::yield_now().await;
    drop(second);
    drop(first);
    node.resume();
    third.await.unwrap().unwrap();
    let keys: Vec<String> = node.ops().iter().map(|op| op.key.to_string()).collect();
    assert!(
        !keys.contains(&"b".to_owned()),
        "nobody waited for it: {keys:?}"
    );
    kv.put("d", "v").await.unwrap();
}

#[tokio::test]
async fn a_caller_that_is_not_polled_disturbs_nobody() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    cluster.primary(0).pause();
    let mut stalled = Box::pin(kv.put("a", "v"));
    assert!(
        timeout(Duration::from_millis(5), &mut stalled)
            .await
            .is_err()
    );
    cluster.primary(0).resume();
    // `stalled` has its answer and never looks: as in a stream of futures whose consumer is busy.
    for _ in 0..3 {
        timeout(Duration::from_secs(1), kv.put("b", "v"))
            .await
            .expect("in time")
            .unwrap();
    }
    stalled.await.unwrap();
}

#[tokio::test]
async fn a_patient_write_holds_up_nobody() {
    // One write with an hour's patience went to a node that took it and fell silent. The lane's only drain waited
    // with it, and every other write to that node failed in the queue.
    let cluster = Cluster::start(1, 0).await;
    let node = cluster.primary(0);
    node.script(|op| match op.key.as_bytes().starts_with(b"held") {
        true => Reply::Hang,
        false => stored(1),
    });
    let kv = cluster
        .builder()
        .without_request_ids()
        .timeout(Duration::from_millis(100))
        .attempt_timeout(Duration::from_millis(20))
        .build()
        .unwrap();
    // More of them than may be out beside the others.
    let mut held = JoinSet::new();
    for n in 0..11 {
        let kv = kv.clone();
        let patient = PutOptions::new().timeout(Duration::from_secs(3_600));
        held.spawn(async move { kv.put_with(format!("held{n}"), "v", patient).await });
        wait_until("it is on its way", || node.ops().len() > n).await;
    }
    let given_up = held.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(given_up.outcome(), Outcome::Unknown);
    let ordinary = PutOptions::new().timeout(Duration::from_secs(5));
    kv.put_with("other", "v", ordinary).await.unwrap();
    assert!(held.len() >= 8, "{} of 11 still wait", held.len());
    // One for each of them, and one to ask for the map, since writes fail.
    let connections = node.connections();
    assert!(connections <= 13, "{connections} connections");
}

#[tokio::test]
async fn a_write_that_never_left_the_queue_was_not_applied() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    cluster.primary(0).script(|_| Reply::Hang);
    let options = |ms| PutOptions::new().timeout(Duration::from_millis(ms));
    let results = tokio::join!(
        kv.put_with("a", "v", options(400)),
        kv.put_with("b", "v", options(300)),
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            kv.put_with("c", "v", options(100)).await
        },
    );
    let (a, b, c) = (
        results.0.unwrap_err(),
        results.1.unwrap_err(),
        results.2.unwrap_err(),
    );
    assert_eq!(
        (a.outcome(), b.outcome()),
        (Outcome::Unknown, Outcome::Unknown)
    );
    assert_eq!(
        (c.kind(), c.outcome()),
        (ErrorKind::Unavailable, Outcome::NotApplied),
        "{c}"
    );
    assert!(
        cluster
            .primary(0)
            .ops()
            .iter()
            .all(|op| op.key.as_bytes() != b"c")
    );
}

#[test]
fn a_client_outlives_the_runtime_that_used_it() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let nodes = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let cluster = nodes.block_on(Cluster::start(1, 0));
    let kv = cluster.client();
    let node = cluster.primary(0);
    node.pause();
    let first = runtime();
    for n in 0..3 {
        let kv = kv.clone();
        first.spawn(async move { kv.put(format!("k{n}"), "v").await });
    }
    first.block_on(wait_until("two batches are under way", || {
        node.batches().len() == 2
    }));
    drop(first);
    node.resume();
    runtime().block_on(kv.put("again", "v")).unwrap();
}

#[tokio::test]
async fn a_value_too_large_for_a_batch_is_fetched_alone() {
    let cluster = Cluster::start(1, 0).await;
    let value: &'static str = "x".repeat(100_000).leak();
    let batches = std::sync::atomic::AtomicUsize::new(0);
    cluster.primary(0).script(move |_| {
        match batches.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => support::refused(kvclient::wire::error::ErrorCode::TooLarge, None),
            _ => found(value, 1),
        }
    });
    let entry = cluster
        .client()
        .get_with("k", GetOptions::new())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(entry.value.len(), 100_000);
}

/// With a small limit, everything but a put was sent alone as a read: a delete removed nothing and said that it had.
#[tokio::test]
async fn only_puts_are_large() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.builder().alone_bytes(0).build().unwrap();
    kv.put("k", "v").await.unwrap();
    assert!(kv.delete("k").await.unwrap());
    assert_eq!(kv.get("k").await.unwrap(), None);
    for count in 1..=3 {
        assert_eq!(kv.incr("n", 1).await.unwrap(), count);
    }
}

// A drain runs on the runtime of whoever was first. If that one is not driven any more, as that of a program that calls
// `block_on` now and then, ops from elsewhere end in time all the same.
#[tokio::test]
async fn a_runtime_that_stands_still_keeps_nobody_past_their_time() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    cluster.primary(0).pause();
    let stood_still = std::thread::spawn({
        let kv = kv.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let two = async { tokio::join!(kv.put("a", "v"), kv.put("b", "v")) };
                assert!(timeout(Duration::from_millis(50), two).await.is_err());
            });
            runtime
        }
    });
    let runtime = stood_still.join().unwrap();
    let short = PutOptions::new().timeout(Duration::from_millis(200));
    let put = kv.put_with("c", "v", short);
    let error = timeout(Duration::from_secs(10), put)
        .await
        .expect("ends by itself")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    runtime.shutdown_background();
}

#[tokio::test]
async fn each_op_of_a_batch_has_its_own_time() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let node = cluster.primary(0);
    node.pause();
    let put = |key: &'static str, ms| {
        let kv = kv.clone();
        let options = PutOptions::new().timeout(Duration::from_millis(ms));
        tokio::spawn(async move { kv.put_with(key, "v", options).await })
    };
    // The first fills the lane; the second starts the drain; the others join it, the shortest last.
    let patient = ["a", "b", "c"].map(|key| put(key, 60_000));
    wait_until("the others are sent behind the first", || {
        node.batches().len() == 2
    })
    .await;
    let queued = put("d", 60_000);
    tokio::task::yield_now().await;
    let hasty = put("e", 100);
    let error = timeout(Duration::from_secs(10), hasty)
        .await
        .expect("its time is over long before the batch's")
        .unwrap()
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "it was never sent");
    node.resume();
    for put in patient {
        put.await.unwrap().unwrap();
    }
    queued.await.unwrap().unwrap();
}
