//! Whether every node of every shard has what the file says, byte for byte.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use examples::STATUS_TIMEOUT;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use kvclient::{
    Client, Consistency, GetOptions,
    node_client::{NodeClient, NodeClientOptions},
    position::Position,
    shard_map::{Address, Shard, ShardMap},
    wire::route,
};

use crate::{Args, PAUSE, may_pass, progress, records::Record};

/// Differences shown one by one; all are counted.
const SHOWN: u64 = 20;

/// Compares every record on every node of its shard, once replicas have caught up.
pub(crate) async fn count_differences(
    kv: &Client,
    records: &[Record],
    args: &Args,
) -> anyhow::Result<u64> {
    let map = args.cluster.read_map()?;
    let patience = Duration::from_secs(args.patience);
    for shard in map.shards() {
        wait_without_lag(shard, patience).await?;
    }
    let checks: Vec<(&Record, &Address)> = records
        .iter()
        .flat_map(|record| nodes_of(&map, record).map(move |address| (record, address)))
        .collect();
    let bar = progress("verifying", checks.len());
    let differences = AtomicU64::new(0);
    let (shown, counted) = (&bar, &differences);
    stream::iter(&checks)
        .map(|&(record, address)| async move {
            let found = get_from(kv, record, address, patience).await?;
            if found.as_ref() != Some(&record.value)
                && counted.fetch_add(1, Ordering::Relaxed) < SHOWN
            {
                shown.suspend(|| println!("{address} {}: {}", record.key, describe(found, record)));
            }
            shown.inc(1);
            anyhow::Ok(())
        })
        .buffer_unordered(args.in_flight.max(1))
        .try_for_each(|()| future::ready(Ok(())))
        .await?;
    bar.finish_and_clear();
    let differences = differences.into_inner();
    println!(
        "compared {} records on every node of their shards ({} comparisons): {differences} differences",
        records.len(),
        checks.len()
    );
    Ok(differences)
}

fn nodes_of<'a>(map: &'a ShardMap, record: &Record) -> impl Iterator<Item = &'a Address> {
    map.shard_of(&record.key).nodes().map(|node| &node.address)
}

/// Waits until every replica shows what its primary has synced by now.
async fn wait_without_lag(shard: &Shard, patience: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    let nodes = NodeClient::new(NodeClientOptions::default())?;
    let durable = wait_for_position(&nodes, &shard.primary.address, "durable", until).await?;
    for replica in &shard.replicas {
        loop {
            let visible = wait_for_position(&nodes, &replica.address, "visible", until).await?;
            if visible >= durable {
                break;
            }
            ensure!(
                Instant::now() < until,
                "the replica {} is at {visible}, its primary at {durable}",
                replica.address
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// A position from a node's `/status`, as soon as it answers.
async fn wait_for_position(
    nodes: &NodeClient,
    address: &Address,
    name: &str,
    until: Instant,
) -> anyhow::Result<Position> {
    loop {
        match nodes.get_json(address, route::STATUS, STATUS_TIMEOUT).await {
            Ok(status) => {
                let text = status[name].as_str().unwrap_or_default();
                return text.parse().with_context(|| {
                    format!("{name} in the status of {address} is no position: {text:?}")
                });
            }
            Err(error) if Instant::now() >= until => {
                return Err(anyhow!(error).context(format!("{address} does not answer")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn get_from(
    kv: &Client,
    record: &Record,
    address: &Address,
    patience: Duration,
) -> anyhow::Result<Option<Bytes>> {
    let until = Instant::now() + patience;
    let options = GetOptions::new()
        .node(address.clone())
        .consistency(Consistency::Eventual);
    loop {
        match kv.get_with(&record.key, options.clone()).await {
            Ok(entry) => return Ok(entry.map(|entry| entry.value)),
            Err(error) if may_pass(error.kind()) && Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                return Err(
                    anyhow!(error).context(format!("cannot read {} on {address}", record.key))
                );
            }
        }
    }
}

fn describe(found: Option<Bytes>, record: &Record) -> String {
    match found {
        None => "missing".to_owned(),
        Some(found) => format!(
            "{:?} instead of {:?}",
            String::from_utf8_lossy(&found),
            String::from_utf8_lossy(&record.value)
        ),
    }
}
