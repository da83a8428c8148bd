//! A bulk load: many records through `put_many`, each synced before it is acknowledged, and counted afterwards.

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use kvclient::Client;

use super::{filling::fill, outcome, sized};
use crate::{
    bench::Bench,
    cluster::{Cluster, Shape},
    load::VALUE_BYTES,
    outcome::{Figure, Line, Outcome, short},
};

const GOAL: f64 = 150_000.0;

const RATE: &str = "records/s";

pub(in super::super) fn run(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench).boxed()
}

async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    let records = sized(bench, 1_000_000, 5_000);
    let mut rates = Vec::new();
    for _ in 0..bench.rounds {
        let cluster = Cluster::start(bench, Shape::primaries(3)).await?;
        let kv = cluster.client()?;
        let took = fill(&kv, records, VALUE_BYTES).await?;
        let there = count(&kv).await?;
        anyhow::ensure!(there == records, "{there} of {records} records are there");
        rates.push(records as f64 / took.as_secs_f64());
    }
    let line = Line {
        name: format!("{records} records"),
        figures: vec![Figure::new(RATE, rates)],
    };
    let rate = line.median(RATE).unwrap_or(f64::NAN);
    let ours = format!("{} {RATE}", short(rate));
    Ok(outcome(ours, rate >= GOAL, vec![line]))
}

/// How many entries all nodes have.
pub(super) async fn count(kv: &Client) -> anyhow::Result<usize> {
    let mut keys = kv.scan("").keys_only();
    let mut count = 0;
    while let Some(entry) = keys.next().await {
        entry?;
        count += 1;
    }
    Ok(count)
}
