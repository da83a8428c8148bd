//! Many tasks change one key at once, and no step is lost.
//!
//! Two ways. A counter (`incr`): the node adds, one exchange a step. And for any other change of any value: read,
//! change, store on condition that nobody was faster (`if_match`), and begin again if somebody was.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::process::ExitCode;

use anyhow::ensure;
use clap::{Parser, value_parser};
use examples::Cluster;
use futures_util::future::try_join_all;
use kvclient::{Client, Consistency, ErrorKind, GetOptions, PutOptions};

const INCR_KEY: &str = "counter:incr";
const IF_MATCH_KEY: &str = "counter:if_match";

/// Counts with many tasks at once and checks the sum.
///
/// Once with the node's own counter (incr), once by reading, adding, and storing on condition that nobody was
/// faster (if_match).
#[derive(Parser)]
#[command(
    after_help = "To run it: ./launch.sh, then cargo run --release -p examples --bin counter"
)]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Tasks that count at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = value_parser!(u32).range(1..))]
    tasks: u32,
    /// Steps of each task
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = value_parser!(u32).range(1..))]
    steps: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let kv = args.cluster.connect().await?;
    kv.delete(INCR_KEY).await?;
    kv.delete(IF_MATCH_KEY).await?;

    try_join_all((0..args.tasks).map(|_| count(&kv, args.steps))).await?;

    let want = (u64::from(args.tasks) * u64::from(args.steps)).to_string();
    for key in [INCR_KEY, IF_MATCH_KEY] {
        let found = kv.get(key).await?.unwrap_or_default();
        println!("{key}: {} of {want}", String::from_utf8_lossy(&found));
        ensure!(found == want, "{key} lost steps");
    }
    Ok(())
}

async fn count(kv: &Client, steps: u32) -> kvclient::Result<()> {
    for _ in 0..steps {
        kv.incr(INCR_KEY, 1).await?;
        add_one(kv, IF_MATCH_KEY).await?;
    }
    Ok(())
}

async fn add_one(kv: &Client, key: &str) -> kvclient::Result<()> {
    // The primary has the newest entry; an older one, from a replica, would only lose the race.
    let latest = GetOptions::new().consistency(Consistency::Primary);
    loop {
        let (condition, old) = match kv.get_with(key, latest.clone()).await? {
            Some(entry) => (PutOptions::new().if_match(entry.position), entry.value),
            None => (PutOptions::new().if_absent(), "0".into()),
        };
        let number: u64 = String::from_utf8_lossy(&old).parse().unwrap_or(0);
        match kv.put_with(key, (number + 1).to_string(), condition).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            other => return other.map(drop),
        }
    }
}
