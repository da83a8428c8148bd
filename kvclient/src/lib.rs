//! Client-side smart router of a sharded, replicated key-value store.

pub mod key;
pub mod position;
pub mod shard_map;
pub mod slot;
pub mod wire;
