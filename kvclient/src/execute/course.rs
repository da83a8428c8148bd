//! What holds over all attempts of an op, and how one of them is made.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::attempt::{Ended, Notes, Trip, race};
use crate::{
    attempt::{AttemptError, Outcome},
    coalesce::{Chosen, InFlight, Pending, Sending, Ticket, Travel},
    error::Error,
    history::Why,
    intent::{Intent, Others, wants_level},
    plan::Plan,
    policy::{
        OpKind, hedge,
        retry::{self, Backoff},
    },
    request_ids::HeldId,
    router::Router,
    routes::RoutedShard,
    wire::batch::{Op, OpResult},
};

/// What holds over all attempts of an op.
pub(super) struct Course<'a> {
    pub(super) router: &'a Router,
    pub(super) intent: Intent<'a>,
    pub(super) shard_idx: u16,
    pub(super) plan: Plan,
    pub(super) travel: Travel,
    pub(super) attempts: u32,
    /// Redirects followed since the plan began.
    pub(super) hops: u32,
    pub(super) backoff: Backoff,
    /// The identity of a write, for as long as its caller waits.
    pub(super) id: Option<HeldId<'a>>,
    /// When the first attempt of a write began that may have been applied.
    pub(super) unknown_since: Option<Instant>,
    /// Whether an attempt since the plan began failed in a way that passes by itself.
    pub(super) may_pass: bool,
}

/// The attempt to make next.
pub(super) struct Next {
    pub(super) node: InFlight,
    pub(super) ticket: Arc<Ticket>,
    /// Its place in the lane, if it is in it already.
    pub(super) pushed: Option<Pending>,
    pub(super) why: Why,
    /// The pause before it.
    pub(super) paused: Duration,
}

/// An attempt that brought nothing.
pub(super) struct Failure {
    pub(super) node: InFlight,
    pub(super) ticket: Arc<Ticket>,
    pub(super) error: AttemptError,
}

