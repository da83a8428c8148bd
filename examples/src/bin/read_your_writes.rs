//! Reads are spread over primary and replicas, and still never go back.
//!
//! A replica follows its primary within milliseconds; who reads there at once may see what was before. The
//! program writes a number, reads it right back, and counts how often a read was behind:
//!
//! - `ReadYourWrites`, the default: never; the client tells the node what it has seen, and a node that has not
//!   got so far waits a moment or another is asked.
//! - `Eventual`: now and then; the fastest read, for what may be a little old.
//! - `MaxLag`: now and then, but never by more than the given time.
//! - `Primary`: never, not even behind what other clients wrote; but all reads go to one node.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::{Parser, value_parser};
use examples::Cluster;
use kvclient::{Client, Consistency, GetOptions};

const KEY: &str = "read_your_writes:number";

/// Writes and reads back, with each kind of read.
///
/// Counts how often a read did not show the write just before it.
#[derive(Parser)]
#[command(
    after_help = "To run it: ./launch.sh, then cargo run --release -p examples --bin read_your_writes"
)]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Writes per kind of read
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let kv = args.cluster.connect().await?;
    println!(
        "{:<16} {:>8} {:>8} {:>12}",
        "reads", "rounds", "behind", "us per round"
    );
    for (name, consistency) in [
        ("ReadYourWrites", Consistency::ReadYourWrites),
        ("Eventual", Consistency::Eventual),
        (
            "MaxLag 100 ms",
            Consistency::MaxLag(Duration::from_millis(100)),
        ),
        ("Primary", Consistency::Primary),
    ] {
        let began = Instant::now();
        let behind = count_behind(&kv, consistency, args.rounds).await?;
        let micros = began.elapsed().as_micros() / u128::from(args.rounds);
        println!("{name:<16} {:>8} {behind:>8} {micros:>12}", args.rounds);
        let may_be_behind = matches!(consistency, Consistency::Eventual | Consistency::MaxLag(_));
        ensure!(behind == 0 || may_be_behind, "{name} went back in time");
    }
    kv.delete(KEY).await?;
    Ok(())
}

/// How many of `rounds` reads did not see the write just before them.
async fn count_behind(kv: &Client, consistency: Consistency, rounds: u32) -> anyhow::Result<u32> {
    let mut behind = 0;
    for round in 0..rounds {
        let number = round.to_string();
        kv.put(KEY, number.clone()).await?;
        let seen = kv
            .get_with(KEY, GetOptions::new().consistency(consistency))
            .await?;
        if seen.is_none_or(|entry| entry.value != number) {
            behind += 1;
        }
    }
    Ok(behind)
}
