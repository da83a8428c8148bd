//! A whole answer, with a limit on its size; and how far an exchange of the HTTP library got that brought none.

use std::{error::Error, iter};

use bytes::{Bytes, BytesMut};
use reqwest::Response;

use super::{
    head::{Headers, SPEAKS_TLS},
    secured::refused_certificate,
};
use crate::{
    attempt::AttemptError,
    position::Position,
    scheme::Scheme,
    wire::{
        batch::{Action, OpError, OpResult},
        error::{Applied, ErrorBody, ErrorCode},
        header, redirect,
    },
};

/// A whole answer.
pub(super) struct Answer {
    /// How the node was asked.
    scheme: Scheme,
    pub(super) status: u16,
    headers: Headers,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn new(scheme: Scheme, status: u16, headers: Headers, body: Bytes) -> Self {
        Self {
            scheme,
            status,
            headers,
            body,
        }
    }

    /// Reads the body of what the HTTP library got, and stops as soon as it is too large.
    pub(super) async fn read(
        scheme: Scheme,
        mut response: Response,
        limit_bytes: usize,
    ) -> Result<Self, AttemptError> {
        let too_large = AttemptError::AnswerTooLarge { limit_bytes };
        let announced = response.content_length().unwrap_or(0);
        if announced > limit_bytes as u64 {
            return Err(too_large);
        }
        let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        while let Some(piece) = response.chunk().await.map_err(|error| failure(&error))? {
            if body.len() + piece.len() > limit_bytes {
                return Err(too_large);
            }
            body.extend_from_slice(&piece);
        }
        let headers = Headers::of_map(response.headers());
        let status = response.status().as_u16();
        Ok(Self::new(scheme, status, headers, body.freeze()))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    pub(super) fn refusal(&self) -> AttemptError {
        AttemptError::from_http(self.scheme, self.status, &self.body, |name| {
            self.header(name)
        })
    }

    /// The answer to a lone op, in the shape that a batch would have given it.
    pub(super) fn into_result(self, action: &Action) -> OpResult {
        let is_success = (200..=299).contains(&self.status) || self.status == 304;
        let by_status = (action.is_write() && is_success).then_some(Applied::Yes);
        let location = self.header("location");
        let target = location.and_then(|location| redirect::target(self.scheme, location));
        let error: Option<ErrorBody> = match is_success {
            true => None,
            false => serde_json::from_slice(&self.body).ok(),
        };
        let applied = self.header(header::APPLIED).and_then(Applied::from_text);
        OpResult {
            status: self.status,
            applied: applied.or(by_status),
            position: self
                .header(header::POSITION)
                .and_then(|text| text.parse().ok()),
            etag: self
                .header("etag")
                .and_then(|text| Position::from_etag(text).ok()),
            ttl_ms: self
                .header(header::TTL_MS)
                .and_then(|text| text.parse().ok()),
            value: (self.status == 200 && !action.is_write()).then_some(self.body),
            error: error.map(|error| {
                Box::new(OpError {
                    code: ErrorCode::from_text(&error.error),
                    message: error.message,
                })
            }),
            target: target.map(|target| target.to_string().into()),
        }
    }
}

/// How far an exchange got that changes nothing at the node.
pub(super) fn failure(error: &reqwest::Error) -> AttemptError {
    if error.is_connect() || error.is_builder() {
        return AttemptError::NotConnected(innermost(error));
    }
    if error.is_timeout() {
        return AttemptError::TimedOut;
    }
    if let Some(refusal) =
        causes(error).find_map(|cause| refused_certificate(cause.downcast_ref()?))
    {
        return AttemptError::NotConnected(refusal);
    }
    let problem = innermost(error);
    // What it says of an alert of TLS, whose bytes it does not show.
    match problem.contains("invalid HTTP version") {
        true => AttemptError::Broken(format!("{problem}; perhaps {SPEAKS_TLS}")),
        false => AttemptError::Broken(problem),
    }
}

/// The innermost cause: the library's own layers say only "error sending request".
pub(super) fn innermost(error: &reqwest::Error) -> String {
    causes(error)
        .last()
        .map_or_else(String::new, |cause| cause.to_string())
}

/// An error and what lies behind it.
fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let error: &'a (dyn Error + 'static) = error;
    iter::successors(Some(error), |&cause| cause.source())
}
