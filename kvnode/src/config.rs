//! From what was typed (`Args`) to what is needed ([`NodeConfig`]).
//!
//! Precedence: flag, then `KVNODE_*` variable, then `--settings` file, then default. Everything is checked here,
//! before a file or socket is touched; a mistake is one message and exit code 2.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kvclient::{
    shard_map::{Address, Role, Shard, ShardMap},
    wire::{self, log::largest_frame_bytes},
};
use serde::Deserialize;

use crate::{marker::Order, ownership::Place};

/// A storage node of the sharded, replicated key-value store.
#[derive(Debug, Parser)]
#[command(
    name = "kvnode",
    version,
    about,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Offline>,
    /// How to serve.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Work on a data directory that no node runs on.
#[derive(Debug, Subcommand)]
pub enum Offline {
    /// Verify every checksum, count and sum of a stopped node's data. Changes nothing.
    Check {
        /// The node's data directory.
        #[arg(long)]
        data: PathBuf,
    },
}

/// What can be typed. Every setting may also stand in the `--settings` file, under its long name with `_`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The shard map.
    #[arg(
        long,
        env = "KVNODE_CONFIG",
        value_name = "FILE",
        default_value = "sharding.toml"
    )]
    pub config: PathBuf,
    /// Which of the map's addresses is this node's; its role follows from it.
    #[arg(long, env = "KVNODE_ADDRESS", value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Where to keep the data.
    #[arg(long, env = "KVNODE_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// TOML file of settings.
    #[arg(long, env = "KVNODE_SETTINGS", value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Check the map and the settings, print a line for each node, and exit.
    #[arg(long)]
    pub check_config: bool,
    /// Become the primary that the map makes of this former replica. Give it once.
    #[arg(long)]
    pub promote: bool,
    /// Set this replica's own data aside and copy the primary's. Give it once.
    #[arg(long, conflicts_with = "promote")]
    pub rejoin: bool,
    /// The settings.
    #[command(flatten)]
    pub settings_typed: Settings,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings that may come from flag, variable or file.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Bind here instead of at --address [default: --address].
    #[arg(long, env = "KVNODE_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Largest value, at most 16MiB [default: 1MiB].
    #[arg(long, env = "KVNODE_MAX_VALUE_SIZE", value_name = "SIZE")]
    pub max_value_size: Option<ByteSize>,
    /// Size of one memtable; all together take at most twice as much [default: 64MiB].
    #[arg(long, env = "KVNODE_MEMTABLE_SIZE", value_name = "SIZE")]
    pub memtable_size: Option<ByteSize>,
    /// Address space for LMDB; the file grows with the data only [default: 64GiB].
    #[arg(long, env = "KVNODE_MAP_SIZE", value_name = "SIZE")]
    pub map_size: Option<ByteSize>,
    /// Size of a log segment [default: 64MiB].
    #[arg(long, env = "KVNODE_LOG_SEGMENT_SIZE", value_name = "SIZE")]
    pub log_segment_size: Option<ByteSize>,
    /// Log kept for replicas and watchers beyond what recovery needs [default: 1GiB].
    #[arg(long, env = "KVNODE_LOG_RETENTION", value_name = "SIZE")]
    pub log_retention: Option<ByteSize>,
    /// Log kept at most while a snapshot is streamed [default: 8GiB].
    #[arg(long, env = "KVNODE_SNAPSHOT_LOG_LIMIT", value_name = "SIZE")]
    pub snapshot_log_limit: Option<ByteSize>,
    /// HTTP worker threads [default: the number of cores].
    #[arg(long, env = "KVNODE_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
    /// Longest time in us for which a worker looks out for the next lone read instead of sleeping, if they come that soon
    /// one after the other; 0 to always sleep [default: 200].
    #[arg(long, env = "KVNODE_BUSY_POLL_US", value_name = "US")]
    pub busy_poll_us: Option<u64>,
    /// Open connections at most [default: 4096].
    #[arg(long, env = "KVNODE_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Bytes of request bodies held at once, and of unread answers as many again [default: 256MiB].
    #[arg(long, env = "KVNODE_MAX_IN_FLIGHT", value_name = "SIZE")]
    pub max_in_flight: Option<ByteSize>,
    /// Allow /set and /delete by GET from other machines too.
    #[arg(long, env = "KVNODE_ALLOW_GET_WRITES", default_missing_value = "true", num_args = 0..=1)]
    pub allow_get_writes: Option<bool>,
    /// Listen beyond loopback although this version has neither tokens nor TLS: anyone who reaches the port can
    /// read and change everything.
    #[arg(long, env = "KVNODE_INSECURE_NO_AUTH", default_missing_value = "true", num_args = 0..=1)]
    pub insecure_no_auth: Option<bool>,
    /// How log lines look [default: text].
    #[arg(long, env = "KVNODE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,kvnode=debug
    /// [default: info, and warn for the HTTP library].
    #[arg(long, env = "KVNODE_LOG_LEVEL", value_name = "FILTER")]
    pub log_level: Option<String>,
    /// Largest group of records between two comparisons of primary and replica; the same on all nodes of a shard.
    #[arg(
        long,
        env = "KVNODE_CHECKPOINT_EVERY",
        value_name = "RECORDS",
        hide = true
    )]
    pub checkpoint_every: Option<u64>,
}

