//! Who is at the other end of a connection with TLS, as far as his certificate says.
//!
//! The certificate is kept with its connection. Whether it still counts is asked with each request; whose it is depends
//! on the map, so it is asked again when another map is in force. A connection stays on one worker, and so does what is
//! kept of it.

use std::{any::Any, cell::RefCell, sync::Arc, time::SystemTime};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{HttpRequest, dev::Extensions, rt::net::TcpStream};
use kvclient::shard_map::{Address, ShardMap};

use crate::{
    access::{Certified, Whose},
    service::Service,
    tls::{NodeTls, Shown, check_host, is_of_a_node},
};

/// A certificate that was verified when its connection was made.
#[derive(Debug)]
struct Peer {
    shown: Arc<Shown>,
    /// By which map it was looked at last, and what it was.
    judged: RefCell<Option<(Arc<ShardMap>, Whose)>>,
}

/// Keeps what a new connection showed.
pub(crate) fn keep(connection: &dyn Any, tls: Option<&Arc<NodeTls>>, kept: &mut Extensions) {
    let stream = connection.downcast_ref::<TlsStream<TcpStream>>();
    let chain = stream.and_then(|stream| stream.get_ref().1.peer_certificates());
    let shown = tls.zip(chain).and_then(|(tls, chain)| tls.shown(chain));
    if let Some(shown) = shown {
        kept.insert(Peer {
            shown: Arc::new(shown),
            judged: RefCell::default(),
        });
    }
}

/// Whose certificate a request's connection showed; `None` if it showed none.
///
/// # Errors
/// It no longer counts; says why.
pub(super) fn certified(
    request: &HttpRequest,
    service: &Service,
) -> Result<Option<Certified>, String> {
    let Some(peer) = request.conn_data::<Peer>() else {
        return Ok(None);
    };
    peer.shown.check(SystemTime::now())?;
    Ok(Some(Certified {
        whose: peer.whose(&service.map.load()),
        shown: Arc::clone(&peer.shown),
    }))
}

impl Peer {
    fn whose(&self, map: &Arc<ShardMap>) -> Whose {
        let mut judged = self.judged.borrow_mut();
        match &*judged {
            Some((by, whose)) if Arc::ptr_eq(by, map) => *whose,
            _ => {
                let whose = match is_of_a_node(self.shown.certificate(), map) {
                    true => Whose::Node,
                    false => Whose::Client,
                };
                *judged = Some((Arc::clone(map), whose));
                whose
            }
        }
    }
}

/// Whether a request's connection had better end with its answer, so that its caller shows what he has by now.
pub(super) fn had_better_come_again(request: &HttpRequest) -> bool {
    let peer = request.conn_data::<Peer>();
    peer.is_some_and(|peer| peer.shown.had_better_come_again(SystemTime::now()))
}

/// Whether a certificate may be that of the node at this address.
///
/// # Errors
/// What it is for instead.
pub(super) fn check_is(certified: &Certified, node: &Address) -> Result<(), String> {
    check_host(certified.shown.certificate(), node.bare_host())
}
