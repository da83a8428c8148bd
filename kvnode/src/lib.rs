//! Storage node of the sharded, replicated key-value store.

pub mod log;
pub mod store;
