//! Walks a plan: attempt, judge, next node or pause, until an answer or the deadline.
//!
//! [`Router::run`] is the whole life of one op: it plans, sends through the lanes of a node, follows redirects,
//! lets the session advance, and turns the last failure into an [`Error`]. It takes its decisions from `plan` and
//! `policy`; the order of events is all that is decided here.
//!
//! Cancel safety: an op may be dropped at any await. If its write was sent, it may be applied.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    attempt::{AttemptError, Outcome},
    coalesce::{InFlight, Pending, Ticket, Travel},
    error::{Advice, Error},
    intent::Intent,
    key::Key,
    options::ClientOptions,
    plan::Plan,
    policy::{
        OpKind,
        read::Load,
        retry::{self, Backoff, MAX_HOPS},
    },
    position::Position,
    refresh::Refresher,
    routes::RoutedShard,
    shard_map::Address,
    wire::{
        batch::{Op, OpResult},
        error::ErrorCode,
    },
};

/// Carries out ops.
pub(crate) struct Router {
    pub(crate) refresher: Arc<Refresher>,
    pub(crate) options: ClientOptions,
}

impl Router {
    /// Carries out one op.
    pub(crate) async fn run(&self, intent: Intent<'_>, op: Op) -> Result<OpResult, Error> {
        Walk::new(self, intent, op)?.run().await
    }

    /// Carries out many ops at once, one result per op in order. Those for one node leave in one batch; only
    /// those that failed are tried again. Writes to one key are made one after the other.
    pub(crate) async fn run_many<'a>(
        &'a self,
        intents: Vec<Result<(Intent<'a>, Op), Error>>,
    ) -> Vec<Result<OpResult, Error>> {
        let mut ends = HashMap::new();
        let step = |intent: Result<_, Error>| {
            let (intent, op) = intent?;
            Step::new(self, intent, op, &mut ends)
        };
        let mut steps: Vec<_> = intents.into_iter().map(step).collect();
        if steps.len() > 1 {
            // All enter their lanes before any lane starts; nothing is awaited in between.
            let mut walks: Vec<_> = steps.iter_mut().flatten().filter_map(Step::walk).collect();
            walks.iter_mut().for_each(|walk| walk.push());
            walks.iter().for_each(|walk| walk.start());
        }
        join_all(steps.into_iter().map(finish)).await
    }
}

async fn finish(step: Result<Step<'_>, Error>) -> Result<OpResult, Error> {
    step?.run().await
}

/// One of many ops.
struct Step<'a> {
    stage: Stage<'a>,
    /// Dropped when a write is over: the next one to its key waits for that.
    end: Option<oneshot::Sender<()>>,
}

enum Stage<'a> {
    /// Nothing stands before it.
    Ready(Walk<'a>),
    /// An earlier write to its key does. It is planned when that is over.
    Behind {
        earlier: oneshot::Receiver<()>,
        router: &'a Router,
        intent: Intent<'a>,
        op: Op,
    },
}

impl<'a> Step<'a> {
    /// `ends` holds the end of the last write to each key so far.
    fn new(
        router: &'a Router,
        intent: Intent<'a>,
        op: Op,
        ends: &mut HashMap<Key, oneshot::Receiver<()>>,
    ) -> Result<Self, Error> {
        let mut end = None;
        let mut earlier = None;
        if intent.kind == OpKind::Write {
            let (sender, receiver) = oneshot::channel();
            end = Some(sender);
            earlier = ends.insert(op.key.clone(), receiver);
        }
        let stage = match earlier {
            None => Stage::Ready(Walk::new(router, intent, op)?),
            Some(earlier) => Stage::Behind {
                earlier,
                router,
                intent,
                op,
            },
        };
        Ok(Self { stage, end })
    }

