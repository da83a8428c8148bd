//! Atomic batches: all of a batch or nothing, in one frame.

use kvclient::wire::{batch::RequestId, error::ErrorCode};

use super::*;

fn simple(key: &str, action: Action) -> Op {
    Op::new(Key::new(key.to_owned()).unwrap(), action)
}

fn set(key: &str, value: impl Into<Bytes>) -> Op {
    let value = value.into();
    simple(
        key,
        Action::Put {
            value,
            ttl_ms: None,
        },
    )
}

fn get(key: &str) -> Op {
    simple(key, Action::Get)
}

fn incr(key: &str, delta: i64) -> Op {
    simple(key, Action::Incr { delta })
}

fn only_if(mut op: Op, condition: Condition) -> Op {
    op.terms.condition = Some(condition);
    op
}

async fn all(commit: &Commit, ops: Vec<Op>) -> AtomicAnswer {
    commit.write_atomic(AtomicOps::new(ops, None, None)).await
}

async fn value(commit: &Commit, key: &str) -> Option<Bytes> {
    all(commit, vec![get(key)]).await.unwrap().remove(0).value
}

fn message(refusal: &OpResult) -> &str {
    &refusal.error.as_ref().unwrap().message
}

#[tokio::test]
async fn ops_see_each_other_and_share_a_frame() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started(dir.path()).await;
    let frames = || commit.stats().frames.load(Ordering::Relaxed);
    let before = frames();
    let ops = vec![
        get("a"),
        set("a", "1"),
        get("a"),
        only_if(incr("a", 4), Condition::Is(Position::new(1, 2))),
        simple("absent", Action::Delete),
        simple("a", Action::Expire { ttl_ms: 60_000 }),
        get("a"),
        simple("a", Action::Delete),
        get("a"),
    ];
    let results = all(&commit, ops).await.unwrap();
    let statuses: Vec<u16> = results.iter().map(|result| result.status).collect();
    assert_eq!(statuses, [404, 204, 200, 200, 404, 204, 200, 204, 404]);
    let values: Vec<_> = results
        .iter()
        .map(|result| result.value.as_deref())
        .collect();
    assert_eq!(values[2], Some(&b"1"[..]));
    assert_eq!((values[3], values[6]), (Some(&b"5"[..]), Some(&b"5"[..])));
    assert!(results[6].ttl_ms.is_some());
    let seqs: Vec<u64> = results
        .iter()
        .filter_map(|result| Some(result.position?.seq))
        .collect();
    assert_eq!(seqs, [1, 2, 2, 3, 4, 4, 5, 5]);
    assert_eq!(frames(), before + 1);
    assert_eq!(log.durable(), Position::new(1, 5));
    assert_eq!(value(&commit, "a").await, None);
    assert_eq!(frames(), before + 1, "a batch of reads makes no frame");
}

#[tokio::test]
async fn one_refusal_refuses_all_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started(dir.path()).await;
    commit.write(vec![put("text", 1), put("there", 1)]).await;
    let end = log.durable();
    let max = incr("n", i64::MAX);
    for (bad, code, etag) in [
        (
            only_if(set("there", "2"), Condition::Absent),
            ErrorCode::PreconditionFailed,
            Some(Position::new(1, 3)),
        ),
        (
            only_if(simple("none", Action::Delete), Condition::Exists),
            ErrorCode::PreconditionFailed,
            None,
        ),
        (incr("text", 1), ErrorCode::NotANumber, None),
        (incr("n", 1), ErrorCode::Overflow, None),
    ] {
        let ops = vec![set("a", "1"), max.clone(), bad.clone(), set("b", "1")];
        let refusal = all(&commit, ops).await.unwrap_err();
        assert_eq!(refusal.error_code(), Some(code));
        assert_eq!((refusal.applied, refusal.etag), (Some(Applied::No), etag));
        let named = format!("op 3 (key \"{}\"): ", bad.key);
        assert!(message(&refusal).starts_with(&named), "{refusal:?}");
    }
    assert_eq!(log.durable(), end);
    for key in ["a", "b", "n"] {
        assert_eq!(value(&commit, key).await, None, "{key}");
    }
}

