//! The terms of an op as headers.

use reqwest::{
    Request,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};

use crate::{
    attempt::AttemptError,
    token::Token,
    wire::{
        batch::{Condition, Op, Terms},
        header,
    },
};

pub(super) fn write_headers(op: &Op) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    headers.extend(op.terms.condition.map(|condition| match condition {
        Condition::Absent => ("if-none-match", "*".to_owned()),
        Condition::Exists => ("if-match", "*".to_owned()),
        Condition::Is(position) => ("if-match", position.to_etag()),
        Condition::Differs(position) => ("if-none-match", position.to_etag()),
    }));
    if let Some(ack) = op.terms.ack {
        headers.push((header::ACK, ack.to_text()));
        let wait = op.terms.wait_ms.map(|ms| ms.to_string());
        headers.extend(wait.map(|wait| (header::WAIT_MS, wait)));
    }
    headers.extend(op.terms.request_id.map(|id| {
        let text = format!("{:032x}.{};floor={}", id.client, id.n, id.floor);
        (header::REQUEST_ID, text)
    }));
    headers
}

pub(super) fn read_headers(terms: &Terms) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    let mut add = |name, text: Option<String>| headers.extend(text.map(|text| (name, text)));
    add(
        header::MIN_POSITION,
        terms.min_position.map(|at| at.to_string()),
    );
    add(
        header::MAX_LAG_MS,
        terms.max_lag_ms.map(|ms| ms.to_string()),
    );
    add(header::WAIT_MS, terms.wait_ms.map(|ms| ms.to_string()));
    headers
}

/// What every request carries.
pub(super) fn of_all(token: Option<&Token>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // A token has characters of headers only.
    let value = token.and_then(|token| HeaderValue::from_str(token.authorization()).ok());
    headers.extend(value.map(|mut value| {
        value.set_sensitive(true);
        (AUTHORIZATION, value)
    }));
    headers
}

pub(super) fn set_header(
    request: &mut Request,
    name: &str,
    value: &str,
) -> Result<(), AttemptError> {
    let bad = |problem: String| AttemptError::NotConnected(format!("header {name}: {problem}"));
    let header = HeaderName::try_from(name).map_err(|error| bad(error.to_string()))?;
    let value = HeaderValue::try_from(value).map_err(|error| bad(error.to_string()))?;
    request.headers_mut().insert(header, value);
    Ok(())
}
