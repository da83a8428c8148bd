//! What all nodes of a map say when they are asked at the same time.

use std::time::Duration;

use futures_util::future::join_all;
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
