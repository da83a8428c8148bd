//! What comes after an attempt that brought nothing: another node, a pause, a redirect, or the end.
//!
//! What to do is read from the table in [`policy::retry`](crate::policy::retry); here it is done.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::{Instant, sleep};

use super::course::{Course, Failure, Next};
use crate::{
    attempt::{AttemptError, Outcome},
    coalesce::{InFlight, Travel},
    error::{Advice, Error, classify},
    history::Why,
    policy::{
        OpKind,
        retry::{self, MAX_HOPS},
    },
    position::Position,
    shard_map::Address,
    wire::error::ErrorCode,
};

/// Time that must be left for one more attempt after a pause. One that is cut short tells nothing, and makes a write
/// that surely was not applied one that may have been.
const LEAST_TIME: Duration = Duration::from_millis(20);

/// Longest wait for the map that a redirect to another shard's node is by. Such a map answers at once, or not soon.
const REFRESH_TIME: Duration = Duration::from_secs(1);

/// How long a write of unknown outcome is repeated. Nodes forget the ids of clients that they have not heard of for ten
/// minutes, and a repeat that comes later would be a new write to them.
const REMEMBERED_FOR: Duration = Duration::from_secs(8 * 60);

impl Course<'_> {
    /// Decides what comes after a failed attempt, and waits if that is part of it.
    pub(super) async fn recover(&mut self, failure: Failure) -> Result<Next, Error> {
        let error = &failure.error;
        if self.intent.kind.is_write() && error.outcome() == Outcome::Unknown {
            let since = *self.unknown_since.get_or_insert(failure.ticket.began());
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
        let node = self.next_node(&routed, &op, Instant::now());
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
        Some(node.count(Instant::now()))
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
        let node = failure.node.lanes().count(Instant::now());
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
