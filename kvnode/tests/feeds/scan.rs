//! Scans over HTTP: ranges, directions, pages, and what they leave out.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::{Engine, engine::general_purpose::STANDARD};
use kvclient::{
    key::Key,
    wire::{
        batch::{Action, Op},
        content_type,
        scan::{ScanDecoder, ScanItem},
    },
};
use reqwest::Method;
use serde_json::Value;

use crate::support::{SHORT_LOG, Shard, put};

/// The lines of one answer.
struct Lines {
    entries: Vec<Value>,
    end: Value,
}

impl Lines {
    fn parse(text: &str) -> Self {
        let mut entries: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        let end = entries.pop().expect("an end line");
        assert!(end["shard"].is_string(), "{end}");
        Self { entries, end }
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        self.entries.iter().map(|line| bytes(line, "key")).collect()
    }
}

fn bytes(line: &Value, name: &str) -> Vec<u8> {
    match &line[name] {
        Value::String(text) => text.as_bytes().to_vec(),
        _ => STANDARD
            .decode(
                line[format!("{name}_b64")]
                    .as_str()
                    .expect("text or base64"),
            )
            .expect("base64"),
    }
}

async fn scan(shard: &Shard, query: &str) -> Lines {
    let answer = shard.get(0, &format!("/kv?{query}")).await;
    assert_eq!(answer.status(), 200, "{query}");
    assert_eq!(answer.headers()["content-type"], content_type::NDJSON);
    Lines::parse(&answer.text().await.expect("a whole answer"))
}

/// All keys of a range, in pages of `limit`.
async fn in_pages(shard: &Shard, query: &str, limit: usize) -> Vec<Vec<u8>> {
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let page = scan(shard, &format!("{query}&limit={limit}{after}")).await;
        assert!(page.entries.len() <= limit);
        keys.extend(page.keys());
        match page.end["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => {
                assert_eq!(page.end["done"], true);
                return keys;
            }
        }
    }
}

const KEYS: &[&[u8]] = &[
    b"\0",
    b"a",
    b"a\0",
    b"a/b",
    b"b\xc3\xa9",
    b"b\xfe",
    b"b\xff",
    b"b\xff\xff",
    b"c",
    b"\xff",
    b"\xff\xff",
];

async fn with_keys() -> Shard {
    let shard = Shard::primary().await;
    let store = |key: &&'static [u8]| put(*key, [b"value of ", *key].concat(), None);
    shard.batch(KEYS.iter().map(store).collect()).await;
    shard
}

#[tokio::test]
async fn ranges_prefixes_and_directions() {
    let shard = with_keys().await;
    for (query, from, to) in [
        ("", 0, 11),
        ("prefix=a", 1, 4),
        ("prefix=b", 4, 8),
        ("prefix=b%ff", 6, 8),
        ("prefix=%ff", 9, 11),
        ("prefix=%ff%ff", 10, 11),
        ("prefix=zz", 11, 11),
        ("start=a%00", 2, 11),
        ("start=a&end=b%ff", 1, 6),
        ("prefix=b&start=b%fe", 5, 8),
        ("start=c&end=a", 0, 0),
    ] {
        let mut expected: Vec<_> = KEYS[from..to].iter().map(|key| key.to_vec()).collect();
        assert_eq!(scan(&shard, query).await.keys(), expected, "{query}");
        for limit in [1, 2, 11] {
            assert_eq!(
                in_pages(&shard, query, limit).await,
                expected,
                "{query} by {limit}"
            );
        }
        expected.reverse();
        let query = format!("{query}&reverse");
        assert_eq!(scan(&shard, &query).await.keys(), expected, "{query}");
        assert_eq!(in_pages(&shard, &query, 2).await, expected, "{query} by 2");
    }
}

#[tokio::test]
async fn lines_and_frames_say_the_same() {
    let shard = with_keys().await;
    shard.put(b"a", "?ttl=1h", "short-lived").await;
    for query in ["limit=5", "limit=100", "keys_only=true"] {
        let lines = scan(&shard, query).await;
        let request = shard.client.get(shard.url(0, &format!("/kv?{query}")));
        let answer = request
            .header("accept", content_type::FRAMES)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.headers()["content-type"], content_type::FRAMES);
        let mut decoder = ScanDecoder::new();
        decoder.push(&answer.bytes().await.expect("an answer"));
        for line in &lines.entries {
            let Some(ScanItem::Entry(entry)) = decoder.next_item().expect("well-formed") else {
                panic!("an entry for {line}");
            };
            assert_eq!(entry.key.as_bytes(), bytes(line, "key"));
            assert_eq!(entry.position.to_string(), line["position"]);
            assert_eq!(entry.ttl_ms.is_some(), line["ttl_ms"].is_u64());
            match entry.value {
                Some(value) => assert_eq!(value, bytes(line, "value")),
                None => assert!(line.get("value").is_none() && line.get("value_b64").is_none()),
            }
        }
        let Some(ScanItem::End(end)) = decoder.next_item().expect("well-formed") else {
            panic!("an end");
        };
        assert_eq!(end.next.as_deref(), lines.end["next"].as_str());
        assert_eq!((end.shard.as_str(), end.shards), ("only", 1));
        assert_eq!(end.position.to_string(), lines.end["position"]);
        decoder.finish().expect("whole");
    }
}

