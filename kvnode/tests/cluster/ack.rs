//! Writes that replicas must have synced before they are answered: when they are, when they are refused, and when
//! nobody can say.

use std::{future::Future, time::Duration};

use kvclient::{
    Client,
    key::Key,
    position::Position,
    shard_map::toml,
    wire::{
        batch::{Ack, Action, Op, OpResult, Terms},
        error::{Applied, ErrorCode},
    },
};
use rustix::process::Signal;
use tokio::time::{Instant, timeout};

use crate::{
    forged::Puller,
    support::{
        PATIENCE,
        cluster::{Cluster, Node, Shape, map_text},
        eventually,
        http::{Answer, Ask},
    },
};

/// A primary and two replicas, each behind a link.
const THREE: Shape = Shape {
    shards: 1,
    replicas: 2,
    linked: true,
    flags: &[],
    faults: "",
};

const UUID: &str = "6f6e6d6c-6b6a-6968-6766-656463626160";

fn put(key: &str, ack: &str) -> Ask {
    Ask::new("PUT", format!("/kv/{key}"))
        .header("kv-ack", ack)
        .body("v")
}

/// A put whose answer waits for so many milliseconds.
fn put_within(key: &str, ack: &str, ms: u32) -> Ask {
    put(key, ack).header("kv-wait-ms", ms)
}

fn put_op(key: &str, ack: Option<Ack>, wait_ms: u32) -> Op {
    let action = Action::Put {
        value: "v".into(),
        ttl_ms: None,
    };
    op(key, action, ack, wait_ms)
}

fn op(key: &str, action: Action, ack: Option<Ack>, wait_ms: u32) -> Op {
    let terms = Terms {
        ack,
        wait_ms: Some(wait_ms),
        ..Terms::default()
    };
    Op {
        terms,
        ..Op::new(Key::new(key.to_owned()).expect("a key"), action)
    }
}

/// That a write may be somewhere and is not where it must be; the message.
fn assert_unknown(answer: &Answer) -> String {
    let outcome = (answer.status, answer.error());
    assert_eq!(outcome, (504, "ack_timeout".into()), "{}", answer.text());
    assert_eq!(answer.header("kv-applied"), Some("unknown"));
    assert_ne!(answer.position(), Position::ZERO);
    answer.text()
}

/// That nothing was written; the message.
fn assert_too_few(answer: &Answer) -> String {
    let outcome = (answer.status, answer.error());
    assert_eq!(
        outcome,
        (503, "too_few_replicas".into()),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("kv-applied"), Some("no"));
    answer.text()
}

fn outcomes(results: &[OpResult]) -> Vec<(u16, Option<ErrorCode>)> {
    results
        .iter()
        .map(|result| (result.status, result.error_code()))
        .collect()
}

/// Waits until the primary counts exactly these replicas as connected.
async fn wait_connected(primary: &Node, replicas: &[&Node]) {
    let reason = format!("{} replicas are connected", replicas.len());
    eventually(&reason, async || {
        let status = primary.status().await;
        let known = status["replicas"].as_array()?;
        let connected: Vec<&str> = known
            .iter()
            .filter(|replica| replica["connected"] == true)
            .filter_map(|replica| replica["address"].as_str())
            .collect();
        let all = replicas
            .iter()
            .all(|node| connected.contains(&&*node.address));
        (all && connected.len() == replicas.len()).then_some(())
    })
    .await;
}

async fn three() -> Cluster {
    let cluster = Cluster::start(THREE).await;
    let replicas = [cluster.replica(0, 0), cluster.replica(0, 1)];
    wait_connected(cluster.primary(0), &replicas).await;
    cluster
}

/// Starts a request; it is under way when the entry is seen at the primary.
async fn under_way<'a>(node: &'a Node, key: &str, ask: Ask) -> impl Future<Output = Answer> + 'a {
    let mut sent = Box::pin(node.send(ask));
    eventually("the write is visible on the primary", async || {
        assert!(futures_util::poll!(&mut sent).is_pending(), "it waits");
        node.get(key).await
    })
    .await;
    sent
}

