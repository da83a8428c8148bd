//! What can go wrong: each has a clear message, and nothing that was complete is lost.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, Once},
    time::Duration,
};

use kvclient::{
    Client, GetOptions, Position, PutOptions,
    backup::{
        BackupDir, BackupError, CopyFrom, IntoNonEmpty, Puller, Report, RestoreReport, Until,
        restore, verify,
    },
};
use tokio::time::timeout;

use crate::{
    back_up, back_up_from, client, fill, map,
    model::{WholeLog, assert_holds},
    nodes, options, restore_into, silent,
    support::{
        cluster::{Cluster, Shape, swapped},
        eventually, seeded,
    },
};

fn shards(shards: usize) -> Shape {
    Shape {
        shards,
        ..Shape::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_goes_on_with_what_is_missing() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(shards(3)).await;
    fill(&client(&cluster), "k", 600, 2_000).await;
    let (dir, map) = (BackupDir::create(temp.path()).expect("made"), map(&cluster));
    let (sender, mut copied) = tokio::sync::mpsc::channel(8);
    let report = |report: Report<'_>| {
        if let Report::Copied { shard, .. } = report {
            sender.try_send(shard.snapshot.clone()).expect("room");
        }
    };
    let puller = Puller::new(&dir, nodes(), &map, CopyFrom::Primary, &report).expect("ready");
    // Dropped in the middle, as Ctrl-C does it.
    let kept = tokio::select! {
        biased;
        Some(kept) = copied.recv() => Some(kept),
        _ = puller.run() => None,
    };
    let done = puller.manifest();
    drop(puller);
    if kept.is_some() && !done.is_whole() {
        let half = dir.whole_manifest().expect_err("half");
        assert!(matches!(half, BackupError::Half { .. }), "{half}");
    }
    drop(dir);
    let whole = back_up(&cluster, temp.path()).await.expect("completed");
    for shard in &done.shards {
        let now = whole.shard(shard.idx).expect("still there");
        assert_eq!(shard.snapshot, now.snapshot, "not copied again");
    }
    let dir = BackupDir::open(temp.path()).expect("readable");
    verify(&dir, &dir.whole_manifest().expect("whole")).expect("sound");
    assert!(!temp.path().join("backup.part.json").exists());
}

/// Stopped at any moment, while writes go on, what is in force is sound, and never less than before.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_at_any_moment_it_is_sound() {
    let mut rng = seeded();
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(shards(2)).await;
    let kv = client(&cluster);
    fill(&kv, "k", 400, 20_000).await;
    let (mut whole, mut last) = (0, Position::ZERO);
    for round in 0..25_u64 {
        let (dir, map) = (
            BackupDir::create(temp.path()).expect("opened"),
            map(&cluster),
        );
        let puller = Puller::new(&dir, nodes(), &map, CopyFrom::Primary, &silent).expect("ready");
        // Longer from round to round, so that some end on any machine.
        let limit = Duration::from_millis(rng.u64(1..=40 * (round + 1)));
        let writing = fill(&kv, "k", 50, 1_000);
        let _ = tokio::join!(timeout(limit, puller.run()), writing);
        drop(puller);
        let Ok(manifest) = dir.whole_manifest() else {
            continue;
        };
        verify(&dir, &manifest).expect("sound");
        assert!(manifest.shards[0].last >= last, "it went back");
        last = manifest.shards[0].last;
        whole += 1;
    }
    let manifest = back_up(&cluster, temp.path()).await.expect("completed");
    let target = Cluster::start(shards(1)).await;
    let done = restore_into(&target, temp.path(), &options(temp.path(), Until::End)).await;
    done.expect("restored");
    let mut expected = WholeLog::of(cluster.primary(0))
        .await
        .at(manifest.shards[0].last);
    expected.extend(
        WholeLog::of(cluster.primary(1))
            .await
            .at(manifest.shards[1].last),
    );
    assert_holds(&client(&target), &expected).await;
    assert!(whole > 0, "it was never whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_backup_is_left_alone() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(shards(1)).await;
    let first = back_up(&cluster, temp.path()).await.expect("backed up");
    let before = fs::read(temp.path().join("backup.json")).expect("a manifest");
    for (other, word) in [
        (Cluster::start(shards(1)).await, "history"),
        (Cluster::start(shards(2)).await, "shards"),
    ] {
        let refused = back_up(&other, temp.path())
            .await
            .expect_err("another cluster's");
        assert!(matches!(refused, BackupError::Foreign { .. }), "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
        assert_eq!(
            fs::read(temp.path().join("backup.json")).expect("there"),
            before
        );
    }
    let dir = BackupDir::open(temp.path()).expect("readable");
    verify(&dir, &first).expect("sound");
}

/// The primary is lost with writes that its replica never got, and the replica takes its place. The backup has them.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_only_the_backup_has_are_kept() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let at = primary.put("k", "both").await;
    replica.wait_visible(at, "the replica has it").await;
    replica.stop().await;
    primary.put("k", "lost").await;
    let had = back_up_from(&cluster, temp.path(), CopyFrom::Primary)
        .await
        .expect("backed up");
    primary.kill();
    replica.write_map(&swapped(&cluster, 2));
    replica.spawn(&["--promote"]);
    replica.wait_ready().await;
    replica.put("k", "newer").await;

    let text = swapped(&cluster, 2);
    let map = kvclient::shard_map::toml::parse(&text, "swapped").expect("a map");
    let dir = BackupDir::create(temp.path()).expect("opened");
    let puller = Puller::new(&dir, nodes(), &map, CopyFrom::Replicas, &|_| {}).expect("ready");
    let refused = puller
        .run()
        .await
        .expect_err("the log went on without them");
    assert!(matches!(refused, BackupError::Ahead { .. }), "{refused}");
    assert!(
        refused.to_string().contains("keep this backup"),
        "{refused}"
    );
    assert_eq!(puller.manifest().shards, had.shards);
    verify(&dir, &had).expect("sound");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_do_not_answer_are_named() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::prepare(shards(1));
    let refused = back_up(&cluster, temp.path())
        .await
        .expect_err("nobody is there");
    let text = refused.to_string();
    assert!(matches!(refused, BackupError::Unreachable { .. }), "{text}");
    assert!(text.contains(&cluster.primary(0).address), "{text}");
}

