//! From an [`OpResult`] or a refusal to an HTTP answer, in one place.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        Method, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CROSS_ORIGIN_RESOURCE_POLICY, HeaderName,
            HeaderValue, X_CONTENT_TYPE_OPTIONS,
        },
    },
};
use bytes::Bytes;
use kvclient::{
    Scheme,
    faults::{self, Guarantee},
    shard_map::Address,
    wire::{
        batch::OpResult,
        content_type,
        error::{Applied, ErrorBody, ErrorCode},
        header, redirect,
    },
};

use super::request::BadRequest;
use crate::{ownership::own_shard, service::Service};

/// What a browser may do with an answer: show it.
const NO_SCRIPTS: &str = "default-src 'none'; sandbox";

// Made once: a name that is given as text is parsed for every answer.
static SHARD: HeaderName = HeaderName::from_static(header::SHARD);
static ROLE: HeaderName = HeaderName::from_static(header::ROLE);
static MAP_VERSION: HeaderName = HeaderName::from_static(header::MAP_VERSION);
static LAG_MS: HeaderName = HeaderName::from_static(header::LAG_MS);

/// An answer with the headers that every answer about data carries.
pub(super) fn data(status: u16, service: &Service) -> HttpResponseBuilder {
    let map = service.map.load();
    let mut answer = HttpResponse::build(to_status(status));
    answer
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
    if !faults::is_off(Guarantee::Guards) {
        // A value is data whoever opens it: no browser runs what stands in it, and no other page takes it in.
        answer
            .insert_header((
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(NO_SCRIPTS),
            ))
            .insert_header((
                CROSS_ORIGIN_RESOURCE_POLICY,
                HeaderValue::from_static("same-origin"),
            ));
    }
    answer
        .insert_header((
            SHARD.clone(),
            own_shard(&map, service.place()).name.as_str(),
        ))
        .insert_header((
            ROLE.clone(),
            HeaderValue::from_static(service.role().as_str()),
        ))
        .insert_header((MAP_VERSION.clone(), map.identity()));
    if let Some(lag_ms) = service.lag_ms() {
        answer.insert_header((LAG_MS.clone(), lag_ms));
    }
    answer
}

/// The answer to one op.
pub(super) fn op(request: &HttpRequest, result: OpResult, service: &Service) -> HttpResponse {
    let mut answer = data(result.status, service);
    if let Some(applied) = result.applied {
        answer.insert_header((header::APPLIED, applied.as_str()));
    }
    if let Some(position) = result.position {
        answer.insert_header((header::POSITION, position.to_string()));
    }
    if let Some(etag) = result.etag {
        answer.insert_header(("etag", etag.to_etag()));
    }
    if let Some(ttl_ms) = result.ttl_ms {
        answer.insert_header((header::TTL_MS, ttl_ms));
    }
    if let Some(target) = result
        .target
        .as_deref()
        .and_then(|target| target.parse::<Address>().ok())
    {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        answer.insert_header((
            "location",
            redirect::location(service.config.scheme(), &target, path),
        ));
        if result.status == 307 {
            return answer.content_type(content_type::TEXT).body(format!(
                "This key belongs to another shard. Ask {}, or let curl follow: curl -L ...\n",
                shown(&target, service)
            ));
        }
    }
    if let Some(error) = result.error {
        return refusal(answer, error.code, error.message, service);
    }
    match (result.status, result.value) {
        (200, Some(value)) if *request.method() == Method::POST => {
            answer.content_type(content_type::TEXT).body(value)
        }
        (200, Some(value)) => answer.content_type(content_type::VALUE).body(value),
        (204 | 304, _) => answer.finish(),
        (_, value) => answer.body(value.unwrap_or_else(Bytes::new)),
    }
}

/// A node as curl takes it: without a scheme it takes it for one in the clear.
fn shown(node: &Address, service: &Service) -> String {
    match service.config.scheme() {
        Scheme::Http => node.to_string(),
        Scheme::Https => node.to_url(Scheme::Https),
    }
}

/// A refusal of something that is not an op.
pub(super) fn refused(error: BadRequest, service: &Service) -> HttpResponse {
    let answer = data(error.code.status(), service);
    refusal(answer, error.code, error.message, service)
}

/// A refusal of a write that was not even understood.
pub(super) fn refused_write(error: BadRequest, service: &Service) -> HttpResponse {
    let mut answer = data(error.code.status(), service);
    answer.insert_header((header::APPLIED, Applied::No.as_str()));
    refusal(answer, error.code, error.message, service)
}

fn refusal(
    mut answer: HttpResponseBuilder,
    code: ErrorCode,
    message: String,
    service: &Service,
) -> HttpResponse {
    service.metrics.refusals.add(code);
    if matches!(code.status(), 503 | 507) {
        answer.insert_header(("retry-after", "1"));
    }
    let mut body = ErrorBody::new(code, printable(message)).to_json();
    body.push('\n');
    answer.content_type(content_type::JSON).body(body)
}

/// What a message repeats of a request must not steer the terminal that shows it; JSON leaves some of it as it is.
fn printable(message: String) -> String {
    if !message.contains(char::is_control) || faults::is_off(Guarantee::Escapes) {
        return message;
    }
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    message.chars().map(escaped).collect()
}

/// A JSON document.
pub(super) fn json(status: u16, body: String, service: &Service) -> HttpResponse {
    data(status, service)
        .content_type(content_type::JSON)
        .body(body)
}

/// A line for a person.
pub(super) fn line(status: u16, mut text: String, service: &Service) -> HttpResponse {
    text.push('\n');
    data(status, service)
        .content_type(content_type::TEXT)
        .body(text)
}

fn to_status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
