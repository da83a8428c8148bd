//! Reads request bodies: never more than allowed, never longer than a slow but honest sender needs, and never more
//! in all than the node can hold.
//!
//! The framework limits the time for a request's head only, so the deadline for bodies is here: 10 s, and a second
//! more for each 64 kB that came.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use kvclient::{
    faults::{self, Guarantee},
    wire::error::ErrorCode,
};

use super::request::BadRequest;
use crate::{
    in_flight::{Held, OverLimit},
    service::Service,
};

/// Time that any body may take.
const GRACE: Duration = Duration::from_secs(10);

/// The same where a test switches the bound off.
const NO_DEADLINE: Duration = Duration::from_secs(3_600);

/// Slowest sender that is not cut off, in bytes a second.
const SLOWEST_BYTES_PER_SECOND: usize = 64_000;

/// A body and its share of what the node may hold, given back on drop.
pub(super) struct Body<'a> {
    pub(super) bytes: Bytes,
    _held: Held<'a>,
}

/// Reads a body of at most `limit` bytes.
///
/// A body that says it is longer is refused at once, another as soon as it is; one that is cut off is an error,
/// so that half a value is never stored.
pub(super) async fn read<'a>(
    service: &'a Service,
    request: &HttpRequest,
    payload: &mut web::Payload,
    limit: usize,
) -> Result<Body<'a>, BadRequest> {
    let mut held = service.metrics.in_flight.hold();
    let max_in_flight = service.config.sizes.max_in_flight_bytes;
    let declared = declared_bytes(request);
    let (limit, grace) = match faults::is_off(Guarantee::Bounds) {
        true => (usize::MAX, NO_DEADLINE),
        false => (limit, GRACE),
    };
    if declared.is_some_and(|declared| declared > limit) {
        return Err(too_long(limit));
    }
    let mut whole = BytesMut::new();
    let started = Instant::now();
    loop {
        let slowest = Duration::from_secs((whole.len() / SLOWEST_BYTES_PER_SECOND) as u64);
        let chunk =
            tokio::time::timeout_at((started + grace + slowest).into(), payload.next()).await;
        let chunk = match chunk {
            Err(_) => {
                return Err(BadRequest::new(
                    ErrorCode::BadRequest,
                    "the body came too slowly",
                ));
            }
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(BadRequest::new(
                    ErrorCode::BadRequest,
                    format!("the body was cut off: {error}"),
                ));
            }
            Ok(Some(Ok(chunk))) => chunk,
        };
        if whole.len() + chunk.len() > limit {
            return Err(too_long(limit));
        }
        held.grow(chunk.len(), max_in_flight).map_err(overloaded)?;
        // Most bodies come in one piece: it is kept as it is.
        if whole.is_empty() && declared == Some(chunk.len()) {
            return Ok(Body {
                bytes: chunk,
                _held: held,
            });
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(Body {
        bytes: whole.freeze(),
        _held: held,
    })
}

/// Ends the connection with this answer, unless the request's body was read to its end.
///
/// The framework does so by itself for a body with a length. One in chunks that nobody holds any more it reads and
/// throws away for as long as it lasts, so it has to be held until the answer has left.
pub(super) fn close_if_unread(response: HttpResponse, payload: web::Payload) -> HttpResponse {
    response.map_body(|_, answer| {
        BoxBody::new(Holding {
            answer,
            _request: payload,
        })
    })
}

/// An answer's body that holds the request's.
struct Holding {
    answer: BoxBody,
    _request: web::Payload,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.answer.as_pin_mut().poll_next(context)
    }
}

fn declared_bytes(request: &HttpRequest) -> Option<usize> {
    request
        .headers()
        .get("content-length")?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn overloaded(_: OverLimit) -> BadRequest {
    let message =
        "the node holds as many request bodies as it may (--max-in-flight); ask again later";
    BadRequest::new(ErrorCode::Overloaded, message)
}

fn too_long(limit: usize) -> BadRequest {
    BadRequest::new(
        ErrorCode::TooLarge,
        format!("the body is longer than {limit} bytes; nothing was stored"),
    )
}
