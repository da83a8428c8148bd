//! Everything is overwritten again and again, after which the file must not have grown with it.

use anyhow::Context;
use tokio::time::Instant;

use super::{
    super::{MIB, watch::MemoryWatch},
    Stock,
};
use crate::{
    bench::Bench,
    cluster::{Cluster, Shape},
    load::{KEY_BYTES, Load},
    outcome::{Figure, Line},
    process::cpu_seconds,
};

/// The file may be so many times as large as keys and values are.
pub(super) const GOAL: f64 = 2.0;

const OVERWRITES: usize = 10;

/// What came of it.
pub(super) struct File {
    /// Its size, of all nodes together, over that of keys and values.
    pub(super) times: f64,
    pub(super) line: Line,
}

pub(super) async fn measure(bench: &Bench, stock: Stock) -> anyhow::Result<File> {
    let Stock { keys, value_bytes } = stock;
    let cluster = Cluster::start(bench, Shape::primaries(3)).await?;
    let memory = MemoryWatch::start(cluster.ids());
    let kv = cluster.client()?;
    let load = Load {
        value_bytes,
        ..Load::to_fill(keys)
    };
    load.fill(&kv).await?;
    let (began, cpu) = (Instant::now(), store_cpu(&cluster)?);
    for _ in 0..OVERWRITES {
        load.fill(&kv).await?;
    }
    let (took, cpu) = (began.elapsed(), store_cpu(&cluster)? - cpu);
    let live_bytes = (keys * (KEY_BYTES + value_bytes)) as f64;
    let times = file_bytes(&cluster).await? / live_bytes;
    let ops = (OVERWRITES * keys) as f64;
    let mb_per_second = ops * value_bytes as f64 / 1e6 / took.as_secs_f64();
    let line = Line {
        name: format!("{keys} values of {value_bytes} bytes, overwritten {OVERWRITES} times"),
        figures: vec![
            Figure::new("times the live data in LMDB's files", [times]),
            Figure::new("SET MB/s", [mb_per_second]),
            Figure::new("CPU us/op, store", [cpu * 1e6 / ops]),
            Figure::new(
                "MiB of anonymous memory at most",
                [(memory.most_bytes() / MIB) as f64],
            ),
        ],
    };
    Ok(File { times, line })
}

/// Of all nodes together, in seconds.
fn store_cpu(cluster: &Cluster) -> anyhow::Result<f64> {
    cluster.ids().into_iter().map(cpu_seconds).sum()
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
