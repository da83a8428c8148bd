//! A copy of a prefix that is always up to date: a scan, and the feed of changes.
//!
//! The order matters. The watch listens before the scan begins, so that no change falls between the two. A change that
//! the scan has shown already comes a second time; its position tells. Half-way the program stops listening, as one
//! does that restarts, and goes on behind the last change that it has applied: the token is all that it has to keep.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Parser, value_parser};
use examples::Cluster;
use futures_util::{StreamExt, TryStreamExt};
use kvclient::{Change, Client, Consistency, Event, Key, Position, Session, Watch};
use tokio::time::timeout;

const PREFIX: &str = "live_feed:";

/// Longest wait for one change: the writer never pauses.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps a copy of a prefix up to date while another task changes it.
#[derive(Parser)]
#[command(
    after_help = "To run it: ./launch.sh, then cargo run --release -p examples --bin live_feed. Kill a node meanwhile \
                  and start it again: no change is missed and none comes twice."
)]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Changes to make
    #[arg(long, value_name = "COUNT", default_value_t = 2_000, value_parser = value_parser!(u32).range(1..))]
    changes: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let kv = args.cluster.connect().await?;
    let removed = kv.delete_many(keys_there(&kv).await?).await?;
    println!("{} entries of an earlier run removed", removed.len());
    // A session of its own: at the end it says how far the feed has to come.
    let writer = tokio::spawn(write(kv.with_session(Session::new()), args.changes));

    let mut copy = Copy::default();
    let mut watch = kv.watch(PREFIX);
    watch.ready().await?;
    copy.fill(&kv).await?;
    println!("{} entries by the scan", copy.entries.len());

    while copy.changes < args.changes / 4 {
        copy.apply(next(&mut watch).await?);
    }
    let token = watch.position().to_token();
    drop(watch);
    println!("{} changes, then a stop at {token}", copy.changes);

    let written = writer.await??;
    let mut watch = kv.watch(PREFIX).from(Session::from_token(&token)?);
    while !has_reached(&kv, &watch, &written) {
        copy.apply(next(&mut watch).await?);
    }
    println!(
        "{} changes in all, {} of them known from the scan",
        copy.changes, copy.known
    );

    let mut now = Copy::default();
    now.fill(&kv).await?;
    ensure!(
        copy.entries == now.entries,
        "the copy differs from what is stored"
    );
    println!(
        "the copy has all {} entries, each as it is stored",
        now.entries.len()
    );
    kv.delete_many(keys_there(&kv).await?).await?;
    Ok(())
}

/// Changes keys at random; gives back what it has seen of the store, which is its own writes.
async fn write(kv: Client, changes: u32) -> kvclient::Result<Session> {
    for number in 0..changes {
        let key = format!("{PREFIX}{:03}", fastrand::u32(..200));
        match fastrand::u8(..4) {
            0 => _ = kv.delete(&key).await?,
            _ => _ = kv.put(&key, number.to_string()).await?,
        }
    }
    Ok(kv.session())
}

async fn next(watch: &mut Watch) -> anyhow::Result<Event> {
    let event = timeout(PATIENCE, watch.next())
        .await
        .context("no change came")?;
    Ok(event.context("a watch does not end")??)
}

/// Whether the feed of every shard has come to what the writer did there.
fn has_reached(kv: &Client, watch: &Watch, written: &Session) -> bool {
    let reached = watch.position();
    let map = kv.map();
    map.shards()
        .iter()
        .all(|shard| reached.position(shard.idx) >= written.position(shard.idx))
}

/// The prefix as far as it is known.
#[derive(Default)]
struct Copy {
    entries: BTreeMap<Key, (Position, Bytes)>,
    /// Where the last change of each key stood. Positions of one shard are in order, and a key stays with its shard.
    seen: HashMap<Key, Position>,
    changes: u32,
    known: u32,
}

impl Copy {
    async fn fill(&mut self, kv: &Client) -> anyhow::Result<()> {
        let mut entries = kv.scan(PREFIX).consistency(Consistency::Primary);
        while let Some(entry) = entries.try_next().await? {
            let value = entry.value.context("a scan brings values")?;
            self.seen.insert(entry.key.clone(), entry.position);
            self.entries.insert(entry.key, (entry.position, value));
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        self.changes += 1;
        if self
            .seen
            .get(&event.key)
            .is_some_and(|&seen| seen >= event.position)
        {
            self.known += 1;
            return;
        }
        self.seen.insert(event.key.clone(), event.position);
        match event.change {
            Change::Put { value, .. } => {
                _ = self.entries.insert(event.key, (event.position, value))
            }
            Change::Delete { .. } => _ = self.entries.remove(&event.key),
            // The value stays; the entry was written here all the same.
            Change::Expire { .. } => {
                if let Some(entry) = self.entries.get_mut(&event.key) {
                    entry.0 = event.position;
                }
            }
        }
    }
}

async fn keys_there(kv: &Client) -> anyhow::Result<Vec<Key>> {
    let keys = kv
        .scan(PREFIX)
        .keys_only()
        .consistency(Consistency::Primary);
    let keys: Vec<Key> = keys.map_ok(|entry| entry.key).try_collect().await?;
    Ok(keys)
}
