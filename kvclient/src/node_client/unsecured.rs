//! What stands for TLS in a program that was built without the feature `tls`: types of which there is no value, so that
//! the rest of this folder is the same for both.

use std::{io, sync::Arc};

use tokio::net::TcpStream;

use crate::shard_map::Address;

/// There is none.
#[derive(Debug, Clone)]
pub(super) enum Tls {}

/// There are none.
#[derive(Debug)]
pub(super) enum Credentials {}

/// There is none.
#[derive(Debug)]
pub(super) enum Secured {}

impl Tls {
    pub(super) fn current(&self) -> Arc<Credentials> {
        match *self {}
    }
}

impl Secured {
    pub(super) async fn connect(tls: &Tls, _: &Address, _: TcpStream) -> io::Result<Self> {
        match *tls {}
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        match *self {}
    }

    pub(super) fn usable_socket(&mut self) -> Option<&TcpStream> {
        match *self {}
    }
}

pub(super) fn secure(library: reqwest::ClientBuilder, tls: Option<&Tls>) -> reqwest::ClientBuilder {
    match tls {
        Some(tls) => match *tls {},
        None => library,
    }
}

pub(super) fn refused_certificate(_: &io::Error) -> Option<String> {
    None
}