/// Every answer comes when enough replicas have synced the write, and not before: with links that hold each answer,
/// what a replica has synced at once is what the write waited for.
#[tokio::test(flavor = "multi_thread")]
async fn each_level_waits_for_its_replicas() {
    let cluster = three().await;
    let delay = Duration::from_millis(60);
    (0..2).for_each(|number| cluster.link(0, number).delay(delay));
    for (ack, replicas) in [("1", 1), ("majority", 1), ("2", 2), ("all", 2)] {
        let answer = cluster.primary(0).send(put("k", ack)).await;
        assert_eq!(answer.status, 204, "{ack}: {}", answer.text());
        assert_eq!(answer.header("kv-applied"), Some("yes"));
        let mut synced = 0;
        for number in 0..2 {
            let durable = cluster.replica(0, number).at("durable").await;
            synced += usize::from(durable >= answer.position());
        }
        assert!(synced >= replicas, "{ack}: {synced} replicas have it");
    }
    // Nobody pulls while this one is answered.
    (0..2).for_each(|number| cluster.link(0, number).cut());
    assert_eq!(
        cluster.primary(0).send(put("k", "primary")).await.status,
        204
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_are_refused_before_anything_is_written() {
    let cluster = Cluster::prepare(Shape {
        linked: false,
        ..THREE
    });
    let (primary, there, never) = (
        cluster.primary(0),
        cluster.replica(0, 0),
        cluster.replica(0, 1),
    );
    primary.start().await;
    let before = primary.at("durable").await;
    for ack in ["1", "2", "majority", "all", "7"] {
        let message = assert_too_few(&primary.send(put("k", ack)).await);
        assert!(message.contains(&there.address), "{ack}: {message}");
        assert!(message.contains(&never.address), "{ack}: {message}");
    }
    assert_eq!(primary.get("k").await, None);
    assert_eq!(primary.at("durable").await, before, "nothing in the log");

    there.start().await;
    wait_connected(primary, &[there]).await;
    for (ack, status) in [("1", 204), ("majority", 204), ("2", 503), ("all", 503)] {
        let answer = primary.send(put(ack, ack)).await;
        assert_eq!(answer.status, status, "{ack}: {}", answer.text());
        assert_eq!(primary.get(ack).await.is_some(), status == 204, "{ack}");
    }
    let message = assert_too_few(&primary.send(put("k", "all")).await);
    assert!(!message.contains(&there.address), "{message}");
    assert!(
        message.contains("must reach 2") && message.contains("1 are connected"),
        "{message}"
    );
    let message = assert_too_few(&primary.send(put("k", "9")).await);
    assert!(
        message.contains("must reach 9 of the shard's 2"),
        "{message}"
    );
}

/// A repeat is no new write: it must not be called "not applied" since the replicas are away by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_waits_for_replicas_and_is_never_called_not_applied() {
    let cluster = Cluster::start(Shape {
        replicas: 1,
        linked: true,
        ..Shape::default()
    })
    .await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    wait_connected(primary, &[replica]).await;
    let ask = |n: u32, ack| {
        Ask::new("POST", "/kv/n?incr=1")
            .header("kv-request-id", format!("{UUID}.{n}"))
            .header("kv-ack", ack)
            .header("kv-wait-ms", 200)
    };
    cluster.link(0, 0).cut();
    let began = Instant::now();
    let first = primary.send(ask(1, "1")).await;
    let message = assert_unknown(&first);
    assert!(message.contains("on 0 of the 1 replicas"), "{message}");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert!(took < Duration::from_secs(4), "not the default: {took:?}");
    assert_eq!(primary.get("n").await.as_deref(), Some(&b"1"[..]));
    let repeat = primary.send(ask(1, "1")).await;
    assert_unknown(&repeat);
    assert_eq!(repeat.position(), first.position());

    wait_connected(primary, &[]).await;
    assert_unknown(&primary.send(ask(1, "1")).await);
    assert_too_few(&primary.send(ask(2, "1")).await);
    let unpromised = primary.send(ask(1, "primary")).await;
    assert_eq!((unpromised.status, &unpromised.body[..]), (200, &b"1"[..]));

    cluster.link(0, 0).heal();
    wait_connected(primary, &[replica]).await;
    let at_last = primary.send(ask(1, "1").header("kv-max-lag-ms", 1)).await;
    assert_eq!((at_last.status, &at_last.body[..]), (200, &b"1"[..]));
    assert_eq!(at_last.position(), first.position());
    assert!(replica.at("durable").await >= first.position());
    let metrics = primary.ask("GET", "/metrics").await.text();
    for line in ["kv_ack_timeouts_total 3", "kv_too_few_replicas_total 1"] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}: {metrics}"
        );
    }
}

