//! What a session promises: nobody sees less than before, whichever node answers.

mod support;

use std::time::Duration;

use kvclient::{Consistency, ErrorKind, GetOptions, Position, Session};
use support::{Cluster, Reply, found, key_of, missing, refused, stored};

use kvclient::wire::error::ErrorCode;

#[tokio::test]
async fn a_read_asks_for_what_the_client_wrote() {
    let cluster = Cluster::start(1, 1).await;
    cluster.primary(0).script(|op| match op.action.is_write() {
        true => stored(41),
        false => found("v", 41),
    });
    cluster.replica(0, 0).script(|_| found("v", 41));
    let kv = cluster.client();
    kv.get("k").await.unwrap();
    kv.put("k", "v").await.unwrap();
    for _ in 0..10 {
        kv.get("k").await.unwrap();
    }
    let reads = cluster.shards[0].iter().flat_map(|node| node.ops());
    let asked: Vec<_> = reads
        .filter(|op| !op.action.is_write())
        .map(|op| op.terms)
        .collect();
    let with_position = asked
        .iter()
        .filter(|terms| terms.min_position == Some(Position::new(1, 41)));
    assert!(with_position.count() >= 10, "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|terms| terms.wait_ms.is_some() == terms.min_position.is_some())
    );
}

#[tokio::test]
async fn a_node_that_is_behind_is_left_for_one_that_is_not() {
    let cluster = Cluster::start(1, 2).await;
    cluster.primary(0).script(|op| match op.action.is_write() {
        true => stored(5),
        false => found("new", 5),
    });
    for replica in 0..2 {
        cluster
            .replica(0, replica)
            .script(|op| match op.terms.min_position {
                Some(_) => refused(ErrorCode::Behind, None),
                None => found("old", 1),
            });
    }
    let kv = cluster.client();
    kv.put("k", "new").await.unwrap();
    for _ in 0..10 {
        assert_eq!(kv.get("k").await.unwrap().as_deref(), Some(&b"new"[..]));
    }
    let eventual = || GetOptions::new().consistency(Consistency::Eventual);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        seen.insert(kv.get_with("k", eventual()).await.unwrap().unwrap().value);
    }
    assert_eq!(seen.len(), 2, "an eventual read takes what it gets");
}

#[tokio::test]
async fn a_session_advances_by_what_it_sees() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let seen = |kv: &kvclient::Client| kv.session().position(0).map(|at| at.seq);
    cluster.primary(0).script(|_| found("v", 7));
    kv.get("k").await.unwrap();
    assert_eq!(seen(&kv), Some(7), "a hit: the entry's own position");
    cluster.primary(0).script(|_| missing(20));
    kv.get("k").await.unwrap();
    assert_eq!(seen(&kv), Some(20), "a miss: what the node had seen");
    cluster.primary(0).script(|_| stored(15));
    kv.put("k", "v").await.unwrap();
    assert_eq!(seen(&kv), Some(20), "never backwards");
    cluster.primary(0).script(|_| stored(30));
    kv.delete("k").await.unwrap();
    assert_eq!(seen(&kv), Some(30), "a write: its own position");
}

#[tokio::test]
async fn sessions_split_merge_and_travel() {
    let cluster = Cluster::start(2, 0).await;
    let (kv, map) = (cluster.client(), cluster.map(1));
    kv.put(key_of(&map, 0), "v").await.unwrap();
    let fork = kv.fork();
    fork.put(key_of(&map, 1), "v").await.unwrap();
    assert_eq!(kv.session().position(1), None, "strangers from here on");
    assert!(
        fork.session().position(0).is_some(),
        "but it knows what was before"
    );
    kv.merge_session(&fork.session());
    assert_eq!(kv.session(), fork.session());

    let token = kv.session().to_token();
    let resumed = cluster
        .client()
        .with_session(Session::from_token(&token).unwrap());
    assert_eq!(resumed.session(), kv.session());
    let clone = resumed.clone();
    clone.put(key_of(&map, 0), "v").await.unwrap();
    assert_eq!(
        clone.session(),
        resumed.session(),
        "a clone shares its session"
    );
}

#[tokio::test]
async fn a_lost_position_is_told_once() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|op| match op.terms.min_position {
        Some(_) => refused(ErrorCode::PositionLost, None),
        None => missing(3),
    });
    let session = Session::from_token("kv1_0.1.99").unwrap();
    let kv = cluster.client().with_session(session);
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    let results = kv.get_many_with(&keys, GetOptions::new()).await;
    let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].kind(), ErrorKind::Conflict);
    assert_eq!(errors[0].lost_position(), Some(Position::new(1, 99)));
}

#[tokio::test]
async fn a_bounded_lag_is_asked_for() {
    let cluster = Cluster::start(1, 1).await;
    cluster.primary(0).script(|_| found("new", 9));
    cluster
        .replica(0, 0)
        .script(|_| refused(ErrorCode::Behind, None));
    let kv = cluster.client();
    let lag = GetOptions::new().consistency(Consistency::MaxLag(Duration::from_millis(250)));
    for _ in 0..5 {
        assert!(kv.get_with("k", lag.clone()).await.unwrap().is_some());
    }
    let ops = cluster.primary(0).ops();
    assert!(ops.iter().all(|op| op.terms.max_lag_ms == Some(250)));
}

/// Whoever is told that the entry is another one by now finds that one when he reads it again, and not the one before.
#[tokio::test]
async fn a_refused_condition_counts_as_seen() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|_| {
        let Reply::Answer(mut result) = refused(ErrorCode::PreconditionFailed, None) else {
            unreachable!("a refusal is an answer")
        };
        result.etag = Some(Position::new(1, 9));
        Reply::Answer(result)
    });
    let kv = cluster.client();
    let stale = kvclient::PutOptions::new().if_match(Position::new(1, 5));
    let error = kv.put_with("k", "v", stale).await.unwrap_err();
    assert_eq!(error.position(), Some(Position::new(1, 9)));
    assert_eq!(kv.session().position(0), error.position());
}
