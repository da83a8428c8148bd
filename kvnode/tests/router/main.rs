//! The router against real nodes: what `kvclient` promises over all shards, while nodes come and go.

mod scan;
#[allow(
    dead_code,
    reason = "another binary's support: what breaks nodes and links is used there"
)]
#[path = "../cluster/support/mod.rs"]
mod support;
mod update;
mod watch;

use kvclient::{Client, ShardMap};
use support::cluster::Cluster;

/// A client of all nodes of a cluster.
fn client(cluster: &Cluster) -> Client {
    Client::builder(map(cluster)).build().expect("a client")
}

fn map(cluster: &Cluster) -> ShardMap {
    kvclient::shard_map::toml::parse(&cluster.map, "the map of the test").expect("a map")
}