impl Course<'_> {
    /// Waits for how an attempt ends, with a second copy of it if it is a read that takes long.
    pub(super) async fn end(&mut self, trip: &mut Trip) -> Ended {
        let answer = match self.hedge_at(trip) {
            None => (&mut trip.sending).await,
            Some(at) => match timeout_at(at, &mut trip.sending).await {
                Ok(answer) => answer,
                // Boxed: few reads come here, and every op would be larger for it.
                Err(_) => return Box::pin(self.end_late(trip)).await,
            },
        };
        trip.ended(answer, self.notes())
    }

    /// As [`Self::end`], from the moment on at which a second copy should leave.
    async fn end_late(&mut self, trip: &mut Trip) -> Ended {
        let Some(second) = self.second_copy(trip) else {
            let answer = (&mut trip.sending).await;
            return trip.ended(answer, self.notes());
        };
        let ended = race(trip, second, self.notes()).await;
        if trip.why == Why::Hedge && ended.answer.is_ok() {
            self.router.counts.hedges_won.fetch_add(1, Relaxed);
            let counts = trip.node.lanes().counts();
            counts.hedges_won.fetch_add(1, Relaxed);
        }
        ended
    }

    /// An attempt sets out.
    pub(super) fn send(&mut self, next: Next) -> Trip {
        self.attempts += 1;
        let Next {
            node,
            ticket,
            pushed,
            why,
            paused,
        } = next;
        let sending = match pushed {
            Some(pending) => Sending::Queued(pending),
            None => node.lanes().send(&ticket, self.travel),
        };
        Trip {
            node,
            ticket,
            sending,
            why,
            paused,
        }
    }

    /// When a second copy should leave, if this attempt may have one.
    fn hedge_at(&self, trip: &Trip) -> Option<Instant> {
        let may = self.intent.kind == OpKind::Read
            && self.router.hedges()
            && self.travel == Travel::Together
            && !self.plan.is_used_up();
        let at = trip.ticket.began() + hedge::delay(self.router.reads.p95());
        (may && at < trip.ticket.until()).then_some(at)
    }

    /// Sends a second copy of a read that takes long, if there is another node and the budget allows it. A probe's
    /// copy is free: there is one a second at most, and its read shall not wait for a node that was known to fail.
    fn second_copy(&mut self, first: &Trip) -> Option<Trip> {
        if first.why != Why::Probe && !self.router.budgets.hedge.take() {
            return None;
        }
        let op = first.ticket.op().clone();
        let node = {
            let routes = self.router.refresher.routes();
            self.next_node(&routes.shard(self.intent.slot), &op, Instant::now())?
        };
        self.router.counts.hedges.fetch_add(1, Relaxed);
        node.lanes().counts().hedges.fetch_add(1, Relaxed);
        let next = self.next(node, op, Why::Hedge);
        Some(self.send(next))
    }

    /// It is over with this result to what was asked, at `now`.
    pub(super) fn succeeded(&self, asked: &Op, result: &OpResult, now: Instant) {
        self.intent.saw(self.shard_idx, asked, result);
        if self.intent.kind == OpKind::Read {
            self.router.reads.record(now - self.intent.began, now);
        }
    }

    pub(super) fn next(&self, node: InFlight, op: Op, why: Why) -> Next {
        self.next_at(node, op, why, Instant::now())
    }

    /// The attempt that begins now.
    pub(super) fn next_at(&self, node: InFlight, mut op: Op, why: Why, now: Instant) -> Next {
        let why = match (why, node.chosen()) {
            (Why::Chosen, Chosen::Probe) => Why::Probe,
            (why, _) => why,
        };
        op.terms.request_id = self.id.as_ref().map(HeldId::get);
        let others = match self.plan.is_used_up() {
            true => Others::None,
            false => Others::Some,
        };
        Next {
            ticket: self
                .intent
                .ticket(op, self.shard_idx, self.travel, others, now),
            node,
            pushed: None,
            why,
            paused: Duration::ZERO,
        }
    }

    /// The plan's next node by the map in force.
    pub(super) fn next_target(&mut self, failure: &Failure) -> Option<InFlight> {
        let routes = self.router.refresher.routes();
        let routed = routes.shard(self.intent.slot);
        self.shard_idx = routed.shard.idx;
        self.next_node(&routed, failure.ticket.op(), Instant::now())
    }

    /// The plan's next node, counted as busy with this op.
    pub(super) fn next_node(
        &mut self,
        routed: &RoutedShard<'_>,
        op: &Op,
        now: Instant,
    ) -> Option<InFlight> {
        let asked = self.attempts;
        let wants_level = wants_level(self.intent.consistency());
        let key = Some(&op.key);
        let place = self
            .router
            .next_place(&mut self.plan, routed, key, wants_level, asked)?;
        // The plan may have been made for a map that named more nodes.
        routed.nodes.get(place).map(|node| node.count(now))
    }

    pub(super) fn pay_in(&self) {
        if self.intent.kind == OpKind::Read {
            self.router.budgets.hedge.pay_in();
        }
        if self.intent.bounds_lag() {
            self.router.budgets.lag.pay_in();
        }
    }

    fn notes(&self) -> Notes<'_> {
        Notes {
            intent: &self.intent,
            router: self.router,
        }
    }

    pub(super) fn failed(&self, failure: Failure) -> Error {
        let Failure {
            node,
            ticket,
            error,
        } = failure;
        let (kind, _) = retry::advise(self.intent.kind, &error);
        let outcome = match (self.intent.kind.is_write(), self.unknown_since.is_some()) {
            (true, true) => Outcome::Unknown,
            (true, false) => error.outcome(),
            (false, _) => Outcome::NotApplied,
        };
        let position = match &error {
            AttemptError::Refused(refusal) => refusal.etag,
            _ => None,
        };
        if let Some(position) = position {
            self.intent.saw_entry(self.shard_idx, position);
        }
        let routes = self.router.refresher.routes();
        self.intent
            .error(kind)
            .with_key(ticket.op().key.clone())
            .with_shard(routes.shard(self.intent.slot).shard.name.clone())
            .with_node(node.lanes().address().clone())
            .with_attempts(self.attempts)
            .with_outcome(outcome)
            .with_position(position)
            .with_source(error)
    }
}
