//! Who is let in: asked for each request before its body is read, and before anything is said of the map.
//!
//! A redirect tells only the map, but that too is for those who may know it; and a token that is refused at one node is
//! refused at all, so nobody is sent on in vain. Missing, unknown and expired tokens get one and the same answer.

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        ConnectionType,
        header::{
            AUTHORIZATION, CACHE_CONTROL, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
        },
    },
    rt::time::sleep,
};
use kvclient::{
    faults::{self, Guarantee},
    wire::{
        batch::{Op, OpResult},
        content_type,
        error::{Applied, ErrorBody, ErrorCode},
        header,
    },
};

use super::{answer, path::Path, peer, request::BadRequest};
use crate::{
    access::{Caller, Denied, Need, NotAdmitted},
    service::Service,
};

/// The caller of a request, or the answer to one who may not ask for its path.
pub(super) async fn caller(
    request: &HttpRequest,
    path: Path,
    service: &Service,
) -> Result<Caller, HttpResponse> {
    if !service.admission.asks() || faults::is_off(Guarantee::Tokens) {
        return Ok(Caller::Anyone);
    }
    let need = path.need(request.method());
    let shown = match peer::certified(request, service) {
        Ok(shown) => shown,
        Err(_) if need == Need::Nothing => None,
        Err(why) => return Err(no_longer(&why, service)),
    };
    let admitted = service.admission.admit(need, authorization(request), shown);
    let refusal = match admitted {
        Ok(caller) => return Ok(caller),
        Err(NotAdmitted::Denied(denied)) => {
            return Err(answer::refused_write(BadRequest::from(denied), service));
        }
        Err(refusal) => refusal,
    };
    note(&refusal, request, service).await;
    match need {
        // Open to all, so also to whoever brings what does not count. He has waited like any other.
        Need::Nothing => Ok(Caller::Stranger),
        Need::State | Need::Scope(_) | Need::EachOp => Err(unauthorized(service)),
    }
}

/// Tells and slows down what should not go on.
async fn note(refusal: &NotAdmitted, request: &HttpRequest, service: &Service) {
    match refusal {
        NotAdmitted::Expired(name) => {
            let failures = &service.admission.failures;
            if let Some(count) = failures.note_expired(name, Instant::now()) {
                tracing::warn!(name, count, "a token was refused: it has expired");
            }
        }
        NotAdmitted::Unknown => hold_up(request, service).await,
        NotAdmitted::Missing | NotAdmitted::Denied(_) => {}
    }
}

/// Takes from an answer what it says of shard, map and role: a stranger hears nothing of them.
pub(super) fn conceal(mut answer: HttpResponse) -> HttpResponse {
    for name in [
        header::SHARD,
        header::ROLE,
        header::MAP_VERSION,
        header::LAG_MS,
    ] {
        answer.headers_mut().remove(name);
    }
    answer
}

/// The result of an op that its caller may not do; `None` if he may.
pub(super) fn refused_op(caller: &Caller, op: &Op) -> Option<OpResult> {
    let denied = caller.may(|grant| grant.allows_op(op)).err()?;
    let applied = op.action.is_write().then_some(Applied::No);
    Some(BadRequest::from(denied).into_result(applied))
}

impl From<Denied> for BadRequest {
    fn from(denied: Denied) -> Self {
        let code = match denied {
            Denied::Scope(_) => ErrorCode::ForbiddenScope,
            Denied::Key | Denied::Range => ErrorCode::ForbiddenKey,
        };
        Self::new(code, denied.to_string())
    }
}

/// The header, if there is one; two of them are as good as a wrong one.
fn authorization(request: &HttpRequest) -> Option<&[u8]> {
    let mut values = request.headers().get_all(AUTHORIZATION);
    let first = values.next()?;
    Some(values.next().map_or(first.as_bytes(), |_| b""))
}

/// Has somebody wait who tries many unknown tokens.
async fn hold_up(request: &HttpRequest, service: &Service) {
    let Some(peer) = request.peer_addr() else {
        return;
    };
    let verdict = service.admission.failures.note(peer.ip(), Instant::now());
    if let Some(count) = verdict.tell {
        tracing::warn!(peer = %peer.ip(), count, "unknown tokens were refused");
    }
    if !verdict.delay.is_zero() {
        sleep(verdict.delay).await;
    }
}

/// The certificate of the connection would be refused in a handshake now. The connection ends with the answer: whoever
/// has another certificate comes again with that.
fn no_longer(why: &str, service: &Service) -> HttpResponse {
    let message = format!("the certificate of this connection no longer counts: {why}");
    let mut answer = refusal(&message, service);
    answer.head_mut().set_connection_type(ConnectionType::Close);
    answer
}

fn unauthorized(service: &Service) -> HttpResponse {
    refusal(service.admission.asked_for(), service)
}

/// As little as possible: nothing of the shard, the map or the role.
fn refusal(message: &str, service: &Service) -> HttpResponse {
    service.metrics.refusals.add(ErrorCode::Unauthorized);
    let body = ErrorBody::new(ErrorCode::Unauthorized, message).to_json() + "\n";
    let mut answer = HttpResponse::Unauthorized();
    // A scheme that no answer could follow is not named: without tokens only a certificate helps.
    if service.admission.tokens().is_some() {
        answer.insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
    }
    answer
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .insert_header((header::APPLIED, Applied::No.as_str()))
        .content_type(content_type::JSON)
        .body(body)
}
