//! Answers that their readers have not taken yet: counted in bytes, and bounded for all together.
//!
//! The framework copies what an answer gives and asks for more once the connection has taken it. So whoever asks for
//! much and reads nothing costs the node what he was given last: with thousands of them that is all of its memory.
//! A read that finds too much unread is refused; a stream that is on its way breaks, and is resumed or asked for
//! again. A connection that takes nothing at all is cut after a while (`stalled.rs`), which gives its share back.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::Method,
    web,
};
use bytes::Bytes;
use kvclient::wire::error::ErrorCode;

use super::{answer, request::BadRequest};
use crate::service::Service;

/// An answer up to this size is not counted: thousands of these fit, and most answers are no larger.
const SMALL_BYTES: u64 = 32 << 10;

/// Counts an answer for as long as its reader has not taken it.
pub(super) fn counted(
    response: HttpResponse,
    method: &Method,
    service: &web::Data<Service>,
) -> HttpResponse {
    let whole = match response.body().size() {
        BodySize::None => return response,
        BodySize::Sized(bytes) if bytes <= SMALL_BYTES => return response,
        BodySize::Sized(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        BodySize::Stream => 0,
    };
    let unread = service.metrics.unread.bytes();
    // What was written must not be answered as if it were not: such an answer breaks where it does not fit.
    if *method == Method::GET && unread.saturating_add(whole) > limit(service) {
        let message =
            "the node holds as many unread answers as it may (--max-in-flight); ask again later";
        return answer::refused(BadRequest::new(ErrorCode::Overloaded, message), service);
    }
    response.map_body(|_, answer| {
        BoxBody::new(Unread {
            answer,
            service: service.clone(),
            bytes: 0,
        })
    })
}

fn limit(service: &Service) -> usize {
    service.config.sizes.max_in_flight_bytes
}

/// An answer's body, and its share of what is unread.
struct Unread {
    answer: BoxBody,
    service: web::Data<Service>,
    bytes: usize,
}

impl Unread {
    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.service.metrics.unread.give_back(bytes);
    }

    fn take(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes = bytes;
        let taken = self
            .service
            .metrics
            .unread
            .take(bytes, limit(&self.service));
        taken.map_err(|_| io::Error::other("the node holds as many unread answers as it may"))
    }
}

impl MessageBody for Unread {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        // Asked for more: what was given has left.
        self.give_back();
        let chunk = match ready!(self.answer.as_pin_mut().poll_next(context)) {
            Some(Ok(chunk)) => chunk,
            other => return Poll::Ready(other),
        };
        let taken = self.take(chunk.len());
        Poll::Ready(Some(taken.map(|()| chunk).map_err(Into::into)))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.give_back();
    }
}
