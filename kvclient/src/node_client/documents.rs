//! What a node is asked for and answers as a whole, beside ops: the map, a status, a piece of the log.

use std::time::Duration;

use super::client::NodeClient;
use crate::{
    attempt::AttemptError,
    shard_map::{Address, ShardMap, json},
    wire::{
        MAX_VALUE_BYTES_CEILING, log,
        pull::{PullAnswer, PullRequest},
        route,
    },
};

/// Most bytes of a map, a status, or another small answer.
const DOCUMENT_BYTES: usize = 16 << 20;

/// Room for what surrounds a frame.
const SLACK_BYTES: usize = 64 << 10;

impl NodeClient {
    /// Asks for the map in force: `GET /cluster/map`. `None` if it is the one named by `if_none_match` (an
    /// identity, `version-hash`).
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let node = "localhost:8080".parse()?;
    /// let limit = Duration::from_secs(1);
    /// let map = nodes.cluster_map(&node, None, limit).await?.expect("nothing was named");
    /// match nodes.cluster_map(&node, Some(map.identity()), limit).await? {
    ///     None => println!("still {}", map.identity()),
    ///     Some(newer) => println!("{} now", newer.identity()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: ask another node.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn cluster_map(
        &self,
        address: &Address,
        if_none_match: Option<&str>,
        timeout: Duration,
    ) -> Result<Option<ShardMap>, AttemptError> {
        let known = if_none_match.map(|identity| ("if-none-match", format!("\"{identity}\"")));
        let headers: Vec<_> = known.into_iter().collect();
        let answer = self.library.get(
            address,
            route::CLUSTER_MAP,
            &headers,
            timeout,
            DOCUMENT_BYTES,
        );
        let answer = answer.await?;
        match answer.status {
            304 => Ok(None),
            200 => json::decode(&answer.body)
                .map(Some)
                .map_err(|error| AttemptError::Undecodable(error.to_string())),
            _ => Err(answer.refusal()),
        }
    }

    /// Asks for a JSON document such as `/status`.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let node = "localhost:8080".parse()?;
    /// let status = nodes.get_json(&node, "/status", Duration::from_secs(1)).await?;
    /// println!("{status:#}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]; any status but 200 is [`AttemptError::Refused`].
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn get_json(
        &self,
        address: &Address,
        path: &str,
        timeout: Duration,
    ) -> Result<serde_json::Value, AttemptError> {
        let answer = self
            .library
            .get(address, path, &[], timeout, DOCUMENT_BYTES);
        let answer = answer.await?;
        if answer.status != 200 {
            return Err(answer.refusal());
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| AttemptError::Undecodable(error.to_string()))
    }

    /// Asks a primary for frames: `GET /log`. A refusal is an answer here, since a replica acts on it. `timeout`
    /// covers the primary's wait too.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use kvclient::{position::Lineage, wire::pull::PullRequest};
    ///
    /// // A reader of the log that is no replica yet: from its first record.
    /// let pull = PullRequest {
    ///     after: 0,
    ///     max_bytes: 1 << 20,
    ///     wait_ms: 1_000,
    ///     node_id: 7,
    ///     node_address: "localhost:8089".parse()?,
    ///     history: None,
    ///     lineage: Lineage::new(),
    ///     last_crc: 0,
    ///     map_version: None,
    /// };
    /// let primary = "localhost:8080".parse()?;
    /// let answer = nodes.pull(&primary, &pull, Duration::from_secs(5)).await?;
    /// println!("{}: {} bytes of frames, durable {:?}", answer.status, answer.frames.len(), answer.durable);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`] if no answer came or it does not decode: pull again after a while.
    ///
    /// # Cancel safety
    /// May be dropped; the primary then counts what the request acknowledged, and nothing else.
    pub async fn pull(
        &self,
        address: &Address,
        pull: &PullRequest,
        timeout: Duration,
    ) -> Result<PullAnswer, AttemptError> {
        let (uri, headers) = (pull.to_uri(), pull.to_headers());
        // At least one frame comes whole, however small `max_bytes` is.
        let frame_bytes = log::largest_frame_bytes(MAX_VALUE_BYTES_CEILING);
        let limit_bytes = (pull.max_bytes as usize).max(frame_bytes) + SLACK_BYTES;
        let answer = self
            .library
            .get(address, &uri, &headers, timeout, limit_bytes);
        let answer = answer.await?;
        let (status, body) = (answer.status, answer.body.clone());
        PullAnswer::decode(status, |name| answer.header(name), body)
            .map_err(|error| AttemptError::Undecodable(error.to_string()))
    }
}
