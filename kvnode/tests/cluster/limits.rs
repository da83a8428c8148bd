//! Too much, too slow, or from where it should not come: refused with its status while it arrives, and nothing stored.

use std::{io::Write, time::Instant};

use kvclient::{
    key::Key,
    wire::{
        MAX_BATCH_BYTES,
        batch::{Action, Op, encode_ops},
    },
};

use crate::support::{
    cluster::{Cluster, Node, Shape},
    eventually,
    http::{Ask, Raw, head, raw},
    slow,
};

/// The value limit of the nodes here: the default.
const LIMIT: usize = 1 << 20;

async fn one_node() -> Cluster {
    Cluster::start(Shape::default()).await
}

/// A chunked body of `bytes` bytes in pieces of 10,000, as much as the other side takes.
fn chunked(connection: &mut Raw, uri: &str, bytes: usize) -> bool {
    connection.write(head("PUT", uri, &[("Transfer-Encoding", "chunked")]));
    let piece = vec![b'x'; 10_000];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(piece.len());
        let mut chunk = format!("{count:x}\r\n").into_bytes();
        chunk.extend_from_slice(&piece[..count]);
        chunk.extend_from_slice(b"\r\n");
        if !connection.write(chunk) {
            return false;
        }
        left -= count;
    }
    connection.write("0\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_may_have_one_mebibyte_and_not_one_byte_more() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for (bytes, status) in [(LIMIT - 1, 204), (LIMIT, 204), (LIMIT + 1, 413)] {
        let with_length = format!("length{bytes}");
        let ask = Ask::new("PUT", format!("/kv/{with_length}")).body(vec![b'x'; bytes]);
        let answer = node.send(ask).await;
        assert_eq!(answer.status, status, "{bytes} with a length");
        let chunks = format!("chunked{bytes}");
        let mut connection = Raw::connect(&node.address);
        chunked(&mut connection, &format!("/kv/{chunks}"), bytes);
        let answer = connection.answer("PUT").expect("an answer");
        assert_eq!(answer.status, status, "{bytes} in chunks");
        if status == 413 {
            assert_eq!(
                (answer.error().as_str(), answer.header("kv-applied")),
                ("too_large", Some("no"))
            );
        }
        let op = |key: &str| {
            let value = vec![b'x'; bytes].into();
            let action = Action::Put {
                value,
                ttl_ms: None,
            };
            Op::new(Key::new(key.to_owned()).expect("a key"), action)
        };
        let in_batch = format!("batch{bytes}");
        assert_eq!(
            node.batch(&[op(&in_batch)]).await[0].status,
            status,
            "{bytes} in a batch"
        );
        for key in [with_length, chunks, in_batch] {
            let stored = node.get(&key).await.map(|value| value.len());
            assert_eq!(stored, (status == 204).then_some(bytes), "{key}");
        }
    }
    let longer = Cluster::start(Shape {
        flags: &["--max-value-size", "3MiB"],
        ..Shape::default()
    })
    .await;
    for (bytes, status) in [(3 << 20, 204), ((3 << 20) + 1, 413)] {
        let ask = Ask::new("PUT", "/kv/v").body(vec![b'x'; bytes]);
        assert_eq!(longer.primary(0).send(ask).await.status, status);
    }
}

/// Resident memory of a node, in bytes.
fn resident_bytes(node: &Node) -> usize {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("a process");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("a line");
    let kilobytes = line
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse::<usize>().ok());
    kilobytes.expect("a number") << 10
}

/// A chunked body without an end is refused at the limit; then the connection ends, and no memory was spent on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_cut_at_the_limit() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    node.put("warm", vec![b'x'; LIMIT]).await;
    let before = resident_bytes(node);
    let endless = ["/kv/endless", "/batch", "/set?key=k&value=v", "/nothing"].map(|uri| {
        let address = node.address.clone();
        std::thread::spawn(move || send_without_end(&address, uri))
    });
    for sender in endless {
        sender.join().expect("a sender");
    }
    assert_eq!(node.get("endless").await, None);
    let grown = resident_bytes(node).saturating_sub(before);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
}

