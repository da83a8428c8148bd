//! GET and SET per second through kvclient, at 1, 64 and 256 tasks; and what its gathering of ops gives and costs.
//!
//! Each task does one op after the other on random keys, as a busy program would; the client gathers what many
//! tasks want at once into batches. Every SET is acknowledged after its sync. Client and nodes share the machine,
//! so the numbers are those of the whole, not of the nodes alone.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod coalescing;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Parser, value_parser};
use examples::Cluster;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use hdrhistogram::Histogram;
use kvclient::Client;
use tokio::task::JoinSet;

/// Slowest op that is told apart from slower ones.
const SLOWEST_MICROS: u64 = 60_000_000;

const WORK: [(&str, Work); 2] = [("GET", Work::Get), ("SET", Work::Set)];

/// Measures GET and SET per second.
///
/// First stores all keys (measure:00000000 and so on), which stay there. Prints a table in Markdown.
#[derive(Parser)]
#[command(
    after_help = "To run it: ./launch.sh, then cargo run --release -p examples --bin measure"
)]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Keys to use
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    keys: usize,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_bytes: usize,
    /// Seconds that each measurement lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Tasks at work at the same time: a measurement for each of these numbers
    #[arg(
        long,
        value_name = "COUNT,...",
        value_delimiter = ',',
        default_value = "1,64,256"
    )]
    tasks: Vec<usize>,
    /// Instead: how many ops travel in a request, and what that costs a task that is alone
    #[arg(long)]
    coalescing: bool,
}

#[derive(Clone, Copy)]
enum Work {
    Get,
    Set,
}

/// What one measurement's tasks share.
#[derive(Clone)]
struct Load {
    kv: Client,
    keys: usize,
    value: Bytes,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    ensure!(args.keys > 0, "--keys must be at least 1");
    let load = Load {
        kv: args.cluster.connect().await?,
        keys: args.keys,
        value: Bytes::from(vec![b'x'; args.value_bytes]),
    };
    load.fill().await?;

    println!(
        "{} keys of {} bytes, {} s each\n",
        args.keys, args.value_bytes, args.seconds
    );
    if args.coalescing {
        return coalescing::measure(&load, &args.tasks, Duration::from_secs(args.seconds)).await;
    }
    println!("| Work | Tasks | Ops/s | p50 us | p99 us |");
    println!("|---|---|---|---|---|");
    for (name, work) in WORK {
        for &tasks in &args.tasks {
            let began = Instant::now();
            let until = began + Duration::from_secs(args.seconds);
            let times = load.run(work, tasks, until).await?;
            let per_second = times.len() as f64 / began.elapsed().as_secs_f64();
            println!(
                "| {name} | {tasks} | {per_second:.0} | {} | {} |",
                times.value_at_quantile(0.5),
                times.value_at_quantile(0.99)
            );
        }
    }
    Ok(())
}

impl Load {
    /// Stores every key once, so that each GET finds one.
    async fn fill(&self) -> anyhow::Result<()> {
        stream::iter(0..self.keys)
            .map(|number| self.kv.put(key(number), self.value.clone()))
            .buffer_unordered(256)
            .try_for_each(|_| future::ready(Ok(())))
            .await
            .context("filling the cluster")
    }

    /// Keeps tasks at work until the end; the times of all their ops, in microseconds.
    async fn run(
        &self,
        work: Work,
        tasks: usize,
        until: Instant,
    ) -> anyhow::Result<Histogram<u64>> {
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            running.spawn(self.clone().one_task(work, until));
        }
        let mut times = Histogram::new_with_max(SLOWEST_MICROS, 3)?;
        while let Some(done) = running.join_next().await {
            times.add(done??)?;
        }
        Ok(times)
    }

    async fn one_task(self, work: Work, until: Instant) -> anyhow::Result<Histogram<u64>> {
        let mut times = Histogram::new_with_max(SLOWEST_MICROS, 3)?;
        let mut began = Instant::now();
        while began < until {
            let key = key(fastrand::usize(..self.keys));
            match work {
                Work::Get => {
                    let found = self.kv.get(key).await?;
                    ensure!(found.is_some(), "a key that was stored is missing");
                }
                Work::Set => {
                    self.kv.put(key, self.value.clone()).await?;
                }
            }
            let ended = Instant::now();
            times.saturating_record(u64::try_from((ended - began).as_micros())?);
            began = ended;
        }
        Ok(times)
    }
}

fn key(number: usize) -> String {
    format!("measure:{number:08}")
}
