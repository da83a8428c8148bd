//! The way to one node: ops gathered into batches, large values and atomic batches alone. Reads, writes, and writes that
//! wait for replicas travel apart, since a batch is answered as a whole.
//!
//! [`NodeLanes`] is what the rest of the crate holds per node; it outlives maps, so that a refresh disturbs
//! nothing under way. It knows how many ops it has in flight, what answers take, and whether the node is worth asking,
//! which is how reads choose between nodes; and it passes on which map the node says is in force. It never chooses a
//! node and never tries anything twice.

mod batch;
mod health;
mod lane;
mod latency;
mod link;
mod ticket;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

pub use self::latency::Percentiles;
use self::{health::Health, lane::Lane, link::Link};
pub(crate) use self::{
    health::{Chosen, Finding},
    latency::Latency,
    link::MapHeard,
    ticket::{Answer, Pending, Ticket},
};
use crate::{
    attempt::AttemptError,
    error::{ErrorKind, classify},
    node_client::NodeClient,
    options::LaneOptions,
    shard_map::Address,
    wire::batch::{Action, OpResult},
};

/// All that is under way to one node.
#[derive(Debug)]
pub(crate) struct NodeLanes {
    link: Arc<Link>,
    reads: Arc<Lane>,
    writes: Arc<Lane>,
    /// Writes that others than the primary must sync.
    acked_writes: Arc<Lane>,
    /// One permit per large value under way.
    alone: Semaphore,
    in_flight: AtomicUsize,
    health: Health,
    latency: Latency,
    counts: Counts,
}

/// Ops sent to one node.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ops: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) hedges: AtomicU64,
    pub(crate) hedges_won: AtomicU64,
}

/// How an op travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Travel {
    /// With others, unless it carries a large value.
    Together,
    /// In a request of its own.
    Alone,
}

/// An op on its way: its answer, at most until the ticket's time is over. Dropped, it takes an op that was not sent back, and lets a sent one go.
pub(crate) enum Sending {
    /// In a lane behind others.
    Queued(Pending),
    /// In its caller's own future. Boxed: an HTTP exchange is a large future, and most ops wait in a queue instead.
    Now(Pin<Box<dyn Future<Output = Answer> + Send>>),
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
            requests: AtomicU64::new(0),
        });
        Arc::new(Self {
            reads: Lane::new(link.clone()),
            writes: Lane::new(link.clone()),
            acked_writes: Lane::new(link.clone()),
            alone: Semaphore::new(options.alone_in_flight),
            in_flight: AtomicUsize::new(0),
            health: Health::new(),
            latency: Latency::new(),
            counts: Counts::default(),
            link,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.link.address
    }

    /// Ops that wait or are sent and not answered yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn latency(&self) -> &Latency {
        &self.latency
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Requests made for all ops.
    pub(crate) fn requests(&self) -> u64 {
        self.link.requests.load(Relaxed)
    }

    /// Counts an op as in flight, from `began` on, for as long as the guard lives.
    pub(crate) fn count(self: &Arc<Self>, began: Instant) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight {
            chosen: self.health.choose(),
            began,
            is_judged: AtomicBool::new(false),
            is_counted: AtomicBool::new(true),
            lanes: self.clone(),
        }
    }

    /// Puts an op on its way. Whoever waits for it must not wait longer than the ticket's time.
    pub(crate) fn send(self: &Arc<Self>, ticket: &Arc<Ticket>, travel: Travel) -> Sending {
        let (lanes, ticket) = (self, ticket.clone());
        if travel == Travel::Alone || self.travels_alone(&ticket) {
            let lanes = lanes.clone();
            return Sending::Now(Box::pin(async move { lanes.send_alone(&ticket).await }));
        }
        let lane = self.lane(&ticket);
        if let Some(pending) = lane.join(&ticket) {
            return Sending::Queued(pending);
        }
        let lane = lane.clone();
        Sending::Now(Box::pin(async move { lane.send(&ticket).await }))
    }

    /// Puts an op into its lane without sending it yet; `None` if it must be sent by [`Self::send`].
    /// [`Self::start`] must follow.
    pub(crate) fn try_push(&self, ticket: &Arc<Ticket>) -> Option<Pending> {
        if self.travels_alone(ticket) {
            return None;
        }
        self.lane(ticket).try_push(ticket)
    }

    /// Starts the lane that a ticket was pushed into.
    pub(crate) fn start(&self, ticket: &Ticket) {
        self.lane(ticket).start_drain();
    }

    fn lane(&self, ticket: &Ticket) -> &Arc<Lane> {
        let op = ticket.op();
        match (op.action.is_write(), op.terms.ack) {
            (false, _) => &self.reads,
            (true, None) => &self.writes,
            (true, Some(_)) => &self.acked_writes,
        }
    }

    fn travels_alone(&self, ticket: &Ticket) -> bool {
        let is_large = match &ticket.op().action {
            Action::Put { value, .. } => value.len() > self.link.options.alone_bytes,
            _ => false,
        };
        is_large || ticket.atomic().is_some()
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
        self.link.requests.fetch_add(1, Relaxed);
        if let Some(ops) = ticket.atomic() {
            return nodes.atomic(address, ops, limit).await;
        }
        match &ticket.op().action {
            Action::Put { .. } => nodes.put(address, ticket.op(), limit).await,
            _ => nodes.get(address, ticket.op(), limit).await,
        }
    }
}

