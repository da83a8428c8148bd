//! What a node tells at length: scans, watches and metrics, of real nodes on this machine.

#[path = "../cluster/support/library.rs"]
mod library;
mod metrics;
mod scan;
mod support;
mod watch;
