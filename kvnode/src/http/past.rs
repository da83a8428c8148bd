//! `GET /kv/{key}?at=epoch.seq`: what a key was at a position, from the log (`past.rs`).
//!
//! It costs the reading of the log up to there, so few are answered at once; the others wait their turn.

use std::{sync::Arc, time::Instant};

use actix_web::{HttpRequest, HttpResponse, web};
use kvclient::{
    position::Position,
    wire::{
        batch::{Op, OpResult},
        error::ErrorCode,
    },
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Duration, timeout},
};

use tokio_util::sync::CancellationToken;

use super::answer;
use crate::{
    commit::read_result,
    ownership::Access,
    past::{Past, PastError, entry_at},
    service::{Service, read_failed, turned_away},
    storage::Storage,
};

/// So many read the log at once, each on a thread of its own: the other cores are there for those who want the present.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers a read of the past.
pub(super) async fn entry(
    request: &HttpRequest,
    op: Op,
    at: Position,
    service: &Service,
) -> HttpResponse {
    let result = read(op, at, service).await;
    answer::op(request, result, service)
}

async fn read(mut op: Op, at: Position, service: &Service) -> OpResult {
    let arrived = Instant::now();
    let decision = turned_away(
        &service.route(&op.key, Access::Read, &service.map.load()),
        None,
    );
    if let Some(elsewhere) = decision {
        return elsewhere;
    }
    // A position is asked for as any other that must be held.
    op.terms.min_position = Some(at);
    let storage = match service.readable(&op.terms, arrived).await {
        Ok(storage) => storage,
        Err(refusal) => return refusal,
    };
    let Ok(Ok(turn)) = timeout(PATIENCE, TURNS.acquire()).await else {
        let message = "others read the past, and each takes a while; try again";
        return OpResult::refused(ErrorCode::Overloaded, message, None);
    };
    match find(&storage, &op, at, turn).await {
        Ok(Past::Known(entry, time_ms)) => {
            read_result(&op, entry, time_ms, storage.store.visible())
        }
        Ok(Past::Truncated(seq)) => truncated(&storage, at, seq),
        Err(PastError::Store(error)) => read_failed(&error),
        Err(error) => {
            tracing::error!(%error, "the past cannot be read");
            OpResult::refused(ErrorCode::StorageFailed, error.to_string(), None)
        }
    }
}

/// Reads it on a thread of its own. Who hangs up ends the reading at its next step; the turn is over with it, not before.
async fn find(
    storage: &Arc<Storage>,
    op: &Op,
    at: Position,
    turn: SemaphorePermit<'static>,
) -> Result<Past, PastError> {
    let (storage, key) = (Arc::clone(storage), op.key.clone());
    let asked = CancellationToken::new();
    let (gone, _hung_up) = (asked.clone(), asked.drop_guard());
    let found = web::block(move || {
        let past = entry_at(&storage, key.as_bytes(), at, &|| !gone.is_cancelled());
        drop(turn);
        past
    });
    let found = found.await;
    found.unwrap_or_else(|gone| Err(PastError::GivenUp(gone.to_string())))
}

fn truncated(storage: &Storage, at: Position, seq: u64) -> OpResult {
    let message = format!(
        "what this key was at {at} is not known: the log begins after seq {seq}; --log-retention says how much of it is kept"
    );
    let mut refusal = OpResult::refused(ErrorCode::LogTruncated, message, None);
    refusal.position = Some(storage.store.visible());
    refusal
}