/// Sends chunks, through the refusal, until the node closes.
fn send_without_end(address: &str, uri: &str) {
    let mut connection = Raw::connect(address);
    let headers = [
        ("Transfer-Encoding", "chunked"),
        ("Content-Type", "application/x-kv-frames"),
    ];
    let (method, limit) = match uri {
        "/kv/endless" => ("PUT", LIMIT),
        _ => ("POST", MAX_BATCH_BYTES),
    };
    connection.write(head(method, uri, &headers));
    let mut chunk = format!("{:x}\r\n", 1 << 16).into_bytes();
    chunk.extend(std::iter::repeat_n(b'x', 1 << 16));
    chunk.extend_from_slice(b"\r\n");
    let mut sent = 0;
    while sent <= limit && connection.write(&chunk) {
        sent += 1 << 16;
    }
    let answer = connection.answer(method).expect("an answer");
    assert!(
        matches!(answer.status, 404 | 405 | 413),
        "{uri}: {}",
        answer.status
    );
    assert_eq!(answer.header("connection"), Some("close"), "{uri}");
    let began = Instant::now();
    while connection.write(&chunk) {
        assert!(
            began.elapsed().as_secs() < 10,
            "the node still reads the body of {uri}"
        );
    }
}

/// A body that its sender announces as too long is refused before it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_over_the_limit_is_refused_before_the_body() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for (method, uri, extra, length) in [
        ("PUT", "/kv/k", None, LIMIT + 1),
        ("PUT", "/kv/k", None, usize::MAX),
        (
            "POST",
            "/batch",
            Some(("Content-Type", "application/x-kv-frames")),
            MAX_BATCH_BYTES + 1,
        ),
    ] {
        let length = length.to_string();
        let mut headers = vec![("Content-Length", length.as_str())];
        headers.extend(extra);
        let answer = raw(&node.address, head(method, uri, &headers));
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (413, "too_large"),
            "{uri} {length}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_at_most_a_thousand_ops() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let ops: Vec<Op> = (0..1_001)
        .map(|n| {
            Op::new(
                Key::new(format!("k{n}")).expect("a key"),
                Action::Incr { delta: 1 },
            )
        })
        .collect();
    let results = node.batch(&ops[..1_000]).await;
    assert!(results.len() == 1_000 && results.iter().all(|result| result.status == 200));
    let ask = Ask::new("POST", "/batch").header("content-type", "application/x-kv-frames");
    let answer = node.send(ask.body(encode_ops(ops.iter()))).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (400, "malformed_batch"),
        "{}",
        answer.text()
    );
    assert_eq!(
        node.get("k0").await.as_deref(),
        Some(&b"1"[..]),
        "nothing of it was done"
    );
}

/// A key that is written again and again takes no more memory, and must not hold on to the log either.
#[tokio::test(flavor = "multi_thread")]
async fn one_key_written_again_and_again_does_not_make_the_log_grow() {
    let cluster = Cluster::start(Shape {
        flags: &["--log-retention", "1MiB"],
        ..Shape::default()
    })
    .await;
    let node = cluster.primary(0);
    for _ in 0..400 {
        node.put("hot", vec![b'x'; 60_000]).await;
    }
    let status = eventually("what is flushed is given free", async || {
        let status = node.status().await;
        let logged = status["log_bytes"].as_u64()?;
        (logged <= 16 << 20).then_some(status)
    })
    .await;
    assert!(status["truncated"].as_u64() > Some(100), "{status}");
}

