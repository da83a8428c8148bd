//! A cluster of three Redis or Valkey primaries, without replicas.
//!
//! As fast as they can be: no snapshots (`save ""`), no rewriting of the append-only file in the background, no
//! latency histograms of their own. What remains is the append-only file, synced as a row asks.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, ensure};
use redis::{Cmd, FromRedisValue, aio::MultiplexedConnection, cmd};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{bench::Bench, ports, process::Process};

pub(crate) const PRIMARIES: u16 = 3;

const SLOTS: u16 = 16_384;

/// Longest wait for the cluster to be whole.
const READY: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(50);

/// Settings of every server; each is the file's line as flags.
const SETTINGS: &[&str] = &[
    "--bind 127.0.0.1",
    "--cluster-enabled yes",
    "--appendonly yes",
    "--appendfsync always",
    "--auto-aof-rewrite-percentage 0",
    "--latency-tracking no",
    "--daemonize no",
];

/// When a server of theirs answers a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// After the sync: `appendfsync always`.
    Always,
    /// Up to a second before it: `appendfsync everysec`.
    EverySecond,
}

/// Three primaries.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    servers: Vec<Process>,
    ports: Vec<u16>,
    connections: Vec<MultiplexedConnection>,
    /// Removed after the servers above have ended.
    _dir: TempDir,
}

impl RedisCluster {
    /// Starts the servers, joins them and waits until each serves its share of the slots.
    pub(crate) async fn start(bench: &Bench, binary: &Path) -> anyhow::Result<Self> {
        let dir = bench.directory()?;
        let ports = ports::free(2 * usize::from(PRIMARIES))?;
        let mut cluster = Self {
            servers: Vec::new(),
            ports: ports.iter().step_by(2).copied().collect(),
            connections: Vec::new(),
            _dir: dir,
        };
        for pair in ports.chunks(2) {
            let server = start_server(binary, cluster._dir.path(), pair[0], pair[1])?;
            cluster.servers.push(server);
        }
        cluster.connect().await?;
        cluster.join(&ports).await?;
        cluster.whole().await?;
        Ok(cluster)
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.servers.iter().map(Process::id).collect()
    }

    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Changes when writes are answered, on all servers.
    pub(crate) async fn set_sync(&self, sync: Sync) -> anyhow::Result<()> {
        let value = match sync {
            Sync::Always => "always",
            Sync::EverySecond => "everysec",
        };
        for at in 0..self.connections.len() {
            let set = cmd("CONFIG").arg(&["SET", "appendfsync", value]).to_owned();
            self.ask::<()>(at, set).await?;
        }
        Ok(())
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        for (server, port) in self.servers.iter_mut().zip(&self.ports) {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
            let connection = loop {
                server.check()?;
                match client.get_multiplexed_async_connection().await {
                    Ok(connection) => break connection,
                    Err(error) => ensure!(Instant::now() < until, "no connection: {error}"),
                }
                sleep(POLL).await;
            };
            self.connections.push(connection);
        }
        Ok(())
    }

    /// Gives each server its share of the slots, and makes the first known to the others.
    async fn join(&self, ports: &[u16]) -> anyhow::Result<()> {
        for number in 0..PRIMARIES {
            let first = number * SLOTS / PRIMARIES;
            let last = (number + 1) * SLOTS / PRIMARIES - 1;
            let at = usize::from(number);
            let mut own = cmd("CLUSTER");
            own.arg("ADDSLOTSRANGE").arg(first).arg(last);
            self.ask::<()>(at, own).await?;
            if at > 0 {
                let mut meet = cmd("CLUSTER");
                meet.arg("MEET")
                    .arg("127.0.0.1")
                    .arg(ports[0])
                    .arg(ports[1]);
                self.ask::<()>(at, meet).await?;
            }
        }
        Ok(())
    }

    /// Waits until every server knows all of them and says that all slots are served.
    async fn whole(&self) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        for at in 0..self.connections.len() {
            loop {
                let info: String = self.ask(at, cmd("CLUSTER").arg("INFO").to_owned()).await?;
                let has = |line: &str| info.lines().any(|other| other == line);
                if has("cluster_state:ok") && has(&format!("cluster_size:{PRIMARIES}")) {
                    break;
                }
                ensure!(Instant::now() < until, "the cluster is not whole:\n{info}");
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    async fn ask<T: FromRedisValue>(&self, at: usize, command: Cmd) -> anyhow::Result<T> {
        let mut connection = self.connections[at].clone();
        Ok(command.query_async(&mut connection).await?)
    }
}

/// What the program calls itself: `v=7.0.15` in what `--version` prints.
pub(crate) fn version(binary: &Path) -> anyhow::Result<String> {
    let said = Command::new(binary).arg("--version").output()?.stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let version = said
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="));
    Ok(version.context("a version")?.to_owned())
}

fn start_server(binary: &Path, dir: &Path, port: u16, bus: u16) -> anyhow::Result<Process> {
    let data = dir.join(port.to_string());
    std::fs::create_dir(&data)?;
    let mut command = Command::new(binary);
    command.args([
        "--port",
        &port.to_string(),
        "--cluster-port",
        &bus.to_string(),
    ]);
    command.args(SETTINGS.iter().flat_map(|setting| setting.split(' ')));
    command.args(["--save", ""]).arg("--dir").arg(&data);
    let name = format!("{} at port {port}", binary.display());
    Process::start(&name, command, data.with_extension("log"))
}
