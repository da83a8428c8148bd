//! `GET /metrics`: what the node counts, in the text formats of Prometheus: OpenMetrics 1.0 if that is asked for, else
//! 0.0.4.
//!
//! Nothing is kept for it: each scrape reads counters and positions where they are and writes them down. Names begin
//! with `kv_`, units are base units, and no key is ever a label. What is about the process has the names that every
//! dashboard knows. Counts of commits begin anew when a replica changes to another generation, as after a restart.

mod classic;
mod disk;
mod process;
mod replication;
mod requests;
mod sample;
mod storage;
mod times;

use std::fmt;

use actix_web::{HttpRequest, HttpResponse, web};
use kvclient::wire::content_type;
use prometheus_client::{encoding::text, registry::Registry};

use self::{
    classic::from_open_metrics,
    disk::disk,
    process::process,
    replication::{node, replication},
    requests::requests,
    storage::storage,
};
use super::{accept, answer};
use crate::service::Service;

/// What OpenMetrics and the older format are called in `Accept`.
const OPEN: &str = "application/openmetrics-text";
const CLASSIC: &str = "text/plain";

/// Writes all metrics down.
pub(super) async fn metrics(request: HttpRequest, service: web::Data<Service>) -> HttpResponse {
    // Writing to a string does not fail.
    let text = render(&service).unwrap_or_default();
    let (content_type, text) = match accept::prefers(&request, OPEN, CLASSIC) {
        true => (content_type::OPEN_METRICS, text),
        false => (content_type::CLASSIC_METRICS, from_open_metrics(&text)),
    };
    answer::data(200, &service)
        .content_type(content_type)
        .body(text)
}

fn render(service: &Service) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("kv");
    node(&mut registry, service);
    requests(&mut registry, &service.metrics);
    replication(&mut registry, service);
    disk(&mut registry, service);
    if let Some(open) = &*service.storage.load() {
        storage(&mut registry, open);
    }
    let mut out = String::new();
    text::encode_registry(&mut out, &registry)?;
    text::encode_registry(&mut out, &process(service.started_at))?;
    text::encode_eof(&mut out)?;
    Ok(out)
}
