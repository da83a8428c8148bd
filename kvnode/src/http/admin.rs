//! What a node says of itself and of the cluster: health, status, the map.

use std::time::{Duration, Instant};

use actix_web::{HttpRequest, HttpResponse, web};
use kvclient::{shard_map::json, wire::query::Query};

use super::{answer, request, request::BadRequest};
use crate::{
    access::{Caller, Need},
    service::Service,
    vitals::EVERY,
};

/// How old the answers of `/cluster/status` may be.
const CLUSTER_STATUS_AGE: Duration = Duration::from_secs(1);

/// The last `/cluster/status` and when it was gathered.
pub(crate) type ClusterStatus = tokio::sync::Mutex<Option<(Instant, String)>>;

/// The process is alive.
pub(super) async fn healthz(service: web::Data<Service>) -> HttpResponse {
    answer::line(200, "alive".into(), &service)
}

/// The node may be sent requests. Why not is for those who may know of the cluster.
pub(super) async fn readyz(service: web::Data<Service>, caller: Caller) -> HttpResponse {
    let may_know = caller.may(|grant| grant.allows(Need::State)).is_ok();
    match service.ready() {
        Ok(()) => answer::line(200, "ready".into(), &service),
        Err(why) if may_know => answer::line(503, why, &service),
        Err(_) => answer::line(503, "not ready".into(), &service),
    }
}

/// This node's state.
pub(super) async fn status(service: web::Data<Service>) -> HttpResponse {
    let body = serde_json::to_string(&service.status()).unwrap_or_default();
    answer::json(200, body + "\n", &service)
}

/// Every node's state, gathered only while asked for and at most a second old.
pub(super) async fn cluster_status(
    service: web::Data<Service>,
    cache: web::Data<ClusterStatus>,
) -> HttpResponse {
    let mut cached = cache.lock().await;
    if let Some((gathered, body)) = &*cached
        && gathered.elapsed() < CLUSTER_STATUS_AGE
    {
        return answer::json(200, body.clone(), &service);
    }
    let body = service.gather_status().await + "\n";
    *cached = Some((Instant::now(), body.clone()));
    answer::json(200, body, &service)
}

/// The last minutes of this node, or what came after a moment.
pub(super) async fn history(request: HttpRequest, service: web::Data<Service>) -> HttpResponse {
    let query = Query::parse(request.uri().query().unwrap_or_default(), &["after"]);
    let after = query.map_err(BadRequest::from).and_then(|query| {
        let wanted = "a time in Unix milliseconds";
        Ok(query.parsed("after", wanted, request::number)?)
    });
    let after_ms: u64 = match after {
        Ok(after) => after.unwrap_or(0),
        Err(error) => return answer::refused(error, &service),
    };
    let samples = service.vitals.after(after_ms);
    let body = serde_json::json!({ "every_ms": EVERY.as_millis(), "samples": samples });
    answer::json(200, format!("{body}\n"), &service)
}

/// The map in force; 304 if the caller has it.
pub(super) async fn map(request: HttpRequest, service: web::Data<Service>) -> HttpResponse {
    let map = service.map.load();
    let etag = format!("\"{}\"", map.identity());
    let known = match request::text(&request, "if-none-match") {
        Ok(known) => known,
        Err(error) => return answer::refused(error, &service),
    };
    let mut answer = answer::data(if known == Some(&etag) { 304 } else { 200 }, &service);
    answer.insert_header(("etag", etag.as_str()));
    match known == Some(&etag) {
        true => answer.finish(),
        false => answer
            .content_type("application/json")
            .body(json::encode(&map) + "\n"),
    }
}
