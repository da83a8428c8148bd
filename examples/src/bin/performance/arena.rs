//! This store and the peers side by side, on the same machine at the same time: three primaries each, no replicas.
//!
//! All are started at once and stay until the last row that uses them; whoever is not measured is idle.

use std::{path::Path, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    bench::Bench,
    cluster::{Cluster, Shape},
    contender::Side,
    load::Load,
    peers::redis::{self, PRIMARIES, RedisCluster, Sync},
    process,
};

/// Connections that a client of a peer has to each server; a load says how many of them it uses.
pub(crate) const MOST_CONNECTIONS: usize = 3;

/// Time between two looks at who is busy.
const LOOK: Duration = Duration::from_millis(100);

/// Processor time of all servers together between two looks that still counts as idle: two ticks are noise.
const IDLE_SECONDS: f64 = 0.025;

/// Longest wait for all to be idle.
const UNREST: Duration = Duration::from_secs(10);

/// Everyone who is measured against everyone.
pub(crate) struct Arena {
    /// This store first.
    pub(crate) sides: Vec<Side>,
    /// Why somebody is not there.
    pub(crate) missing: Vec<String>,
    peers: Vec<RedisCluster>,
    _cluster: Cluster,
}

impl Arena {
    /// Starts everyone and stores all keys that a load is about.
    pub(crate) async fn start(bench: &Bench, load: &Load) -> anyhow::Result<Self> {
        let cluster = Cluster::start(bench, Shape::primaries(usize::from(PRIMARIES))).await?;
        let mut arena = Self {
            sides: vec![Side::kvclient(cluster.client()?, cluster.ids())],
            missing: Vec::new(),
            peers: Vec::new(),
            _cluster: cluster,
        };
        let programs = &bench.programs;
        arena.add(bench, "Redis", programs.redis.as_deref()).await?;
        arena
            .add(bench, "Valkey", programs.valkey.as_deref())
            .await?;
        arena.fill(load).await?;
        Ok(arena)
    }

    /// Changes when the peers answer writes.
    pub(crate) async fn set_sync(&self, sync: Sync) -> anyhow::Result<()> {
        for peer in &self.peers {
            peer.set_sync(sync).await?;
        }
        Ok(())
    }

    /// Waits until no server has anything left to do of the turn before, such as to move what was written to LMDB, and
    /// the disk has all of it.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        spawn_blocking(rustix::fs::sync).await?;
        let until = Instant::now() + UNREST;
        let mut before = self.cpu_seconds()?;
        while Instant::now() < until {
            sleep(LOOK).await;
            let now = self.cpu_seconds()?;
            if now - before < IDLE_SECONDS {
                break;
            }
            before = now;
        }
        Ok(())
    }

    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        // The two clients of one peer name the same servers: what those use counts twice, and idle is idle.
        let servers = self.sides.iter().flat_map(|side| &side.servers);
        servers.map(|id| process::cpu_seconds(*id)).sum()
    }

    async fn add(
        &mut self,
        bench: &Bench,
        name: &str,
        binary: Option<&Path>,
    ) -> anyhow::Result<()> {
        let Some(binary) = binary else {
            self.missing.push(format!("{name}: not installed"));
            return Ok(());
        };
        let name = format!("{name} {}", redis::version(binary)?);
        let peer = RedisCluster::start(bench, binary).await?;
        let (ports, ids) = (peer.ports(), peer.ids());
        let side = Side::redis_rs(&name, ports, ids.clone(), MOST_CONNECTIONS);
        self.sides.push(side.await?);
        let side = Side::fred(&name, ports, ids, MOST_CONNECTIONS);
        self.sides.push(side.await?);
        self.peers.push(peer);
        Ok(())
    }

    async fn fill(&self, load: &Load) -> anyhow::Result<()> {
        self.set_sync(Sync::EverySecond).await?;
        // The two clients of one peer reach the same servers.
        for side in self
            .sides
            .iter()
            .take(1)
            .chain(self.sides.iter().skip(1).step_by(2))
        {
            side.fill(load).await?;
        }
        Ok(())
    }
}
