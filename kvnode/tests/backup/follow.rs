//! A backup that goes on: what is written is in it a moment later, and the cluster does not count it as a replica.

use std::{
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use kvclient::{
    Ack, ErrorKind, Position,
    backup::{BackupDir, CopyFrom, Manifest, Puller, Report, Until, verify},
};

use crate::{
    back_up, client, fill, map,
    model::{WholeLog, assert_holds},
    nodes, options, restore_into, silent,
    support::{
        cluster::{Cluster, Shape, swapped},
        eventually,
    },
};

fn in_force(path: &Path) -> Option<Manifest> {
    let text = std::fs::read(path.join("backup.json")).ok()?;
    Manifest::decode(&text).ok()
}

async fn wait_backed_up(path: &Path, position: Position) {
    wait_shard_backed_up(path, 0, position).await;
}

async fn wait_shard_backed_up(path: &Path, shard: usize, position: Position) {
    eventually("the backup has the write", async || {
        let manifest = in_force(path)?;
        (manifest.shards[shard].last >= position).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_in_it_a_moment_later() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(Shape::pair()).await;
    let kv = client(&cluster);
    fill(&kv, "k", 200, 100).await;
    let (dir, map) = (BackupDir::create(temp.path()).expect("made"), map(&cluster));
    let puller = Puller::new(&dir, nodes(), &map, CopyFrom::Replicas, &silent).expect("ready");
    let writing = async {
        for round in 0..5 {
            let at = kv
                .put(format!("later{round}"), "v")
                .await
                .expect("stored")
                .position;
            wait_backed_up(temp.path(), at).await;
        }
        // The nodes are gone for a while; it goes on by itself when they are back.
        cluster.primary(0).kill();
        tokio::time::sleep(Duration::from_millis(600)).await;
        cluster.primary(0).start().await;
        let at = cluster.primary(0).put("again", "v").await;
        wait_backed_up(temp.path(), at).await;
    };
    tokio::select! {
        error = puller.follow() => panic!("{error}"),
        () = writing => {}
    }
    let manifest = puller.manifest();
    verify(&dir, &manifest).expect("sound");
    let log = WholeLog::of(cluster.primary(0)).await;
    drop(puller);
    drop(dir);
    let other = Cluster::start(Shape::default()).await;
    let restored = restore_into(&other, temp.path(), &options(temp.path(), Until::End)).await;
    restored.expect("restored");
    assert_holds(&client(&other), &log.at(manifest.shards[0].last)).await;
}

/// A round over all shards used to end with the slowest: one that was silent held up the others for as long as an answer is
/// waited for, each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_shard_holds_up_no_other() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(Shape {
        shards: 2,
        ..Shape::default()
    })
    .await;
    let (dir, map) = (BackupDir::create(temp.path()).expect("made"), map(&cluster));
    let warned = Mutex::new(Vec::new());
    let report = |report: Report<'_>| {
        if let Report::Warning(text) = report {
            warned.lock().expect("not poisoned").push(text);
        }
    };
    let puller = Puller::new(&dir, nodes(), &map, CopyFrom::Replicas, &report).expect("ready");
    puller.run().await.expect("both are copied");
    let (quiet, lively) = (cluster.primary(0), cluster.primary(1));
    let key = cluster.key_in(1, "k");
    let writing = async {
        quiet.pause();
        let began = Instant::now();
        for round in 0..5 {
            let at = lively.put(&key, format!("{round}")).await;
            wait_shard_backed_up(temp.path(), 1, at).await;
        }
        // Shorter than the wait for one answer of the silent node.
        assert!(began.elapsed() < Duration::from_secs(10), "{began:?}");
        eventually("it is told which shard is silent", async || {
            let warned = warned.lock().expect("not poisoned");
            let names = |text: &String| text.contains(&quiet.address);
            warned.iter().any(names).then_some(())
        })
        .await;
        let at = lively.put(&key, "later").await;
        wait_shard_backed_up(temp.path(), 1, at).await;
        quiet.resume();
        let at = quiet.put(&cluster.key_in(0, "k"), "again").await;
        wait_shard_backed_up(temp.path(), 0, at).await;
    };
    tokio::select! {
        error = puller.follow() => panic!("{error}"),
        () = writing => {}
    }
    verify(&dir, &puller.manifest()).expect("sound");
}

