//! Where to listen, and who reaches that.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use kvclient::shard_map::Address;

use super::error::ConfigError;

pub(super) fn listen_addresses(
    listen: Option<&str>,
    address: &Address,
) -> Result<Vec<SocketAddr>, ConfigError> {
    let text = listen.map_or_else(|| address.to_string(), str::to_owned);
    let resolved = text.to_socket_addrs().map_err(|error| {
        ConfigError::new(format!(
            "cannot listen at {text}: {error}; give --listen HOST:PORT"
        ))
    })?;
    let mut addresses: Vec<SocketAddr> = resolved.collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// What callers are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callers {
    /// Who they are.
    Asked,
    /// Nothing, and that was said aloud.
    TrustedAloud,
    /// Nothing.
    Trusted,
}

/// Whoever is asked nothing must not come from elsewhere, unless that was said aloud.
pub(super) fn check_exposure(listen: &[SocketAddr], callers: Callers) -> Result<(), ConfigError> {
    let exposed = listen.iter().find(|address| !is_loopback(address.ip()));
    match (exposed, callers) {
        (Some(address), Callers::Trusted) => Err(ConfigError::new(format!(
            "{address} can be reached from other machines, and nobody is asked who he is: anyone there could read and \
             change everything. Give --tokens FILE (kv token new makes one) or --tls-client-ca FILE (with TLS), listen on loopback, or, on a network you \
             trust, say so with --insecure-no-auth"
        ))),
        _ => Ok(()),
    }
}

/// Whether only this machine reaches an address, in whichever notation.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
