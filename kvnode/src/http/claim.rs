//! Whether a caller is the node that he says he is.
//!
//! What a replica says of itself changes its primary: what it has synced counts for `Kv-Ack`, the log is kept for it, and
//! a newer reign that it knows ends the primary's. So whoever names a node of the map must be one: by a token of the
//! scope `node`, or by a certificate for that node's host. Whoever names none of them, a backup, is counted nowhere.

use kvclient::{shard_map::Address, wire::error::ErrorCode};

use super::{peer, request::BadRequest};
use crate::{
    access::{Caller, Need, Scope},
    service::Service,
};

/// Checks that a caller may speak as the node at this address.
///
/// # Errors
/// What he lacks.
pub(super) fn check(service: &Service, caller: &Caller, named: &Address) -> Result<(), BadRequest> {
    let map = service.map.load();
    if !map.nodes().any(|node| node.address == *named) {
        return Ok(());
    }
    match caller {
        Caller::Certified(certified) => peer::check_is(certified, named).map_err(|names| {
            refusal(format!(
                "this speaks as the node {named}, and the certificate of its connection is for {names}; give that node \
                 a certificate for its host"
            ))
        }),
        Caller::Anyone | Caller::Stranger | Caller::Token(_) => caller
            .may(|grant| grant.allows(Need::Scope(Scope::Node)))
            .map_err(|denied| refusal(format!("this speaks as the node {named}: {denied}"))),
    }
}

fn refusal(message: String) -> BadRequest {
    BadRequest::new(ErrorCode::ForbiddenScope, message)
}
