//! Client-side smart router of a sharded, replicated key-value store.
//!
//! The keys are divided among shards; each shard has a primary, which takes its writes, and replicas, which follow
//! and answer reads. The shard map says who has what. A [`Client`] knows the map, hashes keys itself, sends each
//! write straight to the primary of its shard and spreads reads over primary and replicas. Redirects, retries,
//! batching and lag stay in here.
//!
//! ```no_run
//! use std::time::Duration;
//! use kvclient::{Client, Consistency, GetOptions, PutOptions};
//!
//! # async fn tour() -> kvclient::Result<()> {
//! let kv = Client::from_file("sharding.toml")?; // or Client::connect(["http://localhost:8080"]).await?
//! kv.put("user:1", "Ada").await?;
//! let ada = kv.get("user:1").await?; // whichever node answers, it shows that write
//! assert_eq!(ada.as_deref(), Some(&b"Ada"[..]));
//!
//! let minute = PutOptions::new().if_absent().ttl(Duration::from_secs(60));
//! let first = kv.put_with("user:2", "Bob", minute).await?; // ErrorKind::Conflict if it is there already
//! let again = PutOptions::new().if_match(first.position); // only if nobody has written it since
//! kv.put_with("user:2", "Bea", again).await?;
//!
//! let users = kv.get_many(["user:1", "user:2"]).await?; // one request per node
//! let fresh = GetOptions::new().consistency(Consistency::Primary); // whoever wrote it
//! if let Some(entry) = kv.get_with("user:1", fresh).await? {
//!     println!("{} bytes, written at {}", entry.value.len(), entry.position);
//! }
//! kv.update("visits:1", |old| match old {
//!     Some(_) => None, // leave it
//!     None => Some("first"),
//! })
//! .await?; // read, change, store if nobody was faster
//! kv.atomic().incr("{cart:5}:n", 1).put("{cart:5}:last", "pear").commit().await?; // both or neither
//! let mut users = kv.scan("user:"); // a Stream over all shards, in key order
//! let mut changes = kv.watch("user:"); // a Stream of what is written from now on
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - **Runtime.** Ops need a tokio runtime with time and I/O switched on. Making a client needs none.
//! - **Keys and values** are bytes: 1 to 511 for a key; for a value what the nodes take, 1 MiB unless they are told
//!   otherwise. An empty value is a value.
//! - **One client for all tasks.** Clone it: clones share connections, and ops that many tasks want at once travel
//!   together.
//! - **One session per user.** Clones also share what they have seen, see [`Session`]: none of them reads less than
//!   any of them wrote or read. A service gives each of its users a session, by [`Client::with_session`], and keeps
//!   it between requests as a short token.
//! - **Time.** An op takes 5 s at most, retries included, unless [`ClientBuilder::timeout`] or the op's own options
//!   say otherwise.
//!
//! # Which node answers
//!
//! A write goes to the primary. A read goes, of two random nodes of the shard, to the one with fewer ops of this client
//! under way; [`ClientBuilder::read_policy`] takes another rule, [`ClientBuilder::zone`] prefers what is near. How new
//! the answer must be is said per call, see [`Consistency`]: by default never older than what this session wrote or
//! read. Nodes that fail or fall silent are left out and probed by one op at a time; a read that takes long is asked a
//! second time elsewhere, for at most one read in twenty. What came of it all: [`Client::route`],
//! [`Client::with_history`], [`Client::stats`], [`Client::map_changes`], and `tracing` spans at debug level.
//!
//! # When an op fails
//!
//! [`Error::kind`] says what to do. For a write, [`Error::outcome`] says whether it may have happened. What is safe
//! to repeat was repeated already, by the one table in [`policy::retry`]: a write whose connection breaks is sent again
//! under its request id, by which its shard knows it and does it once. What stays [`Outcome::Unknown`] nobody could say in
//! time; only its caller knows whether twice does harm.
//!
//! A write that has returned is on the primary's disk. What must outlive that disk waits for replicas as well, see [`Ack`],
//! [`Client::with_ack`] and [`PutOptions::ack`].
//!
//! ```no_run
//! # async fn fails(kv: kvclient::Client) -> kvclient::Result<()> {
//! use kvclient::{ErrorKind, Outcome};
//!
//! if let Err(error) = kv.incr("visits", 1).await {
//!     match (error.kind(), error.outcome()) {
//!         (ErrorKind::Unavailable, Outcome::NotApplied) => println!("not counted; later again: {error}"),
//!         (ErrorKind::Unavailable, Outcome::Unknown) => println!("counted or not, nobody can say: {error}"),
//!         _ => return Err(error), // again would be no better
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Any future may be dropped at any time; each function says under "Cancel safety" what that leaves behind.
//!
//! # Ops that travel together
//!
//! What many tasks want of one node at the same time travels in one request; reads, writes, and writes that wait for
//! replicas apart. Nothing waits in
//! order to gather: an op to a node without any under way leaves at once, and those that come while a request is under
//! way leave together when it is answered. So requests carry more the more there is to do, and a task that is alone
//! pays next to nothing. On two cores with all six nodes: 30 reads or 52 writes in a request at 256 tasks, and 1.013
//! (GET) and 1.012 (SET) times the p50 of the same op sent straight to its node, for a task that is alone. `cargo run
//! --release -p examples --bin measure -- --coalescing` shows both on your machine, [`NodeStats::ops_per_request`] in
//! your program.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `json`: values of a type of one's own, stored as JSON: `get_json`, `put_json`, `update_json`.
//! - `tls`: `kvclient::Tls`, for nodes with TLS. It makes reqwest, for the whole program, one that chooses no cryptography by
//!   itself: whoever uses it too, and asks for `https` with it, enables a feature of it that does.
//! - `blocking`: `kvclient::blocking::Client`, for programs without async.
//! - `backup`: the module `backup`, which copies a cluster into a directory and restores it from there.
//! - `cli`: the command-line tool `kv`, with what only it needs.
//!
//! # Modules
//!
//! Most programs need only what stands at the root of this crate. Each module uses only those before it: the pure
//! half (keys, slots, positions, the map, the protocol), then one node over HTTP, then routing. [`node_client`] is
//! for tools that talk to a single node, [`wire`] describes the protocol.

