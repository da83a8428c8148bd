//! The life of one op: attempt, judge, next node or pause, until an answer or the deadline.
//!
//! Sends through the lanes of a node, follows redirects, lets the session advance, and turns the last failure into an
//! [`Error`].

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::attempt::{Ended, Notes, Trip, race};
use crate::{
    attempt::{AttemptError, Outcome},
    coalesce::{Chosen, InFlight, Pending, Sending, Ticket, Travel},
    error::{Advice, Error, classify},
    history::Why,
    intent::{Intent, Others, wants_level},
    plan::Plan,
    policy::{
        OpKind, hedge,
        retry::{self, Backoff, MAX_HOPS},
    },
    position::Position,
    request_ids::HeldId,
    router::Router,
    routes::RoutedShard,
    shard_map::Address,
    wire::{
        batch::{Op, OpResult},
        error::ErrorCode,
    },
};

/// Time that must be left for one more attempt after a pause. One that is cut short tells nothing, and makes a write
/// that surely was not applied one that may have been.
const LEAST_TIME: Duration = Duration::from_millis(20);

/// Longest wait for the map that a redirect to another shard's node is by. Such a map answers at once, or not soon.
const REFRESH_TIME: Duration = Duration::from_secs(1);

/// How long a write of unknown outcome is repeated. Nodes forget the ids of clients that they have not heard of for ten
/// minutes, and a repeat that comes later would be a new write to them.
const REMEMBERED_FOR: Duration = Duration::from_secs(8 * 60);

/// An op that is about to be carried out.
pub(super) struct Walk<'a> {
    course: Course<'a>,
    first: Next,
}

/// What holds over all attempts of an op.
struct Course<'a> {
    router: &'a Router,
    intent: Intent<'a>,
    shard_idx: u16,
    plan: Plan,
    travel: Travel,
    attempts: u32,
    /// Redirects followed since the plan began.
    hops: u32,
    backoff: Backoff,
    /// The identity of a write, for as long as its caller waits.
    id: Option<HeldId<'a>>,
    /// When an attempt of a write ended first that may have been applied.
    unknown_since: Option<Instant>,
    /// Whether an attempt since the plan began failed in a way that passes by itself.
    may_pass: bool,
}

/// The attempt to make next.
struct Next {
    node: InFlight,
    ticket: Arc<Ticket>,
    /// Its place in the lane, if it is in it already.
    pushed: Option<Pending>,
    why: Why,
    /// The pause before it.
    paused: Duration,
}

/// An attempt that brought nothing.
struct Failure {
    node: InFlight,
    ticket: Arc<Ticket>,
    error: AttemptError,
}

impl<'a> Walk<'a> {
    pub(super) fn new(router: &'a Router, intent: Intent<'a>, op: Op) -> Result<Self, Error> {
        let routes = router.refresher.routes();
        let routed = routes.shard(intent.slot);
        let shard_idx = routed.shard.idx;
        let options = &router.options;
        let id = (intent.kind == OpKind::RepeatableWrite).then(|| router.ids.next(shard_idx));
        let mut course = Course {
            plan: intent.plan(routed.shard)?,
            backoff: Backoff::new(options.first_pause, options.longest_pause),
            travel: Travel::Together,
            attempts: 0,
            hops: 0,
            unknown_since: None,
            may_pass: false,
            router,
            intent,
            shard_idx,
            id,
        };
        let node = course.next_node(&routed, &op);
        let node = node.expect("a new plan has a target");
        let first = course.next(node, op, Why::Chosen);
        router.counts.ops.fetch_add(1, Relaxed);
        router.budgets.retry.pay_in();
        course.pay_in();
        Ok(Self { course, first })
    }

    /// Puts the first attempt into its lane, if it may travel with others.
    pub(super) fn push(&mut self) {
        let first = &mut self.first;
        first.pushed = first.node.lanes().try_push(&first.ticket);
    }

    /// Starts the lane that the first attempt is in.
    pub(super) fn start(&self) {
        self.first.node.lanes().start(&self.first.ticket);
    }

