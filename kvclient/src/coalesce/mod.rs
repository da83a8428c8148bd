//! The way to one node: ops gathered into batches, reads and writes apart, large values alone.
//!
//! [`NodeLanes`] is what the rest of the crate holds per node; it outlives maps, so that a refresh disturbs
//! nothing under way. It knows how many ops it has in flight and whether the node has been silent lately, which is
//! how reads choose between nodes, and it passes on which map the node says is in force. It never chooses a node and never tries anything twice.

mod health;
mod lane;
mod link;
mod ticket;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use self::{health::Health, lane::Lane, link::Link};
pub(crate) use self::{
    link::MapHeard,
    ticket::{Answer, Pending, Ticket},
};
use crate::{
    attempt::AttemptError, node_client::NodeClient, options::LaneOptions, policy::read::Load,
    shard_map::Address, wire::batch::Action,
};

/// All that is under way to one node.
#[derive(Debug)]
pub(crate) struct NodeLanes {
    link: Arc<Link>,
    reads: Arc<Lane>,
    writes: Arc<Lane>,
    /// One permit per large value under way.
    alone: Semaphore,
    in_flight: AtomicUsize,
    health: Health,
}

/// How an op travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Travel {
    /// With others, unless it carries a large value.
    Together,
    /// In a request of its own.
    Alone,
}

impl NodeLanes {
    pub(crate) fn new(
        address: Address,
        nodes: NodeClient,
        options: LaneOptions,
        map_heard: MapHeard,
    ) -> Arc<Self> {
        let link = Arc::new(Link {
            address,
            nodes,
            options,
            map_heard,
        });
        Arc::new(Self {
            reads: Lane::new(link.clone()),
            writes: Lane::new(link.clone()),
            alone: Semaphore::new(options.alone_in_flight),
            in_flight: AtomicUsize::new(0),
            health: Health::new(),
            link,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.link.address
    }

    /// What speaks against asking this node: silence, then ops that wait or are sent and not answered yet.
    pub(crate) fn load(&self) -> Load {
        Load {
            is_suspect: self.health.is_suspect(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }

    /// Takes note of how an attempt with this node ended.
    pub(crate) fn note(&self, answer: &Answer) {
        self.health.note(answer);
    }

    /// Counts an op as in flight for as long as the guard lives.
    pub(crate) fn count(self: &Arc<Self>) -> InFlight {
        self.health.choose();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Sends an op and waits for its answer, at most until the ticket's time is over.
    pub(crate) async fn send(&self, ticket: &Arc<Ticket>, travel: Travel) -> Answer {
        if travel == Travel::Alone || self.is_large(ticket) {
            return Box::pin(self.send_alone(ticket)).await;
        }
        self.lane(ticket).send(ticket).await
    }

    /// Puts an op into its lane without sending it yet; `None` if it must be sent by [`Self::send`].
    /// [`Self::start`] must follow.
    pub(crate) fn try_push(&self, ticket: &Arc<Ticket>) -> Option<Pending> {
        if self.is_large(ticket) {
            return None;
        }
        self.lane(ticket).try_push(ticket)
    }

    /// Starts the lane that a ticket was pushed into.
    pub(crate) fn start(&self, ticket: &Ticket) {
        self.lane(ticket).start_drain();
    }

    fn lane(&self, ticket: &Ticket) -> &Arc<Lane> {
        match ticket.op().action.is_write() {
            true => &self.writes,
            false => &self.reads,
        }
    }

    fn is_large(&self, ticket: &Ticket) -> bool {
        ticket.op().weight_bytes() > self.link.options.alone_bytes
    }

    async fn send_alone(&self, ticket: &Ticket) -> Answer {
        let Ok(turn) = timeout_at(ticket.until(), self.alone.acquire()).await else {
            return Err(AttemptError::NotSent);
        };
        let _turn = turn.expect("never closed");
        let Link { address, nodes, .. } = &*self.link;
        let limit = ticket.until() - Instant::now();
        if limit.is_zero() {
            return Err(AttemptError::NotSent);
        }
        match &ticket.op().action {
            Action::Put { .. } => nodes.put(address, ticket.op(), limit).await,
            _ => nodes.get(address, ticket.op(), limit).await,
        }
    }
}

/// An op that is counted as in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<NodeLanes>);

impl InFlight {
    pub(crate) fn lanes(&self) -> &NodeLanes {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
