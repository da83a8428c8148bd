//! From what was typed (`Args`) to what is needed ([`NodeConfig`]).
//!
//! Precedence: flag, then `KVNODE_*` variable, then `--settings` file, then default. Everything is checked here,
//! before a file or socket is touched; a mistake is one message and exit code 2.

mod args;
mod credentials;
mod error;
mod listen;
mod sizes;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kvclient::{
    Scheme,
    shard_map::{Address, Role, Shard, ShardMap},
    token::Token,
};

pub(crate) use self::listen::is_loopback;
pub use self::{
    args::{Cli, LogFormat, Offline, ServeArgs, Settings},
    error::ConfigError,
    sizes::Sizes,
};
use self::{
    credentials::{Credentials, lets_in},
    listen::{check_exposure, listen_addresses},
};
use crate::{access::TokenFile, marker::Order, ownership::Place, tls::NodeTls};

/// What a node needs to run, all of it checked.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The shard map.
    pub map: ShardMap,
    /// This node's address in the map.
    pub address: Address,
    /// Its place in the map.
    pub place: Place,
    /// Where to bind.
    pub listen: Vec<SocketAddr>,
    /// Where the data is.
    pub data: PathBuf,
    /// A person's word.
    pub order: Order,
    /// Sizes.
    pub sizes: Sizes,
    /// HTTP worker threads.
    pub workers: usize,
    /// Longest time for which a worker looks out for the next lone read.
    pub busy_poll: Duration,
    /// Requests that take longer are told in the log; `None`: none are.
    pub slow_request: Option<Duration>,
    /// Open connections at most.
    pub max_connections: usize,
    /// Whether GET may write from beyond loopback.
    pub allow_get_writes: bool,
    /// The tokens that callers may bring; without them nobody is asked who he is.
    pub tokens: Option<TokenFile>,
    /// Certificates; without them the node speaks in the clear.
    pub tls: Option<Arc<NodeTls>>,
    /// Who this node is to others.
    pub node_token: Option<Token>,
    /// What was said aloud about the lack of credentials.
    pub insecure_no_auth: bool,
}

impl NodeConfig {
    /// This node's shard.
    pub fn shard(&self) -> &Shard {
        &self.map.shards()[self.place.shard]
    }

    /// What this node is to its shard.
    pub fn role(&self) -> Role {
        self.place.role
    }

    /// How this node and all others of the map are spoken to.
    pub fn scheme(&self) -> Scheme {
        self.tls.as_ref().map_or(Scheme::Http, |_| Scheme::Https)
    }

    /// Whether other nodes that are given the same tokens would let this one in.
    pub fn is_known_to_others(&self) -> bool {
        match (&self.tokens, &self.node_token) {
            (Some(tokens), Some(node)) => lets_in(tokens, node),
            _ => true,
        }
    }
}

impl ServeArgs {
    /// Reads the map.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and column.
    pub fn read_map(&self) -> Result<ShardMap, ConfigError> {
        let file = self.config.display().to_string();
        let text = std::fs::read_to_string(&self.config).map_err(|error| {
            ConfigError::new(format!("{file}: the shard map cannot be read: {error}"))
        })?;
        kvclient::shard_map::toml::parse(&text, &file)
            .map_err(|error| ConfigError::new(error.to_string()))
    }

    /// Reads this node's own token; `None` if it has none.
    ///
    /// # Errors
    /// [`ConfigError`] says what to do about its file.
    pub fn read_node_token(&self) -> Result<Option<Token>, ConfigError> {
        let settings = self.merged_settings()?;
        credentials::node_token(&settings)
    }