    /// The op, if it can leave at once.
    fn walk(&mut self) -> Option<&mut Walk<'a>> {
        match &mut self.stage {
            Stage::Ready(walk) => Some(walk),
            Stage::Behind { .. } => None,
        }
    }

    async fn run(self) -> Result<OpResult, Error> {
        let _end = self.end;
        let walk = match self.stage {
            Stage::Ready(walk) => walk,
            Stage::Behind {
                earlier,
                router,
                intent,
                op,
            } => {
                // Nothing is ever sent: the other side is dropped, whatever became of the write.
                let _ = earlier.await;
                Walk::new(router, intent, op)?
            }
        };
        walk.run().await
    }
}

/// One op under way.
struct Walk<'a> {
    router: &'a Router,
    intent: Intent<'a>,
    shard_idx: u16,
    plan: Plan,
    /// The node asked now, or last.
    node: InFlight,
    /// The attempt made now, or last.
    ticket: Arc<Ticket>,
    /// The attempt, if it is in its lane already.
    pending: Option<Pending>,
    travel: Travel,
    attempts: u32,
    hops: u32,
    backoff: Backoff,
}

impl<'a> Walk<'a> {
    fn new(router: &'a Router, intent: Intent<'a>, op: Op) -> Result<Self, Error> {
        let routes = router.refresher.routes();
        let routed = routes.shard(intent.slot);
        let shard_idx = routed.shard.idx;
        let mut plan = intent.plan(routed.shard)?;
        let options = &router.options;
        Ok(Self {
            node: next_node(&mut plan, &routed).expect("a new plan has a target"),
            ticket: intent.ticket(op, shard_idx),
            backoff: Backoff::new(options.first_pause, options.longest_pause),
            pending: None,
            travel: Travel::Together,
            attempts: 0,
            hops: 0,
            router,
            intent,
            shard_idx,
            plan,
        })
    }

    /// Puts the first attempt into its lane, if it may travel with others.
    fn push(&mut self) {
        self.pending = self.node.lanes().try_push(&self.ticket);
    }

    /// Starts the lane that the first attempt is in.
    fn start(&self) {
        self.node.lanes().start(&self.ticket);
    }

    async fn run(mut self) -> Result<OpResult, Error> {
        loop {
            self.attempts += 1;
            let answer = match self.pending.take() {
                Some(pending) => pending.answer().await,
                None => self.node.lanes().send(&self.ticket, self.travel).await,
            };
            self.node.lanes().note(&answer);
            match answer.and_then(AttemptError::check) {
                Ok(result) => {
                    self.intent.saw(self.shard_idx, &result);
                    return Ok(result);
                }
                // Boxed: hardly any op comes here, and every op would be larger for it.
                Err(error) => Box::pin(self.recover(error)).await?,
            }
            let op = self.ticket.op().clone();
            self.ticket = self.intent.ticket(op, self.shard_idx);
        }
    }

    /// Decides what comes after a failed attempt, and waits if that is part of it.
    async fn recover(&mut self, error: AttemptError) -> Result<(), Error> {
        if let AttemptError::NotConnected(_) = error {
            self.router.refresher.trigger(None);
        }
        if let Some(lost) = self.lost_position(&error) {
            return self.forget(lost, error);
        }
        if self.must_travel_alone(&error) {
            self.travel = Travel::Alone;
            return self.check_time(error);
        }
        let (_, advice) = retry::advise(self.intent.kind, &error);
        match advice {
            Advice::Stop => Err(self.failed(error)),
            Advice::Replan => self.follow(error).await,
            Advice::NextTarget => self.go_on(error).await,
            Advice::Wait(at_least) => self.pause(at_least, error).await,
        }
    }

    /// Another node at once; a pause and all of them again if there is none.
    async fn go_on(&mut self, error: AttemptError) -> Result<(), Error> {
        let next = {
            let routes = self.router.refresher.routes();
            let routed = routes.shard(self.intent.slot);
            self.shard_idx = routed.shard.idx;
            next_node(&mut self.plan, &routed)
        };
        match next {
            Some(node) => {
                self.node = node;
                self.check_time(error)
            }
            None => self.pause(Duration::ZERO, error).await,
        }
    }

