//! One op as its caller asked for it: what stays the same over all its attempts.
//!
//! Made by the client, carried out by `execute`. Turns the op into the [`Ticket`] of each attempt, with the terms
//! that hold at that moment (time left, the session's position), and lets the session advance by what came back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    coalesce::{Ticket, Travel},
    error::{Error, ErrorKind},
    history::CallHistory,
    options::{ClientOptions, Identity},
    plan::Plan,
    policy::{Consistency, OpKind},
    position::Position,
    session::Session,
    shard_map::{Address, Shard},
    slot::Slot,
    wire::{
        MAX_WAIT_MS,
        batch::{Ack, Action, Op, OpResult},
    },
};

/// Longest deadline: far enough to mean "for ever", near enough to be a point in time.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Time for an answer to arrive, once a node has waited for replicas long enough.
const ANSWER_TIME: Duration = Duration::from_millis(250);

/// A session that ops of several tasks advance. Std lock: never held over an await.
pub(crate) type SharedSession = Arc<Mutex<Session>>;

/// Whose op it is: what a client gives to each of its ops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) session: &'a SharedSession,
    pub(crate) history: Option<&'a CallHistory>,
    /// Who must have synced its writes.
    pub(crate) ack: Option<Ack>,
    pub(crate) options: &'a ClientOptions,
}

/// Whether another node may answer, should this attempt fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    Some,
    None,
}

/// An op's constant part.
#[derive(Debug)]
pub(crate) struct Intent<'a> {
    pub(crate) kind: OpKind,
    pub(crate) slot: Slot,
    /// When its first attempt begins.
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    /// `get`, `put`, ...: for errors.
    name: &'static str,
    consistency: Consistency,
    /// The only node to ask.
    node: Option<Address>,
    /// All ops of an atomic batch.
    atomic: Option<Arc<[Op]>>,
    /// Who must have synced a write; those of an atomic batch may ask for more.
    ack: Option<Ack>,
    scope: Scope<'a>,
}

impl<'a> Intent<'a> {
    /// An op with the client's own settings.
    pub(crate) fn new(op: &Op, timeout: Option<Duration>, scope: Scope<'a>) -> Self {
        let timeout = timeout.unwrap_or(scope.options.timeout).min(LONGEST);
        let began = Instant::now();
        Self {
            kind: kind(&op.action, scope.options),
            slot: Slot::of(&op.key),
            began,
            deadline: began + timeout,
            name: name(&op.action),
            consistency: scope.options.consistency,
            node: None,
            atomic: None,
            ack: scope.ack,
            scope,
        }
    }

    /// Ops that are done together or not at all; the first stands for all.
    pub(crate) fn atomic(mut self, ops: Arc<[Op]>) -> Self {
        self.kind = match self.scope.options.identity {
            Identity::Sent => OpKind::RepeatableWrite,
            Identity::Omitted => OpKind::Write,
        };
        self.name = "atomic batch";
        self.atomic = Some(ops);
        self
    }

    /// Sets who must have synced a write, if that is said.
    pub(crate) fn acked_by(mut self, ack: Option<Option<Ack>>) -> Self {
        self.ack = ack.unwrap_or(self.ack);
        self
    }

    /// Sets how new a read must be, and which node must answer it.
    pub(crate) fn read_from(
        mut self,
        consistency: Option<Consistency>,
        node: Option<Address>,
    ) -> Self {
        self.consistency = consistency.unwrap_or(self.consistency);
        self.node = node;
        self
    }

    /// Whether one certain node must answer.
    pub(crate) fn is_bound(&self) -> bool {
        self.node.is_some()
    }

    /// The order in which a shard's nodes are asked.
    pub(crate) fn plan(&self, shard: &Shard) -> Result<Plan, Error> {
        let Some(node) = &self.node else {
            return Ok(Plan::new(self.kind, self.consistency, shard));
        };
        Plan::only(shard, node).ok_or_else(|| {
            let problem = format!("{node} is no node of the key's shard");
            Error::new(ErrorKind::Invalid, self.name)
                .with_shard(shard.name.clone())
                .with_source(problem)
        })
    }

    /// The ticket of the attempt that begins at `now`, which travels alone or not, and may be the last or not.
    pub(crate) fn ticket(
        &self,
        mut op: Op,
        shard_idx: u16,
        travel: Travel,
        others: Others,
        now: Instant,
    ) -> Arc<Ticket> {
        let time_left = self.deadline - now;
        op.terms.time_left_ms = Some(millis(time_left).max(1));
        if self.kind == OpKind::Read {
            self.set_read_terms(&mut op, shard_idx, time_left);
        }
        let limit = match (self.kind, travel) {
            // A large value takes as long as it takes.
            (_, Travel::Alone) => LONGEST,
            // An impatient caller's time is not spent at one node while there is another.
            (OpKind::Read, Travel::Together) => match others {
                Others::Some => self.scope.options.attempt_timeout.min(time_left / 2),
                Others::None => self.scope.options.attempt_timeout,
            },
            (OpKind::RepeatableWrite, Travel::Together) => {
                self.scope.options.write_attempt_timeout + self.time_to_send(&op)
            }
            // Once sent, it cannot be tried again: it gets all the time there is.
            (OpKind::Write, Travel::Together) => LONGEST,
        };
        let limit = limit.min(time_left);
        self.set_ack(&mut op, limit);
        let atomic = self.atomic.as_ref().map(|ops| {
            let others = ops[1..].iter().cloned().map(|mut other| {
                self.set_ack(&mut other, limit);
                other
            });
            std::iter::once(op.clone()).chain(others).collect()
        });
        Ticket::new(op, atomic, now, now + limit)
    }

