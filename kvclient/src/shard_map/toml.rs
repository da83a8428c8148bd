//! `sharding.toml` -> [`ShardMap`](super::ShardMap).
