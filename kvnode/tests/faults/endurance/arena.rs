//! Three shards of a primary and two replicas, with a link from each replica to its primary, a link for clients before
//! each node, and a disk under each where that can be had.

use kvclient::{ClientBuilder, shard_map::toml};

use super::disks::Disks;
use crate::support::{
    cluster::{Cluster, Shape, map_text},
    link::Link,
};

pub(super) const SHARDS: usize = 3;
pub(super) const REPLICAS: usize = 2;

/// Nodes of a shard.
pub(super) const PER_SHARD: usize = 1 + REPLICAS;

/// Log that nodes keep: little, so that a replica that was away may need a snapshot.
pub(super) const RETENTION_BYTES: u64 = 5 << 20;

const SHAPE: Shape = Shape {
    shards: SHARDS,
    replicas: REPLICAS,
    linked: true,
    flags: &["--log-retention", "5MiB"],
    faults: "",
};

/// Above the version of any node's map, also of those that are raised: clients keep the map of the links.
const CLIENT_MAP_VERSION: usize = 1_000_000_000;

/// All of it. The nodes end first when this is dropped, the disks last.
pub(super) struct Arena {
    pub(super) cluster: Cluster,
    /// Before each node, in the order of the map.
    pub(super) doors: Vec<Link>,
    /// Or why there are none.
    pub(super) disks: Result<Disks, String>,
}

impl Arena {
    /// Starts all nodes; the first primary with faults.
    pub(super) async fn start(faults: &str) -> Self {
        let cluster = Cluster::prepare(SHAPE);
        let disks = Disks::under(cluster.nodes());
        cluster.primary(0).set_faults(faults);
        cluster.start_all().await;
        let address = |text: &str| text.parse().expect("an address");
        let nodes = cluster.nodes().iter();
        let doors = nodes.map(|node| Link::to(address(&node.address))).collect();
        Self {
            cluster,
            doors,
            disks,
        }
    }

    /// A client to be, which goes through the doors.
    pub(super) fn builder(&self) -> ClientBuilder {
        let doors = self.doors.iter();
        let addresses: Vec<String> = doors.map(|door| door.address().to_string()).collect();
        let text = map_text(CLIENT_MAP_VERSION, &addresses, PER_SHARD);
        ClientBuilder::new(toml::parse(&text, "the map of the doors").expect("a map"))
    }

    /// Waits until every replica has all that its primary has.
    pub(super) async fn wait_level(&self) {
        for shard in 0..SHARDS {
            let end = self.cluster.primary(shard).at("durable").await;
            for replica in 0..REPLICAS {
                let replica = self.cluster.replica(shard, replica);
                replica.wait_visible(end, "all links are whole").await;
            }
        }
    }
}
