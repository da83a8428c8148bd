//! A6 and A7: no room, on the disk or in LMDB's map. Writes are refused, reads go on, and once there is room all goes on
//! by itself.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::ledger::{Ledger, metric, ready_or_ended, restart};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    eventually,
    http::{Answer, Ask},
    millis,
    report::{self, Row},
    writers::{Load, Writers},
};

/// A file system in memory that a test can fill; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; `None` without the right to.
    fn mount(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).expect("a directory");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        let mounted = command.arg(path).stderr(Stdio::null()).status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(path.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file");
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).expect("there is ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Keys that are new each time, so that the data grows.
fn load(run: usize) -> Load {
    Load {
        writers: 4,
        batch: 4,
        keys: 4_000,
        value_bytes: 1_500,
        run,
    }
}

/// A small write of a key of its own.
async fn probe(node: &Node) -> Option<Answer> {
    let ask = Ask::new("PUT", "/kv/probe").body("probe");
    node.try_send(ask).await.ok()
}

async fn wait_refused(node: &Node) {
    let refusal = eventually("writes are refused for want of room", async || {
        assert!(node.is_running(), "{}", node.said());
        probe(node).await.filter(|answer| answer.status == 507)
    })
    .await;
    assert_eq!(refusal.header("kv-applied"), Some("no"), "{refusal:?}");
}

/// How long it takes until a write is taken.
async fn wait_taken(node: &Node) -> Duration {
    let began = Instant::now();
    eventually("writes are taken again", async || {
        probe(node).await.filter(|answer| answer.status == 204)
    })
    .await;
    began.elapsed()
}

async fn reads_go_on(node: &Node) {
    assert_eq!(node.get("known").await.as_deref(), Some(&b"value"[..]));
    assert_eq!(node.ask("GET", "/kv?limit=10").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_full_disk_refuses_writes_until_there_is_room() {
    let mut row = Row::begin("A6");
    let cluster = Cluster::prepare(Shape {
        flags: &["--log-retention", "1MiB"],
        ..Shape::default()
    });
    let node = cluster.primary(0);
    let Some(disk) = SmallDisk::mount(&node.data, "64m") else {
        return report::save_skipped("A6", "no right to mount a tmpfs");
    };
    node.start().await;
    node.put("known", "value").await;
    let mut ledger = Ledger::default();
    let (mut resumed, mut refused, mut deleted) = (Vec::new(), 0, 0);
    row.rounds = if bar() { 6 } else { 3 };
    for round in 0..row.rounds {
        let writers = Writers::start(&cluster, load(round));
        writers.wait_acked(100).await;
        disk.fill();
        wait_refused(node).await;
        for nth in 0..20 {
            let answer = node.ask("DELETE", &format!("/kv/absent{nth}")).await;
            assert!(matches!(answer.status, 204 | 404 | 507), "{answer:?}");
            refused += usize::from(answer.status == 507);
            deleted += usize::from(answer.status != 507);
        }
        reads_go_on(node).await;
        // Each other time it also starts on the full disk.
        if round % 2 == 1 {
            node.kill();
            node.spawn(&[]);
            eventually("a start on a full disk serves reads", async || {
                assert!(node.is_running(), "{}", node.said());
                let answer = node.try_send(Ask::new("GET", "/kv/known")).await.ok()?;
                (answer.status == 200).then_some(())
            })
            .await;
        }
        disk.free();
        resumed.push(wait_taken(node).await);
        let before = writers.acked();
        writers.wait_acked(before + 100).await;
        node.kill();
        ledger.close(writers).await;
        restart(node).await;
        ledger.judge(node).await;
    }
    ledger.writes.assert_whole("after a full disk");
    let slowest = resumed.iter().max().copied().unwrap_or_default();
    assert!(slowest < Duration::from_secs(10), "{resumed:?}");
    row.writes = ledger.writes;
    row.longest_gap_ms = Some(ledger.longest_gap_ms);
    row.figures = format!(
        "507 with Kv-Applied: no each time, {} starts on the full disk; of {} deletes meanwhile {deleted} went \
         through, {refused} were refused; writes taken again {} ms after room was made, at most",
        row.rounds / 2,
        deleted + refused,
        millis(slowest)
    );
    row.save();
}

/// Without room set aside, a full disk shows only when the log is written: too late to refuse.
#[tokio::test(flavor = "multi_thread")]
async fn a6_control_a_log_without_room_set_aside_ends_the_node() {
    let cluster = Cluster::prepare(Shape {
        faults: "off=reservation",
        ..Shape::default()
    });
    let node = cluster.primary(0);
    let Some(disk) = SmallDisk::mount(&node.data, "64m") else {
        return report::save_skipped("A6", "no right to mount a tmpfs");
    };
    node.start().await;
    let mut ledger = Ledger::default();
    let writers = Writers::start(&cluster, load(0));
    writers.wait_acked(100).await;
    let mut fills = 0;
    // Where LMDB finds the disk full before the log does, writes are refused all the same.
    let code = loop {
        disk.fill();
        fills += 1;
        let refused = eventually("writes are refused or the node ends", async || {
            if !node.is_running() {
                return Some(false);
            }
            let answer = probe(node).await?;
            (answer.status == 507).then_some(true)
        })
        .await;
        disk.free();
        match refused {
            true => wait_taken(node).await,
            false => break node.ended().await,
        };
    };
    ledger.close(writers).await;
    assert_eq!(code, 5, "{}", node.said());
    restart(node).await;
    ledger.judge(node).await;
    let found = format!(
        "the {fills}. full disk ended the node with code 5 instead of a refusal: {} writes of unknown outcome",
        ledger.writes.unknown
    );
    report::save_control("A6", "room for the log is set aside", &found);
}

/// LMDB's file may grow to this: a few hundred entries.
const SMALL_MAP: &[&str] = &["--map-size", "2MiB"];

#[tokio::test(flavor = "multi_thread")]
async fn a7_a_full_map_refuses_writes_until_it_is_made_larger() {
    let mut row = Row::begin("A7");
    let mut ledger = Ledger::default();
    let (mut pauses, mut slowest, mut largest) = (Vec::new(), Duration::ZERO, 0.0_f64);
    row.rounds = if bar() { 10 } else { 1 };
    for round in 0..row.rounds {
        let cluster = Cluster::prepare(Shape::default());
        let node = cluster.primary(0);
        node.spawn(SMALL_MAP);
        node.wait_ready().await;
        node.put("known", "value").await;
        let mut this = Ledger::default();
        let writers = Writers::start(&cluster, load(round));
        wait_refused(node).await;
        for _ in 0..20 {
            let asked = Instant::now();
            let answer = probe(node).await.expect("an answer");
            assert_eq!(answer.status, 507, "{answer:?}");
            slowest = slowest.max(asked.elapsed());
        }
        largest = largest.max(metric(node, "kv_memtable_bytes").await);
        reads_go_on(node).await;
        this.close(writers).await;
        // The same map again: all that was acknowledged is there, and nothing more is taken.
        node.kill();
        node.spawn(SMALL_MAP);
        eventually("a start on a full map serves reads", async || {
            assert!(node.is_running(), "{}", node.said());
            let answer = node.try_send(Ask::new("GET", "/kv/known")).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        this.judge(node).await;
        node.kill();
        let began = Instant::now();
        node.spawn(&["--map-size", "64MiB"]);
        wait_taken(node).await;
        pauses.push(began.elapsed());
        this.judge(node).await;
        ledger.writes.add(this.writes);
    }
    ledger.writes.assert_whole("after a full map");
    assert!(largest < LARGE_MEMTABLE, "{largest}");
    row.writes = ledger.writes;
    row.figures = format!(
        "507 with Kv-Applied: no, {} ms at most for each of {} refusals; memtables of {} kB at most; {} ms from the \
         start with a larger --map-size to the first write, at most",
        millis(slowest),
        20 * row.rounds,
        (largest / 1e3).round(),
        millis(pauses.iter().max().copied().unwrap_or_default())
    );
    row.save();
}

/// Two memtables of 64 KiB and the groups that were under way stay far below it.
const LARGE_MEMTABLE: f64 = 2e6;

/// Taking writes that LMDB has no room for costs memory without bound.
#[tokio::test(flavor = "multi_thread")]
async fn a7_control_writes_taken_without_room_pile_up_in_memory() {
    let cluster = Cluster::prepare(Shape {
        faults: "off=refuse_when_full",
        ..Shape::default()
    });
    let node = cluster.primary(0);
    node.spawn(SMALL_MAP);
    assert_eq!(ready_or_ended(node).await, None, "{}", node.said());
    let mut ledger = Ledger::default();
    let writers = Writers::start(&cluster, load(0));
    let bytes = eventually("memory is used up without bound", async || {
        let bytes = metric(node, "kv_memtable_bytes").await;
        (bytes > LARGE_MEMTABLE).then_some(bytes)
    })
    .await;
    ledger.close(writers).await;
    let found = format!(
        "no refusal: memtables grew to {} kB, of 128 kB that they may have, and went on",
        (bytes / 1e3).round()
    );
    report::save_control("A7", "what has no room in LMDB is refused", &found);
}
