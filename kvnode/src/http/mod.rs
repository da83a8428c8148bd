//! From a request to its handler, and nothing else.
//!
//! One handler takes every request and matches the raw path ([`path`]), since keys are bytes and the framework's router
//! would decode them to text first. Each arm decodes, asks the [`Service`], and encodes; no logic lives here. Nothing
//! is looked at before [`guard`] and [`admit`] have let the request in.

mod accept;
mod admin;
mod admit;
mod answer;
mod awake;
mod batch;
mod body;
mod claim;
mod forms;
mod guard;
mod kv;
mod lines;
mod log;
mod metrics;
mod openapi;
mod page;
mod past;
mod path;
mod peer;
mod request;
mod scan;
mod slow;
mod sums;
mod unread;
mod watch;

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{ConnectionType, Method},
    web::{self, ServiceConfig},
};
use kvclient::wire::error::ErrorCode;

pub(crate) use admin::ClusterStatus;
pub(crate) use peer::keep as keep_peer;

use crate::{access::Caller, begun, service::Service};
use path::Path;
use request::BadRequest;

/// Puts the table into an application.
pub(crate) fn configure(config: &mut ServiceConfig) {
    config.default_service(web::to(dispatch));
}

async fn dispatch(
    request: HttpRequest,
    mut payload: web::Payload,
    service: web::Data<Service>,
    cluster_status: web::Data<ClusterStatus>,
) -> HttpResponse {
    let arrived = Instant::now();
    begun::count();
    let asked = request.clone();
    let is_chunked = request.headers().contains_key("transfer-encoding");
    let method = request.method().clone();
    let response = let_in(request, &mut payload, service.clone(), cluster_status).await;
    slow::note(&asked, &response, arrived, &service);
    let mut response = unread::counted(response, &method, &service);
    service.metrics.answered(response.status().as_u16());
    if service.stopping.is_cancelled() || peer::had_better_come_again(&asked) {
        let head = response.head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    match is_chunked {
        true => body::close_if_unread(response, payload),
        false => response,
    }
}

/// Handles what may be asked by who asks it.
async fn let_in(
    request: HttpRequest,
    payload: &mut web::Payload,
    service: web::Data<Service>,
    cluster_status: web::Data<ClusterStatus>,
) -> HttpResponse {
    if let Err(error) = guard::check(&request, &service) {
        let refusal = answer::refused_write(error, &service);
        return match service.admission.asks() {
            true => admit::conceal(refusal),
            false => refusal,
        };
    }
    let path = Path::of(&request);
    match admit::caller(&request, path, &service).await {
        Ok(Caller::Stranger) => {
            let stranger = Caller::Stranger;
            let answer = handle(path, request, payload, service, cluster_status, stranger);
            admit::conceal(answer.await)
        }
        Ok(caller) => handle(path, request, payload, service, cluster_status, caller).await,
        Err(refusal) => refusal,
    }
}

async fn handle(
    path: Path,
    request: HttpRequest,
    payload: &mut web::Payload,
    service: web::Data<Service>,
    cluster_status: web::Data<ClusterStatus>,
    caller: Caller,
) -> HttpResponse {
    if !path.takes(request.method()) {
        return match path.methods() {
            Some(methods) => not_allowed(methods, &service),
            None => no_such_path(request.uri().path(), &service),
        };
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        Path::Entry if reads => kv::get(request, service, caller).await,
        Path::Entry => kv::write(request, payload, service, caller).await,
        Path::Scan => scan::scan(request, service, caller).await,
        Path::Batch => batch::batch(request, payload, service, caller).await,
        Path::Watch => watch::watch(request, service, caller).await,
        Path::Get => forms::get(request, service, caller).await,
        Path::Set => forms::set(request, service, caller).await,
        Path::Delete => forms::delete(request, service, caller).await,
        Path::Route => forms::route(request, service).await,
        Path::ClusterMap => admin::map(request, service).await,
        Path::ClusterStatus => admin::cluster_status(service, cluster_status).await,
        Path::Status => admin::status(service).await,
        Path::StatusHistory => admin::history(request, service).await,
        Path::Healthz => admin::healthz(service).await,
        Path::Readyz => admin::readyz(service, caller).await,
        Path::Metrics => metrics::metrics(request, service).await,
        Path::OpenApi => openapi::openapi(&service),
        Path::StatusSums => sums::sums(request, service, caller).await,
        Path::Page => page::index(&request, &service),
        Path::PageFile => page::file(request.uri().path(), &request, &service)
            .unwrap_or_else(|| no_such_path(request.uri().path(), &service)),
        Path::Log => log::log(request, service, caller).await,
        Path::Snapshot => log::snapshot(request, service, caller).await,
        Path::Nowhere => no_such_path(request.uri().path(), &service),
    }
}

fn not_allowed(allowed: &str, service: &Service) -> HttpResponse {
    let message = format!("this path takes {allowed}");
    let mut answer = answer::refused_write(
        BadRequest::new(ErrorCode::MethodNotAllowed, message),
        service,
    );
    if let Ok(value) = allowed.parse() {
        answer
            .headers_mut()
            .insert(actix_web::http::header::ALLOW, value);
    }
    answer
}

fn no_such_path(path: &str, service: &Service) -> HttpResponse {
    let shown: String = path.chars().take(64).collect();
    let message = format!("there is no {shown:?} here; entries are at /kv/{{key}}");
    answer::refused(BadRequest::new(ErrorCode::NoSuchPath, message), service)
}
