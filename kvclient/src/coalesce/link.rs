//! What all lanes of a node share: where it is, how to reach it, and who is told of its map.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    attempt::AttemptError, node_client::NodeClient, options::LaneOptions, shard_map::Address,
    wire::batch::OpResult,
};

/// Told of the map that a node says is in force: the node and the map's identity.
pub(crate) type MapHeard = Arc<dyn Fn(&Address, &str) + Send + Sync>;

/// The way to one node.
pub(crate) struct Link {
    pub(crate) address: Address,
    pub(crate) nodes: NodeClient,
    pub(crate) options: LaneOptions,
    pub(crate) map_heard: MapHeard,
    /// Requests made.
    pub(crate) requests: AtomicU64,
}

impl Link {
    /// Sends a batch of `count` ops and passes on which map the node has.
    pub(crate) async fn batch(
        &self,
        body: Vec<u8>,
        count: usize,
        limit: Duration,
    ) -> Result<Vec<OpResult>, AttemptError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let exchange = self.nodes.batch_encoded(&self.address, body, count, limit);
        let answer = exchange.await?;
        if let Some(identity) = &answer.map_version {
            (self.map_heard)(&self.address, identity);
        }
        Ok(answer.results)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.address)
    }
}
