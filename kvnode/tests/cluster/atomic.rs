//! `POST /batch?atomic` over real HTTP: all or nothing, redirected and refused as a whole.

use kvclient::{
    key::Key,
    position::Position,
    wire::batch::{Action, Condition, Op, OpResult, RequestId, decode_results, encode_ops},
};

use crate::support::{
    cluster::{Cluster, Node, Shape},
    http::{Answer, Ask},
};

fn op(key: &str, action: Action) -> Op {
    Op::new(Key::new(key.to_owned()).expect("a key"), action)
}

fn put(key: &str, value: &'static str) -> Op {
    let value = value.into();
    op(
        key,
        Action::Put {
            value,
            ttl_ms: None,
        },
    )
}

async fn atomic(node: &Node, ops: &[Op], id: Option<&str>) -> Answer {
    let mut ask =
        Ask::new("POST", "/batch?atomic").header("content-type", "application/x-kv-frames");
    if let Some(id) = id {
        ask = ask.header("kv-request-id", id);
    }
    node.send(ask.body(encode_ops(ops.iter()))).await
}

fn results(answer: Answer) -> Vec<OpResult> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    decode_results(answer.body).expect("results")
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_batch_is_done_or_nothing() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let ops = [
        put("{t}a", "1"),
        op("{t}a", Action::Incr { delta: 4 }),
        op("{t}a", Action::Get),
        op("{t}none", Action::Delete),
    ];
    let done = results(atomic(node, &ops, None).await);
    let statuses: Vec<u16> = done.iter().map(|result| result.status).collect();
    assert_eq!(statuses, [204, 200, 200, 404]);
    assert_eq!(done[2].value.as_deref(), Some(&b"5"[..]));
    assert_eq!(done[2].etag, done[1].etag);

    let mut condition = put("{t}a", "6");
    condition.terms.condition = Some(Condition::Is(Position::new(9, 9)));
    let refused = atomic(node, &[put("{t}b", "1"), condition], None).await;
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (412, "precondition_failed")
    );
    assert!(
        refused.text().contains("op 2 (key \\\"{t}a\\\")"),
        "{}",
        refused.text()
    );
    assert_eq!(refused.header("kv-applied"), Some("no"));
    assert_eq!(Some(refused.etag()), done[1].etag.map(Position::to_etag));
    assert_eq!(node.get("%7Bt%7Db").await, None);

    let cross = atomic(node, &[put("{t}b", "1"), put("{u}b", "1")], None).await;
    assert_eq!((cross.status, cross.error().as_str()), (400, "cross_slot"));
    assert!(cross.text().contains("op 2"), "{}", cross.text());
    assert_eq!(node.get("%7Bt%7Db").await, None);
    assert!(results(atomic(node, &[], None).await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_one_request_id() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let id = |n| RequestId {
        client: 255,
        n,
        floor: 1,
    };
    let ops = [
        op("{t}n", Action::Incr { delta: 1 }),
        op("{t}n", Action::Get),
    ];
    let header = "00000000-0000-0000-0000-0000000000ff.1;floor=1";
    let first = results(atomic(node, &ops, Some(header)).await);
    node.kill();
    node.start().await;
    assert_eq!(results(atomic(node, &ops, Some(header)).await), first);
    let mut in_frames = ops.clone();
    in_frames[0].terms.request_id = Some(id(1));
    assert_eq!(results(atomic(node, &in_frames, None).await), first);
    let twice = atomic(node, &in_frames, Some(header)).await;
    assert_eq!(
        (twice.status, twice.error().as_str()),
        (400, "malformed_batch")
    );
    let mut on_another = ops.clone();
    on_another[1].terms.request_id = Some(id(2));
    assert_eq!(
        atomic(node, &on_another, None).await.error(),
        "malformed_batch"
    );
    let reused = atomic(node, &ops[..1], Some(header)).await;
    assert_eq!(
        (reused.status, reused.error().as_str()),
        (422, "request_id_reused")
    );
    assert_eq!(node.get("%7Bt%7Dn").await.as_deref(), Some(&b"1"[..]));

    let ask = Ask::new("POST", "/batch")
        .header("content-type", "application/x-kv-frames")
        .header("kv-request-id", header);
    let plain = node.send(ask.body(encode_ops(ops.iter()))).await;
    assert_eq!(
        (plain.status, plain.error().as_str()),
        (400, "bad_parameter")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_sent_elsewhere_as_a_whole() {
    let shape = Shape {
        shards: 2,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let key = cluster.key_in(0, "k");
    let ops = [put(&key, "1"), op(&key, Action::Get)];
    let elsewhere = atomic(cluster.primary(1), &ops, None).await;
    assert_eq!(elsewhere.status, 307);
    let location = format!("http://{}/batch?atomic", cluster.primary(0).address);
    assert_eq!(elsewhere.header("location"), Some(location.as_str()));
    assert_eq!(elsewhere.header("kv-applied"), Some("no"));
    let replica = atomic(cluster.replica(0, 0), &ops, None).await;
    assert_eq!(
        (replica.status, replica.error().as_str()),
        (403, "read_only_replica")
    );
    assert_eq!(replica.header("location"), Some(location.as_str()));
    assert_eq!(cluster.primary(0).get(&key).await, None);
    assert_eq!(
        results(atomic(cluster.primary(0), &ops, None).await).len(),
        2
    );
}

/// A read of the past used to stop at the record that was asked for, and showed a state that nobody could have read.
#[tokio::test]
async fn the_past_never_shows_half_of_a_batch() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    node.put("{t}a", "old").await;
    let before = node.put("{t}b", "old").await;
    let done = results(atomic(node, &[put("{t}a", "new"), put("{t}b", "new")], None).await);
    let first = done[0].position.expect("written");
    let last = done[1].position.expect("written");
    assert_eq!(last.seq, first.seq + 1);
    node.put("{t}b", "later").await;
    for (at, expected) in [(before, "old"), (first, "new"), (last, "new")] {
        for key in ["%7Bt%7Da", "%7Bt%7Db"] {
            let past = node.ask("GET", &format!("/kv/{key}?at={at}")).await;
            assert_eq!(past.status, 200, "{key} at {at}: {past:?}");
            assert_eq!(&past.body[..], expected.as_bytes(), "{key} at {at}");
        }
    }
}