/// Whoever needs a backup most has lost the primary already.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_primary_gone_the_replica_is_copied() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(Shape::pair()).await;
    fill(&client(&cluster), "k", 200, 100).await;
    let at = cluster.primary(0).put("last", "v").await;
    let replica = cluster.replica(0, 0);
    replica.wait_visible(at, "the replica has all").await;
    let log = WholeLog::of(replica).await;
    cluster.primary(0).kill();
    let (dir, map) = (BackupDir::create(temp.path()).expect("made"), map(&cluster));
    let warned = Mutex::new(Vec::new());
    let report = |report: Report<'_>| {
        if let Report::Warning(text) = report {
            warned.lock().expect("not poisoned").push(text);
        }
    };
    let puller = Puller::new(&dir, nodes(), &map, CopyFrom::Replicas, &report).expect("ready");
    puller.run().await.expect("as far as the replica has it");
    let manifest = puller.manifest();
    assert_eq!(manifest.shards[0].last, at);
    let warned = warned.lock().expect("not poisoned").join(" ");
    assert!(warned.contains(&cluster.primary(0).address), "{warned}");
    drop(puller);
    drop(dir);
    let target = Cluster::start(shards(2)).await;
    let done = restore_into(&target, temp.path(), &options(temp.path(), Until::End)).await;
    done.expect("restored");
    assert_holds(&client(&target), &log.at(at)).await;
}

