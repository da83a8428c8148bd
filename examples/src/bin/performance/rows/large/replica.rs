//! A shard with one replica: how fast it catches up, how far it is behind, and what it costs its primary.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{FutureExt, future::BoxFuture};
use kvclient::{
    key::Key,
    node_client::{NodeClient, NodeClientOptions},
    position::Position,
    shard_map::Address,
    wire::batch::{Action, Op},
};
use tokio::time::sleep;

use super::{
    filling::fill,
    outcome,
    paced::{Pace, writes},
    sized,
};
use crate::{
    bench::{Bench, Form},
    cluster::{Cluster, Shape},
    load::{Times, VALUE_BYTES, key},
    outcome::{Figure, Line, Outcome, short},
    process::cpu_seconds,
};

const CATCH_UP_GOAL: f64 = 300_000.0;
const LAG_GOAL_US: f64 = 50_000.0;
const COST_GOAL: f64 = 1.15;

const WRITES_PER_SECOND: usize = 50_000;

/// Places in the cluster.
const PRIMARY: usize = 0;
const REPLICA: usize = 1;

const WORD: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

const KEPT: Shape = Shape {
    shards: 1,
    replicas: 1,
    flags: &[],
};

/// A primary that keeps hardly any log.
const NOT_KEPT: Shape = Shape {
    flags: &["--log-retention", "1MiB", "--log-segment-size", "8MiB"],
    ..KEPT
};

pub(in super::super) fn catch_up(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure_catch_up(bench, KEPT).boxed()
}

pub(in super::super) fn snapshot(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure_catch_up(bench, NOT_KEPT).boxed()
}

pub(in super::super) fn lag(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure_lag(bench).boxed()
}

pub(in super::super) fn cost(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure_cost(bench).boxed()
}

async fn measure_catch_up(bench: &Bench, shape: Shape) -> anyhow::Result<Outcome> {
    const RATE: &str = "records/s";
    let records = sized(bench, 2_000_000, 5_000);
    let mut cluster = Cluster::start(bench, shape).await?;
    cluster.kill(REPLICA);
    fill(&cluster.client()?, records, VALUE_BYTES).await?;
    let began = Instant::now();
    cluster.restart().await?;
    level(&cluster).await?;
    let rate = records as f64 / began.elapsed().as_secs_f64();
    let line = Line {
        name: format!("{records} records, start of the node included"),
        figures: vec![Figure::new(RATE, [rate])],
    };
    let ours = format!("{} {RATE}", short(rate));
    Ok(outcome(ours, rate >= CATCH_UP_GOAL, vec![line]))
}

/// From each acknowledgement on the primary to the answer of the replica to a read that asks for its position.
async fn measure_lag(bench: &Bench) -> anyhow::Result<Outcome> {
    const SLOWEST: &str = "p99 us";
    let cluster = Cluster::start(bench, KEPT).await?;
    level(&cluster).await?;
    let nodes = NodeClient::new(NodeClientOptions::default())?;
    let replica = cluster.nodes()[REPLICA].address().clone();
    let pace = pace(bench);
    let wait = move |position| visible(nodes.clone(), replica.clone(), position);
    let calls = pace.run(&cluster.client()?, wait).await?;
    let writes = writes(&calls);
    let waits = calls.into_iter().map(|call| call.noted).collect();
    let mut waits = Times::new(waits, pace.lasts);
    let slowest = waits.within_us(990);
    let line = Line {
        name: format!("{writes} writes, {} waits", waits.count()),
        figures: vec![
            Figure::new("p50 us", [waits.within_us(500)]),
            Figure::new(SLOWEST, [slowest]),
        ],
    };
    let ours = format!("p99 {} ms", short(slowest / 1_000.0));
    Ok(outcome(ours, slowest <= LAG_GOAL_US, vec![line]))
}

/// The same writes with the replica and without, by turns.
async fn measure_cost(bench: &Bench) -> anyhow::Result<Outcome> {
    let mut cluster = Cluster::start(bench, KEPT).await?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds.min(3) {
        level(&cluster).await?;
        with.push(cpu_us_per_write(bench, &cluster).await?);
        cluster.kill(REPLICA);
        without.push(cpu_us_per_write(bench, &cluster).await?);
        cluster.restart().await?;
    }
    let with = Figure::new("CPU us/write, with", with);
    let without = Figure::new("CPU us/write, without", without);
    let ratio = with.median / without.median;
    let line = Line {
        name: "primary".to_owned(),
        figures: vec![with, without],
    };
    let ours = format!("{ratio:.2} times as much CPU");
    Ok(outcome(ours, ratio <= COST_GOAL, vec![line]))
}

async fn cpu_us_per_write(bench: &Bench, cluster: &Cluster) -> anyhow::Result<f64> {
    let primary = cluster.ids()[PRIMARY];
    let kv = cluster.client()?;
    let before = cpu_seconds(primary)?;
    let calls = pace(bench).run(&kv, |_| async { Ok(()) }).await?;
    Ok((cpu_seconds(primary)? - before) * 1e6 / writes(&calls) as f64)
}

fn pace(bench: &Bench) -> Pace {
    let lasts = match bench.form {
        Form::Full => bench.lasts.max(Duration::from_secs(10)),
        Form::Short => bench.lasts,
    };
    Pace {
        writes_per_second: WRITES_PER_SECOND,
        keys: bench.keys(),
        lasts,
    }
}

/// How long it takes from now on until the replica holds the position.
async fn visible(
    nodes: NodeClient,
    replica: Address,
    position: Position,
) -> anyhow::Result<Duration> {
    let mut op = Op::new(Key::copy_from(key(0).as_bytes())?, Action::Get);
    op.terms.min_position = Some(position);
    op.terms.wait_ms = u32::try_from(WORD.as_millis()).ok();
    let began = Instant::now();
    let result = nodes.get(&replica, &op, 2 * WORD).await?;
    anyhow::ensure!(
        matches!(result.status, 200 | 404),
        "the replica answers {}",
        result.status
    );
    Ok(began.elapsed())
}

/// Waits until the replica shows all that its primary has.
async fn level(cluster: &Cluster) -> anyhow::Result<()> {
    loop {
        let durable = position(cluster, PRIMARY, "durable").await?;
        if position(cluster, REPLICA, "visible").await? >= durable {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

async fn position(cluster: &Cluster, node: usize, name: &str) -> anyhow::Result<Position> {
    let status = cluster.status(node).await?;
    // A replica that has nothing yet names none.
    let text = status[name].as_str().unwrap_or("0.0");
    text.parse().ok().context("a position in /status")
}