    /// Settings of flags and variables over those of the file.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read or has a mistake.
    pub fn merged_settings(&self) -> Result<Settings, ConfigError> {
        let typed = self.settings_typed.clone();
        let file = match &self.settings {
            None => Settings::default(),
            Some(path) => read_settings(path)?,
        };
        Ok(Settings {
            listen: typed.listen.or(file.listen),
            max_value_size: typed.max_value_size.or(file.max_value_size),
            memtable_size: typed.memtable_size.or(file.memtable_size),
            map_size: typed.map_size.or(file.map_size),
            log_segment_size: typed.log_segment_size.or(file.log_segment_size),
            log_retention: typed.log_retention.or(file.log_retention),
            snapshot_log_limit: typed.snapshot_log_limit.or(file.snapshot_log_limit),
            workers: typed.workers.or(file.workers),
            busy_poll_us: typed.busy_poll_us.or(file.busy_poll_us),
            slow_request_ms: typed.slow_request_ms.or(file.slow_request_ms),
            max_connections: typed.max_connections.or(file.max_connections),
            max_in_flight: typed.max_in_flight.or(file.max_in_flight),
            allow_get_writes: typed.allow_get_writes.or(file.allow_get_writes),
            tokens: typed.tokens.or(file.tokens),
            tls_cert: typed.tls_cert.or(file.tls_cert),
            tls_key: typed.tls_key.or(file.tls_key),
            tls_client_ca: typed.tls_client_ca.or(file.tls_client_ca),
            tls_ca: typed.tls_ca.or(file.tls_ca),
            node_token_file: typed.node_token_file.or(file.node_token_file),
            insecure_no_auth: typed.insecure_no_auth.or(file.insecure_no_auth),
            log_format: typed.log_format.or(file.log_format),
            log_level: typed.log_level.or(file.log_level),
            checkpoint_every: typed.checkpoint_every.or(file.checkpoint_every),
        })
    }

    /// Checks everything and makes the node's configuration of it.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong and how to mend it.
    pub fn node_config(&self, settings: &Settings) -> Result<NodeConfig, ConfigError> {
        let map = self.read_map()?;
        let address = self.own_address(&map)?;
        let place = Place::find(&map, &address).ok_or_else(|| not_in_map(&map, &address))?;
        let credentials = Credentials::read(settings)?;
        credentials.check_others(&map)?;
        let listen = listen_addresses(settings.listen.as_deref(), &address)?;
        check_exposure(&listen, credentials.callers()?)?;
        let data = self
            .data
            .clone()
            .unwrap_or_else(|| PathBuf::from("data").join(address.port().to_string()));
        let order = match (self.promote, self.rejoin) {
            (true, _) => Order::Promote,
            (_, true) => Order::Rejoin,
            (false, false) => Order::None,
        };
        Ok(NodeConfig {
            sizes: settings.sizes()?,
            workers: settings.workers()?,
            busy_poll: busy_poll(settings.busy_poll_us)?,
            slow_request: Some(settings.slow_request_ms.unwrap_or(1_000))
                .filter(|ms| *ms > 0)
                .map(Duration::from_millis),
            max_connections: settings.max_connections()?,
            allow_get_writes: settings.allow_get_writes.unwrap_or(false),
            tokens: credentials.tokens,
            node_token: credentials.node_token,
            tls: credentials.tls,
            insecure_no_auth: credentials.insecure_no_auth,
            map,
            address,
            place,
            listen,
            data,
            order,
        })
    }

    /// Checks what a start would check before it touches anything; without `--address`, all that every node shares.
    /// The map.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong and how to mend it.
    pub fn check(&self, settings: &Settings) -> Result<ShardMap, ConfigError> {
        if self.address.is_some() {
            return Ok(self.node_config(settings)?.map);
        }
        let map = self.read_map()?;
        settings.check()?;
        if let (Some(listen), Some(node)) = (&settings.listen, map.nodes().next()) {
            listen_addresses(Some(listen), &node.address)?;
        }
        Ok(map)
    }

    fn own_address(&self, map: &ShardMap) -> Result<Address, ConfigError> {
        let Some(text) = &self.address else {
            let all: Vec<String> = map.nodes().map(|node| node.address.to_string()).collect();
            let all = all.join(", ");
            return Err(ConfigError::new(format!(
                "--address is missing: say which node of the map this is ({all})"
            )));
        };
        text.parse()
            .map_err(|error| ConfigError::new(format!("--address: {error}")))
    }
}

impl Settings {
    /// Whether each value is one that a node starts with.
    fn check(&self) -> Result<(), ConfigError> {
        self.sizes()?;
        self.workers()?;
        self.max_connections()?;
        busy_poll(self.busy_poll_us)?;
        Ok(())
    }