/// A file system in memory that a test can fill; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).expect("a directory");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        let mounted = command.arg(path).stderr(Stdio::null()).status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        is_mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_what_was_complete_stays() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&path, "2m") else {
        eprintln!("skipped: no right to mount a small file system");
        return;
    };
    let cluster = Cluster::start(shards(1)).await;
    let kv = client(&cluster);
    fill(&kv, "k", 50, 1_000).await;
    let first = back_up(&cluster, &path).await.expect("it fits");
    fill(&kv, "l", 40, 100_000).await;
    let full = back_up(&cluster, &path).await.expect_err("it does not fit");
    assert!(matches!(full, BackupError::File { .. }), "{full}");
    assert!(full.to_string().contains("No space left"), "{full}");
    let dir = BackupDir::open(&path).expect("readable");
    let kept = dir.whole_manifest().expect("whole");
    assert_eq!(kept.shards[0].snapshot, first.shards[0].snapshot);
    verify(&dir, &kept).expect("sound");
    drop(dir);
    // The cluster has nothing to do with it.
    kv.put("meanwhile", "v").await.expect("stored");
    cluster.primary(0).wait_ready().await;
    // Once there is room it goes on.
    let remounted = Command::new("mount")
        .args(["-o", "remount,size=40m"])
        .arg(&path)
        .status();
    assert!(remounted.expect("mount runs").success());
    let second = back_up(&cluster, &path).await.expect("it fits now");
    assert!(second.shards[0].last > first.shards[0].last);
    let dir = BackupDir::open(&path).expect("readable");
    verify(&dir, &second).expect("sound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_does_not_fit_leaves_nothing_behind() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&path, "1m") else {
        eprintln!("skipped: no right to mount a small file system");
        return;
    };
    let cluster = Cluster::start(shards(1)).await;
    fill(&client(&cluster), "k", 40, 100_000).await;
    let full = back_up(&cluster, &path).await.expect_err("it does not fit");
    assert!(full.to_string().contains("No space left"), "{full}");
    let left: Vec<_> = fs::read_dir(path.join("shard-0")).expect("made").collect();
    assert!(left.is_empty(), "{left:?}");
    let dir = BackupDir::open(&path).expect("readable");
    let half = dir.whole_manifest().expect_err("nothing is whole");
    assert!(
        matches!(half, BackupError::Half { shards: 0, .. }),
        "{half}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_goes_on_where_it_was() {
    let temp = tempfile::tempdir().expect("a directory");
    let source = Cluster::start(shards(2)).await;
    fill(&client(&source), "k", 5_000, 100).await;
    let manifest = back_up(&source, temp.path()).await.expect("backed up");
    let mut expected = WholeLog::of(source.primary(0))
        .await
        .at(manifest.shards[0].last);
    expected.extend(
        WholeLog::of(source.primary(1))
            .await
            .at(manifest.shards[1].last),
    );

    let target = Cluster::start(shards(3)).await;
    let kv = client(&target);
    let options = options(temp.path(), Until::End);
    let dir = BackupDir::open(temp.path()).expect("readable");
    let (sender, mut written) = tokio::sync::mpsc::channel(64);
    let report = |report: RestoreReport<'_>| {
        if let RestoreReport::Written { entries, .. } = report {
            let _ = sender.try_send(entries);
        }
    };
    let nodes = nodes();
    tokio::select! {
        biased;
        _ = written.recv() => {}
        done = restore(&kv, &nodes, &dir, &options, &report) => panic!("{done:?}"),
    }
    // To something else it does not go on.
    let mut other = options.clone();
    other.others = Until::Position(manifest.shards[0].last);
    let refused = restore_into(&target, temp.path(), &other).await;
    assert!(refused.is_err(), "{refused:?}");
    let fresh = Cluster::start(shards(3)).await;
    let refused = restore_into(&fresh, temp.path(), &options).await;
    let refused = refused.expect_err("another target");
    assert!(
        matches!(refused, BackupError::OtherRestore { .. }),
        "{refused}"
    );

    let told = Mutex::new(Vec::new());
    let report = |report: RestoreReport<'_>| {
        if let RestoreReport::Resumed { entries } = report {
            told.lock().expect("not poisoned").push(entries);
        }
    };
    let done = restore(&kv, &nodes, &dir, &options, &report)
        .await
        .expect("goes on");
    assert_eq!(
        told.into_inner().expect("not poisoned").len(),
        1,
        "it resumed"
    );
    assert_eq!(done.expired, 0);
    assert_holds(&kv, &expected).await;
    assert!(!options.progress.exists(), "nothing is left to go on with");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_entries_is_refused_unless_allowed() {
    let temp = tempfile::tempdir().expect("a directory");
    let source = Cluster::start(shards(1)).await;
    source.primary(0).put("both", "backup").await;
    source.primary(0).put("only", "backup").await;
    back_up(&source, temp.path()).await.expect("backed up");
    let target = Cluster::start(shards(1)).await;
    let node = target.primary(0);
    node.put("both", "target").await;
    node.put("own", "target").await;
    let mut options = options(temp.path(), Until::End);
    let refused = restore_into(&target, temp.path(), &options).await;
    assert!(matches!(refused, Err(BackupError::NotEmpty)), "{refused:?}");
    assert_eq!(node.get("both").await.as_deref(), Some(&b"target"[..]));
    options.into_non_empty = IntoNonEmpty::Allow;
    let done = restore_into(&target, temp.path(), &options).await;
    assert_eq!(done.expect("allowed").entries, 2);
    for (key, value) in [("both", "backup"), ("only", "backup"), ("own", "target")] {
        assert_eq!(
            node.get(key).await.as_deref(),
            Some(value.as_bytes()),
            "{key}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_meanwhile_is_left_out_and_counted() {
    let temp = tempfile::tempdir().expect("a directory");
    let source = Cluster::start(shards(1)).await;
    let kv = client(&source);
    // Longer than the backup takes on any machine, or the node itself removes it first.
    for (key, seconds) in [("soon", 6), ("later", 3_600)] {
        let options = PutOptions::new().ttl(Duration::from_secs(seconds));
        kv.put_with(key, "v", options).await.expect("stored");
    }
    back_up(&source, temp.path()).await.expect("backed up");
    eventually("its time is over", async || {
        let gone = kv.get("soon").await.expect("an answer").is_none();
        gone.then_some(())
    })
    .await;
    let target = Cluster::start(shards(1)).await;
    let done = restore_into(&target, temp.path(), &options(temp.path(), Until::End)).await;
    let done = done.expect("restored");
    assert_eq!((done.entries, done.expired), (1, 1));
    assert_eq!(target.primary(0).get("soon").await, None);
    let kept = client(&target).get_with("later", GetOptions::new()).await;
    let ttl = kept
        .expect("an answer")
        .expect("there")
        .ttl
        .expect("it expires");
    assert!((3_500..3_600).contains(&ttl.as_secs()), "{ttl:?}");
}

/// The time that an entry still has was reckoned once for a whole window: while the target was away it did not get less.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_lives_no_longer_because_the_target_was_away() {
    let temp = tempfile::tempdir().expect("a directory");
    let source = Cluster::start(shards(1)).await;
    let kv = client(&source);
    // More than are written together, so that the last are still to come when the first are told.
    fill(&kv, "a", 1_500, 10).await;
    for (key, seconds) in [("y-over", 10), ("z-later", 3_600)] {
        let options = PutOptions::new().ttl(Duration::from_secs(seconds));
        kv.put_with(key, "v", options).await.expect("stored");
    }
    back_up(&source, temp.path()).await.expect("backed up");
    let target = Cluster::start(shards(1)).await;
    let (node, onto) = (target.primary(0), client(&target));
    let killed = Once::new();
    let (sender, mut written) = tokio::sync::mpsc::channel(64);
    let report = |report: RestoreReport<'_>| {
        if let RestoreReport::Written { .. } = report {
            // At once: the next window is not sent yet.
            killed.call_once(|| node.kill());
            sender.try_send(()).expect("room");
        }
    };
    let (dir, options) = (
        BackupDir::open(temp.path()).expect("readable"),
        options(temp.path(), Until::End),
    );
    let nodes = nodes();
    let away = async {
        written.recv().await;
        tokio::time::sleep(Duration::from_secs(11)).await;
        node.start().await;
        written.recv().await;
    };
    let restoring = restore(&onto, &nodes, &dir, &options, &report);
    let (done, ()) = tokio::join!(restoring, away);
    let done = done.expect("restored when the target was back");
    assert_eq!((done.entries, done.expired), (1_501, 1));
    assert_eq!(node.get("y-over").await, None);
    let left = async |kv: &Client| {
        let entry = kv.get_with("z-later", GetOptions::new()).await;
        let entry = entry.expect("an answer");
        entry.expect("there").ttl.expect("it expires")
    };
    let (there, here) = (left(&kv).await, left(&onto).await);
    assert!(here < there + Duration::from_secs(5), "{here:?} {there:?}");
}