/// Ops of one batch, each by its own terms.
#[tokio::test(flavor = "multi_thread")]
async fn every_op_of_a_batch_waits_for_what_it_asks_for() {
    let cluster = three().await;
    let primary = cluster.primary(0);
    cluster.link(0, 1).cut();
    let get = |ack| op("b", Action::Get, ack, 0);
    let delete = op("absent", Action::Delete, Some(Ack::All), 5_000);
    let ops = [
        put_op("a", None, 0),
        put_op("b", Some(Ack::All), 100),
        get(None),
        put_op("c", Some(Ack::Replicas(1)), 5_000),
        delete,
        put_op("d", Some(Ack::Replicas(3)), 100),
        get(Some(Ack::Majority)),
        put_op("e", Some(Ack::Majority), 5_000),
    ];
    let results = primary.batch(&ops).await;
    let timed_out = (504, Some(ErrorCode::AckTimeout));
    let expected = [
        (204, None),
        timed_out,
        (200, None),
        (204, None),
        (404, Some(ErrorCode::NotFound)),
        (503, Some(ErrorCode::TooFewReplicas)),
        (400, Some(ErrorCode::BadParameter)),
        (204, None),
    ];
    assert_eq!(outcomes(&results), expected);
    assert_eq!(results[1].applied, Some(Applied::Unknown));
    assert_eq!(results[2].etag, results[1].position, "it is there, at once");
    assert_eq!(results[5].applied, Some(Applied::No));
    assert_eq!(primary.get("d").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_of_a_batch_is_for_writes_that_say_nothing() {
    let cluster = three().await;
    let primary = cluster.primary(0);
    cluster.link(0, 1).cut();
    let lines = r#"{"op":"put","key":"a","value":"1","wait_ms":100}
{"op":"put","key":"a","value":"2","ack":"primary"}
{"op":"put","key":"a","value":"3","ack":1}
{"op":"get","key":"a"}
"#;
    let send = async |ack: &str| {
        let ask = Ask::new("POST", "/batch").header("content-type", "application/x-ndjson");
        primary.send(ask.header("kv-ack", ack).body(lines)).await
    };
    let answer = send("all").await;
    let results: Vec<serde_json::Value> = answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let statuses: Vec<_> = results.iter().map(|result| &result["status"]).collect();
    assert_eq!(statuses, [504, 204, 204, 200], "{}", answer.text());
    assert_eq!(results[0]["error"], "ack_timeout");
    assert_eq!(results[0]["applied"], "unknown");
    let refused = send("most").await;
    assert_eq!(
        (refused.status, refused.error()),
        (400, "bad_parameter".into())
    );

    let frames = kvclient::wire::batch::encode_ops([put_op("b", None, 100)].iter());
    let ask = Ask::new("POST", "/batch").header("content-type", "application/x-kv-frames");
    let answer = primary.send(ask.header("kv-ack", "all").body(frames)).await;
    let results = kvclient::wire::batch::decode_results(answer.body).expect("results");
    assert_eq!(outcomes(&results), [(504, Some(ErrorCode::AckTimeout))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_atomic_batch_waits_as_a_whole_for_the_strongest_of_its_acks() {
    let cluster = three().await;
    let primary = cluster.primary(0);
    cluster.link(0, 1).cut();
    let send = async |ops: &[Op], ack: &str| {
        let ask = Ask::new("POST", "/batch?atomic")
            .header("content-type", "application/x-kv-frames")
            .header("kv-ack", ack);
        primary
            .send(ask.body(kvclient::wire::batch::encode_ops(ops.iter())))
            .await
    };
    let one = Some(Ack::Replicas(1));
    let weak = [put_op("{t}a", None, 5_000), put_op("{t}b", one, 5_000)];
    assert_eq!(send(&weak, "primary").await.status, 200);
    let strong = [
        put_op("{t}a", Some(Ack::All), 100),
        put_op("{t}c", one, 100),
    ];
    let unknown = send(&strong, "primary").await;
    assert_unknown(&unknown);
    let last = primary.ask("GET", "/kv/%7Bt%7Dc").await;
    assert_eq!(last.etag(), unknown.position().to_etag(), "its last record");
    let by_header = [put_op("{t}d", None, 100)];
    assert_unknown(&send(&by_header, "all").await);
    assert_too_few(&send(&[put_op("{t}e", None, 100)], "3").await);
    assert_eq!(primary.ask("GET", "/kv/%7Bt%7De").await.status, 404);

    let nothing = [
        op("{t}none", Action::Delete, None, 5_000),
        op("{t}a", Action::Get, None, 5_000),
    ];
    let wait = timeout(Duration::from_secs(4), send(&nothing, "all"));
    let answer = wait.await.expect("what writes nothing waits for nobody");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let read = [op("{t}a", Action::Get, one, 0)];
    assert_eq!(send(&read, "primary").await.error(), "bad_parameter");
}

/// Whatever comes over HTTP that is not a replica of this shard with this very log proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn forged_pulls_acknowledge_nothing() {
    let cluster = Cluster::prepare(Shape {
        linked: false,
        ..THREE
    });
    let primary = cluster.primary(0);
    primary.start().await;
    let (first, second) = (
        &cluster.replica(0, 0).address,
        &cluster.replica(0, 1).address,
    );
    primary.put("old", "v").await;
    let old = Puller::of(primary).await;
    let liars = |at: &Puller| {
        [
            at.clone().named(1, "127.0.0.1:9"),
            at.clone().named(2, &primary.address),
            at.clone().named(3, first).ahead(1),
            at.clone().named(4, first).ahead(1_000_000),
            at.clone().named(5, first).history(7),
            at.clone().named(6, first).crc(7),
            at.clone().named(7, first).without_history(),
            at.clone().named(7, first).without_history().empty(),
        ]
    };
    for liar in liars(&old) {
        liar.pull(primary).await;
        assert_too_few(&primary.send(put("new", "1")).await);
    }
    assert_eq!(primary.get("new").await, None);

    // Now one of them has the log so far, so that a write is begun.
    old.clone().named(8, first).pull(primary).await;
    let mut write = Box::pin(under_way(primary, "new", put_within("new", "1", 5_000)).await);
    let new = Puller::of(primary).await;
    for liar in liars(&new) {
        liar.pull(primary).await;
        assert!(futures_util::poll!(&mut write).is_pending(), "{liar:?}");
    }
    // The one that tells the truth, to show that the others could have been believed.
    new.clone().named(8, first).pull(primary).await;
    assert_eq!(write.await.status, 204);

    // One directory at two addresses is one copy; another directory at the same address is another one.
    new.clone().named(8, second).pull(primary).await;
    assert_too_few(&primary.send(put("both", "2")).await);
    old.clone().named(9, second).pull(primary).await;
    assert_too_few(&primary.send(put("both", "2")).await);
    old.clone().named(8, first).pull(primary).await;
    let mut write = Box::pin(under_way(primary, "both", put_within("both", "2", 5_000)).await);
    let end = Puller::of(primary).await;
    end.clone().named(8, first).pull(primary).await;
    old.clone().named(8, first).pull(primary).await;
    end.clone().named(9, second).pull(primary).await;
    assert!(
        futures_util::poll!(&mut write).is_pending(),
        "the first lost its tail"
    );
    end.clone().named(8, first).pull(primary).await;
    assert_eq!(write.await.status, 204);
}

/// What a replica says that follows another primary by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_waits_when_the_reign_ends_is_unknown_at_once() {
    let cluster = three().await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 1));
    cluster.link(0, 1).cut();
    let write = under_way(primary, "k", put("k", "2")).await;
    let written = primary.at("durable").await;
    eventually("the other replica has it", async || {
        let status = primary.status().await;
        let mut replicas = status["replicas"].as_array()?.iter();
        let first = replicas.find(|known| known["address"] == cluster.replica(0, 0).address)?;
        (first["durable"] == written.to_string()).then_some(())
    })
    .await;
    let newer = Puller::of(primary).await.named(9, &replica.address);
    newer.newer_reign().pull(primary).await;
    let answer = timeout(Duration::from_secs(3), write)
        .await
        .expect("at once");
    let message = assert_unknown(&answer);
    assert!(message.contains("takes writes no longer"), "{message}");
    assert!(message.contains("on 1 of the 2 replicas"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_names_fewer_replicas_makes_no_promise_smaller() {
    let cluster = Cluster::start(Shape {
        linked: false,
        ..THREE
    })
    .await;
    let (primary, stays, goes) = (
        cluster.primary(0),
        cluster.replica(0, 0),
        cluster.replica(0, 1),
    );
    wait_connected(primary, &[stays, goes]).await;
    goes.kill();
    let write = under_way(primary, "k", put_within("k", "all", 3_000)).await;
    let addresses = [primary.address.clone(), stays.address.clone()];
    primary.write_map(&map_text(9, &addresses, 2));
    primary.signal(Signal::HUP);
    eventually("the primary has the new map", async || {
        let map = primary.status().await["map_version"].as_str()?.to_owned();
        map.starts_with("9-").then_some(())
    })
    .await;
    assert_unknown(&write.await);
    assert_eq!(primary.send(put("k", "all")).await.status, 204);
    assert_too_few(&primary.send(put("k", "2")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_does_not_wait_for_replicas_that_are_away() {
    let cluster = three().await;
    let primary = cluster.primary(0);
    (0..2).for_each(|number| cluster.link(0, number).cut());
    let write = under_way(primary, "k", put_within("k", "1", 5_000)).await;
    let began = Instant::now();
    primary.signal(Signal::TERM);
    let message = assert_unknown(&write.await);
    assert!(message.contains("this node stops"), "{message}");
    assert_eq!(primary.ended().await, 0, "{}", primary.said());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "it stops soon: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_where_nothing_can_wait_for_it_is_refused() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    node.put("k", "v").await;
    for uri in [
        "/kv/k",
        "/get?key=k",
        "/kv?prefix=k",
        "/set?key=k&value=w",
        "/delete?key=k",
    ] {
        let answer = node
            .send(Ask::new("GET", uri).header("kv-ack", "all"))
            .await;
        assert_eq!(
            (answer.status, answer.error()),
            (400, "bad_parameter".into()),
            "{uri}"
        );
        let plain = node
            .send(Ask::new("GET", uri).header("kv-ack", "primary"))
            .await;
        assert_eq!(plain.status, 200, "{uri}: {}", plain.text());
    }
}

/// A client whose write reached the primary alone repeats it under its id until the replicas are back.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_out_replicas_that_are_cut_off_and_writes_once() {
    let cluster = three().await;
    let addresses: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| node.address.clone())
        .collect();
    // Newer than the replicas' maps, which lead through the links.
    let map = toml::parse(&map_text(99, &addresses, 3), "a map").expect("a map");
    let kv = Client::builder(map)
        .timeout(PATIENCE)
        .write_attempt_timeout(Duration::from_millis(300))
        .ack(Ack::All)
        .build()
        .expect("a client");
    (0..2).for_each(|number| cluster.link(0, number).cut());
    let safe = kv.clone();
    let count = tokio::spawn(async move { safe.incr("n", 1).await });
    eventually("it is repeated", async || {
        (kv.stats().retries >= 2).then_some(())
    })
    .await;
    assert!(!count.is_finished());
    kv.with_ack(None)
        .put("other", "v")
        .await
        .expect("it waits for nobody");
    (0..2).for_each(|number| cluster.link(0, number).heal());
    assert_eq!(count.await.expect("no panic").expect("counted"), 1);
    for number in 0..2 {
        let replica = cluster.replica(0, number);
        assert_eq!(replica.get("n").await.as_deref(), Some(&b"1"[..]));
    }
    assert_eq!(
        cluster.primary(0).get("n").await.as_deref(),
        Some(&b"1"[..])
    );
}
