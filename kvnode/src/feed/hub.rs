//! One reading of the log for all watchers that are at its end.
//!
//! Each durable frame that readers see is decoded once. The text of what is wanted of a piece of the log is
//! made once for all, noted by prefix, and then put into the queues of the prefix's watchers. `feeder.rs` says when.
//!
//! **How a watcher comes from its own reading to being fed.** The hub has looked at all up to `at`. A watcher that has
//! everything up to a position at or behind that joins: of what the hub looks at next it is given what is behind its
//! own position. One that is before `at` is refused and reads on. Joining and looking exclude each other, so there
//! is no record between the two that neither has seen, and none that both have.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kvclient::{position::Position, wire::log::Frame};
use tokio::sync::{Notify, watch::Receiver};

use super::{
    batch::Batch,
    found::{Found, Group},
    index::Index,
    queue::{Condition, Pushed, Queue, Room, Taken},
};
use crate::log::{Log, ReadFrames};

/// Bytes of frames looked at in one step: a watcher that wants to join waits for less than a millisecond.
const STEP_BYTES: usize = 64 << 10;

/// A first watcher at most so many records behind has the hub begin where it is, since it would never come nearer
/// to a log that is written to without pause.
const NEAR_RECORDS: u64 = 1_000;

/// What the watchers of one generation share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) log: Log,
    pub(super) visible: Receiver<Position>,
    inner: Mutex<Inner>,
    /// All up to here was looked at. Changed only while `inner` is held.
    at: Mutex<Position>,
    room: Room,
    /// Somebody has joined.
    pub(super) joined: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    index: Index<Group>,
    found: Found,
    is_closed: bool,
}

/// Why a watcher is not fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The hub has looked at more than the watcher has.
    Behind,
    /// The hub feeds nobody any more.
    Closed,
}

/// A watcher's place; given up on drop.
#[derive(Debug)]
pub(super) struct Seat {
    hub: Arc<Hub>,
    prefix: Bytes,
    queue: Arc<Queue>,
}

impl Hub {
    pub(super) fn new(log: Log, visible: Receiver<Position>, room: Room) -> Self {
        Self {
            log,
            visible,
            inner: Mutex::default(),
            at: Mutex::default(),
            room,
            joined: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All up to here was looked at.
    pub(super) fn at(&self) -> Position {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_at(&self, at: Position) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// What readers see.
    pub(super) fn visible(&self) -> Position {
        *self.visible.borrow()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().index.is_empty()
    }

    /// Feeds a watcher that has all up to `at` from there on.
    pub(super) fn join(self: &Arc<Self>, prefix: &Bytes, at: Position) -> Result<Seat, Refused> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(Refused::Closed);
        }
        if inner.index.is_empty() {
            let visible = self.visible();
            let is_near = visible.seq.saturating_sub(at.seq) <= NEAR_RECORDS;
            self.set_at(if is_near { at } else { visible });
        }
        if at.seq < self.at().seq {
            return Err(Refused::Behind);
        }
        let queue = Arc::new(Queue::new(at));
        let group = inner.index.get_or_default(prefix);
        group.queues.push(Arc::clone(&queue));
        self.joined.notify_one();
        Ok(Seat {
            hub: Arc::clone(self),
            prefix: prefix.clone(),
            queue,
        })
    }

    /// Looks at the next piece of the log, up to `visible` at most; those with something to take are added to
    /// `listed`. Gives whether it has looked at anything. Blocks.
    ///
    /// If the log cannot be read, all watchers are left to find that out by themselves.
    pub(super) fn step(&self, visible: Position, listed: &mut Vec<Arc<Queue>>) -> bool {
        let mut inner = self.lock();
        let at = self.at();
        if inner.index.is_empty() || at.seq >= visible.seq {
            return false;
        }
        let looked_at = self.look(at, visible, &mut inner, listed);
        let looked_at = looked_at.unwrap_or_else(|error| {
            tracing::warn!(%error, "watchers cannot be fed; each reads the log by itself");
            inner.found = Found::default();
            self.end_all(&mut inner.index, Condition::Behind);
            visible
        });
        self.set_at(looked_at);
        true
    }

    fn look(
        &self,
        mut at: Position,
        visible: Position,
        Inner { index, found, .. }: &mut Inner,
        listed: &mut Vec<Arc<Queue>>,
    ) -> io::Result<Position> {
        let read = self.log.read_after(at.seq, STEP_BYTES);
        let ReadFrames::Frames(mut frames) = read.map_err(io::Error::other)? else {
            return Err(io::Error::other(format!("the log has nothing after {at}")));
        };
        while !frames.is_empty() {
            let frame = Frame::split_from(&mut frames).map_err(io::Error::other)?;
            if frame.header.last_seq() > visible.seq {
                break;
            }
            found.add(&frame, index)?;
            at = frame.header.link().position;
        }
        for nth in found.groups.drain(..) {
            if let Some(group) = index.nth_mut(nth) {
                self.give(&found.batch, group, listed);
            }
        }
        found.batch.clear();
        Ok(at)
    }

    /// Puts what a group wants into its queues.
    fn give(&self, batch: &Batch, group: &mut Group, listed: &mut Vec<Arc<Queue>>) {
        for queue in &group.queues {
            if queue.push(batch, &group.wanted, &self.room) == Pushed::ToBeWoken {
                listed.push(Arc::clone(queue));
            }
        }
        group.clear();
    }

    /// Feeds nobody from now on; watchers are told that it is over.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        self.end_all(&mut inner.index, Condition::Closed);
    }

    fn leave(&self, prefix: &Bytes, queue: &Arc<Queue>) {
        let mut inner = self.lock();
        // Nobody takes what is in it.
        queue.end(Condition::Closed, &self.room);
        let Some(group) = inner.index.get_mut(prefix) else {
            return;
        };
        group.queues.retain(|other| !Arc::ptr_eq(other, queue));
        if group.queues.is_empty() {
            inner.index.remove(prefix);
        }
    }

    fn end_all(&self, index: &mut Index<Group>, condition: Condition) {
        for group in index.values_mut() {
            group.wanted.clear();
            let queues = group.queues.iter();
            queues.for_each(|queue| queue.end(condition, &self.room));
        }
    }
}

impl Seat {
    /// What was put into the queue, and up to where nothing more will be.
    pub(super) fn take(&self) -> Taken {
        // Loaded first: what the hub has looked at by now is in the queue by now.
        let looked_at = self.hub.at();
        match self.queue.take(&self.hub.room) {
            Taken::Events(events, last) => Taken::Events(events, last.max(looked_at)),
            ended => ended,
        }
    }

    /// Returns when there may be something to take.
    pub(super) async fn ready(&self) {
        self.queue.ready().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.leave(&self.prefix, &self.queue);
    }
}
