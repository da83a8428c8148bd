//! 1,010 watchers while others write: all of them must be told everything, and the primaries must hardly feel it.
//!
//! 1,000 watchers have a prefix each, one for every hundred keys, and 10 watch everything, so each write is told 11
//! times. Two loads, each with the watchers and without, by turns: 10,000 writes a second, and writes as fast as 256
//! tasks can make them. Watchers and writers are kvclient's, but at most speed the watchers are bare streams
//! (`draining.rs`).
//!
//! **What is judged.** Throughput: of the writes a second that 256 tasks can make in a closed loop without watchers, the
//! share that they still make with them. Nodes, writers and watchers are on the same processors, so the watchers' own
//! reading of up to two million events a second counts against it, as little as bare streams make of it. Beside it is
//! shown what a write costs the nodes in processor time, with watchers and without, at most speed and at 10,000 writes a
//! second. Nodes are mostly idle then, so an event leaves alone and at once.
//!
//! Every event is counted: one that is missing, comes twice or to the wrong watcher fails the row.

use std::slice::from_ref;

use anyhow::Context;
use futures_util::{FutureExt, future::BoxFuture};
use kvclient::position::Position;
use tokio::time::Instant;

use super::{
    draining::Drains,
    outcome,
    paced::{Call, Pace, writes},
    sized,
    watching::{KEYS_A_PREFIX, Tally, Watchers},
};
use crate::{
    bench::Bench,
    cluster::{Cluster, Shape},
    load::{Load, Times, Work},
    outcome::{Figure, Line, Outcome, short},
    process::cpu_seconds,
};

/// Share of the writes per second that must be left.
const LEFT_GOAL: f64 = 0.7;

const WRITES_PER_SECOND: usize = 10_000;

/// Tasks that write as fast as they can.
const TASKS: usize = 256;

pub(in super::super) fn run(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench).boxed()
}

/// Figures of one side, one for each round.
#[derive(Debug, Default)]
struct Side {
    per_second: Vec<f64>,
    busy_us: Vec<f64>,
    paced_us: Vec<f64>,
}

/// Nodes under load, and how many keys are written to.
struct Nodes {
    cluster: Cluster,
    prefixes: usize,
}

async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    let nodes = Nodes {
        cluster: Cluster::start(bench, Shape::primaries(3)).await?,
        prefixes: sized(bench, 1_000, 50),
    };
    let (mut with, mut without) = (Side::default(), Side::default());
    let mut lags = Vec::new();
    for _ in 0..bench.rounds.min(3) {
        lags.push(nodes.paced_with_watchers(bench, &mut with).await?);
        nodes.busy_with_watchers(bench, &mut with).await?;
        nodes.paced(bench, &mut without).await?;
        nodes.busy(bench, &mut without).await?;
    }
    Ok(judged(with, without, &mut lags))
}

fn judged(with: Side, without: Side, lags: &mut [Times]) -> Outcome {
    let (mut with, without) = (with.line("with watchers"), without.line("without"));
    let of = |line: &Line, what| line.median(what).unwrap_or(f64::NAN);
    let left = of(&with, RATE) / of(&without, RATE);
    let costs = (of(&with, BUSY), of(&without, BUSY));
    let mut within = |what, part| Figure::new(what, lags.iter_mut().map(|lag| lag.within_us(part)));
    let (p50, p99) = (
        within("lag p50 us at 10,000/s", 500),
        within("lag p99 us at 10,000/s", 990),
    );
    let ours = format!(
        "{:.0} % of ops/s; nodes' CPU us/SET {} with, {} without; lag p99 {} ms",
        left * 100.0,
        short(costs.0),
        short(costs.1),
        short(p99.median / 1_000.0)
    );
    with.figures.extend([p50, p99]);
    outcome(ours, left >= LEFT_GOAL, vec![with, without])
}

const RATE: &str = "SET/s";
const BUSY: &str = "CPU us/SET, nodes";

impl Side {
    fn line(self, name: &str) -> Line {
        Line {
            name: name.to_owned(),
            figures: vec![
                Figure::new(RATE, self.per_second),
                Figure::new(BUSY, self.busy_us),
                Figure::new("CPU us/SET, nodes at 10,000/s", self.paced_us),
            ],
        }
    }
}

impl Nodes {
    /// Writes at the given rate; all must be told of them. How long after its acknowledgement each event came.
    async fn paced_with_watchers(&self, bench: &Bench, side: &mut Side) -> anyhow::Result<Times> {
        let mut watchers = Watchers::start(&self.cluster, self.prefixes).await?;
        let calls = self.paced(bench, side).await?;
        watchers.told(writes(&calls)).await?;
        Ok(Times::new(watchers.lags(&calls)?, bench.lasts))
    }

    /// When each call of writes at the given rate was acknowledged.
    async fn paced(&self, bench: &Bench, side: &mut Side) -> anyhow::Result<Vec<Call<Instant>>> {
        let pace = Pace {
            writes_per_second: WRITES_PER_SECOND,
            keys: self.keys(),
            lasts: bench.lasts,
        };
        let before = self.cpu_seconds()?;
        let kv = self.cluster.client()?;
        let calls = pace.run(&kv, |_| async { Ok(Instant::now()) }).await?;
        let used = self.cpu_seconds()? - before;
        side.paced_us.push(used * 1e6 / writes(&calls) as f64);
        Ok(calls)
    }

    async fn busy_with_watchers(&self, bench: &Bench, side: &mut Side) -> anyhow::Result<()> {
        let mut watchers = Drains::start(&self.cluster, self.prefixes).await?;
        let before = self.records().await?;
        self.busy(bench, side).await?;
        watchers.told(self.records().await? - before).await
    }

    /// Writes as fast as they can be made.
    async fn busy(&self, bench: &Bench, side: &mut Side) -> anyhow::Result<()> {
        let load = Load::of(bench, Work::Set, TASKS, self.keys());
        let mut before = 0.0;
        let counting = || {
            before = self.cpu_seconds()?;
            Ok(())
        };
        let times = load
            .run(from_ref(&self.cluster.client()?), counting)
            .await?;
        let used = self.cpu_seconds()? - before;
        side.per_second.push(times.ops_per_second());
        side.busy_us.push(used * 1e6 / times.count() as f64);
        Ok(())
    }

    /// Records in the logs of all nodes.
    async fn records(&self) -> anyhow::Result<usize> {
        let mut sum = 0;
        for node in 0..self.cluster.nodes().len() {
            let status = self.cluster.status(node).await?;
            let durable = status["durable"].as_str().context("durable in /status")?;
            let durable: Position = durable.parse()?;
            sum += usize::try_from(durable.seq)?;
        }
        Ok(sum)
    }

    fn keys(&self) -> usize {
        self.prefixes * KEYS_A_PREFIX
    }

    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.cluster.ids().into_iter().map(cpu_seconds).sum()
    }
}
