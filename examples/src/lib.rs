//! What all the programs share: the option that names the shard map, and a clear word when something fails.
//!
//! A program of your own needs none of this: `Client::from_file` is enough.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use kvclient::{
    Client,
    node_client::{NodeClient, NodeClientOptions},
    shard_map::{self, ShardMap},
    wire::route,
};

/// Longest wait for one node's word.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Which cluster to use.
#[derive(Debug, Clone, clap::Args)]
pub struct Cluster {
    /// Shard map of the cluster: the file that ./launch.sh was started with
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
        let addresses: Vec<String> = map.nodes().map(|node| node.address.to_string()).collect();
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
        let text = std::fs::read_to_string(&self.map).with_context(|| {
            format!("cannot read the shard map {file}; name another with --map")
        })?;
        Ok(shard_map::toml::parse(&text, &file)?)
    }
}

/// Ends a program: exit code 0, or 1 and what went wrong on standard error.
///
/// Not left to `main`'s own result: that would show the stack's frames where `RUST_BACKTRACE` is set, which are about
/// the program and not about what its user can change.
pub fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, a line each. A cause that the line above tells already is left out.
fn describe(error: &anyhow::Error) -> String {
    let mut above = error.to_string();
    let mut text = format!("error: {above}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !above.contains(&cause) {
            text.push_str(&format!("\n  because: {cause}"));
        }
        above = cause;
    }
    text
}

/// The README's tour in Rust is compiled as part of the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow!("disk full")
            .context("put: disk full")
            .context("storing");
        assert_eq!(
            describe(&error),
            "error: storing\n  because: put: disk full"
        );
    }
}
