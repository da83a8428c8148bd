//! F1: a mixed load for a long time, with a fault every few seconds. Afterwards every acknowledged write is there, the
//! replicas are what their primaries are, no session ever went back, and no process has grown.
//!
//! The load works through `kvclient`; what it was told is kept outside the nodes (`registers.rs`, `numbers.rs`,
//! `counters.rs`, `drafts.rs`) and compared in the end. The full form takes half an hour; `KV_ENDURANCE_SECONDS` sets
//! another length.

mod arena;
mod counters;
mod disks;
mod drafts;
mod flat;
mod load;
mod numbers;
mod register;
mod registers;
mod resources;
mod strikes;
mod watch;

use std::{collections::BTreeMap, time::Duration};

use arena::{Arena, REPLICAS, SHARDS};
use load::{Ledger, Load};
use resources::Samples;
use strikes::{Pace, Strikes};
use watch::Watch;

use crate::support::{
    bar,
    cluster::equal_logs,
    eventually,
    http::Ask,
    oracle::Verdict,
    report::{self, Row},
    seeded,
};

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_long_run_of_faults_loses_nothing_and_leaks_nothing() {
    let mut row = Row::begin("F1");
    let pace = pace();
    let mut rng = seeded();
    let arena = Arena::start("").await;
    let load = Load::start(&arena, &mut rng);
    let (strikes, samples) = endure(&arena, &load.watch, &mut rng, pace).await;
    let client = load.client.stats();
    let ledger = load.stop().await;
    row.writes = ledger.judge(&arena).await;
    arena.wait_level().await;
    let compared = compare_replicas(&arena).await;

    row.rounds = strikes.values().sum();
    row.longest_gap_ms = ledger.watch.longest_gaps_ms().into_iter().max();
    row.figures = format!(
        "{}; {compared}; {}; {} retries, {} hedges; {}",
        figures(&ledger, &strikes),
        flat::figures(&samples, pace),
        client.retries,
        client.hedges,
        arena.disks.as_ref().err().map_or_else(
            || format!("{} writes refused by full disks", ledger.watch.full()),
            |why| format!("no disk was filled ({why})")
        ),
    );
    eprintln!("bar F1: {}", row.figures);
    let (count, violations) = ledger.watch.violations();
    assert_eq!(count, 0, "{violations:#?}");
    row.writes.assert_whole("after all faults");
    flat::check(&samples, pace);
    row.save();
}

/// The same load and ledger, with a primary that answers before it has written, and dies.
#[tokio::test(flavor = "multi_thread")]
async fn f1_control_answers_before_the_write_are_missed() {
    let mut rng = seeded();
    // What was answered too early may have been an entry that nobody looks for afterwards; but not each time.
    for deaths in 1..=5 {
        let (verdict, violations) = die_with_early_answers(&mut rng).await;
        if verdict.lost + verdict.duplicated > 0 {
            let found = format!(
                "{} acknowledged writes lost, {} done twice, {violations} contradictions in all, by death {deaths}",
                verdict.lost, verdict.duplicated
            );
            report::save_control("F1", "answers wait for the sync", &found);
            return;
        }
    }
    panic!("nothing was missed");
}

/// What was missed after one death, and how many contradictions were told.
async fn die_with_early_answers(rng: &mut fastrand::Rng) -> (Verdict, usize) {
    let arena = Arena::start("off=answer_after_sync,crash=log.before_write:200").await;
    let primary = arena.cluster.primary(0);
    let load = Load::start(&arena, rng);
    assert_ne!(primary.ended().await, 0);
    load.watch.stop();
    primary.set_faults("");
    primary.start().await;
    let ledger = load.stop().await;
    let verdict = ledger.judge(&arena).await;
    (verdict, ledger.watch.violations().0)
}

fn pace() -> Pace {
    let given = std::env::var("KV_ENDURANCE_SECONDS").ok();
    let given = given.map(|text| text.parse().expect("KV_ENDURANCE_SECONDS is a number"));
    let length = Duration::from_secs(given.unwrap_or(if bar() { 1_800 } else { 20 }));
    Pace {
        length,
        every: Duration::from_secs(if length < Duration::from_secs(120) {
            2
        } else {
            10
        }),
        spared_from: length / 3,
    }
}

/// Strikes for as long as the pace says, and looks at all processes meanwhile and once all is whole.
async fn endure(
    arena: &Arena,
    watch: &Watch,
    rng: &mut fastrand::Rng,
    pace: Pace,
) -> (BTreeMap<String, usize>, Samples) {
    let mut samples = Samples::new();
    let strikes = Strikes::new(arena, watch, rng, pace).go_on();
    tokio::pin!(strikes);
    let mut ticks = tokio::time::interval(pace.every / 2);
    loop {
        tokio::select! {
            told = &mut strikes => {
                samples.take(arena.cluster.nodes());
                return (told, samples);
            }
            _ = ticks.tick() => samples.take(arena.cluster.nodes()),
        }
    }
}

/// Checks that every replica has what its primary has: the same bytes of log and the same entries. How much that was.
async fn compare_replicas(arena: &Arena) -> String {
    let (mut log_bytes, mut entries) = (0, 0);
    for shard in 0..SHARDS {
        let primary = arena.cluster.primary(shard);
        for replica in 0..REPLICAS {
            let replica = arena.cluster.replica(shard, replica);
            log_bytes += equal_logs(primary, replica).await;
            // What expires meanwhile may be gone from one of them already.
            entries += eventually("primary and replica show the same entries", async || {
                let (mine, theirs) = (entries_of(primary).await, entries_of(replica).await);
                (mine == theirs).then_some(mine.len())
            })
            .await;
        }
    }
    format!(
        "6 replicas equal to their primaries: {} MiB of log byte for byte, {entries} entries",
        log_bytes >> 20
    )
}

/// All entries of a node, a line each: key, value, position.
async fn entries_of(node: &crate::support::cluster::Node) -> Vec<String> {
    let answer = node.send(Ask::new("GET", "/kv?limit=100000")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let mut lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let end = lines.pop().expect("an end");
    assert_eq!(end["done"], true, "{end}");
    let what_stays = |mut line: serde_json::Value| {
        // It counts down.
        line.as_object_mut().expect("an entry").remove("ttl_ms");
        line.to_string()
    };
    lines.into_iter().map(what_stays).collect()
}

fn figures(ledger: &Ledger, strikes: &BTreeMap<String, usize>) -> String {
    let watch = &ledger.watch;
    let available = watch.available();
    let strikes: Vec<String> = strikes
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let [there, gone] = ledger.draft_reads();
    format!(
        "{} ops, {}.{:03} % went well within 5 s; longest write gap of each shard {:?} ms; {} counter steps exact; {} \
         reads in sessions, none went back; {there} reads of living and {gone} of expired entries; faults: {}",
        watch.ops(),
        available / 1_000,
        available % 1_000,
        watch.longest_gaps_ms(),
        ledger.counters.steps(),
        ledger.session_reads(),
        strikes.join(", ")
    )
}
