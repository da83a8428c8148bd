//! The restore drill: a cluster under writes is backed up, grows, is backed up again and is destroyed; clusters of other
//! shapes then hold, byte for byte, what the backup's positions say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kvclient::{Client, PutOptions, backup::Until};

use crate::{
    back_up, client,
    model::{Model, WholeLog, assert_holds, now_ms},
    options, restore_into,
    support::{
        cluster::{Cluster, Shape},
        seeded,
    },
};

/// Keys of which all bytes occur, few enough that they are written again and again.
fn any_key(rng: &mut fastrand::Rng) -> Vec<u8> {
    match rng.u8(..4) {
        0 => (0..rng.usize(1..4))
            .map(|_| *rng.choice(&[0, 0xff, b'{', b'}']).expect("some"))
            .collect(),
        _ => format!("user:{}", rng.u16(..700)).into_bytes(),
    }
}

fn any_value(rng: &mut fastrand::Rng) -> Bytes {
    let len = match rng.u8(..200) {
        0 => 1 << 20,
        1..20 => 0,
        _ => rng.usize(1..300),
    };
    let mut value = vec![0; len];
    rng.fill(&mut value);
    value.into()
}

/// One op of any kind; an expiry is far away, or over before anything is restored.
async fn any_op(kv: &Client, rng: &mut fastrand::Rng) {
    let key = any_key(rng);
    let ttl = match rng.u8(..2) {
        0 => Duration::from_millis(rng.u64(1..400)),
        _ => Duration::from_secs(rng.u64(3_000..4_000)),
    };
    let done = match rng.u8(..10) {
        0 => kv.delete(&key).await.map(drop),
        1 => kv.touch(&key, ttl).await.map(drop),
        2 => kv.persist(&key).await.map(drop),
        3 | 4 => {
            let options = PutOptions::new().ttl(ttl);
            kv.put_with(&key, any_value(rng), options).await.map(drop)
        }
        _ => kv.put(&key, any_value(rng)).await.map(drop),
    };
    done.expect("the op is done");
}

/// So many ops by eight users at once.
async fn any_ops(kv: &Client, rng: &mut fastrand::Rng, count: usize) {
    let seeds: Vec<u64> = (0..8).map(|_| rng.u64(..)).collect();
    let users = seeds.into_iter().map(async |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..count / 8 {
            any_op(kv, &mut rng).await;
        }
    });
    futures_util::future::join_all(users).await;
}

/// Writes until it is told to stop; how much it did.
fn writer(kv: Client, seed: u64, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<usize> {
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut ops = 0;
        while !stop.load(Ordering::Relaxed) {
            any_op(&kv, &mut rng).await;
            ops += 1;
        }
        ops
    })
}

fn shape(shards: usize, replicas: usize) -> Shape {
    Shape {
        shards,
        replicas,
        ..Shape::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_cluster_comes_back_byte_for_byte() {
    let mut rng = seeded();
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("backup");
    let cluster = Cluster::start(shape(3, 1)).await;
    let kv = client(&cluster);
    any_ops(&kv, &mut rng, 1_500).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|_| writer(kv.clone(), rng.u64(..), &stop))
        .collect();
    let first = back_up(&cluster, &path).await.expect("backed up");
    any_ops(&kv, &mut rng, 500).await;
    let second = back_up(&cluster, &path).await.expect("brought up to date");
    any_ops(&kv, &mut rng, 100).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.expect("no panic") > 0, "it wrote meanwhile");
    }
    for (before, after) in first.shards.iter().zip(&second.shards) {
        assert_eq!(before.snapshot, after.snapshot, "only the log was added");
        assert!(before.last < after.last, "{} grew", after.name);
    }

    let mut logs = Vec::new();
    for shard in 0..3 {
        logs.push(WholeLog::of(cluster.primary(shard)).await);
    }
    drop(kv);
    drop(cluster);

    let mut at_end = Model::new();
    for (log, shard) in logs.iter().zip(&second.shards) {
        at_end.extend(log.at(shard.last));
    }
    let two = Cluster::start(shape(2, 0)).await;
    let done = restore_into(&two, &path, &options(&path, Until::End)).await;
    let done = done.expect("restored to the end");
    assert_holds(&client(&two), &at_end).await;
    assert_eq!(done.entries + done.expired, at_end.len() as u64);
    let reached: Vec<_> = second
        .shards
        .iter()
        .map(|s| (s.name.clone(), s.last))
        .collect();
    assert_eq!(done.reached, reached);
    drop(two);

    let (mut at_positions, mut positions) = (Model::new(), Vec::new());
    for (log, shard) in logs.iter().zip(&second.shards) {
        let (at, _) = log.between(shard.first, shard.last);
        at_positions.extend(log.at(at));
        positions.push((shard.name.clone(), Until::Position(at)));
    }
    assert_ne!(at_positions, at_end, "it is an earlier state");
    let five = Cluster::start(shape(5, 0)).await;
    let mut to_positions = options(&path, Until::End);
    to_positions.until = positions;
    let done = restore_into(&five, &path, &to_positions).await;
    done.expect("restored to positions");
    assert_holds(&client(&five), &at_positions).await;
    drop(five);

    // The earliest time that all shards have.
    let latest_start = second.shards.iter().map(|shard| shard.first_time_ms).max();
    let (_, time_ms) = logs[0].between(second.shards[0].first, second.shards[0].last);
    let time_ms = time_ms.max(latest_start.expect("three shards"));
    let mut at_time = Model::new();
    for log in &logs {
        at_time.extend(log.state(|frame| frame.header.time_ms <= time_ms));
    }
    let one = Cluster::start(shape(1, 1)).await;
    let to_time = options(&path, Until::TimeMs(time_ms));
    let done = restore_into(&one, &path, &to_time).await;
    done.expect("restored to a time");
    assert_holds(&client(&one), &at_time).await;

    // What the backup does not have is refused, and says what it has.
    for (until, word) in [
        (Until::TimeMs(1), "begins at"),
        (Until::TimeMs(now_ms() + 60_000), "is complete up to"),
        (Until::Position(kvclient::Position::new(1, 1)), "begins at"),
        (
            Until::Position(kvclient::Position::new(99, u64::MAX)),
            "ends at",
        ),
    ] {
        let refused = restore_into(&one, &path, &options(&path, until)).await;
        let refused = refused.expect_err("not there").to_string();
        assert!(refused.contains(word), "{until:?}: {refused}");
    }
}
