//! Scans: one order over all shards, without gap or repeat whatever breaks on the way.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use kvclient::{Consistency, ErrorKind, Position, Scan, ScannedEntry, wire::error::ErrorCode};
use support::{Cluster, FakeShard, Part, StreamReply, fake_scan::refusal, wait_until};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys that share prefixes, among them bytes that are not text.
fn entries() -> Entries {
    let text = (0..300).map(|n| (format!("user:{n:03}").into_bytes(), vec![b'v'; n]));
    let binary = (0..=255_u8).map(|byte| (vec![b'b', byte], vec![byte]));
    text.chain(binary).collect()
}

/// All nodes of all shards answer scans of these entries as nodes do, in pages of at most `page`.
fn serve(cluster: &Cluster, entries: &Entries, page: usize) -> Vec<FakeShard> {
    let map = cluster.map(1);
    let mut shards = Vec::new();
    for (number, nodes) in cluster.shards.iter().enumerate() {
        let mut shard = FakeShard::of(&map, number, entries);
        shard.page = page;
        for node in nodes {
            let shard = shard.clone();
            node.script_streams(move |request| shard.answer(request));
        }
        shards.push(shard);
    }
    shards
}

async fn all(scan: Scan) -> kvclient::Result<Vec<ScannedEntry>> {
    scan.try_collect().await
}

fn keys(entries: &[ScannedEntry]) -> Vec<Vec<u8>> {
    let key = |entry: &ScannedEntry| entry.key.as_bytes().to_vec();
    entries.iter().map(key).collect()
}

fn expected(entries: &Entries, prefix: &[u8]) -> Vec<Vec<u8>> {
    let keys = entries.keys().filter(|key| key.starts_with(prefix));
    keys.cloned().collect()
}

#[tokio::test]
async fn shards_are_merged_into_one_order() {
    for page in [usize::MAX, 1, 7] {
        let cluster = Cluster::start(3, 0).await;
        let entries = entries();
        serve(&cluster, &entries, page);
        let kv = cluster.client();
        let found = all(kv.scan("")).await.unwrap();
        assert_eq!(keys(&found), expected(&entries, b""));
        for entry in &found {
            let value = &entries[entry.key.as_bytes()];
            assert_eq!(entry.value.as_deref(), Some(&value[..]));
        }
        let users = all(kv.scan("user:").keys_only()).await.unwrap();
        assert_eq!(keys(&users), expected(&entries, b"user:"));
        assert!(users.iter().all(|entry| entry.value.is_none()));
        let mut backwards = expected(&entries, b"b");
        backwards.reverse();
        assert_eq!(keys(&all(kv.scan("b").reverse()).await.unwrap()), backwards);
    }
}

#[tokio::test]
async fn ranges_and_limits() {
    let cluster = Cluster::start(3, 0).await;
    serve(&cluster, &entries(), 50);
    let kv = cluster.client();
    let range = || kv.scan("user:").start("user:010").end("user:020");
    let names = |from: usize, to: usize| -> Vec<Vec<u8>> {
        (from..to)
            .map(|n| format!("user:{n:03}").into_bytes())
            .collect()
    };
    assert_eq!(keys(&all(range()).await.unwrap()), names(10, 20));
    assert_eq!(keys(&all(range().limit(3)).await.unwrap()), names(10, 13));
    let last = all(range().reverse().limit(1)).await.unwrap();
    assert_eq!(keys(&last), names(19, 20));
    assert_eq!(all(kv.scan("user:").limit(0)).await.unwrap(), []);
    assert_eq!(keys(&all(kv.scan("").limit(400)).await.unwrap()).len(), 400);
    assert_eq!(all(kv.scan("nobody")).await.unwrap(), []);
}

#[tokio::test]
async fn a_scan_goes_on_at_every_token() {
    let cluster = Cluster::start(3, 0).await;
    let entries = entries();
    serve(&cluster, &entries, usize::MAX);
    let kv = cluster.client();
    let whole = expected(&entries, b"b");
    let mut scan = kv.scan("b").keys_only();
    assert_eq!(scan.token(), None, "at the front");
    for seen in 1..=whole.len() {
        let entry = scan.next().await.unwrap().unwrap();
        let token = scan.token().unwrap();
        assert_eq!(entry.token(), token);
        let resumed = kv.scan("b").keys_only().after(&*token);
        assert_eq!(resumed.token(), Some(token), "nothing was given out yet");
        assert_eq!(keys(&all(resumed).await.unwrap()), whole[seen..]);
    }
    assert!(scan.next().await.is_none());
}

