//! A cluster of this store's nodes: started from a map that is written here, killed and started again by process id.
//!
//! Nodes run with the flags that a row names and their defaults otherwise. Dropping it stops all nodes and removes
//! their data.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use kvclient::{
    Client,
    node_client::{NodeClient, NodeClientOptions},
    shard_map::Address,
    wire::route,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{bench::Bench, ports, process::Process};

/// Longest wait for a node to become ready.
const READY: Duration = Duration::from_secs(60);

/// Longest wait for one node's word; one that is busy may need some of it.
const WORD: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(20);

/// What a cluster looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) shards: usize,
    /// Replicas of each shard.
    pub(crate) replicas: usize,
    /// Flags of every node.
    pub(crate) flags: &'static [&'static str],
}

impl Shape {
    /// That many primaries, as shipped.
    pub(crate) fn primaries(shards: usize) -> Self {
        Self {
            shards,
            replicas: 0,
            flags: &[],
        }
    }
}

/// Nodes of one map, in its order: each shard's primary, then its replicas.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    map: PathBuf,
    client: NodeClient,
    /// Removed after the nodes above have ended.
    _dir: TempDir,
}

/// One node, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    process: Option<Process>,
    address: Address,
    binary: PathBuf,
    map: PathBuf,
    data: PathBuf,
    flags: &'static [&'static str],
}

impl Cluster {
    /// Starts all nodes and waits until they are ready.
    pub(crate) async fn start(bench: &Bench, shape: Shape) -> anyhow::Result<Self> {
        let dir = bench.directory()?;
        let ports = ports::free(shape.shards * (1 + shape.replicas))?;
        let map = dir.path().join("sharding.toml");
        fs::write(&map, map_text(&ports, 1 + shape.replicas))?;
        let node = |port: &u16| Node::new(&bench.programs.kvnode, dir.path(), *port, shape.flags);
        let mut cluster = Self {
            nodes: ports.iter().map(node).collect::<anyhow::Result<_>>()?,
            map,
            client: NodeClient::new(NodeClientOptions::default())?,
            _dir: dir,
        };
        for node in &mut cluster.nodes {
            node.spawn()?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// A client as a program would make it, with all its defaults.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::from_file(&self.map)?)
    }

    /// Ids of the processes that run.
    pub(crate) fn ids(&self) -> Vec<u32> {
        let running = self.nodes.iter().filter_map(|node| node.process.as_ref());
        running.map(Process::id).collect()
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What a node says of itself.
    pub(crate) async fn status(&self, node: usize) -> anyhow::Result<serde_json::Value> {
        self.nodes[node].status(&self.client).await
    }

    /// Ends a node without a word: `kill -9`.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].process = None;
    }

    /// Starts every node that does not run, and waits until all are ready.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.process.is_none()) {
            node.spawn()?;
        }
        self.ready().await
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        for node in &mut self.nodes {
            while !node.is_ready(&self.client).await? {
                let address = &node.address;
                anyhow::ensure!(Instant::now() < until, "{address} is not ready in time");
                sleep(POLL).await;
            }
        }
        Ok(())
    }
}

impl Node {
    fn new(
        binary: &Path,
        dir: &Path,
        port: u16,
        flags: &'static [&'static str],
    ) -> anyhow::Result<Self> {
        Ok(Self {
            process: None,
            address: format!("127.0.0.1:{port}").parse()?,
            binary: binary.to_owned(),
            map: dir.join("sharding.toml"),
            data: dir.join(port.to_string()),
            flags,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(&self.map);
        command.args(["--address", &self.address.to_string(), "--data"]);
        command.arg(&self.data).args(self.flags);
        let name = format!("the node at {}", self.address);
        let process = Process::start(&name, command, self.data.with_extension("log"))?;
        self.process = Some(process);
        Ok(())
    }

    async fn is_ready(&mut self, client: &NodeClient) -> anyhow::Result<bool> {
        self.process.as_mut().context("it runs")?.check()?;
        let status = self.status(client).await;
        Ok(status.is_ok_and(|status| status["state"] == "ready"))
    }

    async fn status(&self, client: &NodeClient) -> anyhow::Result<serde_json::Value> {
        Ok(client.get_json(&self.address, route::STATUS, WORD).await?)
    }
}

/// A map of shards with so many nodes each, in the order of the ports.
pub(crate) fn map_text(ports: &[u16], nodes_a_shard: usize) -> String {
    let mut text = String::from("version = 1\n");
    for (idx, ports) in ports.chunks(nodes_a_shard).enumerate() {
        let (primary, replicas) = (ports[0], &ports[1..]);
        text.push_str(&format!(
            "[[shards]]\nname = \"shard{idx}\"\nidx = {idx}\naddress = \"127.0.0.1:{primary}\"\n"
        ));
        if !replicas.is_empty() {
            let replicas: Vec<String> = replicas
                .iter()
                .map(|port| format!("\"127.0.0.1:{port}\""))
                .collect();
            text.push_str(&format!("replicas = [{}]\n", replicas.join(", ")));
        }
    }
    text
}
