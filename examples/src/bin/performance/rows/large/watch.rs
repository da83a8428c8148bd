//! The most memory that processes of a cluster hold while a row runs, looked at 50 times a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::task::{AbortHandle, spawn};

use crate::process::anonymous_bytes;

const EVERY: Duration = Duration::from_millis(20);

/// Looks until it is dropped.
pub(super) struct MemoryWatch {
    most_bytes: Arc<AtomicU64>,
    task: AbortHandle,
}

impl MemoryWatch {
    /// Begins to look at these processes.
    pub(super) fn start(ids: Vec<u32>) -> Self {
        let most_bytes = Arc::new(AtomicU64::new(0));
        let most = most_bytes.clone();
        let look = async move {
            loop {
                for bytes in ids.iter().filter_map(|id| anonymous_bytes(*id).ok()) {
                    most.fetch_max(bytes, Relaxed);
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        let task = spawn(look).abort_handle();
        Self { most_bytes, task }
    }

    /// Anonymous memory of the largest of them, at its largest.
    pub(super) fn most_bytes(&self) -> u64 {
        self.most_bytes.load(Relaxed)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
