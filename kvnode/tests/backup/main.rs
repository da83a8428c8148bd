//! Backups of real nodes, restored into other real nodes; and everything that can come between.

mod drill;
mod follow;
mod model;
#[allow(
    dead_code,
    reason = "another binary's support: what breaks nodes and links is used there"
)]
#[path = "../cluster/support/mod.rs"]
mod support;
mod trouble;

use std::path::Path;

use futures_util::{StreamExt, stream};
use kvclient::{
    Client, ShardMap,
    backup::{
        BackupDir, BackupError, CopyFrom, IntoNonEmpty, Manifest, Puller, Report, RestoreOptions,
        Summary, Until, restore,
    },
    node_client::{NodeClient, NodeClientOptions},
};
use support::cluster::Cluster;

fn client(cluster: &Cluster) -> Client {
    Client::builder(map(cluster)).build().expect("a client")
}

fn map(cluster: &Cluster) -> ShardMap {
    kvclient::shard_map::toml::parse(&cluster.map, "the map of the test").expect("a map")
}

fn nodes() -> NodeClient {
    NodeClient::new(NodeClientOptions::default()).expect("a client")
}

fn silent(_: Report<'_>) {}

/// Brings the backup in a directory up to date.
async fn back_up(cluster: &Cluster, path: &Path) -> Result<Manifest, BackupError> {
    back_up_from(cluster, path, CopyFrom::Replicas).await
}

async fn back_up_from(
    cluster: &Cluster,
    path: &Path,
    from: CopyFrom,
) -> Result<Manifest, BackupError> {
    let (dir, map) = (BackupDir::create(path)?, map(cluster));
    let puller = Puller::new(&dir, nodes(), &map, from, &silent)?;
    puller.run().await?;
    Ok(puller.manifest())
}

fn options(path: &Path, others: Until) -> RestoreOptions {
    RestoreOptions {
        until: Vec::new(),
        others,
        into_non_empty: IntoNonEmpty::Refuse,
        progress: path.join("restore.progress"),
    }
}

async fn restore_into(
    cluster: &Cluster,
    path: &Path,
    options: &RestoreOptions,
) -> Result<Summary, BackupError> {
    let dir = BackupDir::open(path)?;
    restore(&client(cluster), &nodes(), &dir, options, &|_| {}).await
}

/// Stores so many small entries.
async fn fill(kv: &Client, prefix: &str, count: usize, value_bytes: usize) {
    let value = "v".repeat(value_bytes);
    let puts = (0..count).map(|n| kv.put(format!("{prefix}{n}"), value.clone()));
    let stored: Vec<_> = stream::iter(puts).buffer_unordered(64).collect().await;
    assert!(stored.iter().all(Result::is_ok), "all are stored");
}
