//! The terms of an op as headers.

use crate::wire::{
    batch::{Condition, Op, Terms},
    header,
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
