//! What the machine gives a node, and what the node was set to take: so that whoever looks at `/status` sees what will be
//! short before it is.
//!
//! What a system does not tell is absent. A clock is told as it is, to be compared with others.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::{config::NodeConfig, memory};

/// The machine of a node, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Its clock, in Unix milliseconds.
    pub clock_ms: u64,
    /// What is free for this process on the disk of its data.
    pub disk_free_bytes: Option<u64>,
    /// Size of that disk.
    pub disk_size_bytes: Option<u64>,
    /// Memory of the machine, or of the container.
    pub memory_bytes: Option<u64>,
    /// Files and connections that the process may have open; absent if there is no limit.
    pub open_files_limit: Option<u64>,
}

/// Settings of a node that matter to others, or to its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsStatus {
    /// Largest value.
    pub max_value_bytes: u64,
    /// One memtable; all together take at most twice as much.
    pub memtable_bytes: u64,
    /// What LMDB may grow to.
    pub lmdb_map_bytes: u64,
    /// A segment of the log.
    pub log_segment_bytes: u64,
    /// Log kept beyond what recovery needs.
    pub log_retention_bytes: u64,
    /// Open connections at most.
    pub max_connections: u64,
}

/// Room on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// For a process without privileges.
    pub free_bytes: u64,
    /// All of it.
    pub size_bytes: u64,
}

/// The disk that holds a path.
pub fn disk_of(path: &Path) -> Option<Disk> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        size_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
    })
}

impl MachineStatus {
    /// Looks at the machine of a node with this data directory.
    pub fn look(data: &Path) -> Self {
        let disk = disk_of(data);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            clock_ms: u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            disk_free_bytes: disk.map(|disk| disk.free_bytes),
            disk_size_bytes: disk.map(|disk| disk.size_bytes),
            memory_bytes: memory::machine_bytes(),
            open_files_limit: getrlimit(Resource::Nofile).current,
        }
    }
}

impl SettingsStatus {
    /// Those of a configuration.
    pub fn of(config: &NodeConfig) -> Self {
        let sizes = &config.sizes;
        Self {
            max_value_bytes: sizes.max_value_bytes as u64,
            memtable_bytes: sizes.memtable_bytes as u64,
            lmdb_map_bytes: sizes.map_bytes as u64,
            log_segment_bytes: sizes.log_segment_bytes,
            log_retention_bytes: sizes.log_retention_bytes,
            max_connections: config.max_connections as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told() {
        let machine = MachineStatus::look(Path::new("."));
        let (free, size) = (
            machine.disk_free_bytes.unwrap(),
            machine.disk_size_bytes.unwrap(),
        );
        assert!(0 < free && free <= size, "{free} of {size}");
        assert!(machine.memory_bytes.unwrap() > 1 << 20);
        let nowhere = MachineStatus::look(Path::new("/no/such/place"));
        assert_eq!(nowhere.disk_free_bytes, None);
        assert!(nowhere.clock_ms >= machine.clock_ms);
    }
}
