//! Tests of the thread as a whole, over a real log and store.

use std::path::Path;

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
}

/// A commit thread that reigns.
async fn started(dir: &Path) -> Started {
    let store = Store::open(&dir.join("lmdb"), HISTORY, StoreOptions::default()).unwrap();
    let (log, writer) = Log::create(&dir.join("log"), HISTORY, Link::default(), LOG).unwrap();
    let parts = CommitParts {
        log: writer,
        store,
        clock: Arc::new(ShardClock::start(0)),
        max_frame_bytes: LOG.max_frame_bytes,
        on_failure: Box::new(|why| panic!("{why}")),
    };
    let (commit, _) = start(parts).unwrap();
    commit.begin_reign(1, 9, "a:1".into()).await.unwrap();
    Started { log, commit }
}

fn op(key: &str, action: Action) -> WriteOp {
    let op = Op::new(Key::new(key.to_owned()).unwrap(), action);
    WriteOp { op, deadline: None }
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
    let Started { log, commit } = started(dir.path()).await;
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
