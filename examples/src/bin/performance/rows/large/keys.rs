//! More keys than memtables hold by far: reads beside those of a small set, writes without stalls, and a restart.

use std::{
    slice::from_ref,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use kvclient::Client;

use super::{MIB, filling::fill, outcome, sized, watch::MemoryWatch};
use crate::{
    bench::{Bench, Form},
    cluster::{Cluster, Shape},
    load::{Load, VALUE_BYTES, Work},
    outcome::{Figure, Line, Outcome, short},
};

const SLOWER_GOAL: f64 = 2.0;
const RESTART_GOAL_S: f64 = 5.0;
const STALL_GOAL_MS: f64 = 250.0;

/// Tasks that read and write at the same time.
const TASKS: usize = 256;

/// Reads are counted after so long: the last of what was just stored is still on its way into LMDB, and each page that is
/// read for the first time has to be mapped.
const SETTLING: Duration = Duration::from_secs(5);

/// Steady writes last that long: a dozen flushes of each node.
const WRITING: Duration = Duration::from_secs(60);

pub(in super::super) fn run(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench).boxed()
}

async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    let (few, many) = (bench.keys(), sized(bench, 10_000_000, 20_000));
    let mut cluster = Cluster::start(bench, Shape::primaries(3)).await?;
    let memory = MemoryWatch::start(cluster.ids());
    let kv = cluster.client()?;
    let at_few = Reads::of(bench, &kv, few).await?;
    let at_many = Reads::of(bench, &kv, many).await?;
    let stall_ms = longest_write_ms(bench, &kv, many).await?;
    let memory_mib = (memory.most_bytes() / MIB) as f64;
    drop(memory);
    let restart_s = restart(&mut cluster).await?;
    // Once more: a key that is missing is an error.
    let reads = Load::of(bench, Work::Get, TASKS, many);
    reads.run(from_ref(&kv), || Ok(())).await?;

    let slower = (at_few.per_second / at_many.per_second).max(at_many.p50_us / at_few.p50_us);
    let reached = slower <= SLOWER_GOAL && restart_s < RESTART_GOAL_S && stall_ms <= STALL_GOAL_MS;
    let ours = format!(
        "reads {slower:.2} times slower; restart {} s; longest write {} ms",
        short(restart_s),
        short(stall_ms)
    );
    let mut last = at_many.line(many);
    last.figures.extend([
        Figure::new("longest SET ms", [stall_ms]),
        Figure::new("s to ready after kill -9 of all", [restart_s]),
        Figure::new("MiB of anonymous memory at most", [memory_mib]),
    ]);
    Ok(outcome(ours, reached, vec![at_few.line(few), last]))
}

/// Point reads of a set of keys.
struct Reads {
    per_second: f64,
    p50_us: f64,
}

impl Reads {
    /// Stores the keys, then reads them at random.
    async fn of(bench: &Bench, kv: &Client, keys: usize) -> anyhow::Result<Self> {
        fill(kv, keys, VALUE_BYTES).await?;
        let mut busy = Load::of(bench, Work::Get, TASKS, keys);
        if bench.form == Form::Full {
            busy.warm_up = SETTLING;
        }
        let busy = busy.run(from_ref(kv), || Ok(())).await?;
        let alone = Load::of(bench, Work::Get, 1, keys);
        let mut alone = alone.run(from_ref(kv), || Ok(())).await?;
        Ok(Self {
            per_second: busy.ops_per_second(),
            p50_us: alone.within_us(500),
        })
    }

    fn line(&self, keys: usize) -> Line {
        Line {
            name: format!("{keys} keys"),
            figures: vec![
                Figure::new("GET/s", [self.per_second]),
                Figure::new("GET p50 us", [self.p50_us]),
            ],
        }
    }
}

async fn longest_write_ms(bench: &Bench, kv: &Client, keys: usize) -> anyhow::Result<f64> {
    let mut writes = Load::of(bench, Work::Set, TASKS, keys);
    if bench.form == Form::Full {
        writes.lasts = WRITING;
    }
    let mut times = writes.run(from_ref(kv), || Ok(())).await?;
    Ok(times.within_us(1_000) / 1_000.0)
}

/// Seconds until all nodes are ready that were killed at once.
async fn restart(cluster: &mut Cluster) -> anyhow::Result<f64> {
    for node in 0..cluster.nodes().len() {
        cluster.kill(node);
    }
    let began = Instant::now();
    cluster.restart().await?;
    Ok(began.elapsed().as_secs_f64())
}
