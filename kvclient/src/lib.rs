//! Client-side smart router of a sharded, replicated key-value store.
//!
//! A [`Client`] knows the shard map, hashes keys itself, sends each write straight to the primary of its shard and
//! spreads reads over primary and replicas. Redirects, retries, batching and lag stay in here.
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
//! let first = kv.put_with("user:2", "Bob", minute).await?;
//! let again = PutOptions::new().if_match(first.position); // only if nobody was faster
//! kv.put_with("user:2", "Bea", again).await?;
//!
//! let users = kv.get_many(["user:1", "user:2"]).await?; // one request per node
//! let fresh = GetOptions::new().consistency(Consistency::Primary);
//! let newest = kv.get_with("user:1", fresh).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Many tasks share one client: clone it. When an op fails, [`Error::kind`] says what to do, and
//! [`Error::outcome`] whether a write may have happened.
//!
//! Modules, each using only those before it: the pure half (keys, slots, positions, the map, the protocol), then
//! one node over HTTP, then routing. [`node_client`] is for tools that talk to a single node.

pub mod attempt;
pub mod error;
pub mod key;
pub mod node_client;
pub mod policy;
pub mod position;
pub mod session;
pub mod shard_map;
pub mod slot;
pub mod wire;

mod builder;
mod client;
mod coalesce;
mod entry;
mod execute;
mod intent;
mod many;
mod options;
mod plan;
mod refresh;
mod routes;

pub use crate::{
    attempt::Outcome,
    builder::ClientBuilder,
    client::Client,
    entry::{Entry, Route, Written},
    error::{Error, ErrorKind, Result},
    key::Key,
    options::{DeleteOptions, GetOptions, PutOptions},
    policy::Consistency,
    position::Position,
    session::Session,
    shard_map::{Address, ShardMap},
};
