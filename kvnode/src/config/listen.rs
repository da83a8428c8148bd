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

pub(super) fn check_exposure(
    listen: &[SocketAddr],
    insecure_no_auth: bool,
) -> Result<(), ConfigError> {
    let exposed = listen.iter().find(|address| !is_loopback(address.ip()));
    match exposed {
        Some(address) if !insecure_no_auth => Err(ConfigError::new(format!(
            "{address} can be reached from other machines, and this version knows neither tokens nor TLS: anyone \
             there could read and change everything. Listen on loopback, or, on a network you trust, say so with \
             --insecure-no-auth"
        ))),
        _ => Ok(()),
    }
}

/// Whether only this machine reaches an address, in whichever notation.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
