//! Tests of the thread as a whole, over a real log and store.

mod atomic;
mod requests;

use std::{path::Path, sync::mpsc};

use kvclient::{
    key::Key,
    wire::{
        batch::{Action, Condition, Op},
        log::Link,
    },
};

use super::*;
use crate::{
    log::{Log, LogOptions},
    store::StoreOptions,
};

const HISTORY: u128 = 7;

/// Segments of 16 KiB with frames of up to 8 KiB.
const LOG: LogOptions = LogOptions {
    segment_bytes: 16 << 10,
    retention_bytes: 0,
    max_frame_bytes: 8 << 10,
};

struct Started {
    log: Log,
    commit: Commit,
    clock: Arc<ShardClock>,
    failures: mpsc::Receiver<String>,
}

/// A commit thread that reigns.
async fn started(dir: &Path) -> Started {
    started_with(dir, LOG.max_frame_bytes).await
}

/// One that makes frames of up to so many bytes, whatever the log takes.
async fn started_with(dir: &Path, max_frame_bytes: usize) -> Started {
    started_in(dir, LOG, max_frame_bytes).await
}

/// One whose log is made with these options.
async fn started_in(dir: &Path, log_options: LogOptions, max_frame_bytes: usize) -> Started {
    let (lmdb, options) = (dir.join("lmdb"), StoreOptions::default());
    Store::create(&lmdb, HISTORY, &options).unwrap();
    let store = Store::open(&lmdb, HISTORY, options).unwrap();
    let (log, writer) =
        Log::create(&dir.join("log"), HISTORY, Link::default(), log_options).unwrap();
    let (failed, failures) = mpsc::channel();
    let clock = Arc::new(ShardClock::start(0));
    let parts = CommitParts {
        log: writer,
        store,
        clock: Arc::clone(&clock),
        max_frame_bytes,
        on_failure: Box::new(move |why| failed.send(why).unwrap()),
    };
    let (commit, _) = start(parts).unwrap();
    commit.begin_reign(1, 9, "a:1".into()).await.unwrap();
    Started {
        log,
        commit,
        clock,
        failures,
    }
}

fn op(key: &str, action: Action) -> WriteOp {
    let op = Op::new(Key::new(key.to_owned()).unwrap(), action);
    WriteOp::new(op, None)
}

fn put(key: &str, value_bytes: usize) -> WriteOp {
    let value = vec![b'v'; value_bytes].into();
    op(
        key,
        Action::Put {
            value,
            ttl_ms: None,
        },
    )
}

async fn statuses(commit: &Commit, ops: Vec<WriteOp>) -> Vec<u16> {
    let results = commit.write(ops).await;
    results.iter().map(|result| result.status).collect()
}

/// A batch had put and deleted a key in a frame for which there was no room. The put was refused, yet behind it a
/// second delete was told 404, and a condition 412 with the ETag of an entry that never was.
#[tokio::test]
async fn no_answer_rests_on_a_frame_that_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started(dir.path()).await;
    log.set_disk_full(true);
    while statuses(&commit, vec![put("fill", 3_000)]).await == [204] {}
    let mut only_if_absent = put("new", 1);
    only_if_absent.op.terms.condition = Some(Condition::Absent);
    let ops = vec![
        op("absent", Action::Delete),
        put("new", 6_000),
        only_if_absent,
        op("new", Action::Incr { delta: 1 }),
        op("new", Action::Delete),
        op("new", Action::Delete),
        put("other", 1),
    ];
    let results = commit.write(ops).await;
    assert_eq!(results[0].status, 404, "it was decided before the frame");
    for refused in &results[1..] {
        assert_eq!(
            (refused.status, refused.applied, refused.etag),
            (507, Some(Applied::No), None)
        );
    }
    log.set_disk_full(false);
    let ops = vec![op("new", Action::Delete), put("new", 1)];
    assert_eq!(statuses(&commit, ops).await, [404, 204]);
}

