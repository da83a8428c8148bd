//! Request ids over real HTTP: a write that is repeated is done once, whatever happened to the node in between.

use kvclient::{
    key::Key,
    wire::batch::{Action, Op, RequestId},
};

use crate::support::{
    cluster::{Cluster, Node, Shape, swapped},
    http::{Answer, Ask, curl, has_curl},
};

const CLIENT: &str = "0191d9ee-7a3b-7c44-9a52-6f0f6d6d1f00";

/// Adds 1 to a counter under a request id.
async fn incr(node: &Node, id: &str) -> Answer {
    let ask = Ask::new("POST", "/kv/counter?incr=1");
    node.send(ask.header("kv-request-id", format!("{CLIENT}.{id}")))
        .await
}

/// What a caller sees of an answer.
fn seen(answer: &Answer) -> (u16, String, Vec<Option<String>>) {
    let headers = ["kv-position", "etag", "kv-applied", "kv-ttl-ms"];
    let headers = headers.map(|name| answer.header(name).map(str::to_owned));
    (answer.status, answer.text(), headers.to_vec())
}

/// The answer got lost, since the primary was killed: the repeat counted once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_a_kill_is_answered_and_not_done_again() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    incr(node, "1;floor=1").await;
    let first = incr(node, "2;floor=1").await;
    assert_eq!((first.status, first.text().as_str()), (200, "2"));
    for round in 0..2 {
        let again = incr(node, "2;floor=1").await;
        assert_eq!(seen(&again), seen(&first), "round {round}");
        node.kill();
        node.start().await;
    }
    assert_eq!(seen(&incr(node, "2;floor=1").await), seen(&first));
    assert_eq!(incr(node, "3;floor=3").await.text(), "3");
    let forgotten = incr(node, "2;floor=1").await;
    assert_eq!(forgotten.error(), "request_id_expired");
    assert_eq!(forgotten.header("kv-applied"), Some("unknown"));
    assert_eq!(node.get("counter").await.as_deref(), Some(&b"3"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_at_a_promoted_replica_is_answered_and_not_done_again() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let first = incr(primary, "1;floor=1").await;
    replica
        .wait_visible(first.position(), "the replica has the first")
        .await;
    primary.kill();
    replica.stop().await;
    replica.write_map(&swapped(&cluster, 2));
    replica.spawn(&["--promote"]);
    replica.wait_ready().await;
    assert_eq!(seen(&incr(replica, "1;floor=1").await), seen(&first));
    assert_eq!(incr(replica, "2;floor=2").await.text(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_takes_an_id_and_a_batch_one_for_each_op() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let send = async |method, uri: &str, n: u64| {
        let ask = Ask::new(method, uri).header("kv-request-id", format!("{CLIENT}.{n}"));
        node.send(ask.body(if method == "PUT" { "v" } else { "" }))
            .await
    };
    for (method, uri, n) in [
        ("PUT", "/kv/a?ttl=60s", 1),
        ("POST", "/kv/a?persist", 2),
        ("POST", "/kv/a?ttl=9s", 3),
        ("DELETE", "/kv/a", 4),
    ] {
        let first = send(method, uri, n).await;
        assert_eq!(first.status, 204, "{method} {uri}");
        assert_eq!(seen(&send(method, uri, n).await), seen(&first), "{uri}");
        let reused = send("PUT", "/kv/other", n).await;
        assert_eq!(
            (reused.status, reused.error().as_str()),
            (422, "request_id_reused")
        );
        assert_eq!(reused.header("kv-applied"), Some("no"));
    }
    assert_eq!(node.get("other").await, None);

    let op = |n| {
        let mut op = Op::new(Key::new("c").expect("short"), Action::Incr { delta: 1 });
        op.terms.request_id = Some(RequestId {
            client: 7,
            n,
            floor: 1,
        });
        op
    };
    let first = node.batch(&[op(1), op(2), op(1)]).await;
    assert_eq!(first[0], first[2]);
    assert_eq!(
        node.batch(&[op(2), op(1)]).await,
        [first[1].clone(), first[0].clone()]
    );
    assert_eq!(node.get("c").await.as_deref(), Some(&b"2"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_can_repeat_too() {
    if !has_curl() {
        return;
    }
    let cluster = Cluster::start(Shape::default()).await;
    let base = format!("http://{}", cluster.primary(0).address);
    let id = format!("Kv-Request-Id: {CLIENT}.1");
    let uri = format!("{base}/kv/n?incr=5");
    for _ in 0..3 {
        assert_eq!(curl(&["-X", "POST", "-H", &id, &uri]), "5");
    }
}
