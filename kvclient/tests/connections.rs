//! Connections that ops travel over: kept, looked at before they are used again, and closed when an exchange did not
//! end as it should. Nothing that a node, a proxy or another program answers does harm.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::mpsc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{future::join_all, poll};
use kvclient::{
    Address, Key,
    attempt::{AttemptError, Outcome},
    node_client::{NodeClient, NodeClientOptions},
    wire::batch::{Action, Op},
};
use proptest::prelude::*;
use support::{FakeNode, Reply, Then, found, stored, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

const SECOND: Duration = Duration::from_secs(1);

fn client() -> NodeClient {
    NodeClient::new(NodeClientOptions::default()).unwrap()
}

fn get() -> Op {
    Op::new(Key::new("a").unwrap(), Action::Get)
}

fn put(value: impl Into<Bytes>) -> Op {
    let (value, ttl_ms) = (value.into(), None);
    Op::new(Key::new("a").unwrap(), Action::Put { value, ttl_ms })
}

/// A node that says these bytes to every request.
async fn saying(bytes: &'static [u8], then: Then) -> FakeNode {
    let node = FakeNode::start().await;
    node.script(move |_| Reply::Raw(bytes, then));
    node
}

/// A node of the standard library's, for one connection after the other.
fn std_node(serve: impl Fn(std::net::TcpStream) + Send + 'static) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap());
        }
    });
    address.parse().unwrap()
}

#[tokio::test]
async fn one_exchange_after_the_other_needs_one_connection() {
    let node = FakeNode::start().await;
    let client = client();
    for _ in 0..20 {
        client.batch(&node.address, &[get()], SECOND).await.unwrap();
        client.get(&node.address, &get(), SECOND).await.unwrap();
        client.put(&node.address, &put("v"), SECOND).await.unwrap();
    }
    assert_eq!(node.connections(), 1);
}

#[tokio::test]
async fn every_form_of_answer_is_read_and_the_connection_kept_only_where_it_may_be() {
    for (answer, then, connections) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"[..], Then::GoOn, 1),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", Then::GoOn, 1),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nt: x\r\n\r\n", Then::GoOn, 1),
        (b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 103 Hint\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Then::GoOn, 1),
        // The node goes on, the client does not.
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello", Then::GoOn, 2),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", Then::GoOn, 2),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello and more", Then::GoOn, 2),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Then::GoOn, 2),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", Then::Close, 2),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", Then::Close, 2),
    ] {
        let node = saying(answer, then).await;
        let client = client();
        for _ in 0..2 {
            let result = client.get(&node.address, &get(), SECOND).await.unwrap();
            assert_eq!(result.value.as_deref(), Some(&b"hello"[..]), "{}", answer.escape_ascii());
        }
        assert_eq!(node.connections(), connections, "{}", answer.escape_ascii());
    }
    let empty = saying(b"HTTP/1.1 204 X\r\netag: \"1.7\"\r\n\r\n", Then::GoOn).await;
    let client = client();
    for _ in 0..2 {
        let result = client.put(&empty.address, &put("v"), SECOND).await.unwrap();
        assert_eq!(result.etag.map(|at| at.seq), Some(7));
    }
    assert_eq!(empty.connections(), 1);
}

#[tokio::test]
async fn what_is_no_answer_proves_nothing_and_ends_the_connection() {
    for answer in [
        &b""[..],
        b"\r\n",
        b"HTTP/1.1 20",
        b"HTTP/2 200 OK\r\n\r\n",
        b"POST /batch HTTP/1.1\r\nhost: a\r\n\r\n",
        b"HTTP/1.1 101 Switch\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 100 Go on\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n\r\n",
    ] {
        let node = saying(answer, Then::Close).await;
        let error = client()
            .put(&node.address, &put("v"), SECOND)
            .await
            .unwrap_err();
        assert!(
            matches!(error, AttemptError::Broken(_)),
            "{}: {error:?}",
            answer.escape_ascii()
        );
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(node.ops().len(), 1, "nothing is sent twice");
    }
}

