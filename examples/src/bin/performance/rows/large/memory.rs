//! Anonymous memory of the nodes: at start, and at most under one load after the other.

use std::{slice::from_ref, time::Duration};

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};

use super::{MIB, bulk::count, filling::fill, outcome, sized, watch::MemoryWatch};
use crate::{
    bench::Bench,
    cluster::{Cluster, Shape},
    load::{Load, VALUE_BYTES, Work, key, value},
    outcome::{Figure, Line, Outcome},
};

/// What a node may hold that has nothing to do.
const START_GOAL_BYTES: u64 = 20 * MIB;

/// Beside it: two memtables of the default size, and the default cap of request bodies.
const LOADED_GOAL_BYTES: u64 = START_GOAL_BYTES + 2 * 64 * MIB + 256 * MIB;

const LARGE_BYTES: usize = 1 << 20;

pub(in super::super) fn run(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench).boxed()
}

async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    let cluster = Cluster::start(bench, Shape::primaries(3)).await?;
    let watch = MemoryWatch::start(cluster.ids());
    let kv = cluster.client()?;
    tokio::time::sleep(bench.lasts.min(Duration::from_secs(1))).await;
    let at_start = watch.most_bytes();

    let mut most = vec![("at start", at_start)];
    let records = sized(bench, 2_000_000, 5_000);
    fill(&kv, records, VALUE_BYTES).await?;
    most.push(("bulk load", watch.most_bytes()));
    for (name, work, tasks) in [("SET", Work::Set, 256), ("GET", Work::Get, 512)] {
        let load = Load {
            warm_up: Duration::ZERO,
            ..Load::of(bench, work, tasks, records)
        };
        load.run(from_ref(&kv), || Ok(())).await?;
        most.push((name, watch.most_bytes()));
    }
    let there = count(&kv).await?;
    anyhow::ensure!(there == records, "{there} of {records} records are there");
    most.push(("scan", watch.most_bytes()));
    let puts = stream::iter(0..sized(bench, 600, 10));
    puts.map(|number| kv.put(key(number), value(number, LARGE_BYTES)))
        .buffer_unordered(64)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    most.push(("values of 1 MiB, 64 at once", watch.most_bytes()));

    let peak = watch.most_bytes();
    let figures = most
        .into_iter()
        .map(|(name, bytes)| Figure::new(&format!("MiB, {name}"), [(bytes / MIB) as f64]));
    let line = Line {
        name: "the largest node, up to then".to_owned(),
        figures: figures.collect(),
    };
    let ours = format!(
        "{} MiB at start, {} MiB at most",
        at_start / MIB,
        peak / MIB
    );
    let reached = at_start <= START_GOAL_BYTES && peak <= LOADED_GOAL_BYTES;
    Ok(outcome(ours, reached, vec![line]))
}
