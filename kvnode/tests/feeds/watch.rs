//! Watches over HTTP: order, resuming without gap or repeat, and how they end.

use std::{collections::BTreeMap, time::Duration};

use kvclient::position::Position;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::support::{PATIENCE, SHORT_LOG, Shard, put};

/// One event, whole.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Event {
    fn parse(block: &str) -> Self {
        let fields: BTreeMap<_, _> = block
            .lines()
            .map(|line| line.split_once(": ").expect("name and value"))
            .collect();
        let field = |name| fields.get(name).copied().unwrap_or_default();
        Self {
            name: field("event").into(),
            id: field("id").into(),
            data: serde_json::from_str(field("data")).expect("JSON"),
        }
    }

    fn position(&self) -> Position {
        self.id.parse().expect("a position")
    }
}

/// An open watch.
struct Watch {
    answer: Response,
    text: String,
}

impl Watch {
    async fn open(shard: &Shard, node: usize, query: &str) -> Self {
        Self::of(shard.get(node, &format!("/watch?{query}")).await)
    }

    async fn resume(shard: &Shard, query: &str, last: &str) -> Self {
        let request = shard.client.get(shard.url(0, &format!("/watch?{query}")));
        Self::of(
            request
                .header("last-event-id", last)
                .send()
                .await
                .expect("an answer"),
        )
    }

    fn of(answer: Response) -> Self {
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self {
            answer,
            text: String::new(),
        }
    }

    /// The next event; `None` at a clean end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = Event::parse(block);
                self.text = rest.to_owned();
                return Some(event);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.answer.chunk()).await;
            let chunk = chunk.expect("an event in time").expect("no abort")?;
            self.text
                .push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }

    /// The next event about a record.
    async fn record(&mut self) -> Event {
        loop {
            let event = self.next().await.expect("the watch goes on");
            if event.name != "position" {
                return event;
            }
        }
    }

    async fn records(&mut self, count: usize) -> Vec<Event> {
        let mut records = Vec::new();
        while records.len() < count {
            records.push(self.record().await);
        }
        records
    }
}

#[tokio::test]
async fn every_kind_of_record_is_told_in_order() {
    let shard = Shard::primary().await;
    shard.put(b"before", "", "not told").await;
    let mut watch = Watch::open(&shard, 0, "").await;
    let first = watch.next().await.expect("an event");
    assert_eq!(
        (first.name.as_str(), first.id.as_str()),
        ("position", "1.2")
    );
    assert_eq!(first.data["position"], "1.2");

    shard.put(b"a", "", "line\nbreak").await;
    shard.put(b"\xff", "?ttl=1h", vec![0xfe]).await;
    shard.ask(Method::POST, "/kv/a?ttl=1h").await;
    shard.ask(Method::POST, "/kv/a?persist").await;
    shard.ask(Method::DELETE, "/kv/a").await;
    shard.put(b"brief", "?ttl=1ms", "").await;
    let events = watch.records(7).await;
    let kinds: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(
        kinds,
        ["put", "put", "expire", "expire", "delete", "put", "delete"]
    );
    let ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
    assert_eq!(ids, ["1.3", "1.4", "1.5", "1.6", "1.7", "1.8", "1.9"]);
    let [put_a, put_ff, expire, persist, delete, _, expired] = &events[..] else {
        panic!("seven");
    };
    assert_eq!(
        (&put_a.data["key"], &put_a.data["value"]),
        (&"a".into(), &"line\nbreak".into())
    );
    assert!(put_a.data.get("expires_at_ms").is_none() && put_a.data["time_ms"].is_u64());
    assert_eq!(
        (&put_ff.data["key_b64"], &put_ff.data["value_b64"]),
        (&"/w==".into(), &"/g==".into())
    );
    assert!(put_ff.data["expires_at_ms"].is_u64() && expire.data["expires_at_ms"].is_u64());
    assert!(persist.data["expires_at_ms"].is_null());
    assert_eq!(delete.data["by_expiry"], false);
    assert_eq!(
        (&expired.data["key"], &expired.data["by_expiry"]),
        (&"brief".into(), &true.into())
    );
}

