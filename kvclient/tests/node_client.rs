//! One exchange with one node: how far it got when it fails, and that nothing is followed or repeated.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use kvclient::{
    Key, Position,
    attempt::{AttemptError, Outcome},
    node_client::{NodeClient, NodeClientOptions, SnapshotRequest},
    position::Lineage,
    shard_map::Address,
    wire::{
        batch::{Action, Condition, Op},
        error::{Applied, ErrorCode},
        pull::PullRequest,
    },
};
use support::{FakeNode, Reply, found, map, stored};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const SECOND: Duration = Duration::from_secs(1);

fn client() -> NodeClient {
    NodeClient::new(NodeClientOptions::default()).unwrap()
}

fn get(key: &str) -> Op {
    Op::new(Key::copy_from(key.as_bytes()).unwrap(), Action::Get)
}

/// A node that answers each connection's first request with fixed bytes, and then closes it.
async fn answers(bytes: Vec<u8>) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&bytes).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_batch_brings_one_result_per_op() {
    let node = FakeNode::start().await;
    let map = map(4, &[vec![node.address.clone()]]);
    node.set_map(&map);
    let answer = client()
        .batch(&node.address, &[get("a"), get("b")], SECOND)
        .await
        .unwrap();
    assert_eq!(answer.results.len(), 2);
    assert_eq!(answer.map_version.as_deref(), Some(map.identity()));
}

