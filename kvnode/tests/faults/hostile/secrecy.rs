//! E10: keys, values, headers and tokens in logs, metrics and messages. Whatever stands in a request, a log event is one line
//! without control characters, and no value and no secret stands in any.

use rustix::process::Signal;

use crate::support::{
    cluster::{Cluster, Node, Shape},
    eventually,
    http::{Ask, Raw, head},
    report::{self, Row},
    tokens::{Doors, Entry, by, text_of, write_private},
};

/// Stands in every value, and in headers that would hold a secret.
const SECRET: &str = "s3cret-that-stands-nowhere";

/// What breaks lines, terminals and JSON, as it stands in a key: escaped for a URL, and as text in JSON.
const NASTY: &[(&str, &str)] = &[
    ("%0aINFO%20forged", "\\nINFO forged"),
    ("%0d%0aX:%20y", "\\r\\nX: y"),
    (
        "%1b%5b2J%1b%5d0;owned%07",
        "\\u001b[2J\\u001b]0;owned\\u0007",
    ),
    ("%22,%22level%22:%22ERROR", "\\\",\\\"level\\\":\\\"ERROR"),
    ("%00", "\\u0000"),
    ("%7f%c2%9b31m", "\\u007f\\u009b31m"),
    ("%e2%80%ae%e2%80%a8", "\\u202e\\u2028"),
    ("%ff%fe", "plain"),
];

#[tokio::test(flavor = "multi_thread")]
async fn e10_logs_and_metrics_hold_no_values_and_no_control_characters() {
    let mut row = Row::begin("E10");
    let (mut lines, mut answers) = (0, 0);
    for flags in [
        &["--log-format", "text", "--log-level", "debug"][..],
        &["--log-format", "json", "--log-level", "debug"],
        &["--log-format", "text"],
        &["--log-format", "json"],
    ] {
        let cluster = Cluster::start(Shape {
            flags,
            ..Shape::pair()
        })
        .await;
        for node in cluster.nodes() {
            let (count, wrong) = pester(node).await;
            assert!(wrong.is_empty(), "{flags:?}: {wrong:#?}");
            answers += count;
        }
        for node in cluster.nodes() {
            let metrics = node.ask("GET", "/metrics").await.text();
            assert!(
                !metrics.contains(SECRET) && !metrics.contains("forged"),
                "{metrics}"
            );
            node.stop().await;
            let said = node.said();
            let wrong = unclean(&said, flags.contains(&"json"));
            assert!(wrong.is_empty(), "{flags:?}: {wrong:#?}");
            lines += said.lines().count();
        }
    }
    let (asked, told) = doors().await;
    answers += asked;
    lines += told;
    row.rounds = answers;
    row.figures = format!(
        "{answers} requests with line breaks, escapes, NUL and JSON in keys, values and headers; {lines} log lines, each \
         one event; 0 control characters, 0 values, 0 secrets, 0 tokens in logs, metrics and status"
    );
    row.save();
}

/// Nodes that ask for tokens, good ones and bad ones, and token files with a token where its digest belongs: none is told.
/// How many requests were answered, and how many lines logged.
async fn doors() -> (usize, usize) {
    let (mut answers, mut lines) = (0, 0);
    for format in ["text", "json"] {
        let cluster = Cluster::prepare(Shape::pair());
        let app = Entry::new("app", &["read", "write"]);
        let over = Entry {
            expires: Some("2020-01-01T00:00:00Z"),
            ..Entry::new("over", &["read"])
        };
        let doors = Doors::new(cluster.dir(), &[app, over]);
        let format = ["--log-format", format, "--log-level", "trace"];
        let flags = [&doors.flags()[..], &format].concat();
        cluster.nodes().iter().for_each(|node| node.spawn(&flags));
        for node in cluster.nodes() {
            node.wait_ready().await;
            answers += knock(node).await;
        }
        let digest_is_token = format!(
            "[[tokens]]\nname = \"a\"\nsha256 = \"{}\"\nscopes = [\"read\"]\n",
            text_of("app")
        );
        write_private(&doors.tokens, &digest_is_token);
        for node in cluster.nodes() {
            node.signal(Signal::HUP);
            let trouble = eventually("the mistake is told", async || {
                let status = node
                    .send(by("app", Ask::new("GET", "/status")))
                    .await
                    .json();
                status["tokens_trouble"]
                    .as_str()
                    .map(|_| status.to_string())
            })
            .await;
            let metrics = node
                .send(by("app", Ask::new("GET", "/metrics")))
                .await
                .text();
            node.stop().await;
            let said = node.said();
            for text in [&said, &trouble, &metrics] {
                let told = [
                    text_of("app"),
                    text_of("over"),
                    text_of("nodes"),
                    SECRET.to_owned(),
                ]
                .into_iter()
                .find(|secret| text.contains(secret.as_str()));
                assert_eq!(told, None, "{text}");
            }
            lines += said.lines().count();
        }
    }
    (answers, lines)
}

