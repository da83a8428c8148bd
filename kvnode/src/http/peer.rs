//! Who is at the other end of a connection with TLS, as far as his certificate says.
//!
//! The certificate is kept with its connection; whose it is depends on the map, so it is asked again when another map is
//! in force. A connection stays on one worker, and so does what is kept of it.

use std::{any::Any, cell::RefCell, sync::Arc};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{HttpRequest, dev::Extensions, rt::net::TcpStream};
use kvclient::shard_map::{Address, ShardMap};
use rustls::pki_types::CertificateDer;

use crate::{
    access::Certified,
    service::Service,
    tls::{check_host, is_of_a_node},
};

/// A certificate that was verified when its connection was made.
#[derive(Debug)]
struct Peer {
    certificate: CertificateDer<'static>,
    /// By which map it was looked at last, and what it was.
    judged: RefCell<Option<(Arc<ShardMap>, Certified)>>,
}

/// Keeps what a new connection showed.
pub(crate) fn keep(connection: &dyn Any, kept: &mut Extensions) {
    let tls = connection.downcast_ref::<TlsStream<TcpStream>>();
    let shown = tls.and_then(|tls| tls.get_ref().1.peer_certificates()?.first());
    if let Some(certificate) = shown {
        kept.insert(Peer {
            certificate: certificate.clone().into_owned(),
            judged: RefCell::default(),
        });
    }
}

/// Whose certificate a request's connection showed; `None` if it showed none.
pub(super) fn certified(request: &HttpRequest, service: &Service) -> Option<Certified> {
    let peer = request.conn_data::<Peer>()?;
    let map = service.map.load();
    let mut judged = peer.judged.borrow_mut();
    match &*judged {
        Some((by, whose)) if Arc::ptr_eq(by, &map) => Some(*whose),
        _ => {
            let whose = match is_of_a_node(&peer.certificate, &map) {
                true => Certified::Node,
                false => Certified::Client,
            };
            *judged = Some((Arc::clone(&map), whose));
            Some(whose)
        }
    }
}

/// Whether the certificate of a request's connection may be that of the node at this address.
///
/// # Errors
/// What it is for instead.
pub(super) fn check_is(request: &HttpRequest, node: &Address) -> Result<(), String> {
    match request.conn_data::<Peer>() {
        Some(peer) => check_host(&peer.certificate, node.bare_host()),
        None => Err("nobody: none was shown".to_owned()),
    }
}
