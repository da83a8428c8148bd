//! Large values: written, read, and overwritten again and again, after which the file must not have grown with them.

use std::slice::from_ref;

use anyhow::Context;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use kvclient::Client;

use super::{MIB, outcome, sized, watch::MemoryWatch};
use crate::{
    bench::Bench,
    cluster::{Cluster, Shape},
    load::{KEY_BYTES, Load, Work, key, value},
    outcome::{Figure, Line, Outcome, short},
};

/// The file may be so many times as large as keys and values are.
const FILE_GOAL: f64 = 2.0;

const OVERWRITES: usize = 10;

/// Ops under way at the same time.
const TASKS: usize = 16;

/// Bytes of all values together: on each node five memtables of them. What two flushes replace stays in the file beside
/// what is live, since readers may still look at it, so a file of less data is larger for its size.
const LIVE_BYTES: usize = 1 << 30;
const LIVE_BYTES_SHORT: usize = 8 << 20;

pub(in super::super) fn run_4k(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench, 4 << 10).boxed()
}

pub(in super::super) fn run_64k(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench, 64 << 10).boxed()
}

pub(in super::super) fn run_1m(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench, 1 << 20).boxed()
}

async fn measure(bench: &Bench, value_bytes: usize) -> anyhow::Result<Outcome> {
    let keys = sized(bench, LIVE_BYTES, LIVE_BYTES_SHORT) / value_bytes;
    let cluster = Cluster::start(bench, Shape::primaries(3)).await?;
    let memory = MemoryWatch::start(cluster.ids());
    let kv = cluster.client()?;
    overwrite(&kv, keys, value_bytes).await?;
    let set = rate(bench, &kv, Work::Set, keys, value_bytes).await?;
    let get = rate(bench, &kv, Work::Get, keys, value_bytes).await?;
    for _ in 0..OVERWRITES {
        overwrite(&kv, keys, value_bytes).await?;
    }
    let live_bytes = keys * (KEY_BYTES + value_bytes);
    let file = file_bytes(&cluster).await? / live_bytes as f64;
    let mb = value_bytes as f64 / 1e6;
    let line = Line {
        name: format!("{keys} values of {value_bytes} bytes, {TASKS} tasks"),
        figures: vec![
            Figure::new("SET/s", [set]),
            Figure::new("SET MB/s", [set * mb]),
            Figure::new("GET/s", [get]),
            Figure::new("GET MB/s", [get * mb]),
            Figure::new("times the live data in LMDB's files", [file]),
            Figure::new(
                "MiB of anonymous memory at most",
                [(memory.most_bytes() / MIB) as f64],
            ),
        ],
    };
    let ours = format!(
        "SET {} MB/s, GET {} MB/s, file {file:.2} times",
        short(set * mb),
        short(get * mb)
    );
    Ok(outcome(ours, file <= FILE_GOAL, vec![line]))
}

async fn overwrite(kv: &Client, keys: usize, value_bytes: usize) -> anyhow::Result<()> {
    stream::iter(0..keys)
        .map(|number| kv.put(key(number), value(number, value_bytes)))
        .buffer_unordered(TASKS)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}

async fn rate(
    bench: &Bench,
    kv: &Client,
    work: Work,
    keys: usize,
    value_bytes: usize,
) -> anyhow::Result<f64> {
    let load = Load {
        value_bytes,
        ..Load::of(bench, work, TASKS, keys)
    };
    let times = load.run(from_ref(kv), || Ok(())).await?;
    Ok(times.ops_per_second())
}

/// Of all nodes together.
async fn file_bytes(cluster: &Cluster) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for node in 0..cluster.nodes().len() {
        let bytes = cluster.status(node).await?["lmdb_bytes"].as_f64();
        sum += bytes.context("lmdb_bytes in /status")?;
    }
    Ok(sum)
}
