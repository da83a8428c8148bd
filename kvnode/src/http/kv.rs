//! `/kv/{key}` and `/kv?key=`: one op each, raw bytes in and out.

use actix_web::{HttpRequest, HttpResponse, http::Method, web};
use kvclient::{
    key::Key,
    wire::{
        batch::{Action, Op, Terms},
        error::{Applied, ErrorCode},
        query::Query,
    },
};

use super::{answer, body, guard, request, request::BadRequest};
use crate::{
    ownership::{Access, Decision},
    service::Service,
};

/// Reads an entry.
pub(super) async fn get(request: HttpRequest, service: web::Data<Service>) -> HttpResponse {
    let op = request::key_and_query(&request).and_then(|(key, query)| {
        only(&query, &["key"])?;
        let terms = if is_ours(&key, Access::Read, &service) {
            request::terms(&request)?
        } else {
            Terms::default()
        };
        Ok(Op {
            key,
            action: Action::Get,
            terms,
        })
    });
    match op {
        Ok(op) => run(&request, op, &service).await,
        Err(error) => answer::op(&request, error.into_result(None), &service),
    }
}

/// Changes an entry: PUT, DELETE, and the POST forms.
pub(super) async fn write(
    request: HttpRequest,
    payload: &mut web::Payload,
    service: web::Data<Service>,
) -> HttpResponse {
    let (key, query) = match request::key_and_query(&request) {
        Ok(found) => found,
        Err(error) => return refuse(&request, payload, error, &service).await,
    };
    // Ownership comes before anything else: what is another shard's is judged there. The body is read all the
    // same, so that a client that sends it sees the answer.
    let ours = is_ours(&key, Access::Write, &service);
    let limit = service.config.sizes.max_value_bytes;
    let body = body::read(&service, &request, payload, limit).await;
    let op = match (ours, body) {
        (false, _) => Ok(Op::new(key, Action::Delete)),
        (true, Err(error)) => Err(error),
        (true, Ok(body)) => request::terms(&request).and_then(|terms| {
            let action = action(&request, &query, body.bytes.clone())?;
            Ok(Op { key, action, terms })
        }),
    };
    match op {
        Ok(op) => run(&request, op, &service).await,
        Err(error) => answer::op(&request, error.into_result(Some(Applied::No)), &service),
    }
}

fn action(request: &HttpRequest, query: &Query, body: bytes::Bytes) -> Result<Action, BadRequest> {
    let ttl_ms = query.duration_ms("ttl")?;
    if *request.method() == Method::PUT {
        only(query, &["key", "ttl"])?;
        return Ok(Action::Put {
            value: body,
            ttl_ms,
        });
    }
    if *request.method() == Method::DELETE {
        only(query, &["key"])?;
        return Ok(Action::Delete);
    }
    if !body.is_empty() {
        guard::check_post_type(request)?;
    }
    let integer = |text: &str| text.strip_prefix('+').unwrap_or(text).parse().ok();
    let delta = query.parsed("incr", "a 64-bit integer", integer)?;
    match (delta, ttl_ms, query.flag("persist")?) {
        (Some(delta), None, false) => Ok(Action::Incr { delta }),
        (None, Some(ttl_ms), false) => Ok(Action::Expire { ttl_ms }),
        (None, None, true) => Ok(Action::Persist),
        _ => Err(BadRequest::new(
            ErrorCode::BadParameter,
            "POST takes one of ?incr=5, ?ttl=90s and ?persist",
        )),
    }
}

/// Parameters that the path knows, but this method does not.
fn only(query: &Query, known: &[&str]) -> Result<(), BadRequest> {
    match ["key", "ttl", "incr", "persist"]
        .into_iter()
        .find(|name| query.has(name) && !known.contains(name))
    {
        None => Ok(()),
        Some(name) => {
            let message = format!("the parameter {name:?} does not go with this method");
            Err(BadRequest::new(ErrorCode::BadParameter, message))
        }
    }
}

fn is_ours(key: &Key, access: Access, service: &Service) -> bool {
    service.route(key, access, &service.map.load()) == Decision::Serve
}

async fn run(request: &HttpRequest, op: Op, service: &Service) -> HttpResponse {
    let result = service.execute(vec![op]).await.pop().unwrap_or_default();
    answer::op(request, result, service)
}

async fn refuse(
    request: &HttpRequest,
    payload: &mut web::Payload,
    error: BadRequest,
    service: &Service,
) -> HttpResponse {
    let limit = service.config.sizes.max_value_bytes;
    drop(body::read(service, request, payload, limit).await);
    answer::refused_write(error, service)
}