/// Shows a node tokens in every way there is; how many answers came.
async fn knock(node: &Node) -> usize {
    let mut count = 0;
    for uri in [
        "/kv/k",
        "/status",
        "/log?after=0",
        "/watch?after=x",
        "/nowhere",
    ] {
        let token = text_of("app");
        for ask in [
            by("app", Ask::new("GET", uri)),
            by("over", Ask::new("GET", uri)),
            Ask::new("GET", uri).header("authorization", SECRET),
            Ask::new("GET", uri).header("authorization", format!("Bearer {SECRET}")),
            Ask::new("GET", uri).header("authorization", format!("Basic {token}")),
            by("app", Ask::new("PUT", uri))
                .header("cookie", &token)
                .body("v"),
            by("app", Ask::new("GET", uri)).header("kv-ack", &token),
            by("app", Ask::new("GET", uri)).header("host", format!("{token}.example")),
        ] {
            let answer = node.send(ask).await;
            let repeats = answer.text().contains(SECRET);
            assert!(!repeats, "{}", answer.text());
            count += 1;
        }
    }
    count
}

/// Unescaped, a message carries what stood in the request. The search of logs finds what a careless line would say.
#[tokio::test(flavor = "multi_thread")]
async fn e10_control_what_is_not_escaped_is_found() {
    let cluster = Cluster::start(Shape {
        faults: "off=escapes",
        ..Shape::default()
    })
    .await;
    let node = cluster.primary(0);
    let (_, messages) = pester(node).await;
    assert!(!messages.is_empty());
    node.stop().await;
    let planted = format!("{}stored \u{1b}[2J\n{SECRET} under k\n", node.said());
    let lines = unclean(&planted, false);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let found = format!(
        "{} messages with control characters; both planted lines",
        messages.len()
    );
    report::save_control(
        "E10",
        "messages are escaped; two careless lines were planted in a log",
        &found,
    );
}

/// Lines that are no event of their own, hold control characters, or a secret.
fn unclean(said: &str, is_json: bool) -> Vec<String> {
    let is_event = |line: &str| match is_json {
        true => serde_json::from_str::<serde_json::Value>(line)
            .is_ok_and(|event| event["level"].is_string()),
        // 2026-01-31T10:20:30.123456Z  INFO ...
        false => {
            let mut parts = line.split_whitespace();
            let time = parts.next().unwrap_or_default();
            let level = parts.next().unwrap_or_default();
            time.ends_with('Z') && ["ERROR", "WARN", "INFO", "DEBUG"].contains(&level)
        }
    };
    let clean = |line: &&str| {
        is_event(line) && !line.chars().any(char::is_control) && !line.contains(SECRET)
    };
    said.split('\n')
        .filter(|line| !line.is_empty())
        .filter(|line| !clean(line))
        .map(|line| line.escape_debug().to_string())
        .collect()
}

/// Every path, method, parameter and header with nasty text: how many were answered, and which answers hold what they
/// should not. Messages are one line, without control characters; refusals repeat no value.
async fn pester(node: &Node) -> (usize, Vec<String>) {
    let mut answers = Vec::new();
    for (escaped, json) in NASTY {
        for ask in of_keys(escaped).into_iter().chain(of_lines(json)) {
            let answer = node.send(ask).await;
            let is_text = answer
                .header("content-type")
                .is_some_and(|kind| kind.starts_with("text/plain"));
            if is_text || answer.status >= 400 {
                answers.push(answer.text());
            }
        }
    }
    for request in headers() {
        let mut connection = Raw::connect(&node.address);
        connection.write(request);
        connection.finish();
        // Whoever sent a header may see it again.
        let text = connection
            .answer("GET")
            .map(|answer| answer.text().replace(SECRET, ""));
        answers.extend(text);
    }
    let is_clean = |text: &String| {
        !text.trim_end_matches('\n').chars().any(char::is_control) && !text.contains(SECRET)
    };
    let count = answers.len();
    answers.retain(|text| !is_clean(text));
    (count, answers)
}