#[tokio::test]
async fn resuming_anywhere_leaves_no_gap_and_repeats_nothing() {
    let shard = Shard::primary().await;
    // Batches make frames of many records, so that most places to resume are inside one.
    for round in 0..4 {
        shard
            .batch(
                (0..25)
                    .map(|n| put(format!("k{round}-{n}"), "v", None))
                    .collect(),
            )
            .await;
    }
    let all = Watch::open(&shard, 0, "after=0.0").await.records(100).await;
    assert!(all.is_sorted_by_key(Event::position));
    for seen in (1..100).step_by(7) {
        let last = &all[seen - 1].id;
        let mut watch = Watch::resume(&shard, "after=0.0", last).await;
        assert_eq!(
            &watch.next().await.expect("an event").id,
            last,
            "no claim beyond it"
        );
        assert_eq!(
            watch.records(100 - seen).await,
            all[seen..],
            "behind {last}"
        );
        let mut watch = Watch::open(&shard, 0, &format!("after={last}&prefix=k3-")).await;
        let expected: Vec<_> = all[seen.max(75)..].to_vec();
        assert_eq!(
            watch.records(expected.len()).await,
            expected,
            "behind {last}"
        );
    }
}

#[tokio::test]
async fn a_restart_ends_watches_cleanly_and_loses_nothing() {
    let mut shard = Shard::primary().await;
    let mut watch = Watch::open(&shard, 0, "").await;
    let mut idle = Watch::open(&shard, 0, "prefix=nothing").await;
    shard.put(b"one", "", "1").await;
    let one = watch.record().await;
    let took = shard.stop(0).await;
    assert!(
        took < Duration::from_secs(5),
        "open watches delayed the stop: {took:?}"
    );
    while let Some(event) = watch.next().await {
        assert_eq!(event.name, "position");
    }
    while let Some(event) = idle.next().await {
        assert_eq!(event.name, "position");
    }
    shard.run(0).await;
    shard.put(b"two", "", "2").await;
    let mut watch = Watch::resume(&shard, "", &one.id).await;
    let two = watch.record().await;
    assert_eq!(
        (&two.data["key"], two.id.as_str()),
        (&"two".into(), "2.4"),
        "3 began the reign"
    );
}

/// Slow: it waits for the heartbeat, 5 s.
#[tokio::test]
async fn positions_pass_what_a_prefix_does_not_see() {
    let shard = Shard::primary().await;
    let mut watch = Watch::open(&shard, 0, "prefix=rare").await;
    assert_eq!(watch.next().await.expect("an event").id, "1.1");
    shard
        .batch(
            (0..2_000)
                .map(|n| put(format!("common{n}"), "v", None))
                .collect(),
        )
        .await;
    let event = watch.next().await.expect("an event");
    assert_eq!(
        (event.name.as_str(), event.id.as_str()),
        ("position", "1.2001")
    );
    shard.put(b"rare:1", "", "v").await;
    assert_eq!(watch.next().await.expect("an event").id, "1.2002");
}

