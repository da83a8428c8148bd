//! Reads request bodies: never more than allowed, never longer than a slow but honest sender needs, and never more
//! in all than the node can hold.
//!
//! The framework limits the time for a request's head only, so the deadline for bodies is here: 10 s, and a second
//! more for each 64 kB that came.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use kvclient::wire::error::ErrorCode;

use super::request::BadRequest;

/// Time that any body may take.
const GRACE: Duration = Duration::from_secs(10);

/// Slowest sender that is not cut off, in bytes a second.
const SLOWEST_BYTES_PER_SECOND: usize = 64_000;

/// Bytes of bodies held by all requests together.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    bytes: AtomicUsize,
}

/// A body and its share of [`InFlight`], given back on drop.
pub(super) struct Body<'a> {
    pub(super) bytes: Bytes,
    _held: Held<'a>,
}

struct Held<'a> {
    in_flight: &'a InFlight,
    bytes: usize,
}

impl Held<'_> {
    fn grow(&mut self, bytes: usize, limit: usize) -> Result<(), BadRequest> {
        self.bytes += bytes;
        let all = self.in_flight.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > limit {
            let message = "the node holds as many request bodies as it may (--max-in-flight); ask again later";
            return Err(BadRequest::new(ErrorCode::Overloaded, message));
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.in_flight
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl InFlight {
    /// Bytes held now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// A body that says it is longer is refused at once, another as soon as it is; one that is cut off is an error,
    /// so that half a value is never stored.
    pub(super) async fn read(
        &self,
        request: &HttpRequest,
        payload: &mut web::Payload,
        limit: usize,
        max_in_flight: usize,
    ) -> Result<Body<'_>, BadRequest> {
        let mut held = Held {
            in_flight: self,
            bytes: 0,
        };
        let declared = declared_bytes(request);
        if declared.is_some_and(|declared| declared > limit) {
            return Err(too_long(limit));
        }
        let mut whole = BytesMut::new();
        let started = Instant::now();
        loop {
            let slowest = Duration::from_secs((whole.len() / SLOWEST_BYTES_PER_SECOND) as u64);
            let chunk =
                tokio::time::timeout_at((started + GRACE + slowest).into(), payload.next()).await;
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
            held.grow(chunk.len(), max_in_flight)?;
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

fn too_long(limit: usize) -> BadRequest {
    BadRequest::new(
        ErrorCode::TooLarge,
        format!("the body is longer than {limit} bytes; nothing was stored"),
    )
}
