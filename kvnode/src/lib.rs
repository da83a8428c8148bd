//! Storage node of a sharded, replicated key-value store.

pub mod store;