/// A thousand large values fill more than one frame; each op has its own answer all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_a_frame_is_stored_whole() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let ops: Vec<Op> = (0..30)
        .map(|n| {
            let value = vec![b'a' + n; 500_000].into();
            let action = Action::Put {
                value,
                ttl_ms: None,
            };
            Op::new(Key::new(format!("k{n}")).expect("a key"), action)
        })
        .collect();
    let results = node.batch(&ops).await;
    let positions: Vec<u64> = results
        .iter()
        .filter_map(|result| result.position)
        .map(|at| at.seq)
        .collect();
    assert!(
        positions.len() == 30 && positions.is_sorted(),
        "{results:?}"
    );
    for n in 0..30 {
        let value = node.get(&format!("k{n}")).await.expect("a value");
        assert!(
            value.len() == 500_000 && value.iter().all(|&byte| byte == b'a' + n),
            "k{n}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_have_sixteen_kibibytes() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for (bytes, is_taken) in [
        (8 << 10, true),
        (15 << 10, true),
        (17 << 10, false),
        (60 << 10, false),
        (1 << 20, false),
    ] {
        for request in [
            head("GET", "/kv/absent", &[("X-Filler", &"x".repeat(bytes))]),
            head("GET", &format!("/healthz?{}", "x".repeat(bytes)), &[]),
        ] {
            let mut connection = Raw::connect(&node.address);
            connection.write(&request);
            connection.finish();
            let status = connection.answer("GET").map(|answer| answer.status);
            match is_taken {
                true => assert!(matches!(status, Some(200 | 404)), "{bytes}: {status:?}"),
                false => assert_eq!(status, Some(431), "{bytes} bytes, {:.30}", request),
            }
        }
    }
}

