//! Nodes that ask who one is: what they start with, whom they let in, to which keys, and until when.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use kvclient::{ClientBuilder, ErrorKind, Token, node_client::NodeClientOptions, shard_map::toml};
use rustix::process::Signal;

use crate::support::{
    cluster::{Cluster, Node, Shape, map_text},
    eventually,
    http::{Ask, Raw, head},
    ports::Port,
    tokens::{self, Doors, Entry, by, status, text_of, write_private},
};

const BAD_CONFIGURATION: i32 = 2;

const READER: Entry = Entry::new("reader", &["read"]);
const WRITER: Entry = Entry::new("writer", &["write"]);
const APP: Entry = Entry::new("app", &["read", "write"]);
const USERS: Entry = Entry {
    prefixes: &["user:", "visit:"],
    ..Entry::new("users", &["read", "write"])
};

const NDJSON: &str = "application/x-ndjson";

#[test]
fn what_would_leave_a_door_open_does_not_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = Port::take();
    let address = format!("127.0.0.1:{}", port.number);
    let everywhere = format!("0.0.0.0:{}", port.number);
    let (map, pair) = (dir.path().join("map.toml"), dir.path().join("pair.toml"));
    fs::write(&map, map_text(1, std::slice::from_ref(&address), 1)).expect("a map");
    let addresses = [address.clone(), "127.0.0.1:1".to_owned()];
    fs::write(&pair, map_text(1, &addresses, 2)).expect("a map");
    let doors = Doors::new(dir.path(), &[APP]);
    let tokens = doors.tokens.to_str().expect("UTF-8");
    let (open, broken) = (dir.path().join("open.toml"), dir.path().join("broken.toml"));
    fs::copy(&doors.tokens, &open).expect("a copy");
    fs::set_permissions(&open, Permissions::from_mode(0o644)).expect("a mode");
    write_private(&broken, "[[tokens]]\nname = \"a\"\n");
    let (open, broken) = (
        open.to_str().expect("UTF-8"),
        broken.to_str().expect("UTF-8"),
    );
    let (map, pair) = (map.to_str().expect("UTF-8"), pair.to_str().expect("UTF-8"));
    for (map, arguments, words) in [
        (map, &["--listen", &everywhere][..], "--tokens FILE"),
        (map, &["--tokens", open], "chmod 600"),
        (map, &["--tokens", broken], "broken.toml:1:1: missing field"),
        (map, &["--tokens", "/no/such/file"], "cannot be read"),
        (
            map,
            &["--tokens", tokens, "--insecure-no-auth"],
            "contradict",
        ),
        (pair, &["--tokens", tokens], "--node-token-file"),
        (map, &["--node-token-file", open], "chmod 600"),
        (map, &["--token", "kv_abc"], "--token"),
    ] {
        let data = dir.path().join("data");
        let common = ["--config", map, "--address", &address, "--data"];
        let common = [&common[..], &[data.to_str().expect("UTF-8")]].concat();
        let (code, said) = Node::run(&[&common[..], arguments].concat());
        assert_eq!(code, BAD_CONFIGURATION, "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!data.exists(), "{arguments:?}");
    }
}

/// The ports of the tests are on loopback; a wildcard address is reached by it, too.
#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_a_node_listens_everywhere() {
    let cluster = Cluster::prepare(Shape::default());
    let doors = Doors::new(cluster.dir(), &[APP]);
    let node = cluster.primary(0);
    let port = node.address.rsplit(':').next().expect("a port");
    let everywhere = format!("0.0.0.0:{port}");
    node.spawn(&[&doors.flags()[..], &["--listen", &everywhere]].concat());
    node.wait_ready().await;
    assert_eq!(status(node, "app", Ask::new("GET", "/status")).await, 200);
}