/// A quiet shard's primary told a time, and after a restart with the clock set back it tells an earlier one. The backup said on
/// that it was complete up to the first, and lacked what was written before that time came again.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_takes_the_word_back() {
    let temp = tempfile::tempdir().expect("a directory");
    let source = Cluster::start(shards(1)).await;
    source.primary(0).put("k", "v").await;
    let before = back_up(&source, temp.path()).await.expect("backed up");
    // As it was entered while the clock was an hour ahead.
    let ahead_ms = before.shards[0].complete_until_ms + 3_600_000;
    let dir = BackupDir::create(temp.path()).expect("opened");
    let mut manifest = before.clone();
    manifest.shards[0].complete_until_ms = ahead_ms;
    dir.put_manifest(&manifest).expect("written");
    drop(dir);
    for write in [None, Some("w")] {
        if let Some(value) = write {
            source.primary(0).put("k", value).await;
        }
        let after = back_up(&source, temp.path()).await.expect("backed up");
        let until_ms = after.shards[0].complete_until_ms;
        let since = before.shards[0].complete_until_ms;
        assert!((since..since + 600_000).contains(&until_ms), "{until_ms}");
    }
    let target = Cluster::start(shards(1)).await;
    let too_late = options(temp.path(), Until::TimeMs(ahead_ms));
    let refused = restore_into(&target, temp.path(), &too_late).await;
    let refused = refused.expect_err("nobody knows what comes until then");
    assert!(refused.to_string().contains("complete up to"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_from_a_damaged_backup() {
    let temp = tempfile::tempdir().expect("a directory");
    let source = Cluster::start(shards(1)).await;
    fill(&client(&source), "k", 300, 100).await;
    let manifest = back_up(&source, temp.path()).await.expect("backed up");
    let path = temp
        .path()
        .join("shard-0")
        .join(&manifest.shards[0].snapshot.name);
    let mut bytes = fs::read(&path).expect("a snapshot");
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("written");
    let target = Cluster::start(shards(1)).await;
    let refused = restore_into(&target, temp.path(), &options(temp.path(), Until::End)).await;
    let refused = refused.expect_err("damaged");
    assert!(refused.to_string().contains("snapshot-"), "{refused}");
    assert!(matches!(refused, BackupError::Damaged { .. }), "{refused}");
    assert_holds(&client(&target), &crate::model::Model::new()).await;
}
