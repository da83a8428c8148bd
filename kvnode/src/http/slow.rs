//! Requests that took longer than `--slow-request-ms` are told in the log: which, how long, and with what answer.
//!
//! Of a request only method and path are told: values stand in bodies and queries. The path is as it came, still escaped,
//! and cut.

use std::time::Instant;

use actix_web::{HttpRequest, HttpResponse};

use crate::service::Service;

/// Most of a path that is told.
const MOST_BYTES: usize = 64;

/// Notes how long a request took, up to the head of its answer.
pub(super) fn note(
    request: &HttpRequest,
    answer: &HttpResponse,
    arrived: Instant,
    service: &Service,
) {
    let took = arrived.elapsed();
    if service.config.slow_request.is_none_or(|slow| took < slow) {
        return;
    }
    let Some(passed_over) = service.metrics.slow.add(Instant::now()) else {
        return;
    };
    let path = request.uri().path();
    // A path is ASCII.
    let path = path.get(..MOST_BYTES).unwrap_or(path);
    tracing::warn!(
        method = %request.method(),
        path,
        status = answer.status().as_u16(),
        ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        passed_over,
        "a slow request"
    );
}