/// Whatever is wrong with a token, the answer is the same, and tells nothing of the shard.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_tell_nothing() {
    let over = Entry {
        expires: Some("2020-01-01T00:00:00Z"),
        ..Entry::new("over", &["read"])
    };
    let (cluster, _doors) = tokens::start(Shape::default(), &[APP, over]).await;
    let node = cluster.primary(0);
    let asks = |ask: Ask| {
        [
            ask.clone(),
            by("nobody", ask.clone()),
            by("over", ask.clone()),
            ask.clone().header("authorization", "Basic YTpi"),
            by("app", ask.clone()).header("authorization", "Bearer x"),
            ask.clone().header("kv-token", text_of("app")),
            ask,
        ]
    };
    for ask in [
        Ask::new("GET", "/kv/a"),
        Ask::new("GET", "/status"),
        Ask::new("PUT", "/kv/a").body("v"),
        Ask::new("GET", format!("/kv/a?token={}", text_of("app"))),
    ] {
        let mut bodies = Vec::new();
        for ask in asks(ask) {
            let answer = node.send(ask).await;
            assert_eq!(answer.status, 401);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            for name in ["kv-shard", "kv-role", "kv-map-version", "kv-lag-ms"] {
                assert_eq!(answer.header(name), None);
            }
            assert_eq!(answer.error(), "unauthorized");
            bodies.push(answer.body);
        }
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    }
    for open in ["/healthz", "/readyz", "/", "/openapi.json", "/page/main.js"] {
        let answer = node.ask("GET", open).await;
        assert_eq!(answer.status, 200, "{open}");
        assert_eq!(answer.header("kv-map-version"), None, "{open}");
    }
    assert!(node.said().contains("name=\"over\""), "{}", node.said());
    let metrics = node
        .send(by("app", Ask::new("GET", "/metrics")))
        .await
        .text();
    let refused = "kv_refusals_total{reason=\"unauthorized\"} 28";
    assert!(metrics.contains(refused), "{metrics}");
}

/// The body of a write that may not be is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_is_told_before_his_body() {
    let (cluster, _doors) = tokens::start(Shape::default(), &[READER, USERS]).await;
    let node = cluster.primary(0);
    for (name, key, status) in [
        ("nobody", "a", 401),
        ("reader", "a", 403),
        ("users", "a", 403),
    ] {
        let token = format!("Bearer {}", text_of(name));
        let headers = [
            ("Authorization", token.as_str()),
            ("Content-Length", "1000000"),
        ];
        let mut connection = Raw::connect(&node.address);
        connection.write(head("PUT", &format!("/kv/{key}"), &headers));
        let answer = connection.answer("PUT").expect("an answer");
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.header("kv-applied"), Some("no"));
    }
}

