//! The change feed: a shard's changes as text, for any number of watchers.
//!
//! A watcher that is behind reads the log by itself (`reader.rs`). Those at its end are fed: one task decodes what is
//! new (`hub.rs`, `feeder.rs`), finds out who wants it (`found.rs`) and puts its text into their queues (`queue.rs`).
//! So a write costs what its own watchers cost, however many others there are. Who takes too slowly is no longer fed
//! and reads by itself again (`follow.rs`), so memory is bounded and nothing is lost.
//!
//! Invariant: a watcher is given every event of its prefix behind where it began, once and in order, or it ends.

mod batch;
mod event;
mod feeder;
mod follow;
mod found;
mod hub;
mod index;
mod pieces;
mod queue;
mod reader;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use kvclient::position::Position;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

pub use self::{event::position_event, follow::Follow, pieces::Pieces};
use self::{hub::Hub, queue::Room};
use crate::log::Log;

/// The change feed of one generation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    hub: Arc<Hub>,
}

impl Feed {
    /// A feed of what is in `log` as far as it is `visible`. Nobody is fed before [`Self::run`].
    pub fn new(log: Log, visible: Receiver<Position>) -> Self {
        let hub = Arc::new(Hub::new(log, visible, Room::default()));
        Self { hub }
    }

    /// Feeds until the store is closed or the node stops; then all watchers are over.
    ///
    /// # Cancel safety
    /// May be dropped at any time, which ends all watchers too.
    pub async fn run(self, stopping: CancellationToken) {
        feeder::run(self.hub, stopping).await;
    }

    /// A watcher of a prefix, from behind a position on that is visible.
    pub fn follow(&self, prefix: Bytes, at: Position) -> Follow {
        Follow::new(Arc::clone(&self.hub), prefix, at)
    }
}
