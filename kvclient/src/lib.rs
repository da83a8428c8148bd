//! Client-side smart router of a sharded, replicated key-value store.

pub mod key;
pub mod position;
pub mod slot;
pub mod wire;
