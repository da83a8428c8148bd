//! The first program to read: put, get, delete, and what a missing key and a lost race look like.
//!
//! ```sh
//! ./launch.sh                                     # in one terminal
//! cargo run --release -p examples --bin quickstart
//! ```

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Parser;
use examples::Cluster;
use kvclient::{ErrorKind, PutOptions};

/// Stores, reads and deletes a few entries.
///
/// Uses keys that begin with quickstart: and removes them in the end.
#[derive(Parser)]
#[command(
    after_help = "To run it: ./launch.sh, then cargo run --release -p examples --bin quickstart"
)]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    // One client for the whole program: it is cheap to clone and shares its connections.
    let kv = args.cluster.connect().await?;

    // When this returns, the value is synced to disk on the shard's primary.
    let written = kv.put("quickstart:ada", "Ada Lovelace").await?;
    println!("stored quickstart:ada at position {}", written.position);

    // A client sees its own writes, whichever node it asks.
    let ada = kv.get("quickstart:ada").await?;
    println!(
        "read back {:?}",
        ada.as_deref().map(String::from_utf8_lossy)
    );

    // A missing key is None, not an error; an empty value is Some.
    println!(
        "quickstart:nobody is {:?}",
        kv.get("quickstart:nobody").await?
    );

    // Only if the key is absent, and for a minute only. A condition that does not hold is an error of its own
    // kind, and nothing was changed.
    let once = || PutOptions::new().if_absent().ttl(Duration::from_secs(60));
    kv.put_with("quickstart:lock", "first", once()).await?;
    match kv.put_with("quickstart:lock", "second", once()).await {
        Err(error) if error.kind() == ErrorKind::Conflict => println!("the lock is taken: {error}"),
        other => bail!("the lock was taken twice: {other:?}"),
    }

    // Several keys at once travel together, each to the node that has it.
    let keys = ["quickstart:ada", "quickstart:lock", "quickstart:nobody"];
    for (key, value) in keys.iter().zip(kv.get_many(keys).await?) {
        println!(
            "{key} = {:?}",
            value.as_deref().map(String::from_utf8_lossy)
        );
    }

    kv.delete("quickstart:ada").await?;
    kv.delete("quickstart:lock").await?;
    println!("deleted both");
    Ok(())
}