impl Future for Sending {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        match self.get_mut() {
            Self::Queued(pending) => Pin::new(pending).poll(context),
            Self::Now(exchange) => exchange.as_mut().poll(context),
        }
    }
}

/// An op that is counted as in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    lanes: Arc<NodeLanes>,
    chosen: Chosen,
    began: Instant,
    /// Whether it was said what came of it.
    is_judged: AtomicBool,
    is_counted: AtomicBool,
}

impl InFlight {
    pub(crate) fn lanes(&self) -> &Arc<NodeLanes> {
        &self.lanes
    }

    /// Whether it is usual to ask this node now.
    pub(crate) fn chosen(&self) -> Chosen {
        self.chosen
    }

    /// Takes note of how an attempt with this node ended, at `now` and after so long.
    pub(crate) fn note(
        &self,
        answer: &Result<OpResult, AttemptError>,
        took: Duration,
        now: Instant,
    ) {
        let finding = Finding::of(answer, took);
        self.tell(finding);
        self.lanes.counts.ops.fetch_add(1, Relaxed);
        match answer {
            Err(error) if is_failure(error) => _ = self.lanes.counts.errors.fetch_add(1, Relaxed),
            Ok(_) | Err(_) => self.lanes.latency.record(took, now),
        }
    }

    /// Takes note of what a stream from this node came to, which is none of its ops: of its health alone.
    pub(crate) fn judge(&self, answer: &Result<(), AttemptError>, took: Duration) {
        self.tell(Finding::of(answer, took));
        if answer.is_ok() {
            self.uncount();
        }
    }

    /// Nobody waits for the node any more: it has answered, and what it streams from here on may take hours.
    fn uncount(&self) {
        if self.is_counted.swap(false, Relaxed) {
            self.lanes.in_flight.fetch_sub(1, Relaxed);
        }
    }

    /// Takes note that another node answered a copy of the op sooner, though this one `began_first`.
    pub(crate) fn outrun(&self, began_first: bool) {
        self.lanes.counts.ops.fetch_add(1, Relaxed);
        self.tell(match began_first {
            true => Finding::Outrun,
            false => Finding::Nothing,
        });
    }

    fn tell(&self, finding: Finding) {
        self.is_judged.store(true, Relaxed);
        self.lanes.health.note(finding, self.chosen);
    }
}

/// Whether the node did not do its part. That a condition does not hold is an answer.
fn is_failure(error: &AttemptError) -> bool {
    match classify(error).0 {
        ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Denied => false,
        ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::Misrouted | ErrorKind::Corrupt => {
            true
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !*self.is_judged.get_mut() {
            self.tell(Finding::Dropped(self.began.elapsed()));
        }
        self.uncount();
    }
}
