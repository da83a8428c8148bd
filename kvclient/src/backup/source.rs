//! Asking nodes for a shard's copy and log without being one of its nodes.
//!
//! A pull names an address that no map has. So it is judged by the handshake like a replica's, which says whether the
//! backup and the log are still one, and counts for nothing: neither as an acknowledgement nor for the log that is kept
//! for replicas.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::chain::Chain;
use crate::{
    node_client::{NodeClient, SnapshotBody, SnapshotRequest},
    position::Position,
    shard_map::{Address, Shard},
    wire::{error::ErrorCode, pull::PullRequest, route},
};

/// `.invalid` is a name that nobody can have.
const NOBODY: &str = "backup.invalid:1";

/// Longest wait for a state: a node that is well answers in a few ms.
const STATE_WITHIN: Duration = Duration::from_secs(2);

/// Longest wait for frames.
const ASK_FOR: Duration = Duration::from_secs(10);

/// Longest silence in a snapshot: as long as a node bears it.
const SILENCE: Duration = Duration::from_secs(30);

/// Bytes of frames in one answer.
const PULL_BYTES: u32 = 4 << 20;

/// Nodes, asked by somebody who is none of them.
#[derive(Debug, Clone)]
pub(super) struct Source {
    nodes: NodeClient,
    node_id: u64,
    nobody: Address,
}

/// A replica that can be copied.
#[derive(Debug, Clone)]
pub(super) struct Able {
    pub(super) address: Address,
    lag_ms: u64,
}

/// As far as it is needed here.
#[derive(Debug, Deserialize)]
struct Status {
    state: String,
    durable: String,
    lag_ms: Option<u64>,
    entries: u64,
}

/// What a node says to a pull.
#[derive(Debug)]
pub(super) enum Pulled {
    /// Frames behind what is there, or none.
    Frames {
        frames: Bytes,
        /// The node's durable end.
        durable: Position,
        /// Shard time before that was looked up, Unix milliseconds.
        asked_at_ms: u64,
    },
    /// Its log no longer reaches back.
    Truncated,
    /// Both have been the same up to here only.
    Parted(Option<Position>),
    /// It is another log altogether.
    Foreign(Option<u128>),
    /// Nothing that helps.
    Failed(String),
}

impl Source {
    pub(super) fn new(nodes: NodeClient) -> Self {
        Self {
            nodes,
            node_id: fastrand::u64(..),
            nobody: NOBODY.parse().expect("a host and a port"),
        }
    }

    /// The replicas that are ready and hold at least a position, the one that lags least first.
    pub(super) async fn replicas(&self, shard: &Shard, at_least: Position) -> Vec<Able> {
        let mut able = Vec::new();
        for node in &shard.replicas {
            let Ok(status) = self.status(&node.address).await else {
                continue;
            };
            let durable: Position = status.durable.parse().unwrap_or_default();
            if status.state == "ready" && durable >= at_least {
                able.push(Able {
                    address: node.address.clone(),
                    lag_ms: status.lag_ms.unwrap_or(u64::MAX),
                });
            }
        }
        able.sort_by_key(|able| able.lag_ms);
        able
    }

    /// About how many entries a node has.
    pub(super) async fn entries(&self, node: &Address) -> Option<u64> {
        let status = self.status(node).await.ok()?;
        Some(status.entries)
    }

    async fn status(&self, node: &Address) -> Result<Status, String> {
        let json = self.nodes.get_json(node, route::STATUS, STATE_WITHIN).await;
        let json = json.map_err(|error| error.to_string())?;
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    /// Begins a copy.
    pub(super) async fn snapshot(&self, node: &Address) -> Result<SnapshotBody, String> {
        let request = SnapshotRequest {
            node_id: self.node_id,
            node_address: self.nobody.clone(),
            idle_timeout: SILENCE,
        };
        let opened = self.nodes.snapshot(node, &request).await;
        opened.map_err(|error| error.to_string())
    }

    /// Asks for the frames behind a chain.
    pub(super) async fn pull(&self, node: &Address, history: u128, chain: &Chain) -> Pulled {
        let request = PullRequest {
            after: chain.end.position.seq,
            max_bytes: PULL_BYTES,
            wait_ms: 0,
            node_id: self.node_id,
            node_address: self.nobody.clone(),
            history: Some(history),
            lineage: chain.lineage.clone(),
            last_crc: chain.end.crc,
            map_version: None,
        };
        let answer = match self.nodes.pull(node, &request, ASK_FOR).await {
            Ok(answer) => answer,
            Err(error) => return Pulled::Failed(error.to_string()),
        };
        match (answer.error_code(), answer.durable, answer.clock_ms) {
            (None, Some(durable), Some(clock_ms)) => Pulled::Frames {
                frames: answer.frames,
                durable,
                // A whole millisecond earlier, since both are cut to whole ones.
                asked_at_ms: clock_ms.saturating_sub(answer.waited_ms.unwrap_or(0) + 1),
            },
            (None, ..) => Pulled::Failed("it does not say where its log ends".to_owned()),
            (Some(ErrorCode::SnapshotRequired | ErrorCode::LogTruncated), ..) => Pulled::Truncated,
            (Some(ErrorCode::Diverged), ..) => Pulled::Parted(answer.common),
            // A node that is behind our newest reign says that too.
            (Some(ErrorCode::ForeignHistory), ..) if answer.history == Some(history) => {
                Pulled::Parted(None)
            }
            (Some(ErrorCode::ForeignHistory), ..) => Pulled::Foreign(answer.history),
            (Some(_), ..) => Pulled::Failed(answer.error.map_or(String::new(), |e| e.message)),
        }
    }
}
