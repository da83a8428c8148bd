//! Storage node of the sharded, replicated key-value store: an HTTP server over a log and LMDB.
//!
//! [`node::start`] runs one from a [`config::NodeConfig`]; the program `kvnode` is arguments and signals around it.

pub mod access;
pub mod acknowledge;
pub mod asker;
pub mod atomic;
mod begun;
pub mod clock;
pub mod commit;
pub mod compact;
pub mod config;
pub mod data_dir;
mod descriptors;
pub mod durable;
pub mod feed;
pub mod hashing;
pub mod home;
mod http;
pub mod in_flight;
pub mod json;
pub mod kept_log;
pub mod log;
pub mod logging;
pub mod machine;
pub mod marker;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod offline;
pub mod ownership;
pub mod past;
pub mod pending;
pub mod readiness;
pub mod reload;
pub mod replication;
pub mod sampler;
pub mod service;
pub mod stalled;
pub mod status;
pub mod storage;
pub mod store;
pub mod supervisor;
pub mod sweeper;
pub mod timing;
pub mod tls;
pub mod vitals;
