//! Free ports for the servers that this program starts.
//!
//! Below the range from which the kernel gives ports to clients, so a port stays free between the look and the start.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;

/// Ports to choose from: above the ones that programs like to use, below the kernel's (32,768 and up).
const RANGE: std::ops::Range<u16> = 20_000..32_000;

const ATTEMPTS: usize = 1_000;

/// That many different ports on which nobody listens.
pub(crate) fn free(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut taken = Vec::new();
    for _ in 0..ATTEMPTS {
        // Held until all are found, so that none comes twice.
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(RANGE))) {
            taken.push(listener);
        }
        if taken.len() == count {
            let ports = taken
                .iter()
                .map(|listener| Ok(listener.local_addr()?.port()));
            return ports.collect();
        }
    }
    None.with_context(|| format!("no {count} free ports in {RANGE:?}"))
}