/// A mistake in what was typed: exit 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// A mistake, said in one line with how to mend it.
    pub fn new(message: String) -> Self {
        Self(message)
    }
}

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
    /// Open connections at most.
    pub max_connections: usize,
    /// Whether GET may write from beyond loopback.
    pub allow_get_writes: bool,
    /// What was said aloud about the lack of credentials.
    pub insecure_no_auth: bool,
}

/// All sizes, in bytes unless named otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Largest value.
    pub max_value_bytes: usize,
    /// One memtable.
    pub memtable_bytes: usize,
    /// Address space for LMDB.
    pub map_bytes: usize,
    /// A log segment.
    pub log_segment_bytes: u64,
    /// Log kept beyond what recovery needs.
    pub log_retention_bytes: u64,
    /// Log kept at most while a snapshot is streamed.
    pub snapshot_log_limit_bytes: u64,
    /// Request bodies held at once, and unread answers.
    pub max_in_flight_bytes: usize,
    /// Records between two comparisons of primary and replica.
    pub checkpoint_every: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            max_value_bytes: wire::DEFAULT_MAX_VALUE_BYTES,
            memtable_bytes: 64 << 20,
            map_bytes: 64 << 30,
            log_segment_bytes: 64 << 20,
            log_retention_bytes: 1 << 30,
            snapshot_log_limit_bytes: 8 << 30,
            max_in_flight_bytes: 256 << 20,
            checkpoint_every: 1 << 20,
        }
    }
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
}

impl ServeArgs {
    /// Reads the map.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and column.
    pub fn read_map(&self) -> Result<ShardMap, ConfigError> {
        let file = self.config.display().to_string();
        let text = std::fs::read_to_string(&self.config).map_err(|error| {
            ConfigError(format!("{file}: the shard map cannot be read: {error}"))
        })?;
        kvclient::shard_map::toml::parse(&text, &file)
            .map_err(|error| ConfigError(error.to_string()))
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
            max_connections: typed.max_connections.or(file.max_connections),
            max_in_flight: typed.max_in_flight.or(file.max_in_flight),
            allow_get_writes: typed.allow_get_writes.or(file.allow_get_writes),
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
        let insecure_no_auth = settings.insecure_no_auth.unwrap_or(false);
        let listen = listen_addresses(settings.listen.as_deref(), &address)?;
        check_exposure(&listen, insecure_no_auth)?;
        let data = self
            .data
            .clone()
            .unwrap_or_else(|| PathBuf::from("data").join(address.port().to_string()));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let order = match (self.promote, self.rejoin) {
            (true, _) => Order::Promote,
            (_, true) => Order::Rejoin,
            (false, false) => Order::None,
        };
        Ok(NodeConfig {
            sizes: settings.sizes()?,
            workers: at_least_one("--workers", settings.workers.unwrap_or(cores))?,
            busy_poll: busy_poll(settings.busy_poll_us)?,
            max_connections: at_least_one(
                "--max-connections",
                settings.max_connections.unwrap_or(4_096),
            )?,
            allow_get_writes: settings.allow_get_writes.unwrap_or(false),
            insecure_no_auth,
            map,
            address,
            place,
            listen,
            data,
            order,
        })
    }

    fn own_address(&self, map: &ShardMap) -> Result<Address, ConfigError> {
        let Some(text) = &self.address else {
            let all: Vec<String> = map.nodes().map(|node| node.address.to_string()).collect();
            let all = all.join(", ");
            return Err(ConfigError(format!(
                "--address is missing: say which node of the map this is ({all})"
            )));
        };
        text.parse()
            .map_err(|error| ConfigError(format!("--address: {error}")))
    }
}