    pub(super) async fn run(self) -> Result<OpResult, Error> {
        let Self {
            mut course,
            first: mut next,
        } = self;
        let began = next.ticket.began();
        loop {
            let Ended {
                node,
                ticket,
                answer,
                ..
            } = course.attempt(next).await;
            match answer {
                Ok(result) => {
                    course.succeeded(&result, began);
                    return Ok(result);
                }
                // Boxed: hardly any op comes here, and every op would be larger for it.
                Err(error) => {
                    let failure = Failure {
                        node,
                        ticket,
                        error,
                    };
                    next = Box::pin(course.recover(failure)).await?;
                }
            }
        }
    }
}

impl Course<'_> {
    /// Makes one attempt, with a second copy of it if it is a read that takes long.
    async fn attempt(&mut self, next: Next) -> Ended {
        self.attempts += 1;
        let trip = self.send(next);
        let hedge_at = self.hedge_at(&trip);
        let Some(hedge_at) = hedge_at else {
            return trip.end(self.notes()).await;
        };
        self.attempt_hedged(trip, hedge_at).await
    }

    async fn attempt_hedged(&mut self, mut trip: Trip, hedge_at: Instant) -> Ended {
        if let Some(answer) = trip.until(hedge_at).await {
            return trip.ended(answer, self.notes());
        }
        match self.second_copy(&trip) {
            // Boxed: few reads come here.
            Some(second) => {
                let ended = Box::pin(race(trip, second, self.notes())).await;
                if ended.why == Why::Hedge && ended.answer.is_ok() {
                    self.router.counts.hedges_won.fetch_add(1, Relaxed);
                    let counts = ended.node.lanes().counts();
                    counts.hedges_won.fetch_add(1, Relaxed);
                }
                ended
            }
            None => trip.end(self.notes()).await,
        }
    }

    fn send(&self, next: Next) -> Trip {
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
            self.next_node(&routes.shard(self.intent.slot), &op)?
        };
        self.attempts += 1;
        self.router.counts.hedges.fetch_add(1, Relaxed);
        node.lanes().counts().hedges.fetch_add(1, Relaxed);
        let next = self.next(node, op, Why::Hedge);
        Some(self.send(next))
    }

    fn succeeded(&self, result: &OpResult, began: Instant) {
        self.intent.saw(self.shard_idx, result);
        if self.intent.kind == OpKind::Read {
            let now = Instant::now();
            self.router.reads.record(now - began, now);
        }
    }

    /// Decides what comes after a failed attempt, and waits if that is part of it.
    async fn recover(&mut self, failure: Failure) -> Result<Next, Error> {
        let error = &failure.error;
        if self.intent.kind.is_write() && error.outcome() == Outcome::Unknown {
            let since = *self.unknown_since.get_or_insert_with(Instant::now);
            if since.elapsed() > REMEMBERED_FOR {
                return Err(self.failed(failure));
            }
        }
        if may_have_moved(error) {
            self.router.refresher.trigger(None);
        }
        if let Some(lost) = lost_position(&failure) {
            return self.forget(lost, failure);
        }
        if self.must_travel_alone(error) {
            self.travel = Travel::Alone;
            return self.again(failure, Why::Alone);
        }
        let (_, advice) = retry::advise(self.intent.kind, error);
        match advice {
            Advice::Stop => Err(self.failed(failure)),
            Advice::Replan => self.follow(failure).await,
            Advice::NextTarget => {
                self.may_pass = true;
                self.go_on(failure).await
            }
            Advice::OtherTarget => self.ask_other(failure).await,
            Advice::Wait(at_least) => self.pause(at_least, failure).await,
        }
    }

    /// Another node at once; a pause and all of them again if there is none, or too much is repeated already.
    async fn go_on(&mut self, failure: Failure) -> Result<Next, Error> {
        if let Some(at_least) = self.must_pause(&failure.error) {
            self.router.counts.held_back.fetch_add(1, Relaxed);
            return self.pause(at_least, failure).await;
        }
        match self.next_target(&failure) {
            Some(node) => self.ask(node, failure, Why::NextNode),
            None => self.pause(Duration::ZERO, failure).await,
        }
    }

    /// How long the next attempt has to wait since too many are made already.
    fn must_pause(&self, error: &AttemptError) -> Option<Duration> {
        let is_behind =
            matches!(error, AttemptError::Refused(refusal) if refusal.code == ErrorCode::Behind);
        let budgets = &self.router.budgets;
        let (may_go_on, at_least) = match (is_behind, self.intent.bounds_lag()) {
            (true, true) => (budgets.lag.take(), Duration::ZERO),
            // What a session has seen is on the primary: one more attempt at most, and no node is in trouble.
            (true, false) => (true, Duration::ZERO),
            (false, _) => (budgets.retry.take(), self.router.options.longest_pause),
        };
        (!may_go_on).then_some(at_least)
    }

    /// Waits, then starts over with the map that is in force by then.
    async fn pause(&mut self, at_least: Duration, failure: Failure) -> Result<Next, Error> {
        let pause = self.backoff.next(at_least, &mut fastrand::Rng::new());
        if Instant::now() + pause + LEAST_TIME >= self.intent.deadline {
            return Err(self.failed(failure));
        }
        let ticket = failure.ticket;
        // Nothing is under way at this node meanwhile.
        drop(failure.node);
        sleep(pause).await;
        let routes = self.router.refresher.routes();
        let routed = routes.shard(self.intent.slot);
        self.shard_idx = routed.shard.idx;
        self.plan = self.intent.plan(routed.shard)?;
        self.may_pass = false;
        self.hops = 0;
        let op = ticket.op().clone();
        let node = self.next_node(&routed, &op);
        let node = node.expect("a new plan has a target");
        self.router.counts.retries.fetch_add(1, Relaxed);
        Ok(Next {
            paused: pause,
            ..self.next(node, op, Why::AfterPause)
        })
    }

    /// A node that was not asked yet. If there is none, a read begins anew as long as one of the others may answer it
    /// yet, having been late or away.
    async fn ask_other(&mut self, failure: Failure) -> Result<Next, Error> {
        match self.next_target(&failure) {
            Some(node) => self.ask(node, failure, Why::NextNode),
            None if self.may_pass && self.intent.kind == OpKind::Read => self.go_on(failure).await,
            None => Err(self.failed(failure)),
        }
    }

    /// Goes where a redirect points, if the map knows that node; else a read may ask another of the shard.
    async fn follow(&mut self, failure: Failure) -> Result<Next, Error> {
        let refresher = &self.router.refresher;
        let asked = failure.node.lanes().address().clone();
        refresher.trigger(Some(&asked));
        self.hops += 1;
        let target = match failure.error.target() {
            Some(target) if self.hops <= MAX_HOPS && !self.intent.is_bound() => target.clone(),
            _ => return self.ask_other(failure).await,
        };
        if self.is_elsewhere(&target) {
            // Followed by this map, the session would note what it sees under a shard that it may not be of.
            let at = self.intent.deadline.min(Instant::now() + REFRESH_TIME);
            // If nobody says better, this map has to do.
            let _ = refresher.refresh(Some(&asked), at).await;
        }
        let node = match self.go_to(&target) {
            Some(node) => node,
            None => {
                // The one case in which an op cannot go on without a newer map.
                let refreshed = refresher.refresh(Some(&asked), self.intent.deadline).await;
                let found = refreshed.ok().and_then(|()| self.go_to(&target));
                let Some(node) = found else {
                    return self.ask_other(failure).await;
                };
                node
            }
        };
        self.router.counts.redirects.fetch_add(1, Relaxed);
        self.ask(node, failure, Why::Redirected)
    }

    /// Whether the map in force knows a node, but not as one of the key's shard: then it contradicts the nodes'.
    fn is_elsewhere(&self, target: &Address) -> bool {
        let routes = self.router.refresher.routes();
        let owner = routes.shard(self.intent.slot).shard.idx;
        let found = routes.map().find(target);
        found.is_some_and(|(shard, _)| shard.idx != owner)
    }

    fn go_to(&mut self, target: &Address) -> Option<InFlight> {
        let routes = self.router.refresher.routes();
        let node = routes.node(target)?;
        let (shard, _) = routes.map().find(target)?;
        // The slot may have moved there, and this map not know it yet: positions are of the shard that answers.
        self.shard_idx = shard.idx;
        Some(node.count())
    }

    /// Of all ops that learn of a loss, the one that makes the session forget it tells its caller.
    fn forget(&mut self, lost: Position, failure: Failure) -> Result<Next, Error> {
        match self.intent.forget(self.shard_idx, lost) {
            true => Err(self.failed(failure).with_lost_position(lost)),
            false => self.again(failure, Why::PositionForgotten),
        }
    }

    /// Whether a read failed only because its value is too large to come with others.
    fn must_travel_alone(&self, error: &AttemptError) -> bool {
        let is_too_large = match error {
            AttemptError::AnswerTooLarge { .. } => true,
            AttemptError::Refused(refusal) => refusal.code == ErrorCode::TooLarge,
            _ => false,
        };
        is_too_large && self.intent.kind == OpKind::Read && self.travel == Travel::Together
    }

    /// The same node once more, at once.
    fn again(&mut self, failure: Failure, why: Why) -> Result<Next, Error> {
        let node = failure.node.lanes().count();
        self.ask(node, failure, why)
    }

    /// A node after a failure, at once.
    fn ask(&mut self, node: InFlight, failure: Failure, why: Why) -> Result<Next, Error> {
        if Instant::now() >= self.intent.deadline {
            return Err(self.failed(failure));
        }
        if why != Why::Redirected {
            self.router.counts.retries.fetch_add(1, Relaxed);
        }
        let op = failure.ticket.op().clone();
        Ok(self.next(node, op, why))
    }

    fn next(&self, node: InFlight, op: Op, why: Why) -> Next {
        let why = match (why, node.chosen()) {
            (Why::Chosen, Chosen::Probe) => Why::Probe,
            (why, _) => why,
        };
        let id = self.id.as_ref().map(HeldId::get);
        let others = match self.plan.is_used_up() {
            true => Others::None,
            false => Others::Some,
        };
        Next {
            ticket: self
                .intent
                .ticket(op, self.shard_idx, id, self.travel, others),
            node,
            pushed: None,
            why,
            paused: Duration::ZERO,
        }
    }

    /// The plan's next node by the map in force.
    fn next_target(&mut self, failure: &Failure) -> Option<InFlight> {
        let routes = self.router.refresher.routes();
        let routed = routes.shard(self.intent.slot);
        self.shard_idx = routed.shard.idx;
        self.next_node(&routed, failure.ticket.op())
    }

    /// The plan's next node, counted as busy with this op.
    fn next_node(&mut self, routed: &RoutedShard<'_>, op: &Op) -> Option<InFlight> {
        let asked = self.attempts;
        let wants_level = wants_level(self.intent.consistency());
        let key = Some(&op.key);
        let place = self
            .router
            .next_place(&mut self.plan, routed, key, wants_level, asked)?;
        // The plan may have been made for a map that named more nodes.
        routed.nodes.get(place).map(|node| node.count())
    }

    fn pay_in(&self) {
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

    fn failed(&self, failure: Failure) -> Error {
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

/// Whether the shard may have moved on without this node: it is away or fails, or what answers there is no node.
fn may_have_moved(error: &AttemptError) -> bool {
    match error {
        AttemptError::NotConnected(_)
        | AttemptError::TimedOut
        | AttemptError::Broken(_)
        | AttemptError::Undecodable(_) => true,
        AttemptError::Refused(refusal) => {
            refusal.code != ErrorCode::Behind && classify(error).1 == Advice::NextTarget
        }
        AttemptError::NotSent
        | AttemptError::Redirected { .. }
        | AttemptError::OtherShard { .. }
        | AttemptError::AnswerTooLarge { .. } => false,
    }
}

/// The position that an attempt asked for, if the node says that it will never come.
fn lost_position(failure: &Failure) -> Option<Position> {
    match &failure.error {
        AttemptError::Refused(refusal) if refusal.code == ErrorCode::PositionLost => {
            failure.ticket.op().terms.min_position
        }
        _ => None,
    }
}
