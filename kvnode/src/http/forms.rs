//! `/get`, `/set`, `/delete` and `/route`: for a person with curl. Answers are a value or a line of text.

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use kvclient::{
    slot::Slot,
    wire::{
        batch::{Action, Op, Terms},
        error::{Applied, ErrorCode},
        header,
    },
};

use super::{answer, awake, guard, request, request::BadRequest};
use crate::{access::Caller, json::bytes_field, ownership::own_shard, service::Service};

/// `/get?key=`: the value as it is.
pub(super) async fn get(
    request: HttpRequest,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let op = request::key_parameter(&request, &["key"]).and_then(|(key, _)| {
        caller.may(|grant| grant.allows_key(key.as_bytes()))?;
        Ok(Op {
            key,
            action: Action::Get,
            terms: request::terms(&request)?,
        })
    });
    let op = match op {
        Ok(op) => op,
        Err(error) => return answer::refused(error, &service),
    };
    let key = op.key.clone();
    let result = awake::execute_one(&service, op).await;
    match result.error_code() {
        Some(ErrorCode::NotFound) => answer::line(404, format!("not found: {key}"), &service),
        _ => answer::op(&request, result, &service),
    }
}

/// `/set?key=&value=&ttl=`: stores a value.
pub(super) async fn set(
    request: HttpRequest,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let op = check(&request, &service).and_then(|()| {
        let (key, query) = request::key_parameter(&request, &["key", "value", "ttl"])?;
        caller.may(|grant| grant.allows_key(key.as_bytes()))?;
        let Some(value) = query.bytes("value") else {
            return Err(BadRequest::new(
                ErrorCode::BadParameter,
                "the parameter value is missing: &value=...",
            ));
        };
        let action = Action::Put {
            value: Bytes::copy_from_slice(value),
            ttl_ms: query.duration_ms("ttl")?,
        };
        Ok(Op {
            key,
            action,
            terms: Terms::default(),
        })
    });
    write(&request, op, "stored", &service).await
}

/// `/delete?key=`: removes a key.
pub(super) async fn delete(
    request: HttpRequest,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let op = check(&request, &service).and_then(|()| {
        let (key, _) = request::key_parameter(&request, &["key"])?;
        caller.may(|grant| grant.allows_key(key.as_bytes()))?;
        Ok(Op::new(key, Action::Delete))
    });
    write(&request, op, "deleted", &service).await
}

/// Headers that make a write depend on something, or repeatable: done without them it would be another write.
const TERMS: [&str; 3] = ["if-match", "if-none-match", header::REQUEST_ID];

/// Whether such a write may be sent, and asks for nothing that these forms do not do.
fn check(request: &HttpRequest, service: &Service) -> Result<(), BadRequest> {
    guard::check_get_write(request, service)?;
    let term = TERMS
        .into_iter()
        .find(|name| request.headers().contains_key(*name));
    let asks_ack = request::ack(request)?.is_some();
    let Some(name) = term.or(asks_ack.then_some(header::ACK)) else {
        return Ok(());
    };
    let message = format!(
        "{name} does not go with /set and /delete; use PUT and DELETE /kv/{{key}}. Nothing was written"
    );
    Err(BadRequest::new(ErrorCode::BadParameter, message))
}

async fn write(
    request: &HttpRequest,
    op: Result<Op, BadRequest>,
    done: &str,
    service: &Service,
) -> HttpResponse {
    let op = match op {
        Ok(op) => op,
        Err(error) => return answer::refused_write(error, service),
    };
    let key = op.key.clone();
    let result = awake::execute_one(service, op).await;
    if result.error_code() == Some(ErrorCode::NotFound) {
        return answer::line(404, format!("not found: {key}"), service);
    }
    if result.applied != Some(Applied::Yes) {
        return answer::op(request, result, service);
    }
    let shard = own_shard(&service.map.load(), service.place()).name.clone();
    answer::line(200, format!("{done} {key} in {shard}"), service)
}

/// `/route?key=`: who owns a key.
pub(super) async fn route(request: HttpRequest, service: web::Data<Service>) -> HttpResponse {
    let key = match request::key_parameter(&request, &["key"]) {
        Ok((key, _)) => key,
        Err(error) => return answer::refused(error, &service),
    };
    let map = service.map.load();
    let slot = Slot::of(&key);
    let shard = map.shard_of_slot(slot);
    let replicas: Vec<String> = shard
        .replicas
        .iter()
        .map(|node| node.address.to_string())
        .collect();
    let (name, text) = bytes_field("key", key.as_bytes());
    let body = serde_json::json!({
        name: text,
        "slot": slot.number(),
        "shard": shard.name,
        "primary": shard.primary.address.to_string(),
        "replicas": replicas,
        "this_node": shard.role_of(&service.config.address).map(|role| role.as_str()),
    });
    answer::json(200, format!("{body}\n"), &service)
}
