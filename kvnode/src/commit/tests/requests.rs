//! Repeats: answered with the first outcome, and never done again.

use kvclient::wire::{batch::RequestId, error::ErrorCode};

use super::*;
use crate::{
    config::Sizes,
    log::ReadFrames,
    storage::{self, Storage, StorageThreads},
};

const CLIENT: u128 = 0xc11e;

/// An op under a request id.
fn under(n: u64, floor: u64, key: &str, action: Action) -> WriteOp {
    under_if(n, floor, key, action, None)
}

fn under_if(
    n: u64,
    floor: u64,
    key: &str,
    action: Action,
    condition: Option<Condition>,
) -> WriteOp {
    let mut op = Op::new(Key::new(key.to_owned()).unwrap(), action);
    op.terms.condition = condition;
    op.terms.request_id = Some(RequestId {
        client: CLIENT,
        n,
        floor,
    });
    WriteOp::new(op, None)
}

fn incr(n: u64, floor: u64) -> WriteOp {
    under(n, floor, "counter", Action::Incr { delta: 1 })
}

async fn one(commit: &Commit, write: WriteOp) -> OpResult {
    commit.write(vec![write]).await.remove(0)
}

/// What a counter says, asked without an id.
async fn count(commit: &Commit) -> String {
    let value = one(commit, op("counter", Action::Incr { delta: 0 }))
        .await
        .value;
    String::from_utf8(value.unwrap().to_vec()).unwrap()
}

fn open(dir: &Path) -> (Storage, StorageThreads) {
    let clock = Arc::new(ShardClock::start(0));
    let failures = tokio::sync::mpsc::channel(1).0;
    storage::open(dir, HISTORY, &sizes(), &clock, &failures).unwrap()
}

fn sizes() -> Sizes {
    Sizes {
        log_segment_bytes: 8 << 20,
        ..Sizes::default()
    }
}

fn create(dir: &Path) -> (Storage, StorageThreads) {
    storage::create(dir, HISTORY, Link::default(), &sizes()).unwrap();
    open(dir)
}

/// All frames of a log.
fn frames(storage: &Storage) -> Vec<Frame> {
    let ReadFrames::Frames(mut bytes) = storage.log.read_after(0, 1 << 20).unwrap() else {
        panic!("there are frames");
    };
    std::iter::from_fn(|| (!bytes.is_empty()).then(|| Frame::split_from(&mut bytes).unwrap()))
        .collect()
}

async fn reign(storage: &Storage, epoch: u32) {
    let begun = storage
        .commit
        .begin_reign(epoch, epoch.into(), "a:1".into());
    begun.await.unwrap();
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_first_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, log, .. } = started(dir.path()).await;
    let same_group = commit.write(vec![incr(1, 1), incr(1, 1), incr(2, 1)]).await;
    assert_eq!(same_group[0], same_group[1], "in one group");
    assert_eq!(same_group[0].value.as_deref(), Some(&b"1"[..]));
    assert_eq!(same_group[2].value.as_deref(), Some(&b"2"[..]));
    let mut later = incr(1, 1);
    later.deadline = Some(std::time::Instant::now());
    assert_eq!(one(&commit, later).await, same_group[0], "later, and late");

    let action = Action::Put {
        value: "v".into(),
        ttl_ms: Some(60_000),
    };
    let put = || under_if(3, 1, "a", action.clone(), Some(Condition::Absent));
    let first = one(&commit, put()).await;
    assert_eq!((first.status, first.ttl_ms), (204, Some(60_000)));
    assert_eq!(one(&commit, put()).await, first, "the condition held then");
    let delete = || under(4, 1, "a", Action::Delete);
    let first = one(&commit, delete()).await;
    assert_eq!((first.status, first.etag), (204, None));
    assert_eq!(one(&commit, delete()).await, first, "it was there then");
    assert_eq!(log.durable(), Position::new(1, 5));
    assert_eq!(count(&commit).await, "2");
}

#[tokio::test]
async fn what_is_refused_if_new_is_answered_if_it_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, log, .. } = started(dir.path()).await;
    let refusal = || {
        let code = ErrorCode::TooFewReplicas;
        Some(OpResult::refused(code, "too few", Some(Applied::No)))
    };
    let refused = |write: WriteOp| write.refused_if_new(refusal());
    assert_eq!(Some(one(&commit, refused(incr(1, 1))).await), refusal());
    let without_id = refused(op("counter", Action::Incr { delta: 1 }));
    assert_eq!(Some(one(&commit, without_id).await), refusal());
    assert_eq!(log.durable(), Position::new(1, 1), "nothing was written");

    let first = one(&commit, incr(1, 1)).await;
    assert_eq!(first.value.as_deref(), Some(&b"1"[..]), "the id is free");
    assert_eq!(one(&commit, refused(incr(1, 1))).await, first);
    let same_group = commit.write(vec![incr(2, 1), refused(incr(2, 1))]).await;
    assert_eq!(same_group[0], same_group[1], "in one group");
    assert_eq!(count(&commit).await, "2");
}

