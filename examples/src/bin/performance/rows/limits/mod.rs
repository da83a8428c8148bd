//! What the machine can do at all, beside what this store makes of it, in the same run.
//!
//! A GET is a round trip on loopback, an HTTP server and a lookup in LMDB; a SET is a round trip, an HTTP server, and
//! an append that is synced. Each of these is measured alone, without anything that this store adds.

mod loopback;
mod servers;
mod storage;

use std::collections::BTreeMap;

use anyhow::Context;
use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    bench::Bench,
    cluster::{Cluster, Shape},
    contender::Side,
    load::{Load, Times, Work},
    outcome::{Figure, Line, Outcome, short},
};

use super::judge::{MEDIAN, RATE};

/// Primaries of the cluster, as in the contests.
const PRIMARIES: usize = 3;

/// Ops that 256 tasks have to send to each of three nodes.
const BATCH: usize = 85;

const TASKS: [usize; 2] = [1, 256];

/// Rate and median of one measurement.
#[derive(Debug, Clone, Copy)]
struct Point {
    ops_per_second: f64,
    p50_us: f64,
}

/// Everything that is measured, in the order of the table.
struct Limits {
    cluster: Cluster,
    side: Side,
    loopback: loopback::Servers,
    storage: storage::Storage,
}

pub(super) fn run(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench).boxed()
}

async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    let cluster = Cluster::start(bench, Shape::primaries(PRIMARIES)).await?;
    let limits = Limits {
        side: Side::kvclient(cluster.client()?, cluster.ids()),
        cluster,
        loopback: loopback::Servers::start().await?,
        storage: storage::Storage::new(bench)?,
    };
    limits.side.fill(&Load::to_fill(bench.keys())).await?;
    let mut points: BTreeMap<usize, (String, Vec<Point>)> = BTreeMap::new();
    for _ in 0..bench.rounds {
        for (at, (name, point)) in limits.round(bench).await?.into_iter().enumerate() {
            points.entry(at).or_insert((name, Vec::new())).1.push(point);
        }
    }
    drop(limits.cluster);
    let lines: Vec<Line> = points.into_values().map(line).collect();
    outcome(lines)
}

impl Limits {
    async fn round(&self, bench: &Bench) -> anyhow::Result<Vec<(String, Point)>> {
        let mut points = Vec::new();
        for (name, work) in [("GET", Work::Get), ("SET", Work::Set)] {
            for tasks in TASKS {
                points.push((of_store(name, tasks), self.store(bench, work, tasks).await?));
            }
        }
        points.append(&mut self.loopback.round(bench).await?);
        points.append(&mut self.storage.round(bench).await?);
        Ok(points)
    }

    async fn store(&self, bench: &Bench, work: Work, tasks: usize) -> anyhow::Result<Point> {
        let load = Load::of(bench, work, tasks, bench.keys());
        let measured = self.side.measure(&load).await?;
        Ok(Point {
            ops_per_second: measured.ops_per_second,
            p50_us: measured.p50_us,
        })
    }
}

impl Point {
    /// Of exchanges that carry that many ops each.
    fn new(mut times: Times, ops: usize) -> Self {
        Self {
            ops_per_second: times.ops_per_second() * ops as f64,
            p50_us: times.within_us(500),
        }
    }
}

fn of_store(op: &str, tasks: usize) -> String {
    format!("kvclient, {op}, tasks: {tasks}")
}

fn line((name, points): (String, Vec<Point>)) -> Line {
    Line {
        name,
        figures: vec![
            Figure::new(RATE, points.iter().map(|point| point.ops_per_second)),
            Figure::new(MEDIAN, points.iter().map(|point| point.p50_us)),
        ],
    }
}

/// The two ops of a lone task, beside the sums of their parts.
fn outcome(lines: Vec<Line>) -> anyhow::Result<Outcome> {
    let p50 = |name: &str| -> anyhow::Result<f64> {
        let line = lines.iter().find(|line| line.name == name);
        line.and_then(|line| line.median(MEDIAN))
            .with_context(|| format!("no line {name}"))
    };
    let (get, set) = (p50(&of_store("GET", 1))?, p50(&of_store("SET", 1))?);
    let http = p50(loopback::LONE)?;
    let (lookup, sync) = (p50(storage::LOOKUP)?, p50(storage::LONE)?);
    Ok(Outcome {
        ours: format!("1 task: GET {} us, SET {} us", short(get), short(set)),
        against: format!(
            "bare HTTP and lookup {} us, bare HTTP and sync {} us",
            short(http + lookup),
            short(http + sync)
        ),
        lines,
        ..Outcome::default()
    })
}
