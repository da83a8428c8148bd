//! The process, under the names that every dashboard knows.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use prometheus_client::registry::Registry;
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::sample::{counter, gauge, seconds_since_epoch};
use crate::memory::Memory;

/// The process, as Linux tells. What it does not tell is left out.
pub(super) fn process(started_at: SystemTime) -> Registry {
    let mut registry = Registry::with_prefix("process");
    let help = "When the node started, in Unix seconds";
    gauge(
        &mut registry,
        "start_time_seconds",
        help,
        seconds_since_epoch(started_at),
    );
    let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let help = "Processor time taken, of all threads";
    counter(&mut registry, "cpu_seconds", help, used.as_secs_f64());
    let memory = Memory::now();
    if let Some(bytes) = memory.resident_bytes {
        let help = "Memory of the process that is in RAM, LMDB's pages among it";
        gauge(&mut registry, "resident_memory_bytes", help, bytes);
    }
    if let Some(bytes) = memory.anonymous_bytes {
        let help = "Memory of the process that is in RAM and is no file's";
        gauge(&mut registry, "anonymous_memory_bytes", help, bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let count = open.count().saturating_sub(1);
        gauge(&mut registry, "open_fds", "Open file descriptors", count);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        let help = "File descriptors that may be open";
        gauge(&mut registry, "max_fds", help, most);
    }
    registry
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn the_process_is_described() {
        let mut out = String::new();
        text::encode_registry(&mut out, &process(UNIX_EPOCH)).unwrap();
        for name in [
            "start_time_seconds",
            "cpu_seconds_total",
            "resident_memory_bytes",
            "anonymous_memory_bytes",
            "open_fds",
            "max_fds",
        ] {
            let sample = out
                .lines()
                .find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            let value: f64 = sample.expect(name).parse().expect("a number");
            assert!(value > 0.0 || name == "start_time_seconds", "{name}");
        }
    }
}
