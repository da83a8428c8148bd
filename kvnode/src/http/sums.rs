//! `GET /status/sums`: counts and sums of what this node contains at a seq, so that replicas can be compared with their
//! primary without reading an entry.
//!
//! Ask all nodes of a shard for one seq, that of the primary's `visible` while nobody writes, or one a little ahead. They
//! answer for the end of the first frame that reaches it, which is the same position on all of them.

use std::time::{Duration, Instant};

use actix_web::{HttpRequest, HttpResponse, web};
use kvclient::{
    position::Seq,
    wire::{MAX_WAIT_MS, batch::OpResult, error::ErrorCode, query::Query},
};
use serde_json::json;

use super::{answer, request, request::BadRequest};
use crate::{
    access::Caller,
    ownership::own_shard,
    service::{Service, behind, read_failed},
    storage::Storage,
    store::{Count, CountAt},
};

/// How long the node waits if nobody says: a flush takes some milliseconds, or seconds under load.
const DEFAULT_WAIT_MS: u64 = 1_000;

/// A seq may be so far ahead of what is visible: nobody who compares waits for longer.
const FURTHEST: Seq = 1 << 20;

/// Answers with what is contained at a seq; without one, at what is visible now.
pub(super) async fn sums(
    request: HttpRequest,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    // They tell of all keys: what changed, and whether a guess of a value is right.
    if let Err(denied) = caller.may(|grant| grant.allows_prefix(b"")) {
        return answer::refused(denied.into(), &service);
    }
    match counted(&request, &service).await {
        Ok(count) => answer::json(200, body(&count, &service), &service),
        Err(refusal) => answer::op(&request, refusal, &service),
    }
}

async fn counted(request: &HttpRequest, service: &Service) -> Result<Count, OpResult> {
    let arrived = Instant::now();
    let asked = parameters(request.uri().query().unwrap_or_default());
    let (seq, wait) = asked.map_err(|error| error.into_result(None))?;
    let storage = service.storage.load_full();
    let storage = storage.ok_or_else(|| service.not_ready(None))?;
    let visible = storage.store.visible().seq;
    let seq = seq.unwrap_or(visible);
    if seq > visible.saturating_add(FURTHEST) {
        let message =
            format!("seq {seq} is more than {FURTHEST} ahead of {visible}, where this node is");
        return Err(OpResult::refused(ErrorCode::BadParameter, message, None));
    }
    wait_for(&storage, seq, arrived + wait).await
}

fn parameters(raw_query: &str) -> Result<(Option<Seq>, Duration), BadRequest> {
    let query = Query::parse(raw_query, &["seq", "wait_ms"])?;
    let seq = query.parsed("seq", "a seq", request::number)?;
    let wait = query.parsed("wait_ms", "milliseconds", request::number)?;
    let wait_ms: u64 = wait.unwrap_or(DEFAULT_WAIT_MS);
    Ok((seq, Duration::from_millis(wait_ms.min(MAX_WAIT_MS))))
}

/// Waits for the flush that reaches a seq.
async fn wait_for(storage: &Storage, seq: Seq, until: Instant) -> Result<Count, OpResult> {
    // Before the first look: what changes behind it is not missed.
    let mut applied = storage.store.subscribe_applied();
    loop {
        applied.mark_unchanged();
        match storage.store.count_at(seq) {
            Ok(CountAt::Counted(count)) => return Ok(count),
            Ok(CountAt::Passed(visible)) => {
                let message = format!(
                    "this node is at {visible}, and what it contained at seq {seq} is not known any more; ask for a later one"
                );
                let mut passed = OpResult::refused(ErrorCode::PositionLost, message, None);
                passed.position = Some(visible);
                return Err(passed);
            }
            Ok(CountAt::Waiting) => {}
            Err(error) => return Err(read_failed(&error)),
        }
        let changed = tokio::time::timeout_at(until.into(), applied.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err(behind(
                storage,
                format!("seq {seq} is not in this node's LMDB yet"),
            ));
        }
    }
}

fn body(count: &Count, service: &Service) -> String {
    let map = service.map.load();
    let ranges = count.sums().ranges().iter();
    let ranges: Vec<_> = ranges
        .map(|range| json!({ "count": range.count, "sum": format!("{:016x}", range.sum) }))
        .collect();
    let body = json!({
        "shard": own_shard(&map, service.place()).name,
        "position": count.position().to_string(),
        "entries": count.sums().entries(),
        "ranges": ranges,
    });
    format!("{body}\n")
}