/// An entry that does not even fit a frame of its own was decided all the same; the log refused the frame, and the
/// thread took that for a broken disk and ended.
#[tokio::test]
async fn an_entry_larger_than_a_frame_does_not_end_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started(dir.path()).await;
    let ops = vec![put("a", 5_000), put("a", 9_000), put("b", 5_000)];
    assert_eq!(statuses(&commit, ops).await, [204, 413, 204]);
    assert_eq!(log.durable(), Position::new(1, 3));
}

/// The same for a frame that the log refuses although it is not larger than this thread was told.
#[tokio::test]
async fn a_frame_that_the_log_refuses_does_not_end_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started_with(dir.path(), 1 << 20).await;
    let refused = commit.write(vec![put("a", 9_000)]).await;
    assert_eq!(
        (refused[0].status, refused[0].applied),
        (503, Some(Applied::No))
    );
    assert_eq!(statuses(&commit, vec![put("a", 1)]).await, [204]);
    assert_eq!(log.durable(), Position::new(1, 2));
}

#[tokio::test]
async fn a_group_larger_than_a_frame_is_split_to_fit() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started(dir.path()).await;
    let key = |nth: usize| format!("{nth:0>511}");
    let ops = (0..40).map(|nth| put(&key(nth), nth * 100)).collect();
    assert_eq!(statuses(&commit, ops).await, [204; 40]);
    let expiring = |nth| {
        let mut write = put(&key(nth), 1);
        write.op.action = Action::Put {
            value: Bytes::new(),
            ttl_ms: Some(1),
        };
        write
    };
    let results = commit.write((0..40).map(expiring).collect()).await;
    // Shard time goes on in whole milliseconds.
    tokio::time::sleep(Duration::from_millis(3)).await;
    let due = results.iter().enumerate().map(|(nth, result)| {
        let position = result.etag.unwrap();
        (Bytes::from(key(nth)), position)
    });
    assert_eq!(commit.delete_expired(due.collect()).await, 40);
    assert_eq!(log.durable(), Position::new(1, 1 + 120));
}

/// All of a group was decided at the time at which its first command came. A caller who had read that an entry was
/// gone, its time being over, and whose put-if-absent joined a group that had begun before, was told that it was there.
#[tokio::test]
async fn a_write_is_not_decided_at_an_earlier_time_than_was_read_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, clock, .. } = started(dir.path()).await;
    let expiring = Action::Put {
        value: Bytes::new(),
        ttl_ms: Some(60_000),
    };
    let written = commit.write(vec![op("key", expiring)]).await;
    assert_eq!(written[0].status, 204);
    let (go_on, waits) = mpsc::channel::<()>();
    let moved = Arc::clone(&clock);
    commit.run_on_thread(move || {
        let _ = waits.recv();
        // The group has begun; a reader sees this time now.
        moved.saw_frame(moved.now_ms() + 60_000);
    });
    let mut if_absent = put("key", 1);
    if_absent.op.terms.condition = Some(Condition::Absent);
    let mut write = Box::pin(commit.write(vec![if_absent]));
    assert!(futures_util::poll!(&mut write).is_pending(), "it is queued");
    drop(go_on);
    assert_eq!(write.await[0].status, 204);
}

/// After a panic of the thread the node stayed, ready, and refused every write.
#[tokio::test]
async fn a_panic_is_a_failure_and_leaves_who_waits_in_the_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let Started {
        commit, failures, ..
    } = started(dir.path()).await;
    let (go_on, waits) = mpsc::channel::<()>();
    commit.run_on_thread(move || {
        let _ = waits.recv();
        panic!("a mistake");
    });
    let mut write = Box::pin(commit.write(vec![put("a", 1)]));
    assert!(futures_util::poll!(&mut write).is_pending(), "it is queued");
    drop(go_on);
    let unknown = write.await;
    assert_eq!(
        (unknown[0].status, unknown[0].applied),
        (503, Some(Applied::Unknown))
    );
    let why = tokio::task::spawn_blocking(move || failures.recv().unwrap());
    assert_eq!(why.await.unwrap(), "the commit thread panicked: a mistake");
    assert!(!commit.reigns());
    let refused = commit.write(vec![put("a", 1)]).await;
    assert_eq!(refused[0].applied, Some(Applied::No));
}

