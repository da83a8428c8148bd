//! How much memory this process takes, as Linux tells.

use std::fs;

/// What of it is in RAM; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it, LMDB's pages among it.
    pub resident_bytes: Option<u64>,
    /// What is no file's.
    pub anonymous_bytes: Option<u64>,
}

impl Memory {
    /// As it is now: one small file of the system is read.
    pub fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn parse(status: &str) -> Self {
        Self {
            resident_bytes: field(status, "VmRSS:"),
            anonymous_bytes: field(status, "RssAnon:"),
        }
    }
}

/// Memory of the machine, or of the control group if that gives less.
pub fn machine_bytes() -> Option<u64> {
    let machine = field(
        &fs::read_to_string("/proc/meminfo").unwrap_or_default(),
        "MemTotal:",
    );
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group: Option<u64> = group.and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(group).min()
}

/// A line of `/proc/self/status` that is in kB.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read() {
        let status = "VmPeak:\t  90 kB\nVmRSS:\t    1234 kB\nRssAnon:\t 56 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(1234 * 1024));
        assert_eq!(field(status, "RssAnon:"), Some(56 * 1024));
        assert_eq!(field(status, "Threads:"), None);
        assert_eq!(field("VmRSS:\tmuch kB\n", "VmRSS:"), None);
        assert_eq!(field("", "VmRSS:"), None);
        let memory = Memory::parse(status);
        assert_eq!(memory.resident_bytes, Some(1234 * 1024));
        assert_eq!(memory.anonymous_bytes, Some(56 * 1024));
    }

    #[test]
    fn this_process_takes_some() {
        let now = Memory::now();
        let (all, own) = (now.resident_bytes.unwrap(), now.anonymous_bytes.unwrap());
        assert!(own > 0 && own <= all, "{own} of {all}");
    }
}
