//! Counters of a node. Updated with single atomic adds; rendered only when asked for.

mod counting;
mod histogram;
mod ops;
mod refusals;
mod slow;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use kvclient::wire::{
    batch::{Op, OpResult},
    error::ErrorCode,
};

pub use self::{
    counting::Counting,
    histogram::{Histogram, Times},
    ops::{OpKind, OpOutcome, Ops},
    refusals::Refusals,
    slow::Slow,
};
use crate::in_flight::InFlight;

/// What a node counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Bytes of request bodies held now.
    pub in_flight: InFlight,
    /// Bytes of answers that their readers have not taken yet, large answers and streams only.
    pub unread: InFlight,
    /// Ops by what they are and what came of them.
    pub ops: Ops,
    /// Refusals by reason.
    pub refusals: Refusals,
    /// Requests that took long.
    pub slow: Slow,
    /// Connections that are open.
    connections: Arc<AtomicUsize>,
    /// Answers by the first digit of their status, 1 to 5.
    answers: [AtomicU64; 5],
    /// Batches taken.
    batches: AtomicU64,
    /// Ops in them.
    batch_ops: AtomicU64,
    /// Entries deleted because their time had come.
    expired: AtomicU64,
    /// Watches that are open.
    watches: AtomicUsize,
    /// Writes that did not reach enough replicas in time.
    ack_timeouts: AtomicU64,
    /// Writes refused since too few replicas were connected.
    too_few_replicas: AtomicU64,
}

/// An open connection: counted until it is dropped.
#[derive(Debug)]
pub struct Connection(Arc<AtomicUsize>);

impl Metrics {
    /// Ops of a request that arrived then are done from here on.
    pub fn begin_ops(&self, ops: &[Op], arrived: Instant) -> Counting<'_> {
        Counting::begin(&self.ops, OpKind::of_each(ops), arrived)
    }

    /// A connection was opened.
    pub fn opened_connection(&self) -> Connection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connection(Arc::clone(&self.connections))
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// An answer has left.
    pub fn answered(&self, status: u16) {
        if let Some(counter) = usize::from(status / 100)
            .checked_sub(1)
            .and_then(|class| self.answers.get(class))
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Answers of a class: 2 for 2xx.
    pub fn answers(&self, class: usize) -> u64 {
        self.answers
            .get(class.wrapping_sub(1))
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// A batch of so many ops was taken.
    pub fn saw_batch(&self, ops: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.batch_ops.fetch_add(ops as u64, Ordering::Relaxed);
    }

    /// Batches taken, and the ops in them.
    pub fn batches(&self) -> (u64, u64) {
        (
            self.batches.load(Ordering::Relaxed),
            self.batch_ops.load(Ordering::Relaxed),
        )
    }

    /// Entries were deleted because their time had come.
    pub fn saw_expired(&self, count: usize) {
        self.expired.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Entries deleted because their time had come.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// A write that had to reach replicas is answered.
    pub fn saw_ack(&self, result: &OpResult) {
        let counter = match result.error_code() {
            Some(ErrorCode::AckTimeout) => &self.ack_timeouts,
            Some(ErrorCode::TooFewReplicas) => &self.too_few_replicas,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes that did not reach enough replicas in time.
    pub fn ack_timeouts(&self) -> u64 {
        self.ack_timeouts.load(Ordering::Relaxed)
    }

    /// Writes refused since too few replicas were connected.
    pub fn too_few_replicas(&self) -> u64 {
        self.too_few_replicas.load(Ordering::Relaxed)
    }

    /// A watch was opened.
    pub fn opened_watch(&self) {
        self.watches.fetch_add(1, Ordering::Relaxed);
    }

    /// A watch has ended.
    pub fn closed_watch(&self) {
        self.watches.fetch_sub(1, Ordering::Relaxed);
    }

    /// Watches that are open.
    pub fn watches(&self) -> usize {
        self.watches.load(Ordering::Relaxed)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