/// Whatever item it breaks after, another node goes on there.
#[tokio::test]
async fn a_scan_that_breaks_goes_on_elsewhere() {
    let cluster = Cluster::start(2, 1).await;
    let entries = entries();
    let shards = serve(&cluster, &entries, usize::MAX);
    for (nodes, shard) in cluster.shards.iter().zip(shards) {
        for node in nodes {
            let (shard, answers) = (shard.clone(), AtomicUsize::new(0));
            node.script_streams(
                move |request| match answers.fetch_add(1, Ordering::SeqCst) {
                    answer if answer < 20 => shard.break_after(request, answer),
                    _ => shard.answer(request),
                },
            );
        }
    }
    let found = all(cluster.client().scan("")).await.unwrap();
    assert_eq!(keys(&found), expected(&entries, b""));
    for node in cluster.shards.iter().flatten() {
        assert!(node.streams().len() > 1, "each had its turn");
    }
}

/// Breaks at every byte of the answer, also inside of entries and of the end line.
#[tokio::test]
async fn no_cut_makes_a_gap_or_a_repeat() {
    let cluster = Cluster::start(1, 0).await;
    let entries: Entries = (0..5).map(|n| (vec![b'k', n], vec![n; 3])).collect();
    let shards = serve(&cluster, &entries, 3);
    let shard = shards[0].clone();
    let cut_at = Arc::new(AtomicUsize::new(0));
    let cut = cut_at.clone();
    cluster.primary(0).script_streams(move |request| {
        let mut bytes = shard.items(request).concat();
        // Once a round.
        match cut.swap(usize::MAX, Ordering::SeqCst) {
            at if at < bytes.len() => {
                bytes.truncate(at);
                shard.reply(vec![Part::Bytes(bytes), Part::Cut])
            }
            _ => shard.answer(request),
        }
    });
    let kv = cluster.client();
    for at in 0..200 {
        cut_at.store(at, Ordering::SeqCst);
        let found = all(kv.scan("k")).await.unwrap();
        assert_eq!(keys(&found), expected(&entries, b"k"), "cut at {at}");
    }
}

