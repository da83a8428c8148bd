//! One op a request over plain HTTP: one node of this store beside one etcd, with 64 connections.
//!
//! A cluster of one shard, so that every key is the node's own: nothing is redirected. That every write was done is
//! seen afterwards: etcd's revision and the node's position have grown by at least the number of answers.

use anyhow::{Context, ensure};
use futures_util::{FutureExt, future::BoxFuture};
use kvclient::{position::Position, shard_map::Address};

use crate::{
    bench::{Bench, Form},
    cluster::{Cluster, Shape},
    contender::Side,
    load::{Load, VALUE_BYTES, key, value},
    outcome::{Line, Outcome},
    peers::etcd::{self, Etcd},
};

use super::{
    judge::{Judge, MEDIAN, RATE, SLOWEST, STORE_CPU},
    wrk::{self, Answered, Asked},
};

const JUDGE: Judge = Judge::Rate { at_least: 10.0 };

pub(super) fn put(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    run(bench, Op::Put).boxed()
}

pub(super) fn get(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    run(bench, Op::Get).boxed()
}

/// What every request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Put,
    Get,
}

/// Both stores, filled.
struct Both {
    cluster: Cluster,
    etcd: Etcd,
    keys: usize,
}

async fn run(bench: &Bench, op: Op) -> anyhow::Result<Outcome> {
    let programs = &bench.programs;
    let (binary, wrk) = match (&programs.etcd, &programs.wrk) {
        (Some(etcd), Some(wrk)) => (etcd, wrk),
        (None, _) => return Ok(Outcome::not_installed("etcd")),
        (_, None) => return Ok(Outcome::not_installed("wrk")),
    };
    let both = Both {
        cluster: Cluster::start(bench, Shape::primaries(1)).await?,
        etcd: Etcd::start(bench, binary).await?,
        keys: bench.keys(),
    };
    both.fill().await?;
    let asked = [both.ours(bench, op)?, both.theirs(bench, op)?];
    let before = both.written().await?;
    let mut answered: [Vec<Answered>; 2] = Default::default();
    if bench.form == Form::Full {
        for asked in &asked {
            wrk::run(bench, wrk, asked, bench.warm_up()).await?;
        }
    }
    for turn in 0..bench.rounds * 2 {
        let at = (turn + turn / 2) % 2;
        answered[at].push(wrk::run(bench, wrk, &asked[at], bench.lasts).await?);
    }
    if op == Op::Put {
        check(before, both.written().await?, &answered)?;
    }
    let [ours, theirs] = answered;
    let lines = vec![
        line("kvnode", &ours),
        line(&format!("etcd {}", etcd::version(binary)?), &theirs),
    ];
    Ok(JUDGE.verdict(lines, Vec::new()))
}

impl Both {
    async fn fill(&self) -> anyhow::Result<()> {
        let load = Load::to_fill(self.keys);
        let side = Side::kvclient(self.cluster.client()?, self.cluster.ids());
        side.fill(&load).await?;
        self.etcd.fill(self.keys, VALUE_BYTES).await
    }

    fn node(&self) -> &Address {
        self.cluster.nodes()[0].address()
    }

    fn ours(&self, bench: &Bench, op: Op) -> anyhow::Result<Asked> {
        let request = |number: usize| match op {
            Op::Put => (format!("PUT /kv/{}", key(number)), text(number)),
            Op::Get => (format!("GET /kv/{}", key(number)), String::new()),
        };
        let requests = (0..self.keys).map(request);
        Asked::new(bench, self.node().port(), self.cluster.ids()[0], requests)
    }

    fn theirs(&self, bench: &Bench, op: Op) -> anyhow::Result<Asked> {
        let request = |number: usize| match op {
            Op::Put => (
                "POST /v3/kv/put".to_owned(),
                etcd::put_body(&key(number).to_string(), text(number)),
            ),
            Op::Get => (
                "POST /v3/kv/range".to_owned(),
                etcd::range_body(&key(number).to_string()),
            ),
        };
        let requests = (0..self.keys).map(request);
        Asked::new(bench, self.etcd.port(), self.etcd.id(), requests)
    }

    /// Writes that each of the two has done.
    async fn written(&self) -> anyhow::Result<[u64; 2]> {
        let status = self.cluster.status(0).await?;
        let durable: Position = status["durable"].as_str().context("durable")?.parse()?;
        Ok([durable.seq, self.etcd.revision().await?])
    }
}

fn text(number: usize) -> String {
    String::from_utf8_lossy(&value(number, VALUE_BYTES)).into_owned()
}

/// As many writes are stored as were answered, at least.
fn check(before: [u64; 2], after: [u64; 2], answered: &[Vec<Answered>; 2]) -> anyhow::Result<()> {
    for at in 0..2 {
        let claimed: u64 = answered[at].iter().map(|one| one.requests).sum();
        let stored = after[at] - before[at];
        ensure!(
            stored >= claimed,
            "{claimed} writes were answered, {stored} stored"
        );
    }
    Ok(())
}

fn line(name: &str, rounds: &[Answered]) -> Line {
    Line::of(
        name,
        rounds,
        &[
            (RATE, |one| one.per_second),
            (MEDIAN, |one| one.p50_us),
            (SLOWEST, |one| one.p99_us),
            (STORE_CPU, |one| one.server_cpu_us),
        ],
    )
}
