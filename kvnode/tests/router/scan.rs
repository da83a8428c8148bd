//! A scan over all shards is a scan of one ordered map.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use kvclient::{Consistency, Scan, ScannedEntry};

use crate::{
    client,
    support::{
        cluster::{Cluster, Shape},
        seeded,
    },
};

type Model = BTreeMap<Vec<u8>, Bytes>;

async fn all(scan: Scan) -> Vec<ScannedEntry> {
    scan.try_collect().await.expect("a whole scan")
}

fn pairs(entries: &[ScannedEntry]) -> Vec<(Vec<u8>, Bytes)> {
    let pair = |entry: &ScannedEntry| {
        let value = entry.value.clone().expect("a value");
        (entry.key.as_bytes().to_vec(), value)
    };
    entries.iter().map(pair).collect()
}

fn keys(entries: &[ScannedEntry]) -> Vec<Vec<u8>> {
    let key = |entry: &ScannedEntry| entry.key.as_bytes().to_vec();
    entries.iter().map(key).collect()
}

/// Keys of few different bytes, so that many share prefixes; all bytes occur.
fn random(rng: &mut fastrand::Rng, count: usize) -> Model {
    let mut model = Model::new();
    while model.len() < count {
        let key: Vec<u8> = (0..rng.usize(1..6))
            .map(|_| match rng.u8(..4) {
                0 => 0,
                1 => 0xff,
                2 => b'a',
                _ => rng.u8(..),
            })
            .collect();
        let value: Vec<u8> = (0..rng.usize(..50)).map(|_| rng.u8(..)).collect();
        model.insert(key, value.into());
    }
    model
}

#[tokio::test]
async fn three_shards_are_one_ordered_map() {
    let shape = Shape {
        shards: 3,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let kv = client(&cluster);
    let mut rng = seeded();
    let model = random(&mut rng, 3_000);
    kv.put_many(model.clone()).await.expect("all are stored");

    let expected: Vec<_> = model.clone().into_iter().collect();
    assert_eq!(pairs(&all(kv.scan("")).await), expected);
    let mut reversed = expected.clone();
    reversed.reverse();
    assert_eq!(pairs(&all(kv.scan("").reverse()).await), reversed);
    let only_keys = all(kv.scan("").keys_only()).await;
    assert_eq!(keys(&only_keys), model.keys().cloned().collect::<Vec<_>>());
    assert!(only_keys.iter().all(|entry| entry.value.is_none()));

    for _ in 0..50 {
        let mut bound = || rng.choice(model.keys()).expect("a key").clone();
        let [prefix, start, end] = std::array::from_fn(|_| bound());
        let prefix = &prefix[..1];
        let wanted = |key: &[u8]| key.starts_with(prefix) && key >= &start[..] && key < &end[..];
        let inside = expected.iter().filter(|(key, _)| wanted(key));
        let range = kv.scan(prefix).start(&start).end(&end);
        assert_eq!(
            pairs(&all(range).await),
            inside.cloned().collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_scan_goes_on_at_every_token() {
    let shape = Shape {
        shards: 3,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let kv = client(&cluster);
    let model = random(&mut seeded(), 100);
    kv.put_many(model.clone()).await.expect("all are stored");
    let forward = all(kv.scan("")).await;
    assert_eq!(forward.len(), model.len());
    let backward = all(kv.scan("").reverse()).await;
    for seen in 1..=model.len() {
        let rest = all(kv.scan("").after(forward[seen - 1].token())).await;
        assert_eq!(rest, forward[seen..]);
        let rest = all(kv.scan("").reverse().after(backward[seen - 1].token())).await;
        assert_eq!(rest, backward[seen..]);
    }
}

/// Replicas answer too, and none of them shows less than the client wrote.
#[tokio::test]
async fn a_scan_shows_what_its_client_wrote() {
    let shape = Shape {
        shards: 2,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let kv = client(&cluster);
    for round in 0..60 {
        let key = format!("mine:{round:03}");
        kv.put(&key, "v").await.expect("stored");
        let found = all(kv.scan("mine:").keys_only()).await;
        assert_eq!(found.len(), round + 1, "after {key}");
    }
    // What the session has seen is what other writes are seen by, too.
    let other = client(&cluster);
    other.put("mine:999", "v").await.expect("stored");
    kv.merge_session(&other.session());
    assert_eq!(all(kv.scan("mine:")).await.len(), 61);
    let strict = kv.scan("mine:").consistency(Consistency::Primary);
    assert_eq!(all(strict).await.len(), 61);
}

/// More than sockets buffer, so that both nodes are in the middle of it when they die.
#[tokio::test]
async fn a_scan_survives_its_nodes() {
    let cluster = Cluster::start(Shape::pair()).await;
    let kv = client(&cluster);
    let count = 8_000;
    let value = Bytes::from(vec![b'x'; 4_096]);
    for from in (0..count).step_by(1_000) {
        let items = (from..from + 1_000).map(|n| (format!("key{n:05}"), value.clone()));
        kv.put_many(items).await.expect("stored");
    }
    let mut scan = kv.scan("key");
    for n in 0..count {
        let entry = scan.next().await.expect("more").expect("no error");
        assert_eq!(entry.key.as_bytes(), format!("key{n:05}").as_bytes());
        assert_eq!(entry.value.as_deref(), Some(&value[..]));
        let node = match n {
            100 => cluster.replica(0, 0),
            300 => cluster.primary(0),
            _ => continue,
        };
        node.kill();
        node.start().await;
    }
    assert!(scan.next().await.is_none());
}

#[tokio::test]
async fn a_limit_holds_for_all_shards_together() {
    let shape = Shape {
        shards: 3,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let kv = client(&cluster);
    let model = random(&mut seeded(), 500);
    kv.put_many(model.clone()).await.expect("all are stored");
    let expected: Vec<_> = model.into_iter().collect();
    for limit in [1, 2, 77, 499, 500, 501] {
        let found = all(kv.scan("").limit(limit)).await;
        assert_eq!(pairs(&found), expected[..limit.min(500)]);
    }
}
