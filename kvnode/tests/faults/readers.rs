//! A8 and A9: readers that hold on, and hundreds at once. LMDB's file stays as large as the data, and nobody is
//! turned away.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kvclient::{
    key::Key,
    wire::batch::{Action, Op},
};
use tokio::task::JoinSet;

use super::ledger::{metric, ready_or_ended};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    http::{Ask, Raw, head},
    millis,
    report::{self, Row},
};

const VALUE_BYTES: usize = 1_000;

/// Entries, and how often all of them are overwritten.
fn amount() -> (usize, usize) {
    match bar() {
        true => (32_000, 10),
        false => (3_000, 10),
    }
}

/// Writes every entry anew.
async fn overwrite(node: &Node, entries: usize, round: usize) {
    let keys: Vec<usize> = (0..entries).collect();
    for page in keys.chunks(500) {
        let put = |nth: &usize| {
            let value = vec![b'a' + u8::try_from(round % 26).expect("small"); VALUE_BYTES];
            let key = Key::new(format!("key{nth:06}")).expect("a key");
            let action = Action::Put {
                value: value.into(),
                ttl_ms: None,
            };
            Op::new(key, action)
        };
        let ops: Vec<Op> = page.iter().map(put).collect();
        let results = node.batch(&ops).await;
        assert!(
            results.iter().all(|result| result.status == 204),
            "{results:?}"
        );
    }
}

/// What overwriting everything did to LMDB's file.
struct Growth {
    before: f64,
    after: f64,
    /// Age of the oldest lasting read at the end, in s.
    oldest: f64,
}

impl Growth {
    async fn of(node: &Node) -> Self {
        let (entries, times) = amount();
        for round in 0..2 {
            overwrite(node, entries, round).await;
        }
        let stalled = stall(node);
        let before = metric(node, "kv_lmdb_used_bytes").await;
        for round in 0..times {
            overwrite(node, entries, round).await;
        }
        let after = metric(node, "kv_lmdb_used_bytes").await;
        let oldest = metric(node, "kv_lmdb_oldest_reader_seconds").await;
        drop(stalled);
        Self {
            before,
            after,
            oldest,
        }
    }

    fn factor(&self) -> f64 {
        self.after / self.before
    }
}

/// Clients that have asked for much and take nothing.
fn stall(node: &Node) -> Vec<Raw> {
    let uris = [
        "/snapshot",
        "/kv?limit=10000",
        "/watch?after=1",
        "/log?after=1",
    ];
    let ask = |uri| {
        let mut connection = Raw::connect(&node.address);
        connection.write(head("GET", uri, &[]));
        connection
    };
    uris.into_iter().map(ask).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_clients_that_take_nothing_do_not_make_the_file_grow() {
    let mut row = Row::begin("A8");
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let growth = Growth::of(node).await;
    assert!(
        growth.factor() < 2.0,
        "{} -> {}",
        growth.before,
        growth.after
    );
    assert!(growth.oldest < 1.0, "{}", growth.oldest);
    let (entries, times) = amount();
    row.rounds = times;
    row.figures = format!(
        "{entries} entries of {VALUE_BYTES} bytes overwritten {times} times while a snapshot, a scan, a watch and a pull \
         took nothing: LMDB's file grew {:.2}-fold, kv_lmdb_oldest_reader_seconds {}",
        growth.factor(),
        growth.oldest
    );
    row.save();
}

/// A read that lasts keeps all pages that were there when it began; the metric says how old it is.
#[tokio::test(flavor = "multi_thread")]
async fn a8_control_a_read_that_lasts_makes_the_file_grow() {
    let cluster = Cluster::start(Shape {
        faults: "off=short_reads",
        ..Shape::default()
    })
    .await;
    let growth = Growth::of(cluster.primary(0)).await;
    assert!(
        growth.factor() >= 2.0,
        "{} -> {}",
        growth.before,
        growth.after
    );
    assert!(growth.oldest > 0.0);
    let found = format!(
        "LMDB's file grew {:.1}-fold; kv_lmdb_oldest_reader_seconds said {:.1}",
        growth.factor(),
        growth.oldest
    );
    report::save_control("A8", "reads of LMDB are short", &found);
}

/// Answers by status, and the slowest.
#[derive(Default)]
struct Tally {
    statuses: BTreeMap<u16, usize>,
    broken: usize,
    slowest: Duration,
}

/// So many readers at once, each reading so often: points and scans.
async fn read_at_once(cluster: &Arc<Cluster>, readers: usize, times: usize) -> Tally {
    let mut tasks = JoinSet::new();
    for reader in 0..readers {
        let cluster = Arc::clone(cluster);
        tasks.spawn(async move {
            let mut tally = Tally::default();
            for nth in 0..times {
                let number = (reader * 7 + nth) % 3_000;
                let uri = match (reader + nth) % 10 {
                    0 => format!("/kv?start=key{number:06}&limit=20"),
                    _ => format!("/kv/key{number:06}"),
                };
                let asked = Instant::now();
                match cluster.primary(0).try_send(Ask::new("GET", uri)).await {
                    Ok(answer) => *tally.statuses.entry(answer.status).or_default() += 1,
                    Err(_) => tally.broken += 1,
                }
                tally.slowest = tally.slowest.max(asked.elapsed());
            }
            tally
        });
    }
    let mut all = Tally::default();
    while let Some(one) = tasks.join_next().await {
        let one = one.expect("a reader does not panic");
        all.broken += one.broken;
        all.slowest = all.slowest.max(one.slowest);
        for (status, count) in one.statuses {
            *all.statuses.entry(status).or_default() += count;
        }
    }
    all
}

const READERS: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn a9_six_hundred_reads_at_once_are_all_answered() {
    let mut row = Row::begin("A9");
    let cluster = Arc::new(Cluster::start(Shape::default()).await);
    overwrite(cluster.primary(0), 3_000, 0).await;
    row.rounds = if bar() { 30 } else { 3 };
    let tally = read_at_once(&cluster, READERS, row.rounds).await;
    let only = |status: &u16| matches!(status, 200 | 404 | 503);
    assert!(tally.statuses.keys().all(only), "{:?}", tally.statuses);
    assert_eq!(tally.broken, 0);
    let refused = tally.statuses.get(&503).copied().unwrap_or(0);
    assert_eq!(refused, 0, "there is a slot for each");
    row.figures = format!(
        "{} reads by {READERS} readers at once, all answered: 0 times 5xx, 0 without a reader slot; the slowest took \
         {} ms",
        READERS * row.rounds,
        millis(tally.slowest)
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_control_reads_without_slots_are_refused() {
    let cluster = Cluster::prepare(Shape {
        faults: "off=reader_slots",
        ..Shape::default()
    });
    cluster.primary(0).spawn(&[]);
    assert_eq!(ready_or_ended(cluster.primary(0)).await, None);
    let cluster = Arc::new(cluster);
    overwrite(cluster.primary(0), 3_000, 0).await;
    let mut refused = 0;
    for _ in 0..20 {
        let tally = read_at_once(&cluster, READERS, 5).await;
        refused += tally.statuses.get(&503).copied().unwrap_or(0);
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "no read was refused");
    let found = format!("one slot for all: {refused} reads answered with 503");
    report::save_control("A9", "LMDB has a slot for each read", &found);
}