#[tokio::test]
async fn a_replica_tells_the_same() {
    let mut shard = Shard::start(2, &[]).await;
    let mut on_replica = Watch::open(&shard, 1, "after=0.0").await;
    shard
        .batch((0..50).map(|n| put(format!("k{n}"), "v", None)).collect())
        .await;
    let mut on_primary = Watch::open(&shard, 0, "after=0.0").await;
    assert_eq!(on_replica.records(50).await, on_primary.records(50).await);
    let took = shard.stop(1).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

async fn refusal(shard: &Shard, query: &str) -> (u16, String) {
    let answer = shard.get(0, &format!("/watch?{query}")).await;
    let status = answer.status().as_u16();
    let body: Value = serde_json::from_str(&answer.text().await.expect("an answer")).expect("JSON");
    (status, body["error"].as_str().expect("a code").into())
}

#[tokio::test]
async fn what_the_log_does_not_have_is_410() {
    let mut shard = Shard::start(1, SHORT_LOG).await;
    shard.put(b"first", "", "1").await;
    shard.stop(0).await;
    shard.run(0).await;
    assert_eq!(
        refusal(&shard, "after=1.3").await,
        (410, "position_lost".into()),
        "3 is epoch 2's"
    );
    assert_eq!(refusal(&shard, "after=2.99").await, (503, "behind".into()));
    assert_eq!(
        refusal(&shard, "after=3").await,
        (400, "bad_parameter".into())
    );
    assert_eq!(
        refusal(&shard, "key=a").await,
        (400, "bad_parameter".into())
    );
    shard.until_truncated(0, 2).await;
    assert_eq!(
        refusal(&shard, "after=0.0").await,
        (410, "log_truncated".into())
    );
    assert_eq!(
        refusal(&shard, "after=1.2").await,
        (410, "log_truncated".into())
    );
}

#[tokio::test]
async fn a_watch_that_is_too_slow_is_told() {
    let shard = Shard::start(1, SHORT_LOG).await;
    let mut watch = Watch::open(&shard, 0, "").await;
    // More than sockets buffer, so that the node cannot be done with it before the log is cut.
    shard.put_mebibytes(40).await;
    shard.until_truncated(0, 35).await;
    let mut last = Position::ZERO;
    let told = loop {
        let event = watch.next().await.expect("it is told before the end");
        if event.name == "log_truncated" {
            break event;
        }
        assert!(event.position() >= last, "in order");
        last = event.position();
    };
    assert_eq!(told.id, "", "what to resume from is unchanged");
    assert_eq!(told.data["position"], last.to_string());
    assert!(told.data["truncated"].as_u64().expect("a seq") > last.seq);
    assert_eq!(watch.next().await, None);
}

/// A replica that was away for so long that it takes a copy shows another generation of the data. A watch of the old
/// one must not go on as if nothing had happened, and must not claim what it has not read.
#[tokio::test]
async fn a_replica_that_takes_a_copy_ends_its_watches() {
    let shard = Shard::start(2, SHORT_LOG).await;
    shard.put(b"a", "", "1").await;
    let mut watch = Watch::open(&shard, 1, "after=0.0").await;
    let mut last = watch.record().await.position();
    shard.signal(1, "-STOP");
    shard.until_truncated(0, last.seq + 10).await;
    shard.signal(1, "-CONT");
    // A pull that was under way may still have brought a record or two; then comes the end.
    while let Some(event) = watch.next().await {
        let next = event.position();
        assert!(
            next == last || event.name == "put" && next.seq == last.seq + 1,
            "{event:?}"
        );
        last = next;
    }
    shard
        .until("its log begins behind what the watch saw", async || {
            let request = shard.client.get(shard.url(1, "/watch"));
            let answer = request
                .header("last-event-id", last.to_string())
                .send()
                .await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::GONE)
        })
        .await;
}

