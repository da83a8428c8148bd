//! Requests that took longer than `--slow-request-ms` are told in the log: which, how long, and with what answer.
//!
//! What a replica's pull waits for frames, as it asked to, is no slowness. Of a request only method and path are told: values stand in bodies and queries. The path is as it came, still escaped,
//! and cut.

use std::time::{Duration, Instant};

use actix_web::{HttpRequest, HttpResponse};
use kvclient::wire::{query::Query, route};

use super::request;
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
    let took = arrived.elapsed().saturating_sub(wait_of(request));
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

/// How long it asked to wait, if it is a pull.
fn wait_of(request: &HttpRequest) -> Duration {
    if request.uri().path() != route::LOG {
        return Duration::ZERO;
    }
    let query = request.uri().query().unwrap_or_default();
    let query = Query::parse(query, &["after", "max_bytes", "wait_ms"]).ok();
    let wait_ms = query.and_then(|query| query.parsed("wait_ms", "", request::number).ok()?);
    Duration::from_millis(wait_ms.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn pulls_alone_may_wait() {
        for (uri, ms) in [
            ("/log?after=7&max_bytes=1048576&wait_ms=250", 250),
            ("/log?after=7", 0),
            ("/log?wait_ms=soon", 0),
            ("/log", 0),
            ("/kv/a?wait_ms=250", 0),
        ] {
            let request = TestRequest::with_uri(uri).to_http_request();
            assert_eq!(wait_of(&request), Duration::from_millis(ms), "{uri}");
        }
    }
}