#[tokio::test]
async fn answers_have_limits() {
    let announced = saying(
        b"HTTP/1.1 200 X\r\ncontent-length: 99999999999\r\n\r\n",
        Then::Stall,
    );
    let announced = announced.await;
    let mut chunks = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..17 {
        chunks.extend_from_slice(b"100000\r\n");
        chunks.resize(chunks.len() + (1 << 20), b'x');
        chunks.extend_from_slice(b"\r\n");
    }
    let chunks = saying(chunks.leak(), Then::Stall).await;
    for node in [&announced, &chunks] {
        let error = client()
            .get(&node.address, &get(), 5 * SECOND)
            .await
            .unwrap_err();
        assert!(
            matches!(error, AttemptError::AnswerTooLarge { .. }),
            "{error}"
        );
    }
    let heads = "HTTP/1.1 200 X\r\na: ".to_owned() + &"x".repeat(70 << 10);
    let lengths =
        "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5;".to_owned() + &"x".repeat(70 << 10);
    for endless in [heads, lengths] {
        let node = saying(endless.into_bytes().leak(), Then::Stall).await;
        let error = client()
            .get(&node.address, &get(), 5 * SECOND)
            .await
            .unwrap_err();
        assert!(matches!(error, AttemptError::Broken(_)), "{error}");
    }
}

#[tokio::test]
async fn large_values_travel_whole_both_ways() {
    let node = FakeNode::start().await;
    let client = client();
    for len in [0, 1, 60 << 10, 64 << 10, 65 << 10, 1 << 20, 16 << 20] {
        let value: Bytes = b"0123456789a".iter().copied().cycle().take(len).collect();
        let op = put(value.clone());
        client.put(&node.address, &op, 5 * SECOND).await.unwrap();
        assert!(node.ops().last() == Some(&op), "{len}");
        let result = client.get(&node.address, &get(), 5 * SECOND).await.unwrap();
        assert!(result.value.unwrap_or_default() == value, "{len}");
        node.forget_ops();
    }
    assert_eq!(node.connections(), 1);
}

/// A write to a connection that the node had closed meanwhile would end as "unknown", though nobody saw it.
#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_is_not_used() {
    let node = saying(b"HTTP/1.1 204 X\r\netag: \"1.7\"\r\n\r\n", Then::Close).await;
    let client = client();
    for n in 1..=20 {
        client.put(&node.address, &put("v"), SECOND).await.unwrap();
        wait_until("the node has closed it", || node.open() == 0).await;
        assert_eq!(node.connections(), n);
    }
    // A proxy's farewell: an answer to nothing.
    node.script(|_| stored(1));
    client.put(&node.address, &put("v"), SECOND).await.unwrap();
    let farewell = b"HTTP/1.1 204 X\r\n\r\nHTTP/1.1 408 Too late\r\ncontent-length: 0\r\n\r\n";
    node.script(|_| Reply::Raw(farewell, Then::Close));
    for _ in 0..2 {
        let result = client.put(&node.address, &put("v"), SECOND).await.unwrap();
        assert_eq!(result.status, 204);
    }
}

/// A runtime that was busy has not heard of the close; the kernel has.
#[tokio::test]
async fn a_busy_runtime_does_not_write_to_a_closed_connection() {
    let (closed, wait) = mpsc::channel();
    let node = std_node(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 204 X\r\n\r\n");
        drop(stream);
        closed.send(()).unwrap();
    });
    let client = client();
    for _ in 0..5 {
        client.put(&node, &put("v"), SECOND).await.unwrap();
        // Blocks the only thread, as a program should not.
        wait.recv().unwrap();
        wait.recv_timeout(Duration::from_millis(3)).unwrap_err();
    }
}

/// Who refuses a large value may do so before it has arrived, and read no more of it.
#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_through_counts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let node = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 10]).await.unwrap();
            let body = br#"{"error":"value_too_large","message":"m"}"#;
            let head = format!("HTTP/1.1 413 X\r\ncontent-length: {}\r\n\r\n", body.len());
            stream
                .write_all(&[head.as_bytes(), body].concat())
                .await
                .unwrap();
            // The client must close, with the rest still to be sent.
            while stream.read(&mut [0; 4096]).await.is_ok_and(|len| len > 0) {}
        }
    });
    let client = client();
    for _ in 0..2 {
        let large = put(vec![b'x'; 16 << 20]);
        let result = client.put(&address, &large, 5 * SECOND).await.unwrap();
        assert_eq!(result.status, 413);
    }
    node.await.unwrap();
}