#[tokio::test]
async fn a_failure_says_how_far_the_exchange_got() {
    let nobody = FakeNode::reserve();
    let error = client()
        .batch(&nobody.address, &[get("a")], SECOND)
        .await
        .unwrap_err();
    assert!(matches!(error, AttemptError::NotConnected(_)), "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    let node = FakeNode::start().await;
    for (reply, expected) in [
        (Reply::Break, "Broken"),
        (Reply::Hang, "TimedOut"),
        (Reply::Http(200, "rubbish".into()), "Undecodable"),
        (Reply::Http(503, String::new()), "Refused"),
    ] {
        let told = reply.clone();
        node.script(move |_| told.clone());
        let batch = client();
        let timeout = Duration::from_millis(100);
        let error = batch
            .batch(&node.address, &[get("a")], timeout)
            .await
            .unwrap_err();
        assert!(
            format!("{error:?}").starts_with(expected),
            "{reply:?}: {error:?}"
        );
        assert_eq!(error.outcome(), Outcome::Unknown, "{reply:?}");
    }
}

#[tokio::test]
async fn a_node_that_speaks_tls_is_told_by_ops_and_documents() {
    let alert = vec![21, 3, 3, 0, 2, 2, 22];
    let node = answers(alert.clone()).await;
    let of_op = client().get(&node, &get("a"), SECOND).await.unwrap_err();
    let node = answers(alert).await;
    let of_status = client().get_json(&node, "/status", SECOND).await;
    for error in [of_op, of_status.unwrap_err()] {
        assert!(error.to_string().contains("kv: --ca or KV_CA"), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_told_and_not_followed() {
    let stranger = FakeNode::start().await;
    let head = format!(
        "HTTP/1.1 307 X\r\nlocation: http://{}/batch\r\ncontent-length: 0\r\n\r\n",
        stranger.address
    );
    let node = answers(head.into()).await;
    let error = client()
        .batch(&node, &[get("a")], SECOND)
        .await
        .unwrap_err();
    assert_eq!(error.target(), Some(&stranger.address));
    assert_eq!(stranger.connections(), 0);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_while_it_arrives() {
    let announced =
        answers(b"HTTP/1.1 200 X\r\ncontent-length: 99999999999\r\n\r\n".to_vec()).await;
    let error = client()
        .get_json(&announced, "/status", SECOND)
        .await
        .unwrap_err();
    assert!(
        matches!(error, AttemptError::AnswerTooLarge { .. }),
        "{error}"
    );
    let mut endless = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..17 {
        endless.extend_from_slice(b"100000\r\n");
        endless.resize(endless.len() + (1 << 20), b'x');
        endless.extend_from_slice(b"\r\n");
    }
    let endless = answers(endless).await;
    let error = client()
        .get_json(&endless, "/status", 5 * SECOND)
        .await
        .unwrap_err();
    assert!(
        matches!(error, AttemptError::AnswerTooLarge { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_map_comes_only_if_it_is_another() {
    let node = FakeNode::start().await;
    let error = client()
        .cluster_map(&node.address, None, SECOND)
        .await
        .unwrap_err();
    assert!(matches!(error, AttemptError::Refused(_)), "{error}");
    let map = map(4, &[vec![node.address.clone()]]);
    node.set_map(&map);
    let fetched = client()
        .cluster_map(&node.address, None, SECOND)
        .await
        .unwrap();
    assert_eq!(fetched, Some(map.clone()));
    let again = client()
        .cluster_map(&node.address, Some(map.identity()), SECOND)
        .await
        .unwrap();
    assert_eq!(again, None);
}

#[tokio::test]
async fn a_lone_value_becomes_a_result() {
    let node = FakeNode::start().await;
    node.script(|op| match op.action {
        Action::Get => found("v", 3),
        _ => stored(4),
    });
    for key in ["a/../b", "a/b %", "..", "+"] {
        let result = client()
            .get(&node.address, &get(key), SECOND)
            .await
            .unwrap();
        assert_eq!(result.value.as_deref(), Some(&b"v"[..]));
        assert_eq!(result.etag.map(|at| at.seq), Some(3));
        assert_eq!(node.ops().last().unwrap().key.as_bytes(), key.as_bytes());
    }
    for (key, condition) in [
        ("a", Condition::Absent),
        ("..", Condition::Is(Position::new(1, 2))),
    ] {
        let value = Bytes::from_static(b"v");
        let ttl_ms = Some(1_500);
        let mut put = Op::new(Key::new(key).unwrap(), Action::Put { value, ttl_ms });
        put.terms.condition = Some(condition);
        let result = client().put(&node.address, &put, SECOND).await.unwrap();
        assert_eq!(result.position.map(|at| at.seq), Some(4));
        assert_eq!(result.applied, Some(Applied::Yes));
        assert_eq!(node.ops().last(), Some(&put), "nothing got lost on the way");
    }
}

fn pull_request() -> PullRequest {
    PullRequest {
        after: 7,
        max_bytes: 1 << 20,
        wait_ms: 250,
        node_id: 1,
        node_address: "h:1".parse().unwrap(),
        history: None,
        lineage: Lineage::new(),
        last_crc: 0,
        map_version: None,
    }
}

#[tokio::test]
async fn a_pull_brings_frames_or_the_reason_why_not() {
    let frames =
        b"HTTP/1.1 200 X\r\nkv-durable: 1.9\r\nkv-waited-ms: 3\r\ncontent-length: 5\r\n\r\nframe";
    let node = answers(frames.to_vec()).await;
    let answer = client().pull(&node, &pull_request(), SECOND).await.unwrap();
    assert_eq!(
        (&answer.frames[..], answer.waited_ms),
        (&b"frame"[..], Some(3))
    );
    assert_eq!(answer.durable.map(|at| at.seq), Some(9));
    let body = r#"{"error":"snapshot_required","message":"m"}"#;
    let head = format!(
        "HTTP/1.1 410 X\r\nkv-durable: 1.9\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let node = answers(head.into()).await;
    let answer = client().pull(&node, &pull_request(), SECOND).await.unwrap();
    assert_eq!(answer.error_code(), Some(ErrorCode::SnapshotRequired));
    assert!(answer.durable.is_some());
}

#[tokio::test]
async fn a_snapshot_arrives_in_pieces_and_may_not_pause_for_long() {
    let head = "HTTP/1.1 200 X\r\nkv-durable: 1.9\r\ncontent-length: 10\r\n\r\nhello";
    let node = answers(head.into()).await;
    let request = SnapshotRequest {
        node_id: 1,
        node_address: "h:1".parse().unwrap(),
        idle_timeout: SECOND,
    };
    let mut body = client().snapshot(&node, &request).await.unwrap();
    assert_eq!(body.header("kv-durable"), Some("1.9"));
    assert_eq!(body.chunk().await.unwrap().as_deref(), Some(&b"hello"[..]));
    let cut_off = body.chunk().await.unwrap_err();
    assert!(matches!(cut_off, AttemptError::Broken(_)), "{cut_off}");
    let refused = answers(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let error = client().snapshot(&refused, &request).await.unwrap_err();
    assert!(matches!(error, AttemptError::Refused(_)), "{error}");
}
