//! What can be typed, and what `--help` says of it.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

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
    /// Rewrite a stopped node's LMDB file without its free pages.
    ///
    /// The copy needs room beside the old file, as much as is said before it begins. It takes the old one's place only
    /// when it is synced and verified; interrupted at any moment, the node starts on one of them.
    Compact {
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
    /// Check the map and the settings, print a line for each node, and exit. With --address, all that this node would
    /// check before it starts.
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
    /// Log kept at most while a snapshot is streamed, and after it until the replica that made the copy is level
    /// [default: 8GiB].
    #[arg(long, env = "KVNODE_SNAPSHOT_LOG_LIMIT", value_name = "SIZE")]
    pub snapshot_log_limit: Option<ByteSize>,
    /// HTTP worker threads [default: the number of cores].
    #[arg(long, env = "KVNODE_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
    /// Longest time in us for which a worker looks out for the next lone read instead of sleeping, if they come that soon
    /// one after the other; 0 to always sleep [default: 200].
    #[arg(long, env = "KVNODE_BUSY_POLL_US", value_name = "US")]
    pub busy_poll_us: Option<u64>,
    /// Requests that take longer than so many ms are told in the log; 0 for none [default: 1000].
    #[arg(long, env = "KVNODE_SLOW_REQUEST_MS", value_name = "MS")]
    pub slow_request_ms: Option<u64>,
    /// Open connections at most [default: 4096].
    #[arg(long, env = "KVNODE_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Bytes of request bodies held at once, and of unread answers as many again [default: 256MiB].
    #[arg(long, env = "KVNODE_MAX_IN_FLIGHT", value_name = "SIZE")]
    pub max_in_flight: Option<ByteSize>,
    /// Allow /set and /delete by GET from other machines too.
    #[arg(long, env = "KVNODE_ALLOW_GET_WRITES", default_missing_value = "true", num_args = 0..=1)]
    pub allow_get_writes: Option<bool>,
    /// Tokens that callers must bring, as `kv token new` writes them; the file is for its owner alone (mode 0600)
    /// [default: nobody is asked who he is].
    #[arg(long, env = "KVNODE_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Speak TLS only, with this certificate and its chain (PEM) [default: in the clear].
    #[arg(long, env = "KVNODE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM), for its owner alone (mode 0600).
    #[arg(long, env = "KVNODE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Who signs the certificates of clients and nodes (PEM): a certificate that is shown is verified, and whoever shows
    /// none needs a token [default: nobody is asked for a certificate].
    #[arg(long, env = "KVNODE_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Who signs the certificates of the nodes that this one asks (PEM) [default: --tls-client-ca].
    #[arg(long, env = "KVNODE_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// This node's own token, of the scope node, which it shows to other nodes; the file is for its owner alone.
    #[arg(long, env = "KVNODE_NODE_TOKEN_FILE", value_name = "FILE")]
    pub node_token_file: Option<PathBuf>,
    /// Listen beyond loopback although nobody is asked who he is: anyone who reaches the port can read and change
    /// everything.
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
