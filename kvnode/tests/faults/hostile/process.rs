//! What the system says of a node's process: its memory, its open connections.

use std::fs;

use crate::support::cluster::Node;

/// Memory of its own, in bytes: without pages of mapped files, which the kernel takes back when it likes.
pub(crate) fn anonymous_bytes(node: &Node) -> usize {
    let path = format!("/proc/{}/status", node.pid());
    let status = fs::read_to_string(path).expect("a process");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: usize = kilobytes
        .and_then(|text| text.parse().ok())
        .expect("a number");
    kilobytes << 10
}

/// Sockets that it has open: connections, listeners, and a few of its own.
pub(crate) fn sockets(node: &Node) -> usize {
    let dir = fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("a process");
    dir.flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// Raises this process's limit of descriptors as far as it goes; what it is then.
pub(crate) fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
