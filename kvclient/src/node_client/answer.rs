//! A whole answer, with a limit on its size; and how far an exchange got that brought none.

use bytes::{Bytes, BytesMut};
use reqwest::Response;

use super::head::Headers;
use crate::{
    attempt::AttemptError,
    position::Position,
    wire::{
        batch::{Action, OpError, OpResult},
        error::{Applied, ErrorBody, ErrorCode},
        header, redirect,
    },
};

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Headers,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn new(status: u16, headers: Headers, body: Bytes) -> Self {
        Self {
            status,
            headers,
            body,
        }
    }

    /// Reads the body of what the HTTP library got, and stops as soon as it is too large.
    pub(super) async fn read(
        mut response: Response,
        limit_bytes: usize,
    ) -> Result<Self, AttemptError> {
        let too_large = AttemptError::AnswerTooLarge { limit_bytes };
        let announced = response.content_length().unwrap_or(0);
        if announced > limit_bytes as u64 {
            return Err(too_large);
        }
        let mut body = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(|error| failure(&error))? {
            if body.is_empty() && joined.is_empty() {
                body = piece;
                continue;
            }
            if joined.is_empty() {
                joined.reserve(usize::try_from(announced).unwrap_or(0));
                joined.extend_from_slice(&body);
            }
            joined.extend_from_slice(&piece);
            if joined.len() > limit_bytes {
                return Err(too_large);
            }
        }
        let body = if joined.is_empty() {
            body
        } else {
            joined.freeze()
        };
        if body.len() > limit_bytes {
            return Err(too_large);
        }
        let headers = Headers::of_map(response.headers());
        Ok(Self::new(response.status().as_u16(), headers, body))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    pub(super) fn refusal(&self) -> AttemptError {
        AttemptError::from_http(self.status, &self.body, |name| self.header(name))
    }

    /// The answer to a lone op, in the shape that a batch would have given it.
    pub(super) fn into_result(self, action: &Action) -> OpResult {
        let is_success = (200..=299).contains(&self.status) || self.status == 304;
        let by_status = (action.is_write() && is_success).then_some(Applied::Yes);
        let target = self.header("location").and_then(redirect::target);
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

/// How far the exchange got. Whatever is not surely before the first byte counts as after it.
pub(super) fn failure(error: &reqwest::Error) -> AttemptError {
    if error.is_connect() || error.is_builder() {
        return AttemptError::NotConnected(chain(error));
    }
    match error.is_timeout() {
        true => AttemptError::TimedOut,
        false => AttemptError::Broken(chain(error)),
    }
}

/// The innermost cause: the library's own layers say only "error sending request".
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
