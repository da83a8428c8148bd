//! `/log` and `/snapshot`: what replicas ask for.

use std::io;

use actix_web::{HttpRequest, HttpResponse, http::Method, web};
use futures_util::stream;
use kvclient::{
    shard_map::Address,
    wire::{
        content_type,
        error::ErrorCode,
        header,
        pull::{PullAnswer, PullRequest},
        query::Query,
    },
};

use super::{answer, claim, request, request::BadRequest};
use crate::{
    access::Caller,
    ownership::own_shard,
    replication::{
        acks,
        snapshot_source::{self, NotBegun},
        source,
    },
    service::Service,
};

/// Frames after a seq. With a replica's headers it is a pull; without them, plain reading.
pub(super) async fn log(
    request: HttpRequest,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let Some(storage) = service.storage.load_full() else {
        return nothing_yet(&service);
    };
    let raw_query = request.uri().query().unwrap_or_default();
    if !request.headers().contains_key(header::NODE_ID) {
        return match read_parameters(raw_query) {
            Ok((after, max_bytes)) => match source::read(&storage, after, max_bytes) {
                Ok(frames) => pull_answer(
                    PullAnswer {
                        status: 200,
                        frames,
                        ..PullAnswer::default()
                    },
                    &service,
                ),
                Err(refusal) => pull_answer(*refusal, &service),
            },
            Err(error) => answer::refused(error, &service),
        };
    }
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let pull = PullRequest::decode(raw_query, text)
        .map_err(|error| BadRequest::new(ErrorCode::BadParameter, error.to_string()))
        .and_then(|pull| {
            claim::check(&service, &caller, &pull.node_address)?;
            Ok(pull)
        });
    match pull {
        Ok(pull) => pull_answer(source::answer(&service, &storage, &pull).await, &service),
        Err(error) => answer::refused(error, &service),
    }
}

/// A copy of the shard as a stream.
pub(super) async fn snapshot(
    request: HttpRequest,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let Some(storage) = service.storage.load_full() else {
        return nothing_yet(&service);
    };
    let replica = match replica(&request, &service, &caller) {
        Ok(replica) => replica,
        Err(error) => return answer::refused(error, &service),
    };
    // A stream would be read to its end only to be thrown away.
    if *request.method() == Method::HEAD {
        return answer::data(200, &service)
            .content_type(content_type::FRAMES)
            .finish();
    }
    match snapshot_source::start(&service, &storage, replica) {
        Ok(chunks) => {
            let (admission, asked) = (service.clone(), (chunks, caller));
            let body = stream::unfold(asked, move |(mut chunks, caller)| {
                let service = admission.clone();
                async move {
                    let chunk = chunks.recv().await?;
                    let chunk = match service.admission.still_admits(&caller) {
                        true => chunk,
                        false => Err(io::Error::other("the caller's right to copy has ended")),
                    };
                    Some((chunk, (chunks, caller)))
                }
            });
            answer::data(200, &service)
                .content_type(content_type::FRAMES)
                .streaming(Box::pin(body))
        }
        Err(error) => {
            let code = match error {
                NotBegun::TooMany => ErrorCode::Overloaded,
                NotBegun::Failed(_) => ErrorCode::StorageFailed,
            };
            answer::refused(BadRequest::new(code, error.to_string()), &service)
        }
    }
}

/// The replica of the map that asks, if it is one.
fn replica(
    request: &HttpRequest,
    service: &Service,
    caller: &Caller,
) -> Result<Option<Address>, BadRequest> {
    let named = request.headers().get(header::NODE_ADDRESS);
    let Some(address) = named.and_then(|value| value.to_str().ok()?.parse().ok()) else {
        return Ok(None);
    };
    claim::check(service, caller, &address)?;
    let map = service.map.load();
    let is_ours = acks::is_replica(own_shard(&map, service.place()), &address);
    Ok(is_ours.then_some(address))
}

fn read_parameters(raw_query: &str) -> Result<(u64, usize), BadRequest> {
    let query = Query::parse(raw_query, &["after", "max_bytes"])?;
    let after = query
        .parsed("after", "a seq", request::number)?
        .unwrap_or(0);
    let max_bytes = query
        .parsed("max_bytes", "a number of bytes", request::number)?
        .unwrap_or(1 << 20);
    Ok((after, max_bytes))
}

fn pull_answer(pull: PullAnswer, service: &Service) -> HttpResponse {
    let mut answer = answer::data(pull.status, service);
    for (name, value) in pull.to_headers() {
        answer.insert_header((name, value));
    }
    match pull.error {
        Some(error) => {
            service
                .metrics
                .refusals
                .add(ErrorCode::from_text(&error.error));
            answer
                .content_type(content_type::JSON)
                .body(error.to_json() + "\n")
        }
        None => answer.content_type(content_type::FRAMES).body(pull.frames),
    }
}

fn nothing_yet(service: &Service) -> HttpResponse {
    let why = service.readiness.load().to_text();
    answer::refused(BadRequest::new(ErrorCode::NotReady, why), service)
}