fn of_keys(key: &str) -> Vec<Ask> {
    let mut asks = vec![Ask::new("PUT", format!("/kv/{key}")).body(format!("{SECRET}\u{1b}[2J\n"))];
    for uri in [
        format!("/kv?key={key}"),
        format!("/route?key={key}"),
        format!("/get?key=absent{key}"),
        format!("/delete?key=absent{key}"),
        format!("/set?key={key}&value={SECRET}"),
        format!("/set?key={key}&value={SECRET}&ttl={key}"),
        format!("/set?{key}={SECRET}"),
        format!("/kv?limit={key}&prefix={key}"),
        format!("/kv?after={key}"),
        format!("/kv?{key}"),
        format!("/log?after={key}"),
        format!("/watch?after={key}"),
        format!("/watch?prefix={key}&{key}=1"),
        format!("/{key}"),
        format!("/kv/{key}%"),
        format!("/cluster/map?{key}"),
    ] {
        asks.push(Ask::new("GET", uri));
    }
    for uri in [
        format!("/kv/{key}?incr=1"),
        format!("/kv/{key}?incr={key}"),
        format!("/kv/{key}?ttl={key}"),
    ] {
        asks.push(Ask::new("POST", uri));
    }
    asks.push(Ask::new("POST", format!("/batch?{key}")).body(SECRET));
    asks.push(Ask::new("DELETE", format!("/{key}")));
    asks
}

fn of_lines(text: &str) -> Vec<Ask> {
    let lines = [
        format!(r#"{{"op":"put","key":"{text}","value":"{SECRET}"}}"#),
        format!(r#"{{"op":"incr","key":"{text}","delta":1}}"#),
        format!(r#"{{"op":"{text}","key":"k"}}"#),
        format!(r#"{{"op":"get","key":"k","{text}":1}}"#),
        format!(r#"{{"op":"get","key":"k","if_match":"{text}"}}"#),
        format!(r#"{{"op":"put","key":"k","value":"{SECRET}","ttl":"{text}"}}"#),
        format!("{text}{SECRET}"),
    ];
    let batch = |line: String| {
        Ask::new("POST", "/batch")
            .header("content-type", "application/x-ndjson")
            .body(line)
    };
    let frames = Ask::new("POST", "/batch").header("content-type", "application/x-kv-frames");
    lines
        .into_iter()
        .map(batch)
        .chain([frames.body(format!("{text}{SECRET}"))])
        .collect()
}

/// Requests that fill every header known, as a forged replica would.
fn headers() -> Vec<String> {
    let mut requests = Vec::new();
    for value in [
        SECRET,
        "a\u{e9}\u{ff}",
        "a\tb",
        "{\"level\":\"ERROR\"}",
        "7",
        "1.1",
        "127.0.0.1:1",
    ] {
        for name in [
            "Authorization",
            "Cookie",
            "Kv-Request-Id",
            "Kv-Ack",
            "Kv-Min-Position",
            "Kv-Max-Lag-Ms",
            "Kv-Wait-Ms",
            "If-Match",
            "If-None-Match",
            "Last-Event-ID",
            "Origin",
            "Content-Type",
            "Kv-Node-Id",
            "Kv-Map-Version",
        ] {
            for uri in ["/kv/k", "/watch?after=x", "/log?after=0&wait_ms=0"] {
                requests.push(head("GET", uri, &[(name, value)]));
            }
            requests.push(head(
                "POST",
                "/batch",
                &[(name, value), ("Content-Length", "0")],
            ));
        }
        requests.push(format!("GET /kv/k HTTP/1.1\r\nHost: {value}\r\n\r\n"));
        requests.push(format!(
            "GET /kv/k HTTP/1.1\r\nHost: localhost\r\nX: {value}\u{1b}[2J\0\r\n\r\n"
        ));
    }
    requests
}