/// A sender that stops in the middle of a body is cut off after ten seconds; nothing is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_cut() {
    if !slow() {
        eprintln!("skipped: takes 10 s; set KV_SLOW=1");
        return;
    }
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let began = Instant::now();
    let mut connection = Raw::connect(&node.address);
    connection.write(head("PUT", "/kv/slow", &[("Content-Length", "100")]) + "half");
    let answer = connection.answer("PUT").expect("an answer");
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (400, "bad_request")
    );
    assert!(
        (9..15).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(node.get("slow").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_off_is_never_stored() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    node.put("k", "whole").await;
    let before = node.at("durable").await;
    let frames = encode_ops([Op::new(Key::new("k").expect("a key"), Action::Delete)].iter());
    let batch = [
        ("Content-Length", "1000"),
        ("Content-Type", "application/x-kv-frames"),
    ];
    for (what, request) in [
        (
            "a length",
            (head("PUT", "/kv/k", &[("Content-Length", "100")]) + "half").into_bytes(),
        ),
        (
            "chunks",
            (head("PUT", "/kv/k", &[("Transfer-Encoding", "chunked")]) + "4\r\nhalf\r\n")
                .into_bytes(),
        ),
        (
            "a chunk",
            (head("PUT", "/kv/k", &[("Transfer-Encoding", "chunked")]) + "64\r\nhalf").into_bytes(),
        ),
        (
            "no body",
            head("PUT", "/kv/k", &[("Content-Length", "100")]).into_bytes(),
        ),
        (
            "a batch",
            [head("POST", "/batch", &batch).as_bytes(), &frames].concat(),
        ),
    ] {
        for abrupt in [false, true] {
            let mut connection = Raw::connect(&node.address);
            connection.write(&request);
            if !abrupt {
                connection.finish();
                let status = connection.answer("PUT").map(|answer| answer.status);
                assert!(matches!(status, None | Some(400)), "{what}: {status:?}");
            }
            drop(connection);
            assert_eq!(
                node.get("k").await.as_deref(),
                Some(&b"whole"[..]),
                "{what}"
            );
        }
    }
    // Everything sent above has been looked at by the time a later write is.
    let after = node.put("k2", "v").await;
    assert_eq!(after.seq, before.seq + 1, "nothing else was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_held_at_once_are_bounded() {
    let cluster = Cluster::start(Shape {
        flags: &["--max-in-flight", "18MiB"],
        ..Shape::default()
    })
    .await;
    let node = cluster.primary(0);
    let half = |n: usize| {
        let mut connection = Raw::connect(&node.address);
        let (uri, length) = (format!("/kv/k{n}"), LIMIT.to_string());
        connection.write(head("PUT", &uri, &[("Content-Length", &length)]));
        connection.write(vec![b'x'; LIMIT - 1]);
        connection
    };
    let mut waiting: Vec<Raw> = (0..30).map(half).collect();
    eventually("the node refuses what it cannot hold", async || {
        let answer = node
            .send(Ask::new("PUT", "/kv/one").body(vec![b'x'; LIMIT]))
            .await;
        if answer.status == 503 {
            assert_eq!(answer.error(), "overloaded");
            return Some(());
        }
        // Bodies that came at once may have been refused together, and left room for this one.
        waiting.push(half(waiting.len()));
        None
    })
    .await;
    waiting.clear();
    eventually("what was held is given back", async || {
        let answer = node
            .try_send(Ask::new("PUT", "/kv/one").body(vec![b'x'; LIMIT]))
            .await
            .ok()?;
        (answer.status == 204).then_some(())
    })
    .await;
}

/// Answers that nobody read had no bound: whoever asked for a large scan and then read nothing cost the node a page of
/// it, for as long as he liked.
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_are_bounded() {
    let cluster = Cluster::start(Shape {
        flags: &["--max-in-flight", "18MiB"],
        ..Shape::default()
    })
    .await;
    let node = cluster.primary(0);
    for n in 0..24 {
        node.put(&format!("v{n}"), vec![b'x'; LIMIT]).await;
    }
    let stalled: Vec<Raw> = (0..40)
        .map(|_| {
            let mut connection = Raw::connect(&node.address);
            connection.write(head("GET", "/kv", &[]));
            connection
        })
        .collect();
    eventually("a large read is refused", async || {
        let answer = node.try_send(Ask::new("GET", "/kv/v1")).await.ok()?;
        (answer.status == 503 && answer.error() == "overloaded").then_some(())
    })
    .await;
    // What is small, and what is written, goes on.
    node.put("small", "value").await;
    assert!(node.get("small").await.is_some());
    drop(stalled);
    eventually("what was held is given back", async || {
        let answer = node.try_send(Ask::new("GET", "/kv/v1")).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// A target that is a whole URL names a host too, and a port is a number; only the name in `Host` was looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_in_the_target_is_refused() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for (target, host, is_known) in [
        ("http://localhost/kv/k", "localhost", true),
        ("http://127.0.0.1:1/kv/k", "localhost", true),
        ("http://evil.example/kv/k", "localhost", false),
        ("http://localhost@evil.example/kv/k", "localhost", false),
        ("/kv/k", "localhost:80", true),
        ("/kv/k", "[::1]", true),
        ("/kv/k", "localhost:evil", false),
        ("/kv/k", "[::1]evil", false),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let status = raw(&node.address, request).status;
        assert_eq!(status, if is_known { 404 } else { 421 }, "{target} {host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_name_is_refused_everywhere() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let own = node.address.clone();
    for (host, is_known) in [
        (own.as_str(), true),
        ("localhost", true),
        ("LOCALHOST:99", true),
        ("127.0.0.1", true),
        ("[::1]:8080", true),
        ("evil.example", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example:80", false),
        ("", false),
    ] {
        for uri in [
            "/kv/k",
            "/get?key=k",
            "/set?key=k&value=v",
            "/status",
            "/healthz",
            "/cluster/map",
            "/log",
            "/",
        ] {
            let answer = raw(
                &node.address,
                format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            );
            assert_eq!(
                answer.status != 421,
                is_known,
                "{host:?} {uri}: {}",
                answer.status
            );
            if !is_known {
                assert_eq!(answer.error(), "unknown_host", "{host:?} {uri}");
            }
        }
    }
    let missing = raw(&node.address, "GET /kv/k HTTP/1.0\r\n\r\n");
    assert_eq!(missing.status, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_web_page_sends_changes_nothing() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    node.put("k", "v").await;
    let before = node.at("durable").await;
    let origin = format!("http://{}", node.address);
    for (name, value, is_taken) in [
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-site", false),
        ("origin", "http://evil.example", false),
        ("origin", "null", false),
        ("origin", "https://localhost", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "none", true),
        ("origin", origin.as_str(), true),
    ] {
        for (method, uri) in [
            ("PUT", "/kv/k"),
            ("DELETE", "/kv/absent"),
            ("POST", "/kv/absent?persist"),
            ("POST", "/batch"),
        ] {
            let answer = node.send(Ask::new(method, uri).header(name, value)).await;
            assert_eq!(
                answer.status == 403,
                !is_taken,
                "{method} {uri} {name}: {value}: {}",
                answer.status
            );
            if !is_taken {
                assert_eq!(answer.error(), "forbidden");
                assert_eq!(
                    node.at("durable").await,
                    before,
                    "{method} {uri} {name}: {value}"
                );
            }
        }
        let read = node
            .send(Ask::new("GET", "/kv/k").header(name, value))
            .await;
        assert_eq!(read.status, 200, "reading is the browser's own affair");
        assert_eq!(read.header("access-control-allow-origin"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_writes_comes_from_a_person_or_not_at_all() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    node.put("k", "v").await;
    let before = node.at("durable").await;
    for (name, value) in [
        ("referer", "http://localhost/"),
        ("origin", "http://localhost"),
        ("sec-fetch-site", "none"),
        ("forwarded", "for=10.0.0.1"),
        ("x-forwarded-for", "10.0.0.1"),
    ] {
        for uri in ["/set?key=k&value=x", "/delete?key=k"] {
            let answer = node.send(Ask::new("GET", uri).header(name, value)).await;
            assert_eq!(
                (answer.status, answer.error().as_str()),
                (403, "forbidden"),
                "{uri} {name}"
            );
        }
    }
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
        for uri in ["/set?key=k&value=x", "/delete?key=k"] {
            assert_eq!(node.ask(method, uri).await.status, 405, "{method} {uri}");
        }
    }
    assert_eq!(node.at("durable").await, before);
    // A crawler that follows every path with every parameter changes nothing else either.
    for path in [
        "/kv/k",
        "/get",
        "/route",
        "/status",
        "/cluster/map",
        "/cluster/status",
        "/log",
        "/snapshot",
        "/healthz",
        "/readyz",
    ] {
        for query in [
            "",
            "?key=k",
            "?value=x",
            "?key=k&value=x",
            "?ttl=1ms",
            "?incr=1",
            "?persist",
            "?after=0",
        ] {
            node.ask("GET", &format!("{path}{query}")).await;
        }
    }
    assert_eq!(node.at("durable").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_a_page_can_post_is_not_taken() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "TEXT/PLAIN; charset=utf-8",
    ] {
        let post = Ask::new("POST", "/kv/n?incr=1").header("content-type", content_type);
        let answer = node.send(post.body("a=b")).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (415, "unsupported_media_type"),
            "{content_type}"
        );
        // `curl -X PUT -d` sends such a type; a page cannot PUT without asking first.
        let put = Ask::new("PUT", "/kv/p").header("content-type", content_type);
        assert_eq!(
            node.send(put.body("a=b")).await.status,
            204,
            "{content_type}"
        );
    }
    assert_eq!(node.get("n").await, None);
}

/// Requests that two readers could understand differently are refused, and the connection ends with them.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_are_refused() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let start = "PUT /kv/smuggled HTTP/1.1\r\nHost: localhost\r\n";
    for (what, request) in [
        (
            "two lengths",
            format!("{start}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ),
        (
            "a length list",
            format!("{start}Content-Length: 1, 2\r\n\r\nab"),
        ),
        (
            "a signed length",
            format!("{start}Content-Length: +1\r\n\r\na"),
        ),
        (
            "length and chunks",
            format!("{start}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "unknown coding",
            format!("{start}Transfer-Encoding: gzip\r\n\r\n"),
        ),
        (
            "a bad chunk",
            format!("{start}Transfer-Encoding: chunked\r\n\r\nzz\r\na\r\n0\r\n\r\n"),
        ),
        (
            "a header without a colon",
            format!("{start}Nonsense\r\n\r\n"),
        ),
        (
            "a space before the colon",
            format!("{start}Content-Length : 1\r\n\r\na"),
        ),
        (
            "a folded header",
            format!("{start}X: a\r\n b\r\nContent-Length: 1\r\n\r\na"),
        ),
        (
            "two hosts",
            format!("{start}Host: evil\r\nContent-Length: 1\r\n\r\na"),
        ),
    ] {
        let mut connection = Raw::connect(&node.address);
        connection.write(&request);
        connection.finish();
        let status = connection.answer("PUT").map(|answer| answer.status);
        assert!(
            matches!(status, None | Some(400 | 421 | 501)),
            "{what}: {status:?}"
        );
        assert_eq!(node.get("smuggled").await, None, "{what}");
    }
    std::io::stderr().flush().expect("stderr");
}

/// Connections took the last descriptor, and the node ended with exit code 5 when its log needed the next segment.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_leave_descriptors_for_the_log() {
    let cluster = Cluster::prepare(Shape::default());
    let node = cluster.primary(0);
    node.set_wrapper(&["prlimit", "--nofile=96", "--"]);
    node.start().await;
    node.put("k", "v").await;
    let idle: Vec<Raw> = (0..100).map(|_| Raw::connect(&node.address)).collect();
    // More than two segments hold; the connection of the first request is open already.
    for nth in 0..10 {
        node.put(&format!("large{nth}"), vec![b'x'; LIMIT]).await;
    }
    drop(idle);
    assert!(node.said().contains("ulimit -n"), "{}", node.said());
}

/// Each snapshot keeps log on the disk for as long as it is read, so only so many are read at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_fifth_snapshot_at_a_time_is_refused() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    // More than sockets and queues hold, so that a stream nobody reads does not end by itself.
    for nth in 0..32 {
        node.put(&format!("key{nth}"), vec![b'x'; LIMIT]).await;
    }
    let mut stalled = Vec::new();
    let refused = loop {
        let answer = node.ask("GET", "/snapshot").await;
        if answer.status != 200 {
            break answer;
        }
        assert!(stalled.len() < 20, "nothing is refused");
        let mut connection = Raw::connect(&node.address);
        connection.write(head("GET", "/snapshot", &[]));
        stalled.push(connection);
    };
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (503, "overloaded")
    );
    assert!(stalled.len() >= 4, "only {} run", stalled.len());
    drop(stalled);
    eventually("there is room again", async || {
        (node.ask("GET", "/snapshot").await.status == 200).then_some(())
    })
    .await;
}

/// Pulls wait for 250 ms if there is nothing to send; with a bound below that each of them was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_waits_was_called_slow() {
    let cluster = Cluster::prepare(Shape::pair());
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    primary.spawn(&["--slow-request-ms", "100"]);
    replica.spawn(&[]);
    primary.wait_ready().await;
    replica.wait_ready().await;
    let answers = async || {
        let metrics = primary.ask("GET", "/metrics").await.text();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("kv_http_answers_total{status=\"2xx\"} "));
        line.and_then(|count| count.parse::<u64>().ok())
            .expect("a count")
    };
    let before = answers().await;
    eventually("some pulls have waited", async || {
        (answers().await > before + 40).then_some(())
    })
    .await;
    assert!(
        !primary.said().contains("a slow request"),
        "{}",
        primary.said()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_told_without_what_it_holds() {
    let cluster = Cluster::prepare(Shape::default());
    let node = cluster.primary(0);
    node.spawn(&["--slow-request-ms", "100"]);
    node.wait_ready().await;
    node.put("quick", "v").await;
    let long = "k".repeat(200);
    for uri in [format!("/kv/{long}"), format!("/kv?key=hidden-{long}")] {
        let waits = Ask::new("GET", &uri)
            .header("kv-min-position", "1.999")
            .header("kv-wait-ms", "200");
        assert_eq!(node.send(waits).await.status, 503);
    }
    let said = node.said();
    let slow: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("a slow request"))
        .collect();
    assert_eq!(slow.len(), 2, "{said}");
    let cut = format!("path=\"/kv/{}\"", "k".repeat(60));
    assert!(
        slow[0].contains(&cut) && slow[0].contains("status=503"),
        "{}",
        slow[0]
    );
    assert!(
        slow[0].contains("method=GET") && slow[0].contains(" ms=2"),
        "{}",
        slow[0]
    );
    assert!(
        slow[1].contains("path=\"/kv\"") && !said.contains("hidden"),
        "{}",
        slow[1]
    );
    let metrics = node.ask("GET", "/metrics").await.text();
    assert!(
        metrics.contains("\nkv_slow_requests_total 2\n"),
        "{metrics}"
    );
    node.stop().await;
}
