//! Ports that nobody else takes: neither another test, in this process or another, nor an outgoing connection.
//!
//! Below the range from which the kernel gives ports to clients, so a port stays free while its node is down. A
//! locked file stands for each port that a test uses; the lock ends with the process.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
};

/// Ports to choose from: above the ones that programs like to use, below the kernel's (32,768 and up).
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port for as long as this lives.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free one.
    pub(crate) fn take() -> Self {
        let locks = std::env::temp_dir().join("kvnode-test-ports");
        std::fs::create_dir_all(&locks).expect("a directory for locks");
        for _ in 0..1_000 {
            let number = fastrand::u16(RANGE);
            let lock = File::create(locks.join(number.to_string())).expect("a lock file");
            let free =
                || TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok_and(|_listener| true);
            if lock.try_lock().is_ok() && free() {
                return Self {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no free port in {RANGE:?}");
    }
}
