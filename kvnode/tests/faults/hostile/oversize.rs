//! E5: everything oversize. Each bound is tried one below, at and one above it; a body without end is cut at the
//! limit, and costs no memory.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use kvclient::wire::MAX_BATCH_BYTES;

use super::process::anonymous_bytes;
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    http::{Ask, head, raw},
    report::{self, Row},
};

const VALUE: usize = 1 << 20;

/// Bytes of a body that are sent at once.
const PIECE: usize = 1 << 16;

#[tokio::test(flavor = "multi_thread")]
async fn e5_what_is_oversize_is_refused_at_the_bound() {
    let mut row = Row::begin("E5");
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let mut wrong = Vec::new();
    for bound in bounds() {
        for (more, status) in [-1, 0, 1].into_iter().zip(bound.statuses) {
            let size = bound.at.checked_add_signed(more).expect("a size");
            let answered = (bound.ask)(node, size).await;
            row.rounds += 1;
            if answered != status {
                wrong.push(format!("{} {size}: {answered}, not {status}", bound.what));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let before = anonymous_bytes(node);
    let (endless, claimed) = (if bar() { 60 } else { 4 }, 10 << 30);
    let mut most = 0;
    for n in 0..endless {
        let body = endless_body(node, n, claimed);
        assert_eq!(body.status, Some(413), "body {n}");
        assert!(body.taken < claimed, "body {n} was read to its end");
        most = most.max(body.taken);
    }
    let grown = anonymous_bytes(node).saturating_sub(before) >> 20;
    assert!(grown < 64, "memory grew by {grown} MiB");
    assert_eq!(node.ask("GET", "/kv/endless").await.status, 404);
    row.figures = format!(
        "{} requests at {} bounds, each answered as stated; {endless} bodies of {} GiB, each refused at its limit, of none \
         more than {} MiB read and thrown away until it closed; memory +{grown} MiB",
        row.rounds,
        bounds().len(),
        claimed >> 30,
        most >> 20
    );
    row.rounds += endless;
    row.save();
}

/// Without bounds a body is read for as long as it comes.
#[tokio::test(flavor = "multi_thread")]
async fn e5_control_without_bounds_a_body_is_read_on() {
    let cluster = Cluster::start(Shape {
        faults: "off=bounds",
        ..Shape::default()
    })
    .await;
    let claimed = MAX_BATCH_BYTES + (64 << 20);
    let body = endless_body(cluster.primary(0), 0, claimed);
    assert_eq!((body.status, body.taken), (None, claimed));
    let found = format!(
        "{} MiB of one value taken and not refused, its limit is 1 MiB",
        body.taken >> 20
    );
    report::save_control("E5", "the limits of bodies", &found);
}

/// A size at which an answer changes.
struct Bound {
    what: &'static str,
    at: usize,
    /// One below, at it, one above.
    statuses: [u16; 3],
    ask: fn(&Node, usize) -> Asking<'_>,
}

fn bound(
    what: &'static str,
    at: usize,
    statuses: [u16; 3],
    ask: fn(&Node, usize) -> Asking<'_>,
) -> Bound {
    Bound {
        what,
        at,
        statuses,
        ask,
    }
}

type Asking<'a> = std::pin::Pin<Box<dyn Future<Output = u16> + 'a>>;

fn bounds() -> Vec<Bound> {
    vec![
        bound("key in the path", 511, [204, 204, 414], |node, size| {
            sent(node, Ask::new("PUT", format!("/kv/{}", "k".repeat(size))))
        }),
        bound("escaped key", 511, [404, 404, 414], |node, size| {
            sent(node, Ask::new("GET", format!("/kv/{}", "%ff".repeat(size))))
        }),
        bound("key in the query", 511, [404, 404, 414], |node, size| {
            sent(
                node,
                Ask::new("GET", format!("/kv?key={}", "q".repeat(size))),
            )
        }),
        bound("key in a line", 511, [200, 200, 400], |node, size| {
            lines(
                node,
                format!("{{\"op\":\"get\",\"key\":\"{}\"}}", "k".repeat(size)),
            )
        }),
        bound("value", VALUE, [204, 204, 413], |node, size| {
            sent(node, Ask::new("PUT", "/kv/value").body(vec![b'v'; size]))
        }),
        bound("declared value", VALUE, [204, 204, 413], |node, size| {
            let mut ask = head("PUT", "/kv/value", &[("Content-Length", &size.to_string())]);
            if size <= VALUE {
                ask.push_str(&"v".repeat(size));
            }
            exact(node, ask)
        }),
        // The path, Host and the filler, each with 4 bytes of punctuation.
        bound("head", 16 << 10, [404, 404, 431], |node, size| {
            let rest = "/kv/absent".len() + "Host: localhost\r\n".len() + "X-Filler: \r\n".len();
            exact(
                node,
                head(
                    "GET",
                    "/kv/absent",
                    &[("X-Filler", &"x".repeat(size - rest))],
                ),
            )
        }),
        bound("headers", 96, [404, 404, 431], |node, size| {
            exact(
                node,
                head("GET", "/kv/absent", &vec![("X-A", "b"); size - 1]),
            )
        }),
        bound("ops of a batch", 1_000, [200, 200, 400], |node, size| {
            lines(node, "{\"op\":\"get\",\"key\":\"a\"}\n".repeat(size))
        }),
        bound(
            "bytes of a batch",
            MAX_BATCH_BYTES,
            [200, 200, 413],
            |node, size| {
                let op = r#"{"op":"get","key":"a"}"#;
                lines(node, op.to_owned() + &" ".repeat(size - op.len()))
            },
        ),
        bound("limit of a scan", 100_000, [200, 200, 400], |node, size| {
            sent(
                node,
                Ask::new("GET", format!("/kv?prefix=none&limit={size}")),
            )
        }),
        bound("prefix of a scan", 511, [200, 200, 414], |node, size| {
            sent(
                node,
                Ask::new("GET", format!("/kv?prefix={}", "p".repeat(size))),
            )
        }),
        bound("prefix of a watch", 511, [200, 200, 414], |node, size| {
            sent(
                node,
                Ask::new("HEAD", format!("/watch?prefix={}", "p".repeat(size))),
            )
        }),
        bound(
            "number",
            9_223_372_036_854_775_807,
            [200, 409, 400],
            |node, size| {
                Box::pin(async move {
                    node.put("number", "0").await;
                    let first = node
                        .ask("POST", &format!("/kv/number?incr={size}"))
                        .await
                        .status;
                    let again = node.ask("POST", "/kv/number?incr=1").await.status;
                    if first == 200 { again } else { first }
                })
            },
        ),
    ]
}

fn sent(node: &Node, ask: Ask) -> Asking<'_> {
    Box::pin(async move { node.send(ask).await.status })
}

fn lines(node: &Node, body: String) -> Asking<'_> {
    let ask = Ask::new("POST", "/batch").header("content-type", "application/x-ndjson");
    sent(node, ask.body(body))
}

fn exact(node: &Node, request: String) -> Asking<'_> {
    let address = node.address.clone();
    Box::pin(async move {
        let sent = tokio::task::spawn_blocking(move || raw(&address, request).status);
        sent.await.expect("an answer")
    })
}