#[tokio::test]
async fn a_shard_that_fails_is_an_error_and_the_end() {
    let cluster = Cluster::start(3, 0).await;
    serve(&cluster, &entries(), usize::MAX);
    let map = cluster.map(1);
    let shard = FakeShard::of(&map, 1, &entries());
    let first = AtomicUsize::new(0);
    cluster
        .primary(1)
        .script_streams(move |request| match first.fetch_add(1, Ordering::SeqCst) {
            0 => shard.break_after(request, 20),
            _ => StreamReply::Break,
        });
    let mut scan = cluster
        .client()
        .scan("")
        .timeout(Duration::from_millis(200));
    let mut found = Vec::new();
    let error = loop {
        match scan.next().await.expect("an error before the end") {
            Ok(entry) => found.push(entry),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!((error.op(), error.shard()), ("scan", Some("shard1")));
    assert_eq!(error.node(), Some(&cluster.primary(1).address));
    assert!(error.attempts() > 1, "{error}");
    assert!(scan.next().await.is_none());
    let whole = expected(&entries(), b"");
    assert_eq!(keys(&found), whole[..found.len()], "no gap before it");
    assert!(found.len() >= 20);
}

#[tokio::test]
async fn a_node_that_falls_silent_is_left_for_another() {
    let cluster = Cluster::start(1, 1).await;
    let entries = entries();
    let shards = serve(&cluster, &entries, usize::MAX);
    // Whoever is asked first hangs in the middle, or before the first byte.
    for silent_after in [0, 30] {
        let asked = Arc::new(AtomicUsize::new(0));
        for node in &cluster.shards[0] {
            let (shard, asked) = (shards[0].clone(), asked.clone());
            node.script_streams(move |request| {
                let mut items = shard.items(request);
                match (asked.fetch_add(1, Ordering::SeqCst), silent_after) {
                    (0, 0) => StreamReply::Hang,
                    (0, _) => {
                        items.truncate(silent_after);
                        shard.reply(vec![Part::Bytes(items.concat()), Part::Hang])
                    }
                    _ => shard.answer(request),
                }
            });
        }
        let kv = cluster
            .builder()
            .attempt_timeout(Duration::from_millis(100));
        let found = all(kv.build().unwrap().scan("")).await.unwrap();
        assert_eq!(keys(&found), expected(&entries, b""));
    }
}

#[tokio::test]
async fn a_scan_asks_for_what_the_session_has_seen_and_adds_to_it() {
    let cluster = Cluster::start(2, 1).await;
    let entries = entries();
    let shards = serve(&cluster, &entries, usize::MAX);
    let kv = cluster.client();
    let seen: kvclient::Session = "kv1_0.1.7".parse().unwrap();
    kv.merge_session(&seen);
    all(kv.scan("")).await.unwrap();
    let asked = |shard: usize| {
        let requests = cluster.shards[shard].iter().flat_map(|node| node.streams());
        let [request] = &requests.collect::<Vec<_>>()[..] else {
            panic!("one request");
        };
        (
            request.header("kv-min-position"),
            request.header("kv-wait-ms"),
        )
    };
    assert_eq!(asked(0), (Some("1.7".into()), Some("10".into())));
    assert_eq!(asked(1), (None, None));
    for (idx, shard) in (0..).zip(&shards) {
        assert_eq!(
            kv.session().position(idx),
            Some(shard.position),
            "its end line"
        );
    }
}

#[tokio::test]
async fn what_a_scan_left_early_has_shown_counts_as_seen() {
    let cluster = Cluster::start(1, 0).await;
    serve(&cluster, &entries(), usize::MAX);
    let kv = cluster.client();
    let entry = kv.scan("").next().await.unwrap().unwrap();
    assert!(kv.session().position(0) >= Some(entry.position));
}

#[tokio::test]
async fn other_terms_of_reads() {
    let cluster = Cluster::start(1, 2).await;
    serve(&cluster, &entries(), usize::MAX);
    let kv = cluster.client();
    kv.merge_session(&"kv1_0.1.7".parse().unwrap());
    for _ in 0..10 {
        let scan = kv.scan("").consistency(Consistency::Primary);
        all(scan).await.unwrap();
        let lag = Consistency::MaxLag(Duration::from_millis(70));
        all(kv.scan("user:").consistency(lag)).await.unwrap();
    }
    let from_primary = |request: &support::fake_node::Request| !request.uri.contains("user");
    let on_replicas = (0..2).flat_map(|replica| cluster.replica(0, replica).streams());
    let on_replicas: Vec<_> = on_replicas.collect();
    assert!(!on_replicas.iter().any(from_primary), "only the primary");
    assert!(!on_replicas.is_empty());
    for request in on_replicas {
        assert_eq!(request.header("kv-max-lag-ms").as_deref(), Some("70"));
        assert_eq!(request.header("kv-min-position"), None);
    }
}

#[tokio::test]
async fn a_node_that_is_behind_is_left_for_one_that_is_not() {
    let cluster = Cluster::start(1, 1).await;
    let entries = entries();
    serve(&cluster, &entries, usize::MAX);
    cluster
        .replica(0, 0)
        .script_streams(|_| refusal(ErrorCode::Behind));
    let kv = cluster.client();
    for _ in 0..10 {
        assert_eq!(all(kv.scan("")).await.unwrap().len(), entries.len());
    }
    assert!(!cluster.replica(0, 0).streams().is_empty());
}

#[tokio::test]
async fn a_lost_position_is_told_once() {
    let cluster = Cluster::start(1, 0).await;
    let shards = serve(&cluster, &entries(), usize::MAX);
    let shard = shards[0].clone();
    cluster.primary(0).script_streams(move |request| {
        match request.header("kv-min-position").as_deref() {
            Some("1.99999") => refusal(ErrorCode::PositionLost),
            _ => shard.answer(request),
        }
    });
    let kv = cluster.client();
    kv.merge_session(&"kv1_0.1.99999".parse().unwrap());
    let error = all(kv.scan("")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.lost_position(), Some(Position::new(1, 99_999)));
    assert_eq!(all(kv.scan("")).await.unwrap().len(), entries().len());
}

#[tokio::test]
async fn nodes_of_another_shard_are_not_believed() {
    let cluster = Cluster::start(2, 0).await;
    let shards = serve(&cluster, &entries(), usize::MAX);
    let other = shards[0].clone();
    cluster
        .primary(1)
        .script_streams(move |request| other.answer(request));
    let scan = cluster
        .client()
        .scan("")
        .timeout(Duration::from_millis(100));
    let error = all(scan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misrouted, "{error}");
    assert_eq!(error.shard(), Some("shard1"));
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_at_once() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let long = vec![b'a'; 512];
    for scan in [
        kv.scan(&long),
        kv.scan("").start(&long),
        kv.scan("").end(&long),
        kv.scan("").after("no token!"),
    ] {
        let error = all(scan).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(cluster.primary(0).connections(), 0);
}

#[tokio::test]
async fn bytes_that_do_not_decode_are_not_asked_for_again() {
    let cluster = Cluster::start(1, 0).await;
    let shards = serve(&cluster, &entries(), usize::MAX);
    // An entry twice, and no such stream at all.
    for wrong in [0, 1] {
        let shard = shards[0].clone();
        cluster.primary(0).script_streams(move |request| {
            let mut items = shard.items(request);
            match wrong {
                0 => items.insert(3, items[2].clone()),
                _ => items = vec![b"<html>".to_vec()],
            }
            shard.reply(vec![Part::Bytes(items.concat())])
        });
        let error = all(cluster.client().scan("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    assert_eq!(cluster.primary(0).streams().len(), 2);
}

#[tokio::test]
async fn a_scan_that_is_dropped_closes_its_connections() {
    let cluster = Cluster::start(3, 0).await;
    let map = cluster.map(1);
    for number in 0..3 {
        let shard = FakeShard::of(&map, number, &entries());
        cluster.primary(number).script_streams(move |request| {
            let mut items = shard.items(request);
            items.truncate(40);
            shard.reply(vec![Part::Bytes(items.concat()), Part::Hang])
        });
    }
    let mut scan = cluster.client().scan("");
    for _ in 0..10 {
        scan.next().await.unwrap().unwrap();
    }
    drop(scan);
    wait_until("all three are closed", || {
        let closed = cluster
            .shards
            .iter()
            .flatten()
            .map(|node| node.closed_streams());
        closed.sum::<usize>() == 3
    })
    .await;
}

#[tokio::test]
async fn shards_are_asked_at_the_same_time() {
    let cluster = Cluster::start(3, 0).await;
    let entries = entries();
    let shards = serve(&cluster, &entries, usize::MAX);
    let (open, gate) = tokio::sync::watch::channel(false);
    for (number, shard) in shards.into_iter().enumerate() {
        let gate = gate.clone();
        cluster.primary(number).script_streams(move |request| {
            let answer = Part::Bytes(shard.items(request).concat());
            shard.reply(vec![Part::Gate(gate.clone()), answer])
        });
    }
    let mut scan = cluster.client().scan("");
    let all_asked = async {
        wait_until("all are asked before one has answered", || {
            let asked = cluster
                .shards
                .iter()
                .flatten()
                .map(|node| node.streams().len());
            asked.sum::<usize>() == 3
        })
        .await;
        open.send_replace(true);
    };
    let (first, ()) = tokio::join!(scan.next(), all_asked);
    assert_eq!(
        first.unwrap().unwrap().key.as_bytes(),
        expected(&entries, b"")[0]
    );
    assert_eq!(all(scan).await.unwrap().len(), entries.len() - 1);
}

/// What stood before the damage in one piece was given out, and then asked for again.
#[tokio::test]
async fn damage_behind_entries_makes_no_repeat() {
    let cluster = Cluster::start(1, 1).await;
    let entries: Entries = (0..9).map(|n| (vec![b'k', n], vec![n; 3])).collect();
    let shards = serve(&cluster, &entries, usize::MAX);
    let asked = Arc::new(AtomicUsize::new(0));
    for node in &cluster.shards[0] {
        let (shard, asked) = (shards[0].clone(), asked.clone());
        node.script_streams(move |request| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => {
                let mut items = shard.items(request);
                items.truncate(4);
                items.push(vec![0xff; 8]);
                shard.reply(vec![Part::Bytes(items.concat())])
            }
            _ => shard.answer(request),
        });
    }
    let found = all(cluster.client().scan("")).await.unwrap();
    assert_eq!(keys(&found), expected(&entries, b""));
}

/// A node that broke off before the first entry, again and again, was asked again and again for ever.
#[tokio::test]
async fn answers_that_lead_nowhere_use_up_the_time() {
    let cluster = Cluster::start(1, 1).await;
    let shards = serve(&cluster, &entries(), usize::MAX);
    for node in &cluster.shards[0] {
        let shard = shards[0].clone();
        node.script_streams(move |_| shard.reply(vec![Part::Bytes(b"KVC1".to_vec()), Part::Cut]));
    }
    let scan = all(cluster
        .client()
        .scan("")
        .timeout(Duration::from_millis(200)));
    let ended = tokio::time::timeout(Duration::from_secs(5), scan).await;
    let error = ended.expect("an end").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// A damaged copy ended a scan at once, though the sound one was only away for a moment.
#[tokio::test]
async fn a_sound_copy_that_is_away_for_a_moment_is_waited_for() {
    let cluster = Cluster::start(1, 1).await;
    let entries = entries();
    let shards = serve(&cluster, &entries, usize::MAX);
    let damaged = |_: &_| refusal(ErrorCode::Damaged);
    cluster.primary(0).script_streams(damaged);
    let (shard, asked) = (shards[0].clone(), AtomicUsize::new(0));
    let away = move |request: &_| match asked.fetch_add(1, Ordering::SeqCst) {
        0..3 => StreamReply::Break,
        _ => shard.answer(request),
    };
    cluster.replica(0, 0).script_streams(away);
    let found = all(cluster.client().scan("")).await.unwrap();
    assert_eq!(keys(&found), expected(&entries, b""));
}
