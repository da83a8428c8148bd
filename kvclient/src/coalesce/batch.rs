//! Tickets together: those that wait in a queue, and those that travel in one request.
//!
//! What a lane asks of each of them for every exchange is kept beside it, so that nobody has to look into as many tickets
//! as there are ops under way: the weight in the queue, the first and the last time in the batch.

use std::sync::Arc;

use tokio::time::Instant;

use super::ticket::Ticket;

/// A ticket in the queue, with what it counts against the room.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) ticket: Arc<Ticket>,
    pub(super) weight: u32,
}

/// Ops that travel together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) tickets: Vec<Arc<Ticket>>,
    /// When the first and the last of them have no time left.
    pub(super) earliest: Option<Instant>,
    pub(super) latest: Option<Instant>,
}

impl Batch {
    pub(super) fn of(ticket: Arc<Ticket>) -> Self {
        let mut batch = Self::default();
        batch.push(ticket);
        batch
    }

    pub(super) fn push(&mut self, ticket: Arc<Ticket>) {
        let until = ticket.until();
        self.earliest = self.earliest.into_iter().chain([until]).min();
        self.latest = self.latest.max(Some(until));
        self.tickets.push(ticket);
    }

    /// Takes all tickets out.
    pub(super) fn empty(&mut self) -> impl Iterator<Item = Arc<Ticket>> {
        (self.earliest, self.latest) = (None, None);
        self.tickets.drain(..)
    }
}

impl Queued {
    pub(super) fn new(ticket: &Arc<Ticket>) -> Self {
        let weight = ticket.op().weight_bytes();
        Self {
            ticket: ticket.clone(),
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
        }
    }
}

/// What tickets count against the queue's room.
pub(super) fn weight(queued: &[Queued]) -> usize {
    queued.iter().map(|queued| queued.weight as usize).sum()
}

/// Tells those whose time is over; when that of the next one is.
pub(super) fn expire<'a>(
    tickets: impl IntoIterator<Item = &'a Arc<Ticket>>,
    now: Instant,
) -> Option<Instant> {
    let in_time = |ticket: &&Arc<Ticket>| match ticket.until() > now {
        true => true,
        false => {
            ticket.expire();
            false
        }
    };
    let left = tickets.into_iter().filter(in_time);
    left.map(|ticket| ticket.until()).min()
}