    /// Waits, then starts over with the map that is in force by then.
    async fn pause(&mut self, at_least: Duration, error: AttemptError) -> Result<(), Error> {
        let pause = self.backoff.next(at_least, &mut fastrand::Rng::new());
        if Instant::now() + pause >= self.intent.deadline {
            return Err(self.failed(error));
        }
        sleep(pause).await;
        let routes = self.router.refresher.routes();
        let routed = routes.shard(self.intent.slot);
        self.shard_idx = routed.shard.idx;
        self.plan = self.intent.plan(routed.shard)?;
        let next = next_node(&mut self.plan, &routed);
        self.node = next.expect("a new plan has a target");
        Ok(())
    }

    /// Goes where a redirect points, if the map knows that node.
    async fn follow(&mut self, error: AttemptError) -> Result<(), Error> {
        let refresher = &self.router.refresher;
        let asked = self.node.lanes().address().clone();
        refresher.trigger(Some(&asked));
        self.hops += 1;
        let target = match error.target() {
            Some(target) if self.hops <= MAX_HOPS && !self.intent.is_bound() => target.clone(),
            _ => return Err(self.failed(error)),
        };
        if !self.go_to(&target) {
            // The one case in which an op cannot go on without a newer map.
            let refreshed = refresher.refresh(Some(&asked), self.intent.deadline).await;
            if refreshed.is_err() || !self.go_to(&target) {
                return Err(self.failed(error));
            }
        }
        self.check_time(error)
    }

    fn go_to(&mut self, target: &Address) -> bool {
        let routes = self.router.refresher.routes();
        let (Some(node), Some((shard, _))) = (routes.node(target), routes.map().find(target))
        else {
            return false;
        };
        self.node = node.count();
        // The slot may have moved there, and this map not know it yet: positions are of the shard that answers.
        self.shard_idx = shard.idx;
        true
    }

    /// The position that this attempt asked for, if the node says that it will never come.
    fn lost_position(&self, error: &AttemptError) -> Option<Position> {
        match error {
            AttemptError::Refused(refusal) if refusal.code == ErrorCode::PositionLost => {
                self.ticket.op().terms.min_position
            }
            _ => None,
        }
    }

    /// Of all ops that learn of a loss, the one that makes the session forget it tells its caller.
    fn forget(&mut self, lost: Position, error: AttemptError) -> Result<(), Error> {
        match self.intent.forget(self.shard_idx, lost) {
            true => Err(self.failed(error).with_lost_position(lost)),
            false => self.check_time(error),
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

    fn check_time(&self, error: AttemptError) -> Result<(), Error> {
        match Instant::now() < self.intent.deadline {
            true => Ok(()),
            false => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: AttemptError) -> Error {
        let (kind, _) = retry::advise(self.intent.kind, &error);
        let outcome = match self.intent.kind {
            OpKind::Read => Outcome::NotApplied,
            OpKind::Write => error.outcome(),
        };
        let position = match &error {
            AttemptError::Refused(refusal) => refusal.etag,
            _ => None,
        };
        let routes = self.router.refresher.routes();
        self.intent
            .error(kind)
            .with_key(self.ticket.op().key.clone())
            .with_shard(routes.shard(self.intent.slot).shard.name.clone())
            .with_node(self.node.lanes().address().clone())
            .with_attempts(self.attempts)
            .with_outcome(outcome)
            .with_position(position)
            .with_source(error)
    }
}

/// The plan's next node, counted as busy with this op.
fn next_node(plan: &mut Plan, routed: &RoutedShard<'_>) -> Option<InFlight> {
    let load = |place: usize| {
        routed
            .nodes
            .get(place)
            .map_or(Load::WORST, |node| node.load())
    };
    let place = plan.next(load, &mut fastrand::Rng::new())?;
    // The plan may have been made for a map that named more nodes.
    routed.nodes.get(place).map(|node| node.count())
}