/// A backup holds what it was sent, but nobody reads from it: a write that waits for replicas must not be told that one
/// has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_acknowledges_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(Shape::pair()).await;
    let kv = client(&cluster);
    cluster.replica(0, 0).stop().await;
    let (dir, map) = (BackupDir::create(temp.path()).expect("made"), map(&cluster));
    let puller = Puller::new(&dir, nodes(), &map, CopyFrom::Primary, &silent).expect("ready");
    let writing = async {
        let at = kv.put("k", "v").await.expect("stored").position;
        wait_backed_up(temp.path(), at).await;
        // Its last pull is long enough ago.
        eventually("the replica counts as gone", async || {
            let status = cluster.primary(0).status().await;
            (status["replicas"][0]["connected"] == false).then_some(())
        })
        .await;
        let status = cluster.primary(0).status().await;
        let replicas = status["replicas"].as_array().expect("a list");
        assert_eq!(replicas.len(), 1, "the backup is none of them: {status}");
        let refused = kv.with_ack(Ack::Replicas(1)).put("k", "w").await;
        assert_eq!(
            refused.expect_err("nobody has it").kind(),
            ErrorKind::Unavailable
        );
    };
    tokio::select! {
        error = puller.follow() => panic!("{error}"),
        () = writing => {}
    }
}

/// A replica that has everything takes the primary's place: the log goes on in a new reign, and so does its backup.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_it_goes_on() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let at = primary.put("k", "before").await;
    replica.wait_visible(at, "the replica has it").await;
    let before = back_up(&cluster, temp.path()).await.expect("backed up");
    primary.kill();
    let text = swapped(&cluster, 2);
    replica.kill();
    replica.write_map(&text);
    replica.spawn(&["--promote"]);
    replica.wait_ready().await;
    let at = replica.put("k", "after").await;

    let map = kvclient::shard_map::toml::parse(&text, "swapped").expect("a map");
    let dir = BackupDir::create(temp.path()).expect("opened");
    let puller = Puller::new(&dir, nodes(), &map, CopyFrom::Replicas, &silent).expect("ready");
    puller.run().await.expect("it goes on");
    let after = puller.manifest();
    assert_eq!(after.shards[0].snapshot, before.shards[0].snapshot);
    assert_eq!((after.shards[0].last, at.epoch), (at, 2));
    verify(&dir, &after).expect("sound");
    drop(puller);
    drop(dir);
    for (until, value) in [
        (Until::Position(before.shards[0].last), "before"),
        (Until::End, "after"),
    ] {
        let target = Cluster::start(Shape::default()).await;
        let done = restore_into(&target, temp.path(), &options(temp.path(), until)).await;
        done.expect("restored");
        let restored = target.primary(0).get("k").await;
        assert_eq!(restored.as_deref(), Some(value.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_log_no_longer_reaches_back_a_new_snapshot_is_taken() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(Shape {
        flags: &["--log-retention", "0"],
        ..Shape::default()
    })
    .await;
    let kv = client(&cluster);
    fill(&kv, "k", 50, 100).await;
    let first = back_up(&cluster, temp.path()).await.expect("backed up");
    let old = temp
        .path()
        .join("shard-0")
        .join(&first.shards[0].snapshot.name);
    assert!(old.exists());
    eventually("the log is trimmed", async || {
        fill(&kv, "k", 64, 100_000).await;
        let truncated = cluster.primary(0).status().await["truncated"].as_u64();
        (truncated > Some(first.shards[0].last.seq)).then_some(())
    })
    .await;
    let second = back_up(&cluster, temp.path()).await.expect("taken anew");
    assert!(second.shards[0].first > first.shards[0].last);
    assert!(
        !old.exists(),
        "the old one goes when the new one is complete"
    );
    let dir = BackupDir::open(temp.path()).expect("readable");
    verify(&dir, &second).expect("sound");
}
