//! Where a request went, and why.
//!
//! Three ways to look: `route` says who owns a key and asks nobody; a `CallHistory` writes down every attempt of the ops
//! made with it; `stats` counts by node what a client has done. With `RUST_LOG`-like tracing the same shows as spans and
//! events at debug level of the target `kvclient`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use examples::Cluster;
use kvclient::{CallHistory, Client, Consistency, GetOptions, NodeStats, PutOptions};

/// Shows where requests go, and why.
#[derive(Parser)]
#[command(
    after_help = "To run it: ./launch.sh, then cargo run --release -p examples --bin explain. Stop a node (kill -STOP PID) \
                  and run it again: the attempts tell."
)]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Key to look at
    #[arg(default_value = "explain:key")]
    key: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let kv = args.cluster.connect().await?;
    who_owns(&kv, &args.key)?;
    let history = CallHistory::new();
    attempts(&kv.with_history(&history), &args.key).await?;
    println!("\nattempts");
    println!("{history}");
    ensure!(
        history.attempts().len() >= 8,
        "an attempt is not in the history"
    );
    for _ in 0..200 {
        kv.get_with(
            &args.key,
            GetOptions::new().consistency(Consistency::Eventual),
        )
        .await?;
    }
    kv.delete(&args.key).await?;
    by_node(&kv);
    Ok(())
}

fn who_owns(kv: &Client, key: &str) -> anyhow::Result<()> {
    let route = kv.route(key)?;
    let replicas: Vec<String> = route.replicas.iter().map(ToString::to_string).collect();
    println!("key      {key}");
    println!("slot     {}", route.slot);
    println!("shard    {}", route.shard);
    println!("primary  {}", route.primary);
    println!("replicas {}", replicas.join(", "));
    println!("map      {}", kv.map().identity());
    Ok(())
}

/// Writes go to the primary; reads to whichever node was less busy; a condition that does not hold is no failure of a
/// node, so nothing is tried again.
async fn attempts(kv: &Client, key: &str) -> anyhow::Result<()> {
    kv.put(key, "1").await?;
    for _ in 0..6 {
        kv.get(key).await?;
    }
    let refused = kv.put_with(key, "2", PutOptions::new().if_absent()).await;
    ensure!(refused.is_err(), "the key is there");
    Ok(())
}

fn by_node(kv: &Client) {
    let stats = kv.stats();
    println!(
        "\n{:<22} {:<8} {:>6} {:>9} {:>7} {:>9} {:>9}  state",
        "node", "role", "ops", "requests", "errors", "p50 us", "p99 us"
    );
    for node in &stats.nodes {
        println!("{}", line(node));
    }
    println!(
        "\n{} ops, {} retries, {} redirects, {} hedges of which {} won",
        stats.ops, stats.retries, stats.redirects, stats.hedges, stats.hedges_won
    );
}

fn line(node: &NodeStats) -> String {
    let micros = |wanted: fn(&kvclient::Percentiles) -> std::time::Duration| {
        let found = node.latency.as_ref().map(wanted);
        found.map_or("-".to_owned(), |time| time.as_micros().to_string())
    };
    let state = if node.is_ejected { "ejected" } else { "sound" };
    format!(
        "{:<22} {:<8} {:>6} {:>9} {:>7} {:>9} {:>9}  {state}",
        node.address.to_string(),
        node.role.as_str(),
        node.ops,
        node.requests,
        node.errors,
        micros(|latency| latency.p50),
        micros(|latency| latency.p99),
    )
}
