//! Every path and method of a node, asked the way users ask: statuses, headers, bodies, conditions, expiry, counters.

use kvclient::{
    key::Key,
    position::Position,
    wire::{
        batch::{Action, Condition, Op, OpResult, Terms, encode_ops},
        error::{Applied, ErrorCode},
        log::{Effect, Frame},
    },
};

use crate::support::{
    cluster::{Cluster, Node, Shape},
    eventually,
    http::{Ask, head, raw},
};

async fn one_node() -> Cluster {
    Cluster::start(Shape::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_put_read_replaced_and_deleted() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let first = node.put("a", "one").await;
    let second = node.put("a", "two").await;
    assert!(
        second > first && second.seq == first.seq + 1,
        "{first} {second}"
    );

    let answer = node.ask("GET", "/kv/a").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "two"));
    for (name, value) in [
        ("etag", format!("\"{second}\"")),
        ("kv-position", second.to_string()),
        ("kv-shard", "s0".into()),
        ("kv-role", "primary".into()),
        ("kv-lag-ms", "0".into()),
        ("content-type", "application/octet-stream".into()),
        ("cache-control", "no-store".into()),
        ("x-content-type-options", "nosniff".into()),
        ("content-length", "3".into()),
    ] {
        assert_eq!(answer.header(name), Some(value.as_str()), "{name}");
    }
    assert_eq!(answer.header("kv-ttl-ms"), None, "it does not expire");
    assert_eq!(answer.header("kv-applied"), None, "nothing was written");

    let deleted = node.ask("DELETE", "/kv/a").await;
    assert_eq!(deleted.status, 204);
    assert_eq!(deleted.header("kv-applied"), Some("yes"));
    assert_eq!(deleted.header("etag"), None, "no entry is left");
    assert_eq!(deleted.position().seq, second.seq + 1);
    for (method, applied) in [("GET", None), ("DELETE", Some("no"))] {
        let absent = node.ask(method, "/kv/a").await;
        assert_eq!((absent.status, absent.error().as_str()), (404, "not_found"));
        assert_eq!(absent.header("kv-applied"), applied, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_value_is_not_a_missing_key() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    node.put("empty", "").await;
    assert_eq!(node.get("empty").await.as_deref(), Some(&b""[..]));
    assert_eq!(node.get("missing").await, None);
    let empty = node.ask("GET", "/kv/empty").await;
    assert_eq!(empty.header("content-length"), Some("0"));
    // PUT without length and encoding is the empty value, too.
    let answer = raw(&node.address, head("PUT", "/kv/bare", &[]));
    assert_eq!(answer.status, 204);
    assert_eq!(node.get("bare").await.as_deref(), Some(&b""[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_answers_as_get_without_the_body() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    node.put("a", "value").await;
    for uri in [
        "/kv/a",
        "/kv/missing",
        "/get?key=a",
        "/status",
        "/healthz",
        "/readyz",
        "/nothing",
    ] {
        let get = node.ask("GET", uri).await;
        let head = raw(&node.address, head("HEAD", uri, &[]));
        assert_eq!(head.status, get.status, "{uri}");
        for name in ["content-type", "etag", "kv-position", "content-length"] {
            // A status changes while one looks at it.
            if (uri, name) != ("/status", "content-length") {
                assert_eq!(head.header(name), get.header(name), "{name} of {uri}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_or_change_nothing() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let now = node.put("there", "1").await;
    let (current, other) = (format!("\"{now}\""), format!("\"{}\"", Position::new(9, 9)));
    // Each refused or read-only row leaves the entry as it is, so the rows can follow each other.
    for (method, uri, name, value, status) in [
        ("PUT", "/kv/there", "if-none-match", "*", 412),
        ("PUT", "/kv/there", "if-match", other.as_str(), 412),
        ("PUT", "/kv/there", "if-none-match", current.as_str(), 412),
        ("DELETE", "/kv/there", "if-match", other.as_str(), 412),
        ("POST", "/kv/there?incr=1", "if-match", other.as_str(), 412),
        ("POST", "/kv/there?ttl=9s", "if-match", other.as_str(), 412),
        ("POST", "/kv/there?persist", "if-none-match", "*", 412),
        ("PUT", "/kv/absent", "if-match", "*", 412),
        ("PUT", "/kv/absent", "if-match", current.as_str(), 412),
        ("DELETE", "/kv/absent", "if-match", "*", 412),
        ("GET", "/kv/there", "if-none-match", current.as_str(), 304),
        ("HEAD", "/kv/there", "if-none-match", current.as_str(), 304),
        ("GET", "/kv/there", "if-none-match", other.as_str(), 200),
        ("PUT", "/kv/there", "if-match", "1.2", 400),
        ("PUT", "/kv/there", "if-match", "\"1.2\", \"1.3\"", 400),
        ("GET", "/kv/there", "if-none-match", "W/\"1.2\"", 400),
    ] {
        let row = format!("{method} {uri} {name}: {value}");
        let answer = node
            .send(Ask::new(method, uri).header(name, value).body("x"))
            .await;
        assert_eq!(answer.status, status, "{row}");
        match status {
            412 => {
                assert_eq!(answer.error(), "precondition_failed", "{row}");
                assert_eq!(answer.header("kv-applied"), Some("no"), "{row}");
                let there = uri.contains("there").then_some(current.as_str());
                assert_eq!(answer.header("etag"), there, "{row}");
            }
            304 => assert_eq!(
                (answer.etag(), answer.body.len()),
                (current.clone(), 0),
                "{row}"
            ),
            400 => assert_eq!(answer.error(), "bad_parameter", "{row}"),
            _ => {}
        }
        assert_eq!(node.ask("GET", "/kv/there").await.etag(), current, "{row}");
        assert_eq!(node.get("absent").await, None, "{row}");
    }
    // And those that hold.
    for (method, uri, name, value, status) in [
        ("PUT", "/kv/absent", "if-none-match", "*", 204),
        ("PUT", "/kv/absent", "if-match", "*", 204),
        ("PUT", "/kv/there", "if-none-match", other.as_str(), 204),
        ("DELETE", "/kv/absent", "if-match", "*", 204),
    ] {
        let answer = node
            .send(Ask::new(method, uri).header(name, value).body("x"))
            .await;
        assert_eq!(answer.status, status, "{method} {uri} {name}: {value}");
    }
    let etag = node.ask("GET", "/kv/there").await.etag();
    let deleted = node
        .send(Ask::new("DELETE", "/kv/there").header("if-match", etag))
        .await;
    assert_eq!(deleted.status, 204);
    let both = Ask::new("PUT", "/kv/there")
        .header("if-match", "*")
        .header("if-none-match", "*");
    assert_eq!(node.send(both).await.error(), "bad_parameter");
}

/// Of many writers that each want to be first, or to follow the same entry, exactly one gets through.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_conditional_writers_one_wins() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for (name, value) in [
        ("if-none-match", "*".to_owned()),
        ("if-match", String::new()),
    ] {
        let value = match value.is_empty() {
            true => node.ask("GET", "/kv/race").await.etag(),
            false => value,
        };
        let racers = (0..20).map(async |n: u32| {
            let put = Ask::new("PUT", "/kv/race").header(name, &value);
            node.send(put.body(n.to_string())).await.status
        });
        let mut statuses = futures_util::future::join_all(racers).await;
        statuses.sort_unstable();
        assert_eq!(
            (statuses[0], statuses[1], statuses[19]),
            (204, 412, 412),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_absent_at_once_and_swept_through_the_log() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let put = node
        .send(Ask::new("PUT", "/kv/short?ttl=300ms").body("v"))
        .await;
    assert_eq!((put.status, put.header("kv-ttl-ms")), (204, Some("300")));
    let alive = node.ask("GET", "/kv/short").await;
    if alive.status == 200 {
        let left: u64 = alive
            .header("kv-ttl-ms")
            .expect("it expires")
            .parse()
            .expect("ms");
        assert!(left <= 300, "{left}");
    }
    eventually("the entry expires", async || {
        node.get("short").await.is_none().then_some(())
    })
    .await;
    for (method, uri, status) in [
        ("DELETE", "/kv/short", 404),
        ("POST", "/kv/short?ttl=9s", 404),
        ("POST", "/kv/short?persist", 404),
    ] {
        assert_eq!(node.ask(method, uri).await.status, status, "{method} {uri}");
    }
    let again = Ask::new("PUT", "/kv/taken?ttl=1ms").body("v");
    node.send(again).await;
    eventually("an expired entry does not stand in the way", async || {
        let put = Ask::new("PUT", "/kv/taken")
            .header("if-none-match", "*")
            .body("w");
        (node.send(put).await.status == 204).then_some(())
    })
    .await;
    eventually("the sweeper deletes it through the log", async || {
        let swept = records(node).await;
        let by_expiry = |(key, effect): &(String, Effect)| {
            key == "short" && *effect == Effect::Delete { by_expiry: true }
        };
        swept.iter().any(by_expiry).then_some(())
    })
    .await;
    assert_eq!(node.get("taken").await.as_deref(), Some(&b"w"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_is_set_kept_and_removed() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let mut etag = node.put("k", "5").await;
    // Method and uri; whether the entry expires afterwards; its value.
    for (method, uri, expires, value) in [
        ("POST", "/kv/k?ttl=90s", true, "5"),
        ("POST", "/kv/k?incr=2", true, "7"),
        ("POST", "/kv/k?persist", false, "7"),
        ("PUT", "/kv/k?ttl=2h", true, "8"),
        ("PUT", "/kv/k", false, "8"),
    ] {
        let answer = node.send(Ask::new(method, uri).body(match method {
            "PUT" => value,
            _ => "",
        }));
        let answer = answer.await;
        assert!(
            matches!(answer.status, 200 | 204),
            "{method} {uri}: {}",
            answer.text()
        );
        assert!(answer.position() > etag, "{method} {uri}");
        etag = answer.position();
        let entry = node.ask("GET", "/kv/k").await;
        assert_eq!(entry.text(), value, "{method} {uri}");
        assert_eq!(entry.etag(), format!("\"{etag}\""), "{method} {uri}");
        assert_eq!(
            entry.header("kv-ttl-ms").is_some(),
            expires,
            "{method} {uri}"
        );
    }
    for ttl in [
        "0s",
        "1",
        "-1s",
        "1.5s",
        "s",
        "99999999999999999999s",
        "%31 s",
    ] {
        let answer = node.ask("POST", &format!("/kv/k?ttl={ttl}")).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (400, "bad_parameter"),
            "{ttl}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_count_and_refuse() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for (delta, value) in [("5", "5"), ("-7", "-2"), ("%2B3", "1"), ("0", "1")] {
        let answer = node.ask("POST", &format!("/kv/n?incr={delta}")).await;
        assert_eq!(
            (answer.status, answer.text().trim()),
            (200, value),
            "{delta}"
        );
        assert_eq!(answer.header("kv-applied"), Some("yes"));
        assert_eq!(answer.etag(), format!("\"{}\"", answer.position()));
    }
    node.put("max", "9223372036854775807").await;
    node.put("word", "many").await;
    node.put("zeros", "007").await;
    for (uri, status, code) in [
        ("/kv/max?incr=1", 409, "overflow"),
        ("/kv/word?incr=1", 409, "not_a_number"),
        ("/kv/zeros?incr=1", 409, "not_a_number"),
        ("/kv/n?incr=x", 400, "bad_parameter"),
        ("/kv/n?incr=9223372036854775808", 400, "bad_parameter"),
        ("/kv/n?incr=1&ttl=9s", 400, "bad_parameter"),
        ("/kv/n", 400, "bad_parameter"),
    ] {
        let answer = node.ask("POST", uri).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (status, code),
            "{uri}"
        );
        assert_eq!(answer.header("kv-applied"), Some("no"), "{uri}");
    }
    assert_eq!(
        node.get("max").await.as_deref(),
        Some(&b"9223372036854775807"[..])
    );
    let steps = (0..200).map(|_| node.ask("POST", "/kv/shared?incr=1"));
    futures_util::future::join_all(steps).await;
    assert_eq!(
        node.get("shared").await.as_deref(),
        Some(&b"200"[..]),
        "no step is lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forms_for_people() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for (uri, status, text) in [
        ("/set?key=k&value=a+b%2B", 200, "stored k in s0\n"),
        ("/get?key=k", 200, "a b+"),
        ("/set?key=k&value=", 200, "stored k in s0\n"),
        ("/get?key=k", 200, ""),
        ("/delete?key=k", 200, "deleted k in s0\n"),
        ("/get?key=k", 404, "not found: k\n"),
        ("/delete?key=k", 404, "not found: k\n"),
    ] {
        let answer = node.ask("GET", uri).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, text),
            "{uri}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{uri}");
    }
    node.ask("GET", "/set?key=t&value=v&ttl=1h").await;
    assert!(
        node.ask("GET", "/get?key=t")
            .await
            .header("kv-ttl-ms")
            .is_some()
    );
    for (uri, code) in [
        ("/set?key=k", "bad_parameter"),
        ("/set?value=v", "key_empty"),
        ("/set?key=&value=v", "key_empty"),
        ("/set?key=k&value=v&value=w", "bad_parameter"),
        ("/set?key=k&value=v&tll=9s", "bad_parameter"),
        ("/get", "key_empty"),
        ("/route", "key_empty"),
    ] {
        let answer = node.ask("GET", uri).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (400, code),
            "{uri}"
        );
    }
}

/// `/set` with `If-Match` stored its value whatever the entry was, and answered "stored": whoever asked for a condition
/// overwrote what he did not want to. A request id was dropped in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn the_forms_for_people_wrote_without_the_condition_asked_for() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    node.put("k", "v").await;
    for (name, value) in [
        ("if-match", "\"9.9\""),
        ("if-none-match", "*"),
        ("kv-request-id", "11111111222243338444555555555555.1"),
    ] {
        for uri in ["/set?key=k&value=w", "/delete?key=k"] {
            let answer = node.send(Ask::new("GET", uri).header(name, value)).await;
            let refusal = (answer.status, answer.error());
            assert_eq!(refusal, (400, "bad_parameter".into()), "{name} {uri}");
            assert_eq!(answer.header("kv-applied"), Some("no"), "{name} {uri}");
        }
    }
    assert_eq!(node.get("k").await.as_deref(), Some(&b"v"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_paths_that_are_not_there() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for (method, uri, status, code) in [
        ("PATCH", "/kv/a", 405, "method_not_allowed"),
        ("OPTIONS", "/kv/a", 405, "method_not_allowed"),
        ("GET", "/batch", 405, "method_not_allowed"),
        ("PUT", "/get?key=a", 405, "method_not_allowed"),
        ("POST", "/set?key=a&value=b", 405, "method_not_allowed"),
        ("DELETE", "/status", 405, "method_not_allowed"),
        ("PUT", "/cluster/map", 405, "method_not_allowed"),
        ("GET", "/nothing", 404, "no_such_path"),
        ("POST", "/nothing", 404, "no_such_path"),
        ("GET", "/kvx/a", 404, "no_such_path"),
    ] {
        let answer = node.ask(method, uri).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (status, code),
            "{method} {uri}"
        );
        assert_eq!(
            answer.header("allow").is_some(),
            status == 405,
            "{method} {uri}"
        );
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{method} {uri}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_says_of_itself_and_the_cluster() {
    let shape = Shape {
        shards: 2,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let (node, key) = (cluster.primary(0), cluster.key_in(1, "far"));
    assert_eq!(node.ask("GET", "/healthz").await.text(), "alive\n");
    assert_eq!(node.ask("GET", "/readyz").await.text(), "ready\n");

    let route = node.ask("GET", &format!("/route?key={key}")).await.json();
    assert_eq!(route["shard"], "s1");
    assert_eq!(route["primary"], cluster.primary(1).address.as_str());
    assert_eq!(route["replicas"][0], cluster.replica(1, 0).address.as_str());
    assert_eq!(route["this_node"], serde_json::Value::Null);
    let slot = kvclient::slot::Slot::of_bytes(key.as_bytes()).number();
    assert_eq!(route["slot"], slot);

    let map = node.ask("GET", "/cluster/map").await;
    let etag = map.etag();
    assert_eq!(map.header("kv-map-version"), Some(etag.trim_matches('"')));
    let known = Ask::new("GET", "/cluster/map").header("if-none-match", &etag);
    let unchanged = node.send(known).await;
    assert_eq!(
        (unchanged.status, unchanged.body.len(), unchanged.etag()),
        (304, 0, etag.clone())
    );
    let other = Ask::new("GET", "/cluster/map").header("if-none-match", "\"0-0\"");
    assert_eq!(node.send(other).await.body, map.body);
    let decoded = kvclient::shard_map::json::decode(&map.body).expect("a map");
    assert_eq!(decoded.identity(), etag.trim_matches('"'));
    assert_eq!(
        cluster
            .replica(1, 0)
            .ask("GET", "/cluster/map")
            .await
            .etag(),
        etag
    );

    let position = node.put(&cluster.key_in(0, "own"), "v").await.to_string();
    let status = node.status().await;
    for (name, value) in [
        ("address", node.address.as_str()),
        ("shard", "s0"),
        ("slots", "0-8191"),
        ("role", "primary"),
        ("state", "ready"),
        ("durable", &position),
        ("visible", &position),
        ("map_version", etag.trim_matches('"')),
    ] {
        assert_eq!(status[name], value, "{name} in {status}");
    }
    assert_eq!(
        (&status["lag_ms"], &status["epoch"]),
        (&0.into(), &1.into())
    );

    cluster.replica(1, 0).kill();
    let all = eventually("the status of all nodes shows the dead one", async || {
        let all = node.ask("GET", "/cluster/status").await.json();
        let dead = all["nodes"][3]["state"].as_str()?.starts_with("no answer");
        dead.then_some(all)
    })
    .await;
    for (at, other) in cluster.nodes().iter().enumerate() {
        assert_eq!(all["nodes"][at]["address"], other.address.as_str());
    }
    assert_eq!(all["nodes"][2]["state"], "ready");
}

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

fn under(condition: Condition, op: Op) -> Op {
    let condition = Some(condition);
    Op {
        terms: Terms {
            condition,
            ..Terms::default()
        },
        ..op
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_each_op_in_order() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let results = node
        .batch(&[
            op("k", Action::Get),
            put("k", "1"),
            op("k", Action::Get),
            op("k", Action::Incr { delta: 41 }),
            under(Condition::Absent, put("k", "no")),
            op("k", Action::Expire { ttl_ms: 60_000 }),
            op("k", Action::Get),
            op("k", Action::Persist),
            op("k", Action::Get),
            op("k", Action::Delete),
            op("k", Action::Get),
            op("k", Action::Delete),
        ])
        .await;
    let statuses: Vec<u16> = results.iter().map(|result| result.status).collect();
    assert_eq!(
        statuses,
        [404, 204, 200, 200, 412, 204, 200, 204, 200, 204, 404, 404]
    );
    let values: Vec<Option<&[u8]>> = results
        .iter()
        .map(|result| result.value.as_deref())
        .collect();
    let (one, all) = (Some(&b"1"[..]), Some(&b"42"[..]));
    assert_eq!(
        values,
        [
            None, None, one, all, None, None, all, None, all, None, None, None
        ]
    );
    let ttls: Vec<bool> = results
        .iter()
        .map(|result| result.ttl_ms.is_some())
        .collect();
    assert_eq!((ttls[6], ttls[8]), (true, false));
    assert_eq!(
        results[4].etag, results[3].etag,
        "412 names the entry as the op before left it"
    );
    let applied: Vec<Option<Applied>> = results.iter().map(|result| result.applied).collect();
    assert_eq!(
        &applied[..5],
        &[
            None,
            Some(Applied::Yes),
            None,
            Some(Applied::Yes),
            Some(Applied::No)
        ]
    );
    let writes: Vec<Position> = results
        .iter()
        .filter(|result| result.applied == Some(Applied::Yes))
        .filter_map(|result| result.position)
        .collect();
    assert!(writes.is_sorted() && writes.len() == 5, "{writes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_does_not_decode_does_nothing() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    let before = node.at("durable").await;
    let whole = encode_ops([put("a", "1"), put("b", "2")].iter());
    let mut unknown_code = whole.clone();
    unknown_code[12] = 99;
    let mut longer = whole.clone();
    longer.push(0);
    let cut = whole[..whole.len() - 1].to_vec();
    let no_magic = [b"XXXX", &whole[4..]].concat();
    for (what, body) in [
        ("cut off", cut),
        ("bytes behind it", longer),
        ("an unknown code", unknown_code),
        ("another magic", no_magic),
        ("nothing", Vec::new()),
    ] {
        let ask = Ask::new("POST", "/batch").header("content-type", "application/x-kv-frames");
        let answer = node.send(ask.body(body)).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (400, "malformed_batch"),
            "{what}"
        );
        assert_eq!(answer.header("kv-applied"), Some("no"), "{what}");
    }
    for (content_type, uri, status) in [
        ("text/plain", "/batch", 415),
        ("application/json", "/batch", 415),
        ("text/plain", "/batch?atomic", 415),
        ("application/x-kv-frames", "/batch?atomic=maybe", 400),
        ("application/x-kv-frames", "/batch?atmoic", 400),
    ] {
        let ask = Ask::new("POST", uri).header("content-type", content_type);
        let answer = node.send(ask.body(whole.clone())).await;
        assert_eq!(answer.status, status, "{content_type} {uri}");
        answer.error();
    }
    assert_eq!(node.at("durable").await, before, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_for_several_shards_names_the_others_nodes() {
    let shape = Shape {
        shards: 3,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let keys: Vec<String> = (0..3).map(|shard| cluster.key_in(shard, "k")).collect();
    let ops: Vec<Op> = keys
        .iter()
        .flat_map(|key| [put(key, "v"), op(key, Action::Get)])
        .collect();
    let target = |result: &OpResult| result.target.clone().map(String::from);
    let results = cluster.primary(1).batch(&ops).await;
    for (at, result) in results.iter().enumerate() {
        let own = at / 2 == 1;
        let (status, other) = match (own, at % 2) {
            (true, 0) => (204, None),
            (true, _) => (200, None),
            (false, _) => (307, Some(cluster.primary(at / 2).address.clone())),
        };
        assert_eq!((result.status, target(result)), (status, other), "op {at}");
    }
    assert_eq!(results[0].applied, Some(Applied::No));
    let results = cluster.replica(1, 0).batch(&ops).await;
    assert_eq!(results[2].error_code(), Some(ErrorCode::ReadOnlyReplica));
    assert_eq!(
        target(&results[2]),
        Some(cluster.primary(1).address.clone())
    );
    assert_eq!((results[0].status, results[5].status), (307, 307));
    assert!(matches!(results[3].status, 200 | 404));
    for shard in [0, 2] {
        assert_eq!(
            cluster.primary(shard).get(&keys[shard]).await,
            None,
            "nothing was forwarded"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_that_cannot_be_kept_are_refused() {
    let cluster = one_node().await;
    let node = cluster.primary(0);
    for (name, value, status) in [
        ("kv-ack", "primary", 204),
        ("kv-ack", "1", 503),
        ("kv-ack", "majority", 204),
        ("kv-ack", "all", 204),
        ("kv-ack", "most", 400),
        ("kv-request-id", "7", 400),
    ] {
        let answer = node
            .send(Ask::new("PUT", "/kv/p").header(name, value).body("v"))
            .await;
        assert_eq!(answer.status, status, "{name}: {value}");
        if status != 204 {
            assert_eq!(answer.header("kv-applied"), Some("no"), "{name}: {value}");
        }
    }
}

/// Everything in a node's log: key and effect.
async fn records(node: &Node) -> Vec<(String, Effect)> {
    let mut bytes = bytes::Bytes::from(node.log_bytes(0).await);
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let frame = Frame::split_from(&mut bytes).expect("a frame");
        for (_, record) in frame.records().expect("records") {
            let key = String::from_utf8_lossy(&record.key).into_owned();
            records.push((key, record.effect));
        }
    }
    records
}
