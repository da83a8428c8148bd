//! A read policy of one's own: which of a shard's nodes answers a read.
//!
//! Whatever the policy says, nodes that fail are left out, and a read whose node does not answer goes on to the next
//! one: a policy only chooses among nodes that may be asked.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::process::ExitCode;

use anyhow::ensure;
use clap::{Parser, value_parser};
use examples::Cluster;
use kvclient::{
    Client, ClientBuilder,
    policy::{Candidates, LeastBusy, ReadPolicy, ReadRequest, StickyByKey},
    shard_map::Role,
};

/// Reads with three policies and shows which nodes answered.
#[derive(Parser)]
#[command(
    after_help = "To run it: ./launch.sh, then cargo run --release -p examples --bin custom_policy"
)]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Reads per policy
    #[arg(long, value_name = "COUNT", default_value_t = 600, value_parser = value_parser!(u32).range(1..))]
    reads: u32,
}

/// Spares the primaries, which have the writes to do: the replica with the fewest ops in flight.
#[derive(Debug)]
struct SparePrimaries;

impl ReadPolicy for SparePrimaries {
    fn choose(&self, _read: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
        let replicas = candidates
            .iter()
            .enumerate()
            .filter(|(_, node)| node.role == Role::Replica);
        let calmest = replicas.min_by_key(|(_, node)| node.in_flight);
        calmest.map_or(0, |(place, _)| place)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    args.cluster.connect().await?;
    let builder = || ClientBuilder::from_file(&args.cluster.map);
    println!(
        "{:<16} {:>10} {:>10}  nodes that answered",
        "policy", "primaries", "replicas"
    );
    read(
        "LeastBusy",
        builder()?.read_policy(LeastBusy).build()?,
        args.reads,
    )
    .await?;
    read(
        "StickyByKey",
        builder()?.read_policy(StickyByKey).build()?,
        args.reads,
    )
    .await?;
    let spared = read(
        "SparePrimaries",
        builder()?.read_policy(SparePrimaries).build()?,
        args.reads,
    )
    .await?;
    let has_replicas = builder()?
        .build()?
        .map()
        .shards()
        .iter()
        .all(|shard| !shard.replicas.is_empty());
    // One read in twenty may be asked a second time elsewhere, if its replica takes long.
    ensure!(
        !has_replicas || spared * 10 <= u64::from(args.reads),
        "the primaries were not spared"
    );
    Ok(())
}

/// Reads keys of all shards; how many reads went to primaries.
async fn read(name: &str, kv: Client, reads: u32) -> anyhow::Result<u64> {
    for at in 0..reads {
        kv.get(format!("custom_policy:{}", at % 12)).await?;
    }
    let stats = kv.stats();
    let ops_of = |role| -> u64 {
        let nodes = stats.nodes.iter().filter(|node| node.role == role);
        nodes.map(|node| node.ops).sum()
    };
    let busy = stats.nodes.iter().filter(|node| node.ops > 0).count();
    let primaries = ops_of(Role::Primary);
    println!(
        "{name:<16} {primaries:>10} {:>10}  {busy} of {}",
        ops_of(Role::Replica),
        stats.nodes.len()
    );
    Ok(primaries)
}
