//! What all nodes of a map say when they are asked at the same time.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use kvclient::{
    Client, ShardMap, attempt::AttemptError, node_client::NodeClient, shard_map::Address,
};

use crate::{connect::Connected, failure::Failure};

/// Longest wait for a node that does not answer, if nobody says otherwise: it answers in a few ms if it is well.
const ASK_FOR: Duration = Duration::from_secs(2);

/// Asks nodes one by one, past the client's routing.
pub(crate) struct Asker {
    nodes: NodeClient,
    timeout: Duration,
}

/// What each node says the map is.
pub(crate) struct Maps {
    pub(crate) answers: Vec<(Address, Result<ShardMap, AttemptError>)>,
}

impl Asker {
    pub(crate) fn new(connected: &Connected) -> Result<Self, Failure> {
        Ok(Self {
            nodes: NodeClient::new(connected.nodes.clone())?,
            timeout: connected.timeout.unwrap_or(ASK_FOR),
        })
    }

    /// What it asks through.
    pub(crate) fn client(&self) -> &NodeClient {
        &self.nodes
    }

    /// Asks every node of the client's map for the map in force.
    pub(crate) async fn maps(&self, kv: &Client) -> Maps {
        let map = kv.map();
        let asked = map.nodes().map(async |node| {
            let answer = self.nodes.cluster_map(&node.address, None, self.timeout);
            let missing = || AttemptError::Undecodable("no map".to_owned());
            let map = answer.await.and_then(|map| map.ok_or_else(missing));
            (node.address.clone(), map)
        });
        Maps {
            answers: join_all(asked).await,
        }
    }

    /// The map in force: the newest that a node has, or the client's own if none answers.
    pub(crate) async fn in_force(&self, kv: &Client) -> Arc<ShardMap> {
        let maps = self.maps(kv).await;
        maps.newest()
            .map_or_else(|| kv.map(), |map| Arc::new(map.clone()))
    }

    /// The map of whichever node says it first, or the client's own if none does: for those who do not want to wait for
    /// a node that hangs.
    pub(crate) async fn first_map(&self, kv: &Client) -> Arc<ShardMap> {
        let own = kv.map();
        let nodes = own.nodes();
        let mut answers: FuturesUnordered<_> = nodes
            .map(|node| self.nodes.cluster_map(&node.address, None, self.timeout))
            .collect();
        while let Some(answer) = answers.next().await {
            if let Ok(Some(map)) = answer {
                return Arc::new(map);
            }
        }
        Arc::clone(&own)
    }

    /// For what is more than a document.
    pub(crate) fn nodes(&self) -> &NodeClient {
        &self.nodes
    }

    /// Longest wait for an answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks one node for a document.
    pub(crate) async fn document(
        &self,
        address: &Address,
        path: &str,
    ) -> Result<serde_json::Value, AttemptError> {
        self.nodes.get_json(address, path, self.timeout).await
    }
}

impl Maps {
    /// The map in force: the newest that any node has.
    pub(crate) fn newest(&self) -> Option<&ShardMap> {
        let maps = self.answers.iter().filter_map(|(_, map)| map.as_ref().ok());
        maps.reduce(|newest, map| match map.version() > newest.version() {
            true => map,
            false => newest,
        })
    }
}