#[tokio::test]
async fn a_dropped_exchange_closes_its_connection() {
    let node = FakeNode::start().await;
    node.script(|_| found("v", 1));
    let client = client();
    client.get(&node.address, &get(), SECOND).await.unwrap();
    node.pause();
    node.forget_ops();
    let op = get();
    let mut dropped = Box::pin(client.get(&node.address, &op, SECOND));
    assert!(poll!(&mut dropped).is_pending());
    wait_until("it was sent", || node.ops().len() == 1).await;
    drop(dropped);
    wait_until("the node sees it closed", || node.open() == 0).await;
    node.resume();
    client.get(&node.address, &get(), SECOND).await.unwrap();
    assert_eq!(node.connections(), 2);
    // So does one whose time is over.
    node.script(|_| Reply::Hang);
    let error = client
        .get(&node.address, &get(), Duration::from_millis(20))
        .await;
    assert_eq!(error, Err(AttemptError::TimedOut));
    wait_until("the node sees it closed", || node.open() == 0).await;
}

#[tokio::test]
async fn few_connections_are_kept_and_not_for_long() {
    let node = FakeNode::start().await;
    let mut options = NodeClientOptions::default();
    options.idle_per_node = 2;
    let client = NodeClient::new(options.clone()).unwrap();
    let op = get();
    let six = (0..6).map(|_| client.get(&node.address, &op, SECOND));
    assert!(join_all(six).await.iter().all(Result::is_ok));
    assert_eq!(node.connections(), 6);
    wait_until("the others are closed", || node.open() == 2).await;
    options.idle_timeout = Duration::ZERO;
    let client = NodeClient::new(options).unwrap();
    for _ in 0..3 {
        client.get(&node.address, &op, SECOND).await.unwrap();
    }
    assert_eq!(node.connections(), 9, "none is young enough");
}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    // Only one of the addresses of `localhost`.
    let node = FakeNode::start().await;
    let name = Address::to_string(&node.address).replace("127.0.0.1", "localhost");
    client()
        .get(&name.parse().unwrap(), &get(), SECOND)
        .await
        .unwrap();
    let nowhere = "no-such-name.invalid:80".parse().unwrap();
    let error = client().put(&nowhere, &put("v"), SECOND).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").unwrap();
    });
    client()
        .put(&address.parse().unwrap(), &put("v"), SECOND)
        .await
        .unwrap();
}

/// A connection hears only what its own runtime hears, and one that has stopped hears nothing.
#[test]
fn connections_of_other_runtimes_are_left_alone() {
    let of_node = Runtime::new().unwrap();
    let node = of_node.block_on(FakeNode::start());
    let (client, op) = (client(), put("v"));
    let exchange = || client.put(&node.address, &op, SECOND);
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (one, other) = (runtime(), runtime());
    for _ in 0..3 {
        one.block_on(exchange()).unwrap();
        // The first one stands still meanwhile.
        other.block_on(exchange()).unwrap();
    }
    assert_eq!(node.connections(), 2, "each keeps its own");
    drop(one);
    for _ in 0..3 {
        let short_lived = runtime();
        short_lived.block_on(exchange()).unwrap();
        short_lived.shutdown_background();
    }
    other.block_on(exchange()).unwrap();
    assert_eq!(node.connections(), 5);
}

#[test]
fn no_bytes_do_harm() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let node = runtime.block_on(FakeNode::start());
    let client = client();
    let valid =
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"[..];
    let plain = &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"[..];
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let damage = (any::<prop::sample::Index>(), any::<u8>());
    let answer = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        (
            prop::sample::select(vec![valid, plain]),
            prop::collection::vec(damage, 0..3)
        )
            .prop_map(|(text, damages)| {
                let mut text = text.to_vec();
                for (at, with) in damages {
                    let at = at.index(text.len());
                    text[at] = with;
                }
                text
            }),
    ];
    proptest!(config, |(answer in answer)| {
        let answer: &'static [u8] = answer.leak();
        node.script(move |_| Reply::Raw(answer, Then::Close));
        let result = runtime.block_on(client.get(&node.address, &get(), 5 * SECOND));
        prop_assert!(result != Err(AttemptError::TimedOut), "it neither ends nor fails");
    });
}