impl Settings {
    fn sizes(&self) -> Result<Sizes, ConfigError> {
        let default = Sizes::default();
        let or = |size: Option<ByteSize>, default: u64| size.map_or(default, |size| size.as_u64());
        let memory = |name: &str, size: Option<ByteSize>, default: usize| {
            usize::try_from(or(size, default as u64)).map_err(|_| {
                ConfigError(format!(
                    "{name} is larger than this machine's address space"
                ))
            })
        };
        let sizes = Sizes {
            max_value_bytes: memory(
                "--max-value-size",
                self.max_value_size,
                default.max_value_bytes,
            )?,
            memtable_bytes: memory(
                "--memtable-size",
                self.memtable_size,
                default.memtable_bytes,
            )?,
            map_bytes: memory("--map-size", self.map_size, default.map_bytes)?,
            log_segment_bytes: or(self.log_segment_size, default.log_segment_bytes),
            log_retention_bytes: or(self.log_retention, default.log_retention_bytes),
            snapshot_log_limit_bytes: or(self.snapshot_log_limit, default.snapshot_log_limit_bytes),
            max_in_flight_bytes: memory(
                "--max-in-flight",
                self.max_in_flight,
                default.max_in_flight_bytes,
            )?,
            checkpoint_every: self
                .checkpoint_every
                .unwrap_or(default.checkpoint_every)
                .max(1),
        };
        sizes.check()?;
        Ok(sizes)
    }
}

impl Sizes {
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError(text));
        if self.max_value_bytes > wire::MAX_VALUE_BYTES_CEILING {
            return wrong(format!(
                "--max-value-size is {}, at most 16MiB",
                ByteSize(self.max_value_bytes as u64)
            ));
        }
        let frame = largest_frame_bytes(self.max_value_bytes) as u64;
        // A segment's header takes one page.
        if self.log_segment_bytes < frame + 4_096 {
            return wrong(format!(
                "--log-segment-size is {}, but a frame of the log may take {frame} bytes and lies whole in one \
                 segment; give at least {}",
                ByteSize(self.log_segment_bytes),
                ByteSize(frame + 4_096)
            ));
        }
        // What is kept is counted in whole segments: the one being read from and the one being written.
        if self.snapshot_log_limit_bytes < self.log_segment_bytes.saturating_mul(2) {
            return wrong(format!(
                "--snapshot-log-limit is {}, too little for any snapshot while writes go on; give at least two log \
                 segments, {}",
                ByteSize(self.snapshot_log_limit_bytes),
                ByteSize(self.log_segment_bytes.saturating_mul(2))
            ));
        }
        if self.memtable_bytes < 1 << 16 {
            return wrong("--memtable-size is below 64KiB".into());
        }
        if self.max_in_flight_bytes < wire::MAX_BATCH_BYTES + self.max_value_bytes {
            return wrong(
                "--max-in-flight is smaller than one batch and one value together".into(),
            );
        }
        Ok(())
    }
}

fn busy_poll(us: Option<u64>) -> Result<Duration, ConfigError> {
    match us.unwrap_or(200) {
        us @ 0..=10_000 => Ok(Duration::from_micros(us)),
        us => Err(ConfigError(format!(
            "--busy-poll-us is {us}: a worker would take a processor for that long after each read; at most 10000"
        ))),
    }
}

fn read_settings(path: &Path) -> Result<Settings, ConfigError> {
    let error = |problem: String| ConfigError(format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| error(format!("cannot be read: {e}")))?;
    toml::from_str(&text).map_err(|e| error(e.to_string()))
}

fn not_in_map(map: &ShardMap, address: &Address) -> ConfigError {
    let all: Vec<String> = map.nodes().map(|node| node.address.to_string()).collect();
    ConfigError(format!(
        "--address {address} is not in the shard map, which has {}",
        all.join(", ")
    ))
}

fn listen_addresses(
    listen: Option<&str>,
    address: &Address,
) -> Result<Vec<SocketAddr>, ConfigError> {
    let text = listen.map_or_else(|| address.to_string(), str::to_owned);
    let resolved = text.to_socket_addrs().map_err(|error| {
        ConfigError(format!(
            "cannot listen at {text}: {error}; give --listen HOST:PORT"
        ))
    })?;
    let mut addresses: Vec<SocketAddr> = resolved.collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn check_exposure(listen: &[SocketAddr], insecure_no_auth: bool) -> Result<(), ConfigError> {
    let exposed = listen.iter().find(|address| !is_loopback(address.ip()));
    match exposed {
        Some(address) if !insecure_no_auth => Err(ConfigError(format!(
            "{address} can be reached from other machines, and this version knows neither tokens nor TLS: anyone \
             there could read and change everything. Listen on loopback, or, on a network you trust, say so with \
             --insecure-no-auth"
        ))),
        _ => Ok(()),
    }
}

/// Whether only this machine reaches an address, in whichever notation.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn at_least_one(name: &str, number: usize) -> Result<usize, ConfigError> {
    if number == 0 {
        return Err(ConfigError(format!("{name} is 0; it is at least 1")));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
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
