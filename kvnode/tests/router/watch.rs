//! A watch tells every write exactly once and in order, while nodes die and come back.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use kvclient::{Change, Client, Event, Outcome, Position, PutOptions, Session, Watch};

use crate::{
    client,
    support::{
        PATIENCE,
        cluster::{Cluster, Shape},
        eventually,
    },
};

async fn next(watch: &mut Watch) -> Event {
    let next = tokio::time::timeout(PATIENCE, watch.next()).await;
    next.expect("an event in time")
        .expect("a watch does not end")
        .expect("no error")
}

#[tokio::test]
async fn what_is_written_after_it_listens_is_told() {
    let shape = Shape {
        shards: 3,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let kv = client(&cluster);
    for n in 0..30 {
        kv.put(format!("k{n}"), "before").await.expect("stored");
    }
    let mut watch = kv.watch("k");
    watch.ready().await.expect("it listens");
    kv.put("other", "not wanted").await.expect("stored");
    kv.put_with("k1", "\u{e9}\n", PutOptions::new().ttl(PATIENCE))
        .await
        .expect("stored");
    kv.persist("k1").await.expect("changed");
    kv.delete("k1").await.expect("removed");
    let put = next(&mut watch).await;
    assert_eq!(put.key.as_bytes(), b"k1");
    assert!(
        matches!(&put.change, Change::Put { value, expires_at: Some(_) } if value == "\u{e9}\n")
    );
    let persist = next(&mut watch).await;
    assert_eq!(persist.change, Change::Expire { expires_at: None });
    let delete = next(&mut watch).await;
    assert_eq!(delete.change, Change::Delete { by_expiry: false });
    assert!(put.position < persist.position && persist.position < delete.position);
    // What an event has shown, a read shows. This client knows nothing of the writes above, and may be told of them if
    // it listens to a replica that is a little behind.
    let other = client(&cluster);
    let mut watch = other.watch("k2");
    watch.ready().await.expect("it listens");
    for n in 0..50 {
        let value = Bytes::from(format!("{n}"));
        kv.put("k2", value.clone()).await.expect("stored");
        let put = Change::Put {
            value: value.clone(),
            expires_at: None,
        };
        while next(&mut watch).await.change != put {}
        assert_eq!(other.get("k2").await.expect("a read"), Some(value));
    }
}

#[tokio::test]
async fn the_past_of_all_shards_is_told_and_ends() {
    let shape = Shape {
        shards: 3,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let kv = client(&cluster);
    let mut wanted = Vec::new();
    for n in 0..60 {
        let (key, value) = (format!("k{}", n % 20), Bytes::from(format!("{n}")));
        let written = kv.put(&key, value.clone()).await.expect("stored");
        wanted.push((key.into_bytes(), written.position, value));
    }
    kv.put("other", "not wanted").await.expect("stored");
    let past = kv.watch("k").from_earliest().until_level();
    let told: Vec<Event> = tokio::time::timeout(PATIENCE, past.try_collect())
        .await
        .expect("it ends")
        .expect("no error");
    let mut told: Vec<_> = told
        .into_iter()
        .map(|event| match event.change {
            Change::Put { value, .. } => (event.key.as_bytes().to_vec(), event.position, value),
            other => panic!("{other:?}"),
        })
        .collect();
    let order =
        |one: &(Vec<u8>, Position, Bytes), other: &(Vec<u8>, Position, Bytes)| one.cmp(other);
    wanted.sort_by(order);
    told.sort_by(order);
    assert_eq!(told, wanted);
    // Nothing there is an end too.
    let mut nothing = kv.watch("nobody").from_earliest().until_level();
    assert!(nothing.next().await.is_none());
    assert!(nothing.next().await.is_none());
}

/// What a writer was told of its writes.
#[derive(Default)]
struct Told {
    acked: BTreeMap<(u16, Position), (String, Bytes)>,
    unknown: HashSet<(String, Bytes)>,
}

/// How writers and breakers know of each other.
#[derive(Default)]
struct Progress {
    acked: AtomicUsize,
    stop: AtomicBool,
}

/// Writes on until told to stop.
async fn write(kv: &Client, progress: &Progress) -> Told {
    let mut told = Told::default();
    let options = PutOptions::new().timeout(Duration::from_secs(10));
    for n in 0.. {
        if progress.stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (format!("k{}", n % 40), Bytes::from(format!("value {n}")));
        let route = kv.route(&key).expect("a key");
        let shard_idx = route.shard.trim_start_matches('s').parse().expect("s0, s1");
        match kv.put_with(&key, value.clone(), options).await {
            Ok(written) => {
                progress.acked.fetch_add(1, Ordering::Relaxed);
                told.acked
                    .insert((shard_idx, written.position), (key, value));
            }
            Err(error) if error.outcome() == Outcome::Unknown => {
                told.unknown.insert((key, value));
            }
            Err(_) => {}
        }
    }
    told
}

/// Kills nodes one after the other; each is up again, and writes go on, before the next one goes.
async fn break_nodes(cluster: &Cluster, rounds: usize, progress: &Progress) {
    for round in 0..rounds {
        let before = progress.acked.load(Ordering::Relaxed);
        eventually("writes go on", async || {
            (progress.acked.load(Ordering::Relaxed) > before + 30).then_some(())
        })
        .await;
        let shard = round % cluster.shape.shards;
        let node = match round % 3 {
            2 => cluster.replica(shard, 0),
            _ => cluster.primary(shard),
        };
        node.kill();
        node.start().await;
    }
}

/// Collects events until it has those of `wanted`, begun anew from its token now and then.
async fn follow(kv: &Client, from: Session, mut wanted: HashSet<(u16, Position)>) -> Vec<Event> {
    let mut watch = kv.watch("k").from(from);
    let mut events = Vec::new();
    while !wanted.is_empty() {
        let event = next(&mut watch).await;
        wanted.remove(&(event.shard_idx, event.position));
        events.push(event);
        if events.len() % 100 == 0 {
            let token = watch.position().to_token();
            watch = kv
                .watch("k")
                .from(Session::from_token(&token).expect("its own token"));
        }
    }
    events
}

fn check(events: &[Event], told: &Told) {
    let mut last: BTreeMap<u16, Position> = BTreeMap::new();
    for event in events {
        let Change::Put { value, .. } = &event.change else {
            panic!("only puts were made: {event:?}");
        };
        let before = last.insert(event.shard_idx, event.position);
        assert!(
            before < Some(event.position),
            "in order and once: {event:?}"
        );
        let key = String::from_utf8(event.key.as_bytes().to_vec()).expect("text");
        let written = (key, value.clone());
        match told.acked.get(&(event.shard_idx, event.position)) {
            Some(acked) => assert_eq!(*acked, written),
            None => assert!(told.unknown.contains(&written), "nobody's: {event:?}"),
        }
    }
}

#[tokio::test]
async fn every_write_is_told_once_while_nodes_are_killed() {
    let shape = Shape {
        shards: 2,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let kv = client(&cluster);
    let mut live = kv.watch("k");
    live.ready().await.expect("it listens");
    let from = live.position();

    let progress = Progress::default();
    let mut seen = Vec::new();
    let told = {
        let writing = write(&kv, &progress);
        let breaking = async {
            break_nodes(&cluster, 9, &progress).await;
            progress.stop.store(true, Ordering::Relaxed);
        };
        let both = async { tokio::join!(writing, breaking).0 };
        tokio::pin!(both);
        loop {
            tokio::select! {
                told = &mut both => break told,
                event = next(&mut live) => seen.push(event),
            }
        }
    };
    assert!(told.acked.len() > 200, "{} writes", told.acked.len());
    let mut missing: HashSet<_> = told.acked.keys().copied().collect();
    for event in &seen {
        missing.remove(&(event.shard_idx, event.position));
    }
    while !missing.is_empty() {
        let event = next(&mut live).await;
        missing.remove(&(event.shard_idx, event.position));
        seen.push(event);
    }
    check(&seen, &told);
    // Who comes later and goes on at any token sees the same.
    let wanted = told.acked.keys().copied().collect();
    check(&follow(&kv, from, wanted).await, &told);
}