/// What became of a body without end.
struct Endless {
    /// What the node answered when the body had passed every limit, within two seconds.
    status: Option<u16>,
    /// Bytes of it that were taken until the node closed or all was sent.
    taken: usize,
}

/// Sends a body until the node closes or `claimed` bytes were sent. Each kind in turn: in chunks and with a length, to
/// a key and to the batch.
fn endless_body(node: &Node, n: usize, claimed: usize) -> Endless {
    let mut stream = TcpStream::connect(&node.address).expect("a connection");
    let patience = Some(Duration::from_secs(20));
    stream.set_write_timeout(patience).expect("a timeout");
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    let length = claimed.to_string();
    let framing = match n % 2 {
        0 => ("Transfer-Encoding", "chunked"),
        _ => ("Content-Length", length.as_str()),
    };
    let request = match n / 2 % 2 {
        0 => head("PUT", "/kv/endless", &[framing]),
        _ => head(
            "POST",
            "/batch",
            &[framing, ("Content-Type", "application/x-ndjson")],
        ),
    };
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut piece = vec![b'x'; PIECE];
    if n.is_multiple_of(2) {
        piece = [b"10000\r\n", &piece[..], b"\r\n"].concat();
    }
    let mut found = Endless {
        status: None,
        taken: 0,
    };
    // A length is refused at once.
    let passed = if n.is_multiple_of(2) {
        MAX_BATCH_BYTES + PIECE
    } else {
        0
    };
    while found.taken < claimed {
        if found.taken == passed {
            found.status = status(&mut stream);
        }
        if stream.write_all(&piece).is_err() {
            break;
        }
        found.taken += PIECE;
    }
    found
}

fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    std::str::from_utf8(&answer[9..]).ok()?.parse().ok()
}
