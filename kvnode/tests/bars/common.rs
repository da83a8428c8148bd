//! What the bars share: clients that go by a map of the test's own.

use kvclient::{ClientBuilder, shard_map::toml};

use crate::support::cluster::{Cluster, map_text};

/// Higher than any node's, so that clients keep the map that the test gives them.
const MAP_VERSION: usize = 1_000;

/// Where all nodes are, in the order of the map.
pub(crate) fn addresses(cluster: &Cluster) -> Vec<String> {
    let nodes = cluster.nodes().iter();
    nodes.map(|node| node.address.clone()).collect()
}

/// A client to be, which finds the cluster's nodes at these addresses and stays with that.
pub(crate) fn builder(cluster: &Cluster, addresses: &[String]) -> ClientBuilder {
    let text = map_text(MAP_VERSION, addresses, 1 + cluster.shape.replicas);
    let map = toml::parse(&text, "a map of the test").expect("a map");
    ClientBuilder::new(map)
}