#[tokio::test]
async fn what_does_not_fit_one_frame_is_refused_and_what_does_gets_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started(dir.path()).await;
    let large = |count: usize| -> Vec<Op> {
        (0..count)
            .map(|nth| set(&format!("k{nth}"), vec![b'v'; 2_000]))
            .collect()
    };
    let refusal = all(&commit, large(5)).await.unwrap_err();
    assert_eq!(refusal.error_code(), Some(ErrorCode::TooLarge));
    assert!(message(&refusal).contains("5 ops"), "{refusal:?}");
    assert_eq!(log.durable(), Position::new(1, 1));

    // Queued together, so that they meet in one group, where only one of them fits a frame.
    let (go_on, waits) = mpsc::channel::<()>();
    commit.run_on_thread(move || {
        let _ = waits.recv();
    });
    let mut ahead = Box::pin(commit.write(vec![put("ahead", 3_000)]));
    let mut batch = Box::pin(all(&commit, large(3)));
    assert!(futures_util::poll!(&mut ahead).is_pending());
    assert!(futures_util::poll!(&mut batch).is_pending());
    let before = commit.stats().frames.load(Ordering::Relaxed);
    drop(go_on);
    assert_eq!(ahead.await[0].position, Some(Position::new(1, 2)));
    let results = batch.await.unwrap();
    let positions: Vec<_> = results
        .iter()
        .filter_map(|result| Some(result.position?.seq))
        .collect();
    assert_eq!(positions, [3, 4, 5]);
    assert_eq!(commit.stats().frames.load(Ordering::Relaxed), before + 2);
}

#[tokio::test]
async fn a_repeat_of_a_batch_gets_the_whole_first_answer() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, .. } = started(dir.path()).await;
    let id = RequestId {
        client: 7,
        n: 1,
        floor: 1,
    };
    let ask = async |ops: Vec<Op>| {
        commit
            .write_atomic(AtomicOps::new(ops, Some(id), None))
            .await
    };
    let ops = || vec![get("a"), incr("a", 1), get("a"), incr("b", 2)];
    let first = ask(ops()).await.unwrap();
    assert_eq!(ask(ops()).await, Ok(first.clone()));
    let too_few = OpResult::refused(ErrorCode::TooFewReplicas, "too few", Some(Applied::No));
    let refused = |n| {
        let batch = AtomicOps::new(ops(), Some(RequestId { n, ..id }), None);
        commit.write_atomic(batch.refused_if_new(Some(too_few.clone())))
    };
    assert_eq!(refused(1).await, Ok(first), "it was done before");
    assert_eq!(refused(2).await, Err(too_few.clone()), "it is new");
    let other = ask(vec![incr("a", 1)]).await.unwrap_err();
    assert_eq!(other.error_code(), Some(ErrorCode::RequestIdReused));
    let mut alone = incr("a", 1);
    alone.terms.request_id = Some(id);
    let alone = commit.write(vec![WriteOp::new(alone, None)]).await;
    assert_eq!(alone[0].error_code(), Some(ErrorCode::RequestIdReused));
    assert_eq!(value(&commit, "a").await.as_deref(), Some(&b"1"[..]));
}

#[tokio::test]
async fn a_batch_whose_time_is_over_or_whose_frame_is_refused_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started(dir.path()).await;
    let now = std::time::Instant::now();
    let late = AtomicOps::new(vec![set("a", "1")], None, Some(now));
    let refusal = commit.write_atomic(late).await.unwrap_err();
    assert_eq!(refusal.error_code(), Some(ErrorCode::DeadlineExceeded));
    log.set_disk_full(true);
    while statuses(&commit, vec![put("fill", 3_000)]).await == [204] {}
    let id = Some(RequestId {
        client: 7,
        n: 1,
        floor: 1,
    });
    let large = || vec![get("a"), set("a", vec![b'v'; 3_000])];
    let ask = async || commit.write_atomic(AtomicOps::new(large(), id, None)).await;
    let refusal = ask().await.unwrap_err();
    assert_eq!((refusal.status, refusal.applied), (507, Some(Applied::No)));
    log.set_disk_full(false);
    assert_eq!(ask().await.map(|results| results.len()), Ok(2));
}