/// A redirect tells of the map; it is for those who may know it.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_on_without_a_token() {
    let shape = Shape {
        shards: 2,
        ..Shape::default()
    };
    let (cluster, _doors) = tokens::start(shape, &[APP, USERS]).await;
    let key = cluster.key_in(1, "k");
    let node = cluster.primary(0);
    let ask = || Ask::new("GET", format!("/kv/{key}"));
    let answer = node.send(ask()).await;
    assert_eq!((answer.status, answer.header("location")), (401, None));
    let answer = node.send(by("users", ask())).await;
    assert_eq!((answer.status, answer.header("location")), (403, None));
    assert_eq!(status(node, "app", ask()).await, 307);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_bound_keys_scans_watches_and_batches() {
    let (cluster, _doors) = tokens::start(Shape::default(), &[APP, USERS]).await;
    let node = cluster.primary(0);
    for key in ["user:1", "user:2", "usher", "zebra"] {
        let put = Ask::new("PUT", format!("/kv/{key}")).body("v");
        assert_eq!(status(node, "app", put).await, 204);
    }
    for (uri, expected) in [
        ("/kv/user:1", 200),
        ("/kv/usher", 403),
        ("/kv/absent", 403),
        ("/kv?key=zebra", 403),
        ("/get?key=user:1", 200),
        ("/get?key=zebra", 403),
        ("/set?key=zebra&value=x", 403),
        ("/delete?key=zebra", 403),
        ("/kv?prefix=user:", 200),
        ("/kv?prefix=user:2", 200),
        ("/kv?prefix=use", 403),
        ("/kv?prefix=", 403),
        ("/kv", 403),
        ("/kv?start=user:1&end=user:9", 200),
        ("/kv?start=user:1", 403),
        ("/kv?start=user:1&end=visit:9", 403),
        ("/kv?end=user:9&reverse", 403),
        ("/watch?prefix=us", 403),
        ("/watch", 403),
        ("/log?after=0", 403),
        ("/snapshot", 403),
        ("/cluster/map", 200),
        ("/route?key=zebra", 200),
        ("/status", 200),
    ] {
        let answer = node.send(by("users", Ask::new("GET", uri))).await;
        assert_eq!(answer.status, expected, "{uri}: {}", answer.text());
        if expected == 403 && !uri.starts_with("/log") && !uri.starts_with("/snap") {
            assert_eq!(answer.error(), "forbidden_key", "{uri}");
        }
    }
    // What follows a scan's cursor is bounded as the scan was.
    let scan = Ask::new("GET", "/kv?prefix=user:&limit=1");
    let first = node.send(by("users", scan)).await.text();
    let next = first.split("\"next\":\"").nth(1).expect("a cursor");
    let next = next.split('"').next().expect("its end");
    let onwards = |query: &str| Ask::new("GET", format!("/kv?{query}after={next}"));
    assert_eq!(status(node, "users", onwards("prefix=user:&")).await, 200);
    assert_eq!(status(node, "users", onwards("")).await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_op_of_a_batch_is_looked_at() {
    let (cluster, _doors) = tokens::start(Shape::default(), &[USERS, READER, WRITER, APP]).await;
    let node = cluster.primary(0);
    let lines = "{\"op\":\"put\",\"key\":\"user:1\",\"value\":\"1\"}\n\
                 {\"op\":\"put\",\"key\":\"shop:1\",\"value\":\"1\"}\n\
                 {\"op\":\"get\",\"key\":\"user:1\"}\n\
                 {\"op\":\"incr\",\"key\":\"user:1\",\"delta\":4}\n\
                 {\"op\":\"get\",\"key\":\"shop:1\"}\n\
                 {\"op\":\"get\",\"key\":\"user:1\"}\n";
    let batch = |uri: &str| {
        Ask::new("POST", uri)
            .header("content-type", NDJSON)
            .body(lines)
    };
    for (name, expected) in [
        ("users", [204, 403, 200, 200, 403, 200]),
        ("reader", [403, 403, 200, 403, 404, 200]),
        ("writer", [204, 204, 403, 403, 403, 403]),
        ("app", [204, 204, 200, 200, 200, 200]),
    ] {
        let answer = node.send(by(name, batch("/batch"))).await;
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let results: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let statuses: Vec<u64> = results
            .iter()
            .filter_map(|line| line["status"].as_u64())
            .collect();
        assert_eq!(statuses, expected, "{name}: {text}");
        for line in results.iter().filter(|line| line["status"] == 403) {
            let error = line["error"].as_str().expect("a code");
            assert!(error.starts_with("forbidden_"), "{line}");
        }
        if name == "users" {
            assert_eq!(results[5]["value"], "5", "{text}");
            assert_eq!(results[1]["applied"], "no", "{text}");
        }
    }
    // An atomic batch is refused whole, and names the op that is not allowed.
    let before = node.send(by("app", Ask::new("GET", "/kv/user:1"))).await;
    let lines = "{\"op\":\"put\",\"key\":\"{user:1}\",\"value\":\"9\"}\n";
    let atomic = Ask::new("POST", "/batch?atomic").header("content-type", NDJSON);
    let answer = node.send(by("reader", atomic.body(lines))).await;
    assert_eq!(
        (answer.status, answer.header("kv-applied")),
        (403, Some("no"))
    );
    assert_eq!(answer.error(), "forbidden_scope");
    assert!(answer.text().contains("op 1"), "{}", answer.text());
    let after = node.send(by("app", Ask::new("GET", "/kv/user:1"))).await;
    assert_eq!(before.etag(), after.etag());
}

/// A counter tells its value: it takes both scopes.
#[tokio::test(flavor = "multi_thread")]
async fn a_counter_is_read_and_written() {
    let (cluster, _doors) = tokens::start(Shape::default(), &[READER, WRITER, APP]).await;
    let node = cluster.primary(0);
    for (name, expected) in [("reader", 403), ("writer", 403), ("app", 200)] {
        let incr = Ask::new("POST", "/kv/n?incr=1");
        assert_eq!(status(node, name, incr).await, expected, "{name}");
    }
    for uri in ["/kv/n?ttl=1h", "/kv/n?persist"] {
        assert_eq!(status(node, "writer", Ask::new("POST", uri)).await, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_changed_while_a_node_runs() {
    let (cluster, doors) = tokens::start(Shape::default(), &[APP, READER]).await;
    let node = cluster.primary(0);
    let ask = || Ask::new("GET", "/status");
    let mut watch = Raw::connect(&node.address);
    let token = format!("Bearer {}", text_of("reader"));
    watch.write(head("GET", "/watch", &[("Authorization", &token)]));
    // Rotation: the new one comes in, both are known, the old one goes out.
    doors.write(&[APP, READER, Entry::new("app-2", &["read", "write"])]);
    node.signal(Signal::HUP);
    eventually("the new token is known", async || {
        (status(node, "app-2", ask()).await == 200).then_some(())
    })
    .await;
    assert_eq!(status(node, "app", ask()).await, 200);
    doors.write(&[Entry::new("app-2", &["read", "write"])]);
    node.signal(Signal::HUP);
    eventually("the old token is not", async || {
        (status(node, "app", ask()).await == 401).then_some(())
    })
    .await;
    // A stream that the old one began ends. It may take as long as a position event.
    let text = watch.up_to("\r\n0\r\n\r\n");
    assert!(
        text.contains("200 OK") && text.contains("event: position"),
        "{text}"
    );
    // A mistake changes nothing, and is told.
    write_private(&doors.tokens, "[[tokens]]\nname = \"app-2\"\nscopes = []\n");
    node.signal(Signal::HUP);
    let trouble = eventually("the mistake is told", async || {
        let status = node.send(by("app-2", ask())).await.json();
        status["tokens_trouble"].as_str().map(str::to_owned)
    })
    .await;
    assert!(trouble.contains("tokens.toml:"), "{trouble}");
    assert!(
        node.said().contains("the old ones stay in force"),
        "{}",
        node.said()
    );
    doors.write(&[APP]);
    node.signal(Signal::HUP);
    eventually("the mistake is mended", async || {
        let answer = node.send(by("app", ask())).await;
        (answer.status == 200 && answer.json()["tokens_trouble"].is_null()).then_some(())
    })
    .await;
    assert_eq!(node.send(by("app", ask())).await.json()["tokens"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_copy_with_the_nodes_token_and_not_without() {
    let (cluster, doors) = tokens::start(Shape::pair(), &[APP]).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let put = || {
        Ask::new("PUT", "/kv/a?ttl=1h")
            .body("1")
            .header("kv-ack", "1")
    };
    assert_eq!(status(primary, "app", put()).await, 204);
    assert_eq!(status(replica, "app", Ask::new("GET", "/kv/a")).await, 200);
    let all = primary
        .send(by("app", Ask::new("GET", "/cluster/status")))
        .await
        .json();
    assert!(
        all["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .all(|node| node["state"] == "ready"),
        "{all}"
    );
    replica.stop().await;
    write_private(&doors.node_token, "kv_wrong\n");
    replica.spawn(&doors.flags());
    eventually("the replica says why it does not pull", async || {
        let answer = replica
            .try_send(by("app", Ask::new("GET", "/status")))
            .await
            .ok()?;
        let trouble = answer.json()["pull_trouble"].as_str().map(str::to_owned);
        trouble?.contains("token").then_some(())
    })
    .await;
    assert!(
        replica
            .said()
            .contains("--node-token-file is not in --tokens")
    );
    // A primary that is refused by its replica says so, too.
    primary.stop().await;
    primary.spawn(&doors.flags());
    primary.wait_ready().await;
    assert!(
        primary.said().contains("refuses this node's token"),
        "{}",
        primary.said()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_change_their_own_token_while_they_run() {
    let (cluster, doors) = tokens::start(Shape::pair(), &[APP]).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let newer = Entry::new("nodes-2", &["node"]);
    let reload = async |words: &str| {
        for node in cluster.nodes() {
            let before = node.said().matches(words).count();
            node.signal(Signal::HUP);
            eventually("it is read anew", async || {
                (node.said().matches(words).count() > before).then_some(())
            })
            .await;
        }
    };
    // A file that others may read changes nothing.
    write_private(&doors.node_token, &text_of("nodes-2"));
    fs::set_permissions(&doors.node_token, Permissions::from_mode(0o644)).expect("a mode");
    reload("own token is not reloaded").await;
    assert!(replica.said().contains("chmod 600"), "{}", replica.said());
    // Both are known, then the nodes show the new one, then the old one goes out.
    write_private(&doors.node_token, &text_of("nodes-2"));
    doors.write(&[APP, newer]);
    reload("own token is reloaded").await;
    doors.write_only(&[APP, newer]);
    reload("the tokens are reloaded").await;
    let old = Ask::new("GET", "/status");
    assert_eq!(status(primary, tokens::NODE.name, old).await, 401);
    for n in 0..3 {
        let put = Ask::new("PUT", format!("/kv/n{n}"));
        let put = put.body("1").header("kv-ack", "1");
        assert_eq!(status(primary, "app", put).await, 204);
    }
    for node in cluster.nodes() {
        let all = by("app", Ask::new("GET", "/cluster/status"));
        let text = node.send(all).await.text();
        assert_eq!(text.matches("\"state\":\"ready\"").count(), 2, "{text}");
    }
}

/// A token that copies shards, for backups, spoke as any replica of the map: its pulls counted as acknowledgements.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_copy_does_not_speak_as_a_replica() {
    let copies = Entry::new("copies", &["replicate"]);
    let (cluster, _doors) = tokens::start(Shape::pair(), &[APP, copies]).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let node_token = tokens::NODE.name;
    let pull = |as_node: &str| {
        Ask::new("GET", "/log?after=0&max_bytes=1&wait_ms=0")
            .header("kv-node-id", "00000000000000ff")
            .header("kv-node-address", as_node)
            .header("kv-lineage", "")
            .header("kv-last-crc", "00000000")
    };
    let copy = |as_node: &str| Ask::new("GET", "/snapshot").header("kv-node-address", as_node);
    for (name, as_node, expected) in [
        ("copies", "backup.invalid:1", 200),
        ("copies", replica.address.as_str(), 403),
        ("copies", primary.address.as_str(), 403),
        ("app", "backup.invalid:1", 403),
        (node_token, "backup.invalid:1", 200),
        (node_token, replica.address.as_str(), 200),
    ] {
        for ask in [pull(as_node), copy(as_node)] {
            let answer = primary.send(by(name, ask)).await;
            assert_eq!(answer.status, expected, "{name} as {as_node}");
            if name == "copies" && expected == 403 {
                assert_eq!(answer.error(), "forbidden_scope");
                let text = answer.text();
                assert!(text.contains("needs the scope node"), "{text}");
            }
        }
    }
    // Nor does it make a write wait for it, or end a reign.
    let newer = Ask::new("GET", "/log?after=9&max_bytes=1&wait_ms=0")
        .header("kv-node-id", "00000000000000ff")
        .header("kv-node-address", replica.address.as_str())
        .header("kv-lineage", "9.1.7")
        .header("kv-last-crc", "00000000");
    assert_eq!(status(primary, "copies", newer).await, 403);
    let put = Ask::new("PUT", "/kv/a").body("1").header("kv-ack", "1");
    assert_eq!(status(primary, "app", put).await, 204);
}

/// Whoever tries many tokens waits; whoever has one does not, from the same address.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_held_up_and_nobody_else() {
    let (cluster, _doors) = tokens::start(Shape::default(), &[APP]).await;
    let node = cluster.primary(0);
    let begun = Instant::now();
    let guess = async |n: usize| status(node, &format!("guess{n}"), Ask::new("GET", "/kv/a")).await;
    let guesses = join_all((0..30).map(guess));
    let good = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(status(node, "app", Ask::new("GET", "/kv/a")).await, 404);
            slowest = slowest.max(asked.elapsed());
        }
        (slowest, begun.elapsed())
    };
    let (statuses, (_, good_took)) = futures_util::future::join(guesses, good).await;
    assert!(statuses.iter().all(|status| *status == 401));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(good_took < took, "{good_took:?} of {took:?}");
    assert!(node.said().contains("unknown tokens were refused"));
}

/// Where a path is open to all, guesses were free: they were neither counted nor slowed down.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_on_open_paths_are_held_up_too() {
    let (cluster, _doors) = tokens::start(Shape::default(), &[APP]).await;
    let node = cluster.primary(0);
    let guess = async |n: usize| {
        let path = ["/readyz", "/healthz", "/openapi.json", "/nowhere"][n % 4];
        status(node, &format!("guess{n}"), Ask::new("GET", path)).await
    };
    let begun = Instant::now();
    let statuses = join_all((0..28).map(guess)).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    for (n, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, if n % 4 == 3 { 404 } else { 200 }, "{n}");
    }
    assert!(node.said().contains("unknown tokens were refused"));
    // Who shows none does not wait, nor is he counted.
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(node.ask("GET", "/readyz").await.status, 200);
    }
    assert!(begun.elapsed() < took, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_its_token_in_all_it_does() {
    let shape = Shape {
        shards: 2,
        replicas: 1,
        ..Shape::default()
    };
    let (cluster, _doors) = tokens::start(shape, &[APP, READER]).await;
    let map = toml::parse(&cluster.map, "map").expect("a map");
    let token = |name: &str| -> Token { text_of(name).parse().expect("a token") };
    let kv = ClientBuilder::new(map.clone())
        .token(token("app"))
        .build()
        .expect("a client");
    let mut feed = kv.watch("").from_start();
    let large = vec![7; 300_000];
    for n in 0..20 {
        kv.put(format!("k{n}"), "v").await.expect("stored");
    }
    kv.put("large", large.clone()).await.expect("stored alone");
    assert_eq!(kv.get("large").await.expect("read"), Some(large.into()));
    assert_eq!(kv.incr("n", 2).await.expect("added"), 2);
    let mut scan = kv.scan("k");
    let mut keys = 0;
    while futures_util::StreamExt::next(&mut scan)
        .await
        .transpose()
        .expect("an entry")
        .is_some()
    {
        keys += 1;
    }
    assert_eq!(keys, 20);
    futures_util::StreamExt::next(&mut feed)
        .await
        .expect("an event")
        .expect("sound");
    // By any node, with the token from the start.
    let seed = [cluster.primary(0).address.clone()];
    let mut nodes = NodeClientOptions::default();
    nodes.token = Some(token("app"));
    let connected = ClientBuilder::connect_with(&seed, nodes)
        .await
        .expect("a map");
    let kv = connected.build().expect("a client");
    assert!(kv.get("k1").await.expect("read").is_some());
    // Without rights it is told so at once, and nothing was done.
    for (name, op) in [
        (None, "get"),
        (Some("reader"), "put"),
        (Some("nobody"), "get"),
    ] {
        let mut builder = ClientBuilder::new(map.clone());
        if let Some(name) = name {
            builder = builder.token(token(name));
        }
        let kv = builder.build().expect("a client");
        let error = match op {
            "get" => kv.get("k1").await.expect_err("denied"),
            _ => kv.put("k1", "x").await.expect_err("denied"),
        };
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("token") || text.contains("scope write"),
            "{text}"
        );
    }
    let denied = ClientBuilder::connect(&seed).await.expect_err("no token");
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied}");
}