    fn workers(&self) -> Result<usize, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        at_least_one("--workers", self.workers.unwrap_or(cores))
    }

    fn max_connections(&self) -> Result<usize, ConfigError> {
        at_least_one("--max-connections", self.max_connections.unwrap_or(4_096))
    }
}

fn busy_poll(us: Option<u64>) -> Result<Duration, ConfigError> {
    match us.unwrap_or(200) {
        us @ 0..=10_000 => Ok(Duration::from_micros(us)),
        us => Err(ConfigError::new(format!(
            "--busy-poll-us is {us}: a worker would take a processor for that long after each read; at most 10000"
        ))),
    }
}

fn read_settings(path: &Path) -> Result<Settings, ConfigError> {
    let error = |problem: String| ConfigError::new(format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| error(format!("cannot be read: {e}")))?;
    toml::from_str(&text).map_err(|e| error(e.to_string()))
}

fn not_in_map(map: &ShardMap, address: &Address) -> ConfigError {
    let all: Vec<String> = map.nodes().map(|node| node.address.to_string()).collect();
    ConfigError::new(format!(
        "--address {address} is not in the shard map, which has {}",
        all.join(", ")
    ))
}

fn at_least_one(name: &str, number: usize) -> Result<usize, ConfigError> {
    if number == 0 {
        return Err(ConfigError::new(format!("{name} is 0; it is at least 1")));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const MAP: &str =
        "[[shards]]\nname = \"a\"\nidx = 0\naddress = \"localhost:1\"\nreplica = \"localhost:2\"\n";

    fn config(arguments: &[&str]) -> Result<NodeConfig, String> {
        let temp = tempfile::tempdir().expect("tempdir");
        let map = temp.path().join("map.toml");
        std::fs::write(&map, MAP).expect("file");
        let settings = temp.path().join("settings.toml");
        std::fs::write(&settings, "workers = 7\nmax_value_size = \"2MiB\"\n").expect("file");
        let mut all = vec!["kvnode", "--config", map.to_str().expect("utf-8")];
        for argument in arguments {
            all.push(if *argument == "SETTINGS" {
                settings.to_str().expect("utf-8")
            } else {
                argument
            });
        }
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        let settings = cli
            .serve
            .merged_settings()
            .map_err(|error| error.to_string())?;
        cli.serve
            .node_config(&settings)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_role_follows_from_the_address() {
        for (address, role) in [
            ("localhost:1", Role::Primary),
            ("localhost:2", Role::Replica),
        ] {
            assert_eq!(config(&["--address", address]).expect("valid").role(), role);
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let config = config(&[
            "--address",
            "localhost:1",
            "--settings",
            "SETTINGS",
            "--workers",
            "3",
        ])
        .expect("valid");
        assert_eq!((config.workers, config.sizes.max_value_bytes), (3, 2 << 20));
    }

    #[test]
    fn mistakes_say_how_to_mend_them() {
        for (arguments, message) in [
            (&[][..], "--address is missing"),
            (&["--address", "localhost:9"], "not in the shard map"),
            (&["--address", "localhost"], "the port is missing"),
            (
                &["--address", "localhost:1", "--busy-poll-us", "10001"],
                "--busy-poll-us is 10001",
            ),
            (
                &["--address", "localhost:1", "--listen", "0.0.0.0:1"],
                "--insecure-no-auth",
            ),
            (
                &["--address", "localhost:1", "--listen", "[::]:1"],
                "--insecure-no-auth",
            ),
            (
                &["--address", "localhost:1", "--max-value-size", "17MiB"],
                "at most 16MiB",
            ),
            (
                &["--address", "localhost:1", "--log-segment-size", "1MiB"],
                "lies whole in one segment",
            ),
            (
                &["--address", "localhost:1", "--snapshot-log-limit", "127MiB"],
                "at least two log segments, 128.0 MiB",
            ),
            (
                &["--address", "localhost:1", "--workers", "0"],
                "at least 1",
            ),
        ] {
            let error = config(arguments).expect_err(message);
            assert!(error.contains(message), "{arguments:?}: {error}");
        }
        let exposed = [
            "--address",
            "localhost:1",
            "--listen",
            "0.0.0.0:1",
            "--insecure-no-auth",
        ];
        assert!(config(&exposed).is_ok());
    }
}
