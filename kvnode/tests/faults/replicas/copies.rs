//! B2 and B3: a replica that was away for longer than the log is kept takes a snapshot by itself; one that is
//! interrupted leaves what was there before, whole.

use std::time::Instant;

use kvclient::position::Position;

use super::{FORGETFUL, assert_equal, level, said, write, write_beyond_retention};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    eventually,
    http::Ask,
    link::Way,
    millis,
    report::{self, Row},
};

/// What a primary's log may take under [`FORGETFUL`]: what is kept, and segments that are full, begun and spare.
const LOG_BOUND_BYTES: u64 = (1 << 20) + 4 * (4_100 << 10);

#[tokio::test(flavor = "multi_thread")]
async fn b2_a_replica_that_was_away_too_long_copies_by_itself() {
    let mut row = Row::begin("B2");
    let rounds = if bar() { 60 } else { 8 };
    let away = away(FORGETFUL, rounds).await;
    assert!(
        away.largest_log_bytes <= LOG_BOUND_BYTES,
        "{}",
        away.largest_log_bytes
    );
    let (primary, replica) = (away.cluster.primary(0), away.cluster.replica(0, 0));
    let began = Instant::now();
    replica.start().await;
    said(replica, "snapshot is in force", 1).await;
    let took = began.elapsed();
    let keys = assert_equal(primary, replica).await;
    row.rounds = 1;
    row.writes.acked = away.written;
    row.figures = format!(
        "{} MB written meanwhile, the primary's log took {} MB at most; {keys} keys copied {} ms after the replica \
         was started",
        away.bytes >> 20,
        away.largest_log_bytes >> 20,
        millis(took)
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_control_without_a_cap_the_log_grows() {
    let away = away(&["--log-retention", "1GiB"], 8).await;
    assert!(
        away.largest_log_bytes > LOG_BOUND_BYTES,
        "{}",
        away.largest_log_bytes
    );
    let found = format!(
        "the primary's log took {} MB, beyond {} MB",
        away.largest_log_bytes >> 20,
        LOG_BOUND_BYTES >> 20
    );
    report::save_control("B2", "a small cap of the log", &found);
}

struct Away {
    cluster: Cluster,
    written: usize,
    bytes: usize,
    largest_log_bytes: u64,
}

/// A pair whose replica is down while so many rounds of 3 MB are written.
async fn away(flags: &'static [&'static str], rounds: usize) -> Away {
    let cluster = Cluster::start(Shape {
        flags,
        ..Shape::pair()
    })
    .await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let written = write(primary, "small", if bar() { 100_000 } else { 1_000 })
        .await
        .len();
    acknowledged(primary, replica).await;
    replica.kill();
    let ops = super::puts("bulk", 50, 60_000);
    let mut largest_log_bytes = 0;
    for _ in 0..rounds {
        for part in ops.chunks(25) {
            assert!(
                primary
                    .batch(part)
                    .await
                    .iter()
                    .all(|result| result.status == 204)
            );
            let bytes = primary.status().await["log_bytes"].as_u64().expect("bytes");
            largest_log_bytes = largest_log_bytes.max(bytes);
        }
    }
    Away {
        cluster,
        written: written + rounds * ops.len(),
        bytes: rounds * ops.len() * 60_000,
        largest_log_bytes,
    }
}

/// Waits until the primary has heard that its replica has everything: for one that has just copied it keeps log beyond
/// the retention, a minute long.
async fn acknowledged(primary: &Node, replica: &Node) {
    let end = level(primary, replica).await.to_string();
    eventually("the primary hears that its replica is level", async || {
        let status = primary.status().await;
        (status["replicas"][0]["durable"] == end).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_an_interrupted_snapshot_leaves_what_was_there() {
    let mut row = Row::begin("B3");
    let strikes = if bar() { 20 } else { 6 };
    let mut probes = Probes::default();
    for holds in [Holds::OldData, Holds::Nothing] {
        let mut copying = Copying::begin(holds, "").await;
        let mut struck = 0;
        while struck < strikes {
            copying.strike(struck).await;
            match copying.is_done().await {
                true => copying = Copying::begin(holds, "").await,
                false => struck += 1,
            }
            probes.probe(copying.replica()).await;
        }
        copying.cluster.link(0, 0).heal();
        copying.cluster.start_all().await;
        assert_equal(copying.primary(), copying.replica()).await;
        probes.probe(copying.replica()).await;
        assert!(probes.whole > 0);
    }
    assert_eq!(probes.partial, 0);
    row.rounds = 2 * strikes;
    row.figures = format!(
        "interrupted at 10, 50 and 90 % by a reset and by kill -9 of replica and primary: {} reads showed the old \
         state, {} the new one, {} were refused, {} a part of it",
        probes.old, probes.whole, probes.refused, probes.partial
    );
    row.save();
}

/// A copy that is put in force before its end answers with a part.
#[tokio::test(flavor = "multi_thread")]
async fn b3_control_a_copy_in_force_before_its_end_shows_a_part() {
    let copying = Copying::begin(Holds::OldData, "off=whole_copy").await;
    let mut probes = Probes::default();
    let bytes = copying.bytes * 2 / 3;
    copying.cluster.link(0, 0).drop_after(bytes);
    copying.replica().start().await;
    said(copying.replica(), "snapshot is in force", 1).await;
    probes.probe(copying.replica()).await;
    assert!(probes.partial > 0, "{probes:?}");
    let found = format!("{} of 50 keys shown as if there were no more", probes.shown);
    report::save_control("B3", "a snapshot is in force at its end only", &found);
}

/// What a replica has when its snapshot begins.
#[derive(Debug, Clone, Copy)]
enum Holds {
    OldData,
    Nothing,
}

/// A linked pair whose replica, which does not run, needs a snapshot.
struct Copying {
    cluster: Cluster,
    /// Of a snapshot.
    bytes: usize,
    /// All that the replica has before it.
    old: Position,
}

impl Copying {
    async fn begin(holds: Holds, faults: &str) -> Self {
        let cluster = Cluster::prepare(Shape {
            linked: true,
            flags: FORGETFUL,
            ..Shape::pair()
        });
        let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
        replica.set_faults(faults);
        primary.start().await;
        primary.put("old", "v").await;
        let old = primary.at("durable").await;
        if matches!(holds, Holds::OldData) {
            replica.start().await;
            replica.wait_visible(old, "the replica has the entry").await;
            replica.kill();
        }
        write_beyond_retention(primary, old.seq).await;
        let bytes = primary.ask("GET", "/snapshot").await.body.len();
        Self {
            cluster,
            bytes,
            old,
        }
    }

    fn primary(&self) -> &Node {
        self.cluster.primary(0)
    }

    fn replica(&self) -> &Node {
        self.cluster.replica(0, 0)
    }

    /// Whether the copy came to its end all the same.
    async fn is_done(&self) -> bool {
        let status = self.replica().try_send(Ask::new("GET", "/status")).await;
        let visible = status.ok().and_then(|answer| {
            let json = answer.json();
            json["visible"].as_str()?.parse::<Position>().ok()
        });
        visible.is_some_and(|visible| visible > self.old)
    }

    /// Interrupts one snapshot, unless it is done before, each time elsewhere and by other means.
    async fn strike(&self, number: usize) {
        let link = self.cluster.link(0, 0);
        let at = self.bytes * [10, 50, 90][number % 3] / 100;
        if !self.replica().is_running() {
            self.replica().spawn(&[]);
        }
        // A new one, and so slow that the strike comes before its end.
        link.limit(Way::ToAsker, self.bytes * 2);
        if (number / 3).is_multiple_of(2) {
            let breaks = link.breaks();
            link.reset_after(Way::ToAsker, at);
            eventually("the snapshot is reset", async || {
                (link.breaks() > breaks || self.is_done().await).then_some(())
            })
            .await;
            return;
        }
        let from = link.passed();
        eventually("the snapshot is on its way", async || {
            (link.passed() >= from + at || self.is_done().await).then_some(())
        })
        .await;
        match number % 2 {
            0 => self.replica().kill(),
            _ => {
                self.primary().kill();
                // What it had sent is lost with its machine.
                link.reset_all();
                self.primary().start().await;
            }
        }
    }
}

/// What readers of the replica saw.
#[derive(Debug, Default)]
struct Probes {
    old: usize,
    whole: usize,
    refused: usize,
    partial: usize,
    /// Keys in the last answer.
    shown: usize,
}

impl Probes {
    /// One scan, which sees one state.
    async fn probe(&mut self, replica: &Node) {
        let scan = Ask::new("GET", "/kv?prefix=bulk&keys_only&limit=1000");
        let counter = match replica.try_send(scan).await {
            Ok(answer) if answer.status == 200 => {
                self.shown = answer.text().matches("\"bulk").count();
                match self.shown {
                    0 => &mut self.old,
                    50 => &mut self.whole,
                    _ => &mut self.partial,
                }
            }
            _ => &mut self.refused,
        };
        *counter += 1;
    }
}