    /// Sets who must have synced a write, and how long the node waits for them: a little less than this client for the
    /// node, so that what is heard is how far it got.
    fn set_ack(&self, op: &mut Op, limit: Duration) {
        if !op.action.is_write() {
            return;
        }
        op.terms.ack = op.terms.ack.or(self.ack);
        let wait = limit.saturating_sub(ANSWER_TIME.min(limit / 4));
        // What may wait longer than a wait may be asked for waits for as long as it has time.
        let is_short = op.terms.ack.is_some() && wait <= Duration::from_millis(MAX_WAIT_MS);
        op.terms.wait_ms = is_short.then(|| millis(wait));
    }

    /// The ack of one of its writes that the protocol has no word for.
    pub(crate) fn unsound_ack(&self) -> Option<Ack> {
        let ops = self.atomic.iter().flat_map(|ops| ops.iter());
        let mut acks = ops.filter_map(|op| op.terms.ack).chain(self.ack);
        acks.find(|ack| !ack.is_sound())
    }

    /// What a slow network takes for the bytes of a write: one sent again and again from its start would never arrive.
    fn time_to_send(&self, op: &Op) -> Duration {
        let bytes = match &self.atomic {
            Some(ops) => ops.iter().map(Op::weight_bytes).sum(),
            None => op.weight_bytes(),
        };
        let kibibytes = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        Duration::from_secs(1) * kibibytes / 1_024
    }

    fn set_read_terms(&self, op: &mut Op, shard_idx: u16, time_left: Duration) {
        match self.consistency {
            Consistency::ReadYourWrites => {
                let longest = Duration::from_millis(MAX_WAIT_MS).min(time_left);
                let wait_ms = millis(self.scope.options.catch_up_wait.min(longest));
                op.terms.min_position = self.lock_session().position(shard_idx);
                op.terms.wait_ms = op.terms.min_position.map(|_| wait_ms);
            }
            Consistency::MaxLag(lag) => op.terms.max_lag_ms = Some(u64::from(millis(lag))),
            Consistency::Eventual | Consistency::Primary => {}
        }
    }

    /// How new a read must be.
    pub(crate) fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// Whether it is a read with a bound on its node's lag.
    pub(crate) fn bounds_lag(&self) -> bool {
        self.kind == OpKind::Read && matches!(self.consistency, Consistency::MaxLag(_))
    }

    /// Whether it stands for several ops that are done together.
    pub(crate) fn is_atomic(&self) -> bool {
        self.atomic.is_some()
    }

    /// Where attempts are written down, if anywhere.
    pub(crate) fn history(&self) -> Option<&'a CallHistory> {
        self.scope.history
    }

    /// The op: `get`, `put`, ...
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Lets the session advance by what the answer to an op shows.
    pub(crate) fn saw(&self, shard_idx: u16, asked: &Op, result: &OpResult) {
        // A write was made at its position. A hit shows an entry as old as its tag; a miss shows that nothing is
        // there up to the node's position.
        let seen = match self.kind {
            OpKind::Write | OpKind::RepeatableWrite => result.position.or(result.etag),
            OpKind::Read => result.etag.or(result.position),
        };
        // What was asked for is what the session had seen already: most reads show nothing newer.
        if let Some(position) = seen.filter(|seen| asked.terms.min_position < Some(*seen)) {
            self.saw_entry(shard_idx, position);
        }
    }

    /// Lets the session advance to an entry that a refusal names: whoever reads it again must find it.
    pub(crate) fn saw_entry(&self, shard_idx: u16, position: Position) {
        self.lock_session().advance(shard_idx, position);
    }

    /// Lets the session forget a position that is lost; says whether this op was the first to do so.
    pub(crate) fn forget(&self, shard_idx: u16, lost: Position) -> bool {
        self.lock_session().forget(shard_idx, lost)
    }

    /// An error about this op.
    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.name)
    }

    fn lock_session(&self) -> MutexGuard<'_, Session> {
        self.scope
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn kind(action: &Action, options: &ClientOptions) -> OpKind {
    match (action.is_write(), options.identity) {
        (false, _) => OpKind::Read,
        (true, Identity::Sent) => OpKind::RepeatableWrite,
        (true, Identity::Omitted) => OpKind::Write,
    }
}

fn name(action: &Action) -> &'static str {
    match action {
        Action::Get => "get",
        Action::Put { .. } => "put",
        Action::Delete => "delete",
        Action::Incr { .. } => "incr",
        Action::Expire { .. } => "touch",
        Action::Persist => "persist",
    }
}

/// Whether reads of this consistency rather go to replicas that were not behind just now. Those with a bound on the lag
/// do not: replicas that lag would send them all to the primaries, past the budget.
pub(crate) fn wants_level(consistency: Consistency) -> bool {
    match consistency {
        Consistency::ReadYourWrites => true,
        Consistency::MaxLag(_) | Consistency::Eventual | Consistency::Primary => false,
    }
}

/// Whole milliseconds, as many as fit.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
