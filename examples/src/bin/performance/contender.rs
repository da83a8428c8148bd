//! Who is measured: this store through kvclient, and the peers through the two clients that Rust programs use.
//!
//! Each in one enum variant of [`Side`], so that the loop is compiled for each and none pays for being one of many.

use std::{sync::Mutex, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use fred::{
    interfaces::{ClientLike, KeysInterface},
    types::config::{ConnectionConfig, ServerConfig, TcpConfig},
};
use kvclient::Client;
use redis::{
    cluster::ClusterClientBuilder, cluster_async::ClusterConnection, cmd, io::tcp::TcpSettings,
};

use crate::{
    load::{KeyText, Load, Times},
    process::cpu_seconds,
};

/// One task's way to a store.
pub(crate) trait Contender: Clone + Send + Sync + 'static {
    /// The value, if there is one.
    fn get(&mut self, key: KeyText) -> impl Future<Output = anyhow::Result<Option<Bytes>>> + Send;

    /// Stores it; returns when it is acknowledged.
    fn set(
        &mut self,
        key: KeyText,
        value: Bytes,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

impl Contender for Client {
    async fn get(&mut self, key: KeyText) -> anyhow::Result<Option<Bytes>> {
        Ok(Self::get(self, key).await?)
    }

    async fn set(&mut self, key: KeyText, value: Bytes) -> anyhow::Result<()> {
        self.put(key, value).await?;
        Ok(())
    }
}

impl Contender for ClusterConnection {
    async fn get(&mut self, key: KeyText) -> anyhow::Result<Option<Bytes>> {
        Ok(cmd("GET").arg(key.as_bytes()).query_async(self).await?)
    }

    async fn set(&mut self, key: KeyText, value: Bytes) -> anyhow::Result<()> {
        Ok(cmd("SET")
            .arg(key.as_bytes())
            .arg(&value[..])
            .query_async(self)
            .await?)
    }
}

impl Contender for fred::clients::Client {
    async fn get(&mut self, key: KeyText) -> anyhow::Result<Option<Bytes>> {
        Ok(KeysInterface::get(self, key.as_bytes()).await?)
    }

    async fn set(&mut self, key: KeyText, value: Bytes) -> anyhow::Result<()> {
        Ok(KeysInterface::set(self, key.as_bytes(), value, None, None, false).await?)
    }
}

/// A store as one client reaches it.
pub(crate) struct Side {
    /// What the table calls it.
    pub(crate) name: String,
    /// Processes of the store.
    pub(crate) servers: Vec<u32>,
    clients: Clients,
}

/// The same kind of client once or several times; tasks are dealt out to them.
enum Clients {
    Kv([Client; 1]),
    RedisRs(Vec<ClusterConnection>),
    Fred(Vec<fred::clients::Client>),
}

/// What one measurement came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) ops_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Processor time of the store, in microseconds an op.
    pub(crate) server_cpu_us: f64,
    /// The same of this program.
    pub(crate) client_cpu_us: f64,
}

impl Side {
    pub(crate) fn kvclient(client: Client, servers: Vec<u32>) -> Self {
        Self {
            name: "kvclient".to_owned(),
            clients: Clients::Kv([client]),
            servers,
        }
    }

    /// redis-rs, which pipelines what many tasks send over one connection a server.
    pub(crate) async fn redis_rs(
        store: &str,
        ports: &[u16],
        servers: Vec<u32>,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let nodes = ports.iter().map(|port| format!("redis://127.0.0.1:{port}"));
        let client = ClusterClientBuilder::new(nodes)
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .response_timeout(Duration::from_secs(30))
            .build()?;
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(client.get_async_connection().await?);
        }
        Ok(Self {
            name: format!("{store}, redis-rs"),
            clients: Clients::RedisRs(clients),
            servers,
        })
    }

    /// fred, which pipelines by itself.
    pub(crate) async fn fred(
        store: &str,
        ports: &[u16],
        servers: Vec<u32>,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let hosts = ports.iter().map(|port| ("127.0.0.1", *port)).collect();
        let config = fred::prelude::Config {
            server: ServerConfig::new_clustered(hosts),
            ..Default::default()
        };
        let connection = ConnectionConfig {
            tcp: TcpConfig {
                nodelay: Some(true),
                ..Default::default()
            },
            ..Default::default()
        };
        let mut clients = Vec::new();
        for _ in 0..connections {
            let client =
                fred::clients::Client::new(config.clone(), None, Some(connection.clone()), None);
            client.init().await?;
            clients.push(client);
        }
        Ok(Self {
            name: format!("{store}, fred"),
            clients: Clients::Fred(clients),
            servers,
        })
    }

    pub(crate) async fn fill(&self, load: &Load) -> anyhow::Result<()> {
        match &self.clients {
            Clients::Kv([client]) => load.fill(client).await,
            Clients::RedisRs(clients) => load.fill(&clients[0]).await,
            Clients::Fred(clients) => load.fill(&clients[0]).await,
        }
        .with_context(|| self.name.clone())
    }

    /// One measurement. Of a peer's connections those are used that the load asks for.
    pub(crate) async fn measure(&self, load: &Load) -> anyhow::Result<Measured> {
        let before = Mutex::new((0.0, 0.0));
        let counting = || {
            *before.lock().expect("nobody panics with it") = self.cpu()?;
            Ok(())
        };
        let mut times = match &self.clients {
            Clients::Kv(clients) => load.run(clients, counting).await,
            Clients::RedisRs(clients) => load.run(&clients[..load.connections], counting).await,
            Clients::Fred(clients) => load.run(&clients[..load.connections], counting).await,
        }
        .with_context(|| self.name.clone())?;
        let (servers, client) = self.cpu()?;
        let before = before.into_inner().expect("nobody panics with it");
        Ok(Measured::new(
            &mut times,
            servers - before.0,
            client - before.1,
        ))
    }

    /// Seconds of the processors so far: the store's, and this program's.
    fn cpu(&self) -> anyhow::Result<(f64, f64)> {
        let servers = self.servers.iter().map(|id| cpu_seconds(*id));
        let servers = servers.sum::<anyhow::Result<f64>>()?;
        Ok((servers, cpu_seconds(std::process::id())?))
    }
}

impl Measured {
    fn new(times: &mut Times, server_seconds: f64, client_seconds: f64) -> Self {
        let micros_an_op = 1_000_000.0 / times.count() as f64;
        Self {
            ops_per_second: times.ops_per_second(),
            p50_us: times.within_us(500),
            p99_us: times.within_us(990),
            server_cpu_us: server_seconds * micros_an_op,
            client_cpu_us: client_seconds * micros_an_op,
        }
    }
}