/// One with a segment that has room for long.
async fn started_roomy(dir: &Path) -> Started {
    let options = LogOptions {
        segment_bytes: 4 << 20,
        ..LOG
    };
    started_in(dir, options, LOG.max_frame_bytes).await
}

/// A write beside which nobody waits, nor has the turn any more, and its answer.
async fn alone(commit: &Commit, write: WriteOp) -> (Command, oneshot::Receiver<Vec<OpResult>>) {
    let (reply, answer) = oneshot::channel();
    let ops = vec![write];
    while !commit.turns.wait().alone() {
        tokio::task::yield_now().await;
    }
    (
        Command::Writes {
            ops,
            reply,
            timed: None,
        },
        answer,
    )
}

#[tokio::test]
async fn a_lone_write_is_done_by_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let Started { log, commit, .. } = started_roomy(dir.path()).await;
    let (command, mut answer) = alone(&commit, put("a", 1)).await;
    assert!(commit.turns.try_take(command).is_ok());
    assert_eq!(answer.try_recv().unwrap()[0].status, 204);
    assert_eq!(log.durable(), Position::new(1, 2));
}

/// Else the next would be begun, or a flush waited for, on a thread that has other things to do.
#[tokio::test]
async fn a_lone_write_at_the_end_of_a_segment_is_left_to_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, .. } = started(dir.path()).await;
    let (command, _answer) = alone(&commit, put("a", 1)).await;
    assert!(commit.turns.try_take(command).is_err());
    assert_eq!(statuses(&commit, vec![put("a", 1)]).await, [204]);
}

/// While a command is worked on, and until its group is answered, nobody else writes.
#[tokio::test]
async fn what_waits_is_not_overtaken() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, .. } = started_roomy(dir.path()).await;
    let (go_on, waits) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel::<()>();
    commit.run_on_thread(move || {
        begun.send(()).unwrap();
        let _ = waits.recv();
    });
    begins.recv().unwrap();
    assert!(!commit.turns.wait().alone());
    let (reply, _answer) = oneshot::channel();
    let ops = vec![put("a", 1)];
    assert!(
        commit
            .turns
            .try_take(Command::Writes {
                ops,
                reply,
                timed: None,
            })
            .is_err()
    );
    drop(go_on);
}

#[tokio::test]
async fn writes_at_the_same_time_are_one_group() {
    let dir = tempfile::tempdir().unwrap();
    let Started { commit, .. } = started_roomy(dir.path()).await;
    let frames = || commit.stats().frames.load(Ordering::Relaxed);
    let (go_on, waits) = mpsc::channel::<()>();
    commit.run_on_thread(move || {
        let _ = waits.recv();
    });
    let before = frames();
    let mut writes: Vec<_> = (0..8)
        .map(|nth| Box::pin(commit.write(vec![put(&format!("{nth}"), 1)])))
        .collect();
    for write in &mut writes {
        assert!(futures_util::poll!(write).is_pending(), "it is queued");
    }
    drop(go_on);
    for write in writes {
        assert_eq!(write.await[0].status, 204);
    }
    assert_eq!(frames(), before + 1);
}

/// It would go on as if nothing had been, or take the worker with it and leave the node ready.
#[tokio::test]
async fn a_panic_of_who_asks_is_a_failure_too() {
    let dir = tempfile::tempdir().unwrap();
    let Started {
        commit, failures, ..
    } = started_roomy(dir.path()).await;
    let mistake = Command::Run(Box::new(|| panic!("a mistake")));
    commit.have_done(mistake).await.ok().unwrap();
    let why = tokio::task::spawn_blocking(move || failures.recv().unwrap());
    assert_eq!(why.await.unwrap(), "the commit thread panicked: a mistake");
    assert!(!commit.reigns());
    let refused = commit.write(vec![put("a", 1)]).await;
    assert_eq!(refused[0].applied, Some(Applied::No));
}
