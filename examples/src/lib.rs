//! What all the programs share: the option that names the shard map, and a clear word when no cluster answers.
//!
//! A program of your own needs none of this: `Client::from_file` is enough.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use kvclient::{
    Client,
    node_client::{NodeClient, NodeClientOptions},
    shard_map::{self, Address, ShardMap},
    wire::route,
};

/// Longest wait for one node's word.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Which cluster to use.
#[derive(Debug, Clone, clap::Args)]
pub struct Cluster {
    /// The shard map
    #[arg(long, value_name = "FILE", default_value = "sharding.toml")]
    pub map: PathBuf,
}

impl Cluster {
    /// A client for the map, once at least one of its nodes has answered.
    ///
    /// # Errors
    /// The map cannot be read, or nobody answers; the text says what to do.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let map = self.read_map()?;
        let nodes = NodeClient::new(NodeClientOptions::default())?;
        for node in map.nodes() {
            let status = nodes.get_json(&node.address, route::STATUS, STATUS_TIMEOUT);
            if status.await.is_ok() {
                return Ok(Client::from_file(&self.map)?);
            }
        }
        let addresses: Vec<&Address> = map.nodes().map(|node| &node.address).collect();
        let addresses: Vec<String> = addresses.into_iter().map(Address::to_string).collect();
        bail!(
            "no cluster answers at {}; start one with ./launch.sh",
            addresses.join(", ")
        )
    }

    /// The map itself.
    ///
    /// # Errors
    /// The file cannot be read, or has a mistake, which the text places.
    pub fn read_map(&self) -> anyhow::Result<ShardMap> {
        let file = self.map.display().to_string();
        let text =
            std::fs::read_to_string(&self.map).with_context(|| format!("cannot read {file}"))?;
        Ok(shard_map::toml::parse(&text, &file)?)
    }
}

/// The README's tour in Rust is compiled as part of the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