#[tokio::test]
async fn another_op_under_a_known_id_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, .. } = started(dir.path()).await;
    let reused = |result: &OpResult| {
        assert_eq!(result.error_code(), Some(ErrorCode::RequestIdReused));
        assert_eq!(result.applied, Some(Applied::No));
    };
    let other = || under(1, 1, "counter", Action::Incr { delta: 2 });
    let results = commit.write(vec![incr(1, 1), other()]).await;
    reused(&results[1]);
    reused(&one(&commit, other()).await);
    reused(&one(&commit, under(1, 1, "b", Action::Delete)).await);
    assert_eq!(count(&commit).await, "1");
}

#[tokio::test]
async fn refusals_are_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, .. } = started(dir.path()).await;
    let put = |condition| {
        let action = Action::Put {
            value: "v".into(),
            ttl_ms: None,
        };
        under_if(1, 1, "a", action, condition)
    };
    let delete = under(1, 1, "a", Action::Delete);
    assert_eq!(one(&commit, delete).await.status, 404);
    assert_eq!(one(&commit, put(Some(Condition::Exists))).await.status, 412);
    assert_eq!(one(&commit, put(None)).await.status, 204, "the id is free");
    let text = under(2, 1, "a", Action::Incr { delta: 1 });
    assert_eq!(one(&commit, text).await.status, 409);
    assert_eq!(one(&commit, incr(2, 1)).await.status, 200);
}

#[tokio::test]
async fn what_is_forgotten_is_neither_done_nor_denied() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, .. } = started(dir.path()).await;
    let forgotten = |result: OpResult| {
        assert_eq!(result.error_code(), Some(ErrorCode::RequestIdExpired));
        assert_eq!(
            (result.status, result.applied),
            (504, Some(Applied::Unknown))
        );
    };
    for n in 1..=3 {
        assert_eq!(one(&commit, incr(n, 1)).await.status, 200);
    }
    assert_eq!(one(&commit, incr(4, 3)).await.status, 200);
    forgotten(one(&commit, incr(2, 1)).await);
    forgotten(one(&commit, incr(2, 3)).await);
    assert_eq!(
        one(&commit, incr(3, 1)).await.value.as_deref(),
        Some(&b"3"[..])
    );
    let without_floor = (5..=2_000).map(|n| incr(n, 0)).collect::<Vec<_>>();
    assert!(
        commit
            .write(without_floor)
            .await
            .iter()
            .all(|result| result.status == 200)
    );
    forgotten(one(&commit, incr(976, 0)).await);
    assert_eq!(
        one(&commit, incr(977, 0)).await.value.as_deref(),
        Some(&b"977"[..])
    );
    assert_eq!(count(&commit).await, "2000");
}

/// The marks of a frame that was refused are gone with it, and a repeat of what is older stands.
#[tokio::test]
async fn a_refused_frame_takes_its_marks_back_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started(dir.path()).await;
    let first = one(&commit, incr(1, 1)).await;
    assert_eq!(first.status, 200);
    for n in [4, 5] {
        assert_eq!(one(&commit, incr(n, 4)).await.status, 200);
    }
    log.set_disk_full(true);
    while statuses(&commit, vec![put("fill", 3_000)]).await == [204] {}
    let large = |n| {
        let action = Action::Put {
            value: vec![b'v'; 6_000].into(),
            ttl_ms: None,
        };
        under(n, 4, "large", action)
    };
    let ops = vec![large(6), large(6), incr(5, 4), incr(1, 4), incr(6, 4)];
    let results = commit.write(ops).await;
    let statuses: Vec<u16> = results.iter().map(|result| result.status).collect();
    assert_eq!(statuses, [507, 507, 200, 504, 507]);
    assert_eq!(results[2].value.as_deref(), Some(&b"3"[..]));
    assert_eq!(results[3].applied, Some(Applied::Unknown), "still unknown");
    log.set_disk_full(false);
    assert_eq!(one(&commit, incr(6, 4)).await.status, 200, "6 is free");
}

/// Wherever the next reign begins, it knows what the last one answered: what was flushed, what is only in the log,
/// and what came from a primary's log.
#[tokio::test]
async fn the_next_reign_knows_what_the_last_one_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (primary, replica) = (dir.path().join("primary"), dir.path().join("replica"));
    let (storage, threads) = create(&primary);
    reign(&storage, 1).await;
    let flushed = one(&storage.commit, incr(5, 5)).await;
    storage.store.flush().unwrap();
    let logged = one(&storage.commit, incr(6, 5)).await;
    let (copy, _threads) = create(&replica);
    copy.commit.append(frames(&storage)).await.unwrap();
    // As after a kill: the log alone has the second.
    let commit = storage.commit.clone();
    tokio::task::spawn_blocking(move || commit.stop())
        .await
        .unwrap();
    drop(storage);
    threads.close().unwrap();

    let (storage, _threads) = open(&primary);
    for storage in [storage, copy] {
        reign(&storage, 2).await;
        assert_eq!(one(&storage.commit, incr(5, 5)).await, flushed);
        assert_eq!(one(&storage.commit, incr(6, 5)).await, logged);
        assert_eq!(one(&storage.commit, incr(4, 1)).await.status, 504);
        let other = under(6, 5, "other", Action::Incr { delta: 1 });
        assert_eq!(one(&storage.commit, other).await.status, 422);
        assert_eq!(count(&storage.commit).await, "2");
    }
}
