//! Client-side smart router of a sharded, replicated key-value store.

pub mod attempt;
pub mod error;
pub mod key;
pub mod node_client;
pub mod position;
pub mod session;
pub mod shard_map;
pub mod slot;
pub mod wire;
