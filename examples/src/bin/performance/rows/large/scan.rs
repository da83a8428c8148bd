//! A scan of one node with all values, by a client on the same machine.

use std::time::Instant;

use futures_util::{FutureExt, StreamExt, future::BoxFuture};

use super::{filling::fill, outcome, sized};
use crate::{
    bench::Bench,
    cluster::{Cluster, Shape},
    load::VALUE_BYTES,
    outcome::{Figure, Line, Outcome, short},
};

const GOAL: f64 = 1_000_000.0;

const RATE: &str = "entries/s";

pub(in super::super) fn run(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench).boxed()
}

async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    let entries = sized(bench, 2_000_000, 5_000);
    let cluster = Cluster::start(bench, Shape::primaries(1)).await?;
    let kv = cluster.client()?;
    fill(&kv, entries, VALUE_BYTES).await?;
    let mut rates = Vec::new();
    for _ in 0..bench.rounds {
        let began = Instant::now();
        let mut scan = kv.scan("");
        let (mut seen, mut bytes) = (0, 0);
        while let Some(entry) = scan.next().await {
            seen += 1;
            bytes += entry?.value.map_or(0, |value| value.len());
        }
        rates.push(entries as f64 / began.elapsed().as_secs_f64());
        let whole = seen == entries && bytes == entries * VALUE_BYTES;
        anyhow::ensure!(whole, "{seen} entries of {bytes} bytes came, not {entries}");
    }
    let line = Line {
        name: format!("{entries} entries"),
        figures: vec![Figure::new(RATE, rates)],
    };
    let rate = line.median(RATE).unwrap_or(f64::NAN);
    let ours = format!("{} {RATE}", short(rate));
    Ok(outcome(ours, rate >= GOAL, vec![line]))
}
