//! Read, change, store: what an update does when somebody is faster, and how it ends.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kvclient::{
    ErrorKind, Outcome, Position, PutOptions,
    wire::{
        batch::{Action, Condition, OpResult},
        error::{Applied, ErrorCode},
    },
};
use support::{Cluster, Reply, found, missing, refused, stored};

/// A condition that does not hold; the entry is at this seq.
fn conflict(seq: u64) -> Reply {
    let mut result = OpResult::refused(
        ErrorCode::PreconditionFailed,
        "somebody was faster",
        Some(Applied::No),
    );
    result.etag = Some(Position::new(1, seq));
    Reply::Answer(result)
}

#[tokio::test]
async fn somebody_faster_makes_it_begin_anew() {
    let cluster = Cluster::start(1, 1).await;
    // The entry moves on twice between read and store.
    let seq = Arc::new(AtomicU64::new(1));
    let at = seq.clone();
    cluster.primary(0).script(move |op| match &op.action {
        Action::Get => found(
            &at.load(Ordering::SeqCst).to_string(),
            at.load(Ordering::SeqCst),
        ),
        _ if at.load(Ordering::SeqCst) < 3 => conflict(at.fetch_add(1, Ordering::SeqCst) + 1),
        _ => stored(9),
    });
    let mut shown = Vec::new();
    let written = cluster
        .client()
        .update("k", |old| {
            let old = old.expect("it is there");
            shown.push(old.position.seq);
            Some([&old.value[..], b"+1"].concat())
        })
        .await
        .unwrap();
    assert_eq!(
        written.map(|written| written.position),
        Some(Position::new(1, 9))
    );
    assert_eq!(shown, [1, 2, 3]);
    let stores = cluster
        .primary(0)
        .ops()
        .into_iter()
        .filter(|op| op.action.is_write());
    let conditions: Vec<_> = stores.map(|op| op.terms.condition.unwrap()).collect();
    assert_eq!(
        conditions,
        [1, 2, 3].map(|seq| Condition::Is(Position::new(1, seq)))
    );
    assert!(
        cluster.replica(0, 0).ops().is_empty(),
        "only the primary knows what is there"
    );
}

#[tokio::test]
async fn an_absent_key_is_stored_only_if_it_still_is() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|op| match &op.action {
        Action::Get => missing(1),
        _ => stored(2),
    });
    let options = PutOptions::new().ttl(Duration::from_secs(9));
    let change = |old: Option<&kvclient::Entry>| old.is_none().then_some("new");
    let kv = cluster.client();
    assert!(
        kv.update_with("k", options, change)
            .await
            .unwrap()
            .is_some()
    );
    let ops = cluster.primary(0).ops();
    assert_eq!(ops[1].terms.condition, Some(Condition::Absent));
    assert!(matches!(
        ops[1].action,
        Action::Put {
            ttl_ms: Some(9_000),
            ..
        }
    ));
}

#[tokio::test]
async fn what_is_left_as_it_is_is_not_stored() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|_| found("v", 1));
    let unchanged = cluster.client().update("k", |_| None::<&str>).await;
    assert_eq!(unchanged.unwrap(), None);
    assert_eq!(cluster.primary(0).ops().len(), 1);
}

#[tokio::test]
async fn an_unknown_outcome_ends_it() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|op| match &op.action {
        Action::Get => found("v", 1),
        _ => refused(ErrorCode::StorageFailed, Some(Applied::Unknown)),
    });
    let error = cluster
        .builder()
        .without_request_ids()
        .build()
        .unwrap()
        .update("k", |_| Some("new"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, Outcome::Unknown)
    );
    assert_eq!(cluster.primary(0).ops().len(), 2);
}

#[tokio::test]
async fn others_that_are_always_faster_are_told_in_time() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|op| match &op.action {
        Action::Get => found("v", 1),
        _ => conflict(2),
    });
    let options = PutOptions::new().timeout(Duration::from_millis(100));
    let kv = cluster.client();
    let error = kv
        .update_with("k", options, |_| Some("new"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.op()),
        (ErrorKind::Conflict, "update"),
        "{error}"
    );
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(error.key().map(|key| key.as_bytes()), Some(&b"k"[..]));
    assert_eq!(error.shard(), Some("shard0"));
    assert!(error.attempts() > 1);
    assert_eq!(error.position(), Some(Position::new(1, 2)));
}
