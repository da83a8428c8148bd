//! The route table and nothing else.
//!
//! One handler takes every request and matches the raw path, since keys are bytes and the framework's router would
//! decode them to text first. Each arm decodes, asks the [`Service`], and encodes; no logic lives here.

mod accept;
mod admin;
mod answer;
mod awake;
mod batch;
mod body;
mod forms;
mod guard;
mod kv;
mod lines;
mod log;
mod metrics;
mod openapi;
mod page;
mod past;
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
use kvclient::wire::{error::ErrorCode, route};

pub(crate) use admin::ClusterStatus;

use crate::{begun, service::Service};
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
    let response = match guard::check(&request, &service) {
        Ok(()) => handle(request, &mut payload, service.clone(), cluster_status).await,
        Err(error) => answer::refused_write(error, &service),
    };
    slow::note(&asked, &response, arrived, &service);
    let mut response = unread::counted(response, &method, &service);
    service.metrics.answered(response.status().as_u16());
    if service.stopping.is_cancelled() {
        let head = response.head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    match is_chunked {
        true => body::close_if_unread(response, payload),
        false => response,
    }
}

async fn handle(
    request: HttpRequest,
    payload: &mut web::Payload,
    service: web::Data<Service>,
    cluster_status: web::Data<ClusterStatus>,
) -> HttpResponse {
    let path = request.uri().path();
    let is_entry = path
        .strip_prefix(route::KV)
        .is_some_and(|rest| rest.starts_with('/'))
        || (path == route::KV && request.uri().query().is_some_and(has_key));
    let method = request.method().clone();
    let get = matches!(method, Method::GET | Method::HEAD);
    if is_entry {
        return match method {
            Method::GET | Method::HEAD => kv::get(request, service).await,
            Method::PUT | Method::DELETE | Method::POST => {
                kv::write(request, payload, service).await
            }
            _ => not_allowed("GET, HEAD, PUT, DELETE, POST", &service),
        };
    }
    match path {
        route::BATCH if method == Method::POST => batch::batch(request, payload, service).await,
        route::BATCH => not_allowed("POST", &service),
        route::SET | route::DELETE if method != Method::GET => not_allowed("GET", &service),
        route::SET => forms::set(request, service).await,
        route::DELETE => forms::delete(request, service).await,
        _ if !get => unknown_or_not_allowed(path, &service),
        route::KV => scan::scan(request, service).await,
        route::WATCH => watch::watch(request, service).await,
        route::GET => forms::get(request, service).await,
        route::ROUTE => forms::route(request, service).await,
        route::CLUSTER_MAP => admin::map(request, service).await,
        route::CLUSTER_STATUS => admin::cluster_status(service, cluster_status).await,
        route::STATUS => admin::status(service).await,
        route::STATUS_HISTORY => admin::history(request, service).await,
        route::STATUS_SUMS => sums::sums(request, service).await,
        route::HEALTHZ => admin::healthz(service).await,
        route::READYZ => admin::readyz(service).await,
        route::METRICS => metrics::metrics(request, service).await,
        route::OPENAPI => openapi::openapi(&service),
        route::PAGE => page::index(&request, &service),
        route::LOG => log::log(request, service).await,
        route::SNAPSHOT => log::snapshot(request, service).await,
        _ => page::file(path, &request, &service).unwrap_or_else(|| no_such_path(path, &service)),
    }
}

fn has_key(query: &str) -> bool {
    query
        .split('&')
        .any(|part| part == "key" || part.starts_with("key="))
}

const READ_ONLY_PATHS: &[&str] = &[
    route::KV,
    route::GET,
    route::ROUTE,
    route::CLUSTER_MAP,
    route::CLUSTER_STATUS,
    route::STATUS,
    route::STATUS_HISTORY,
    route::STATUS_SUMS,
    route::HEALTHZ,
    route::READYZ,
    route::METRICS,
    route::OPENAPI,
    route::PAGE,
    route::WATCH,
    route::LOG,
    route::SNAPSHOT,
];

fn unknown_or_not_allowed(path: &str, service: &Service) -> HttpResponse {
    match READ_ONLY_PATHS.contains(&path) || page::is_file(path) {
        true => not_allowed("GET, HEAD", service),
        false => no_such_path(path, service),
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
