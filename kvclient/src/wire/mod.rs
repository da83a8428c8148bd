//! The protocol: routes, headers, content types, and the byte formats of batch, log and snapshot.
//!
//! Everything here is plain bytes, `&str` and `u16`. The node speaks HTTP through one library and the client
//! through another, and their header types differ; neither appears below this line.
//!
//! All integers are little-endian. Every format starts with a stamp that names it and its version. A new byte
//! layout is a new stamp: [`batch`], [`log`], [`scan`] and [`snapshot`] each hold theirs, with a byte table and golden
//! bytes.

pub mod batch;
pub mod bytes;
pub mod error;
pub mod line;
pub mod log;
pub mod pull;
pub mod query;
pub mod redirect;
pub mod scan;
pub mod short_bytes;
pub mod snapshot;
pub mod watch;

/// Paths of a node.
pub mod route {
    /// One entry: `/kv/{key}` or `/kv?key=`; without a key, a scan.
    pub const KV: &str = "/kv";
    /// Many ops in one request.
    pub const BATCH: &str = "/batch";
    /// A shard's changes as server-sent events.
    pub const WATCH: &str = "/watch";
    /// Value of a key, for a person.
    pub const GET: &str = "/get";
    /// Stores a value, for a person.
    pub const SET: &str = "/set";
    /// Removes a key, for a person.
    pub const DELETE: &str = "/delete";
    /// Who owns a key.
    pub const ROUTE: &str = "/route";
    /// The shard map in force.
    pub const CLUSTER_MAP: &str = "/cluster/map";
    /// Every node's status.
    pub const CLUSTER_STATUS: &str = "/cluster/status";
    /// Frames of the log, for replicas.
    pub const LOG: &str = "/log";
    /// A copy of the shard, for replicas and backups.
    pub const SNAPSHOT: &str = "/snapshot";
    /// This node's state.
    pub const STATUS: &str = "/status";
    /// Counts and sums of what this node contains at a seq.
    pub const STATUS_SUMS: &str = "/status/sums";
    /// This node's last minutes.
    pub const STATUS_HISTORY: &str = "/status/history";
    /// The process is alive.
    pub const HEALTHZ: &str = "/healthz";
    /// The node may be sent requests.
    pub const READYZ: &str = "/readyz";
    /// Prometheus metrics.
    pub const METRICS: &str = "/metrics";
    /// The API's description.
    pub const OPENAPI: &str = "/openapi.json";
    /// A page for people.
    pub const PAGE: &str = "/";
}

/// Header names, lower case as HTTP libraries want them.
pub mod header {
    /// Position of a write, or what a read has seen at least.
    pub const POSITION: &str = "kv-position";
    /// Name of the shard that answered.
    pub const SHARD: &str = "kv-shard";
    /// `primary` or `replica`.
    pub const ROLE: &str = "kv-role";
    /// How far a replica is behind, in milliseconds.
    pub const LAG_MS: &str = "kv-lag-ms";
    /// Identity of the shard map in force: `version-hash`.
    pub const MAP_VERSION: &str = "kv-map-version";
    /// Milliseconds until an entry expires.
    pub const TTL_MS: &str = "kv-ttl-ms";
    /// `yes`, `no` or `unknown`: whether a write took place.
    pub const APPLIED: &str = "kv-applied";
    /// Position the answering node must hold.
    pub const MIN_POSITION: &str = "kv-min-position";
    /// Largest lag the caller accepts, in milliseconds.
    pub const MAX_LAG_MS: &str = "kv-max-lag-ms";
    /// How long a node may wait to reach the minimum position, or for replicas to reach a write, in milliseconds.
    pub const WAIT_MS: &str = "kv-wait-ms";
    /// Who must have synced a write before it is answered: `primary`, a number of replicas, `majority` or `all`.
    pub const ACK: &str = "kv-ack";
    /// Identity of a write, so that a repeat is answered and not done again.
    pub const REQUEST_ID: &str = "kv-request-id";
    /// `1`: the answer says in `Server-Timing` where the time of the op went.
    pub const TIMING: &str = "kv-timing";

    /// Between nodes: random id of the node that asks.
    pub const NODE_ID: &str = "kv-node-id";
    /// Between nodes: address of the node that asks, as the map has it.
    pub const NODE_ADDRESS: &str = "kv-node-address";
    /// Between nodes: history id of a log, 32 hex digits.
    pub const HISTORY: &str = "kv-history";
    /// Between nodes: lineage of a log, see [`super::log::lineage_to_text`].
    pub const LINEAGE: &str = "kv-lineage";
    /// Between nodes: header CRC of the last frame held, 8 hex digits.
    pub const LAST_CRC: &str = "kv-last-crc";
    /// Between nodes: the primary's durable position.
    pub const DURABLE: &str = "kv-durable";
    /// Between nodes: the primary's shard time, in Unix milliseconds.
    pub const CLOCK_MS: &str = "kv-clock-ms";
    /// Between nodes: how long the primary held the request, in milliseconds.
    pub const WAITED_MS: &str = "kv-waited-ms";
    /// Between nodes: `epoch.seq:digest` of the primary's newest checkpoints, comma-separated.
    pub const CHECKPOINTS: &str = "kv-checkpoints";
}

/// Content types.
pub mod content_type {
    /// A value: bytes, never guessed at.
    pub const VALUE: &str = "application/octet-stream";
    /// Batch codec, scan frames, log frames, snapshot stream.
    pub const FRAMES: &str = "application/x-kv-frames";
    /// Errors, status, map.
    pub const JSON: &str = "application/json";
    /// Scans for people.
    pub const NDJSON: &str = "application/x-ndjson";
    /// Watches.
    pub const SSE: &str = "text/event-stream";
    /// Metrics, as Prometheus asks for them.
    pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    /// Metrics in the older format of Prometheus, for whoever does not ask for that.
    pub const CLASSIC_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
    /// A line for a person.
    pub const TEXT: &str = "text/plain; charset=utf-8";
}

/// Most ops in one batch and in one group commit.
pub const MAX_BATCH_OPS: usize = 1_000;

/// Most bytes in one batch body.
pub const MAX_BATCH_BYTES: usize = 16 << 20;

/// Largest value that `--max-value-size` may allow, in bytes.
pub const MAX_VALUE_BYTES_CEILING: usize = 16 << 20;

/// Default of `--max-value-size`: 1 MiB, the order of etcd's request limit; LMDB stores larger values in runs of
/// contiguous pages, which fragment.
pub const DEFAULT_MAX_VALUE_BYTES: usize = 1 << 20;

/// Longest wait that `Kv-Wait-Ms` may ask for, in milliseconds.
pub const MAX_WAIT_MS: u64 = 5_000;