#[tokio::test]
async fn head_and_other_methods_open_nothing() {
    let shard = Shard::primary().await;
    let head = shard
        .client
        .head(shard.url(0, "/watch"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-type"], "text/event-stream");
    assert_eq!(shard.ask(Method::PUT, "/watch").await.as_u16(), 405);
}

/// From the earliest record on until it is level; `None` if the log was cut meanwhile.
async fn tell_all(shard: &Shard) -> Option<(Event, Vec<Event>, Event)> {
    let mut watch = Watch::open(shard, 0, "after=earliest").await;
    let begin = watch.next().await.expect("an event");
    let mut records = Vec::new();
    loop {
        let event = watch.next().await.expect("the watch goes on");
        match event.name.as_str() {
            "log_truncated" => return None,
            "position" if event.id == event.data["visible"] => {
                return Some((begin, records, event));
            }
            _ => records.push(event),
        }
    }
}

#[tokio::test]
async fn from_the_earliest_record_on_until_it_is_level() {
    let shard = Shard::start(1, SHORT_LOG).await;
    shard.put_mebibytes(20).await;
    shard.until_truncated(0, 2).await;
    // What was just written is flushed yet, and the log cut behind that.
    let (begin, records, level) = loop {
        if let Some(told) = tell_all(&shard).await {
            break told;
        }
    };
    assert_eq!(begin.name, "position");
    assert!(
        begin.position().seq >= 2,
        "what is no longer there is passed over"
    );
    assert_eq!(begin.data["visible"], level.id);
    let seqs: Vec<_> = records.iter().map(|event| event.position().seq).collect();
    let wanted: Vec<_> = (begin.position().seq + 1..=level.position().seq).collect();
    assert_eq!(seqs, wanted, "nothing is left out");
}

#[tokio::test]
async fn the_past_of_a_key() {
    let shard = Shard::start(1, SHORT_LOG).await;
    for (method, path, body) in [
        (Method::PUT, "/kv/a", "one"),
        (Method::POST, "/kv/a?ttl=1h", ""),
        (Method::DELETE, "/kv/a", ""),
        (Method::PUT, "/kv/a", "two"),
        (Method::PUT, "/kv/b", "other"),
    ] {
        let request = shard.client.request(method, shard.url(0, path)).body(body);
        assert!(
            request
                .send()
                .await
                .expect("an answer")
                .status()
                .is_success()
        );
    }
    let past = async |query: &str| {
        let answer = shard.get(0, &format!("/kv/{query}")).await;
        let header = |name: &str| {
            let value = answer.headers().get(name)?;
            Some(value.to_str().expect("text").to_owned())
        };
        let (status, etag, ttl) = (
            answer.status().as_u16(),
            header("etag"),
            header("kv-ttl-ms"),
        );
        (
            status,
            etag,
            ttl.is_some(),
            answer.text().await.expect("a body"),
        )
    };
    let found = |tag: &str, expires: bool, value: &str| {
        (200, Some(format!("\"{tag}\"")), expires, value.to_owned())
    };
    assert_eq!(past("a?at=1.1").await.0, 404, "1.1 is the reign's begin");
    assert_eq!(past("a?at=1.2").await, found("1.2", false, "one"));
    assert_eq!(past("a?at=1.3").await, found("1.3", true, "one"));
    assert_eq!(past("a?at=1.4").await.0, 404);
    assert_eq!(past("a?at=1.6").await, found("1.5", false, "two"));
    assert_eq!(past("b?at=1.5").await.0, 404);
    assert_eq!(past("a?at=1.99").await.0, 503, "not yet");
    assert_eq!(past("a?at=2.1").await.0, 503, "another reign's");
    assert_eq!(past("a?at=2").await.0, 400);

    // What was written before the log begins is known as long as nobody has changed it since.
    shard.put_mebibytes(20).await;
    shard.until_truncated(0, 8).await;
    shard.put(b"b", "", "new").await;
    let status = shard.status(0).await;
    let (truncated, before) = (
        status["truncated"].as_u64().expect("a seq"),
        &status["visible"],
    );
    let before = before.as_str().expect("a position");
    let before = before.parse::<Position>().expect("a position").seq - 1;
    assert_eq!(past("a?at=1.2").await.0, 410);
    assert_eq!(
        past(&format!("a?at=1.{before}")).await,
        found("1.5", false, "two")
    );
    assert_eq!(
        past(&format!("b?at=1.{before}")).await.0,
        410,
        "it was overwritten"
    );
    assert_eq!(past(&format!("b?at=1.{}", before + 1)).await.3, "new");
    assert_eq!(past(&format!("nobody?at=1.{before}")).await.0, 404);
    assert_eq!(past(&format!("a?at=1.{truncated}")).await.0, 410);
}