#[tokio::test]
async fn expired_entries_are_left_out_and_do_not_end_pages() {
    let shard = Shard::primary().await;
    let mut ops: Vec<_> = (0..900)
        .map(|n| put(format!("gone{n:03}"), "x", Some(1)))
        .collect();
    ops.push(put("a", "1", None));
    ops.push(put("gone500x", "2", None));
    ops.push(put("z", "3", Some(3_600_000)));
    shard.batch(ops).await;
    let kept: Vec<Vec<u8>> = ["a", "gone500x", "z"].map(Into::into).into();
    assert_eq!(scan(&shard, "").await.keys(), kept);
    assert_eq!(in_pages(&shard, "", 1).await, kept);
    let last = scan(&shard, "start=z").await;
    assert!(last.entries[0]["ttl_ms"].as_u64().expect("a ttl") > 3_000_000);
}

#[tokio::test]
async fn many_pages_come_in_one_answer() {
    let shard = Shard::primary().await;
    let key = |n: usize| format!("key{n:05}");
    shard
        .batch(
            (0..5_000)
                .map(|n| put(key(n), vec![b'x'; 1_000], None))
                .collect(),
        )
        .await;
    let all = scan(&shard, "limit=100000").await;
    let expected: Vec<_> = (0..5_000).map(|n| key(n).into_bytes()).collect();
    assert_eq!(all.keys(), expected);
    assert_eq!(all.end["position"], shard.status(0).await["visible"]);
    assert_eq!(
        scan(&shard, "").await.entries.len(),
        1_000,
        "the default limit"
    );
}

#[tokio::test]
async fn a_key_that_is_there_throughout_comes_exactly_once() {
    let shard = Shard::start(1, &["--memtable-size", "256KiB"]).await;
    let stable: Vec<_> = (0..300).map(|n| format!("k{n:03}").into_bytes()).collect();
    let store = |round: usize| {
        stable
            .iter()
            .map(move |key| put(key.clone(), format!("{round}"), None))
    };
    shard.batch(store(0).collect()).await;
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let write = async {
        while !done.load(Ordering::Relaxed) {
            let round = 1 + rounds.load(Ordering::Relaxed);
            let passing = |n: usize| Key::new(format!("k{:03}x{round}", n * 7)).expect("short");
            let come = (0..40).map(|n| put(passing(n).to_bytes(), vec![b'y'; 500], None));
            shard.batch(store(round).chain(come).collect()).await;
            shard
                .batch(
                    (0..40)
                        .map(|n| Op::new(passing(n), Action::Delete))
                        .collect(),
                )
                .await;
            rounds.store(round, Ordering::Relaxed);
        }
    };
    let read = async {
        // Again until writes have gone on meanwhile.
        for limit in [7, 50, 1_000, 13, 100, 29].into_iter().cycle() {
            if limit == 7 && rounds.load(Ordering::Relaxed) > 2 {
                break;
            }
            for query in ["keys_only", "reverse"] {
                let mut keys = in_pages(&shard, query, limit).await;
                keys.retain(|key| key.len() == 4);
                if query == "reverse" {
                    keys.reverse();
                }
                assert!(keys == stable, "by {limit}, {query}: {} keys", keys.len());
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(write, read);
}

/// What cannot go on must not look whole: here a replica changes to a copy while it is being scanned.
#[tokio::test]
async fn a_scan_that_fails_on_the_way_breaks_the_connection() {
    let shard = Shard::start(2, SHORT_LOG).await;
    // More than sockets buffer.
    shard.put_mebibytes(40).await;
    shard
        .until("the replica has it all", async || {
            shard.status(1).await["visible"] == shard.status(0).await["visible"]
        })
        .await;
    let mut answer = shard.get(1, "/kv").await;
    assert_eq!(answer.status(), 200);
    let durable = shard.status(0).await["durable"].to_string();
    let seq: u64 = durable
        .trim_matches('"')
        .split('.')
        .nth(1)
        .map(str::parse)
        .expect("a position")
        .expect("a seq");
    shard.signal(1, "-STOP");
    shard.until_truncated(0, seq + 10).await;
    shard.signal(1, "-CONT");
    shard
        .until("the replica has its copy", async || {
            let status = shard.status(1).await;
            status["truncated"]
                .as_u64()
                .is_some_and(|truncated| truncated > seq)
        })
        .await;
    let mut bytes = 0;
    let failed = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => bytes += chunk.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(failed && bytes < 40 << 20, "{bytes} bytes came as if whole");
}

#[tokio::test]
async fn terms_of_reads_hold_for_scans() {
    let shard = with_keys().await;
    let ask = async |name: &str, value: &str| {
        let request = shard.client.get(shard.url(0, "/kv?limit=1"));
        request
            .header(name, value)
            .send()
            .await
            .expect("an answer")
            .status()
            .as_u16()
    };
    assert_eq!(ask("kv-min-position", "1.3").await, 200);
    assert_eq!(ask("kv-min-position", "1.999").await, 503);
    assert_eq!(ask("kv-min-position", "0.3").await, 410);
    assert_eq!(ask("kv-max-lag-ms", "0").await, 200);
    let head = shard
        .client
        .head(shard.url(0, "/kv"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["kv-shard"], "only");
    assert!(head.headers().contains_key("kv-position"));
    for (path, status) in [
        ("/kv?limit=0", 400),
        ("/kv?after=%25", 400),
        ("/kv?what=1", 400),
    ] {
        assert_eq!(
            shard.ask(Method::GET, path).await.as_u16(),
            status,
            "{path}"
        );
    }
    assert_eq!(shard.ask(Method::PUT, "/kv").await.as_u16(), 405);
}