pub mod attempt;
#[cfg(feature = "backup")]
pub mod backup;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod error;
#[doc(hidden)]
pub mod faults;
pub mod key;
pub mod node_client;
pub mod policy;
pub mod position;
pub mod rfc3339;
pub mod session;
pub mod shard_map;
pub mod slot;
#[cfg(feature = "tls")]
pub mod tls;
pub mod token;
pub mod wire;

mod atomic;
#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
mod client;
mod coalesce;
mod entry;
mod execute;
mod history;
mod intent;
#[cfg(feature = "json")]
mod json;
mod many;
mod map_changes;
mod options;
mod plan;
mod refresh;
mod request_ids;
mod router;
mod routes;
mod scan;
mod scheme;
mod shard_reader;
mod stats;
mod update;
mod watch;

#[cfg(feature = "tls")]
pub use crate::tls::Tls;
pub use crate::{
    atomic::{AtomicBatch, Done},
    attempt::Outcome,
    builder::ClientBuilder,
    client::Client,
    coalesce::Percentiles,
    entry::{Entry, Route, Written},
    error::{Error, ErrorKind, Result},
    history::{Attempt, CallHistory, Why},
    key::Key,
    map_changes::MapChanges,
    options::{DeleteOptions, GetOptions, PutOptions},
    policy::Consistency,
    position::Position,
    scan::{Scan, ScannedEntry},
    scheme::Scheme,
    session::Session,
    shard_map::{Address, ShardMap},
    stats::{NodeStats, Stats},
    token::Token,
    watch::{Change, Event, Watch},
    wire::batch::Ack,
};
