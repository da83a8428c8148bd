//! Deletes what has expired, through the log, in bounded steps.
//!
//! An expired entry is absent at once for every reader; the sweeper gives its space back and tells watchers. Each
//! delete is done only if the entry is still the one the sweeper saw. Only a primary that reigns sweeps.

use std::{sync::Arc, time::Duration};

use crate::{readiness::Readiness, service::Service};

/// Pause when nothing is due.
const IDLE: Duration = Duration::from_secs(1);

/// Entries deleted in one step: a frame of at most half a megabyte, a few milliseconds of the commit thread.
const STEP: usize = 500;

/// Sweeps until dropped.
pub async fn run(service: Arc<Service>) {
    loop {
        if step(&service).await < STEP {
            tokio::time::sleep(IDLE).await;
        }
    }
}

async fn step(service: &Service) -> usize {
    if **service.readiness.load() != Readiness::Ready {
        return 0;
    }
    let Some(storage) = service
        .storage
        .load_full()
        .filter(|storage| storage.commit.reigns())
    else {
        return 0;
    };
    let (store, now_ms) = (storage.store.clone(), service.clock.now_ms());
    let due = match tokio::task::spawn_blocking(move || store.expired(now_ms, STEP)).await {
        Ok(Ok(due)) if !due.is_empty() => due,
        Ok(Ok(_)) | Err(_) => return 0,
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot look for expired entries");
            return 0;
        }
    };
    let deleted = storage.commit.delete_expired(due).await;
    service.metrics.saw_expired(deleted);
    deleted
}
