//! Reads what one shard streams, from whichever of its nodes can give it.
//!
//! Scans and watches hold a [`ShardReader`] per shard: it chooses a node, opens the stream there with the terms that
//! hold at that moment, hands out its pieces, and after a failure decides, by the same table as for ops
//! ([`policy::retry`](crate::policy::retry)), whether another node is asked, at once or after a pause, or the caller is
//! told. What is asked for next, so that nothing is missed or repeated, its user knows.
//!
//! Its clock runs only while it waits: from [`ShardReader::begin`] to the next piece.
//!
//! Cancel safety: dropped, it closes its connection and leaves nothing behind.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::{
    attempt::AttemptError,
    coalesce::InFlight,
    error::{Advice, Error},
    intent::{LONGEST, SharedSession, millis, wants_level},
    node_client::StreamBody,
    plan::Plan,
    policy::{
        Consistency, OpKind,
        retry::{self, Backoff},
    },
    position::Position,
    router::Router,
    shard_map::{Address, Shard},
    wire::{MAX_WAIT_MS, batch::Terms, error::ErrorCode, header},
};

/// A stream that lasted this long was none that only begins and breaks: the next pauses are short again.
const STEADY: Duration = Duration::from_secs(1);

/// What belongs to a client and is the same for all shards of one call.
#[derive(Clone)]
pub(crate) struct ReaderOptions {
    pub(crate) router: Arc<Router>,
    pub(crate) session: SharedSession,
    /// `scan` or `watch`: for errors.
    pub(crate) op: &'static str,
    pub(crate) consistency: Consistency,
    /// Longest wait for the next piece, all attempts and pauses included.
    pub(crate) timeout: Duration,
    /// Longest silence of an open stream before another node is asked.
    pub(crate) silence: Duration,
}

/// One shard's stream.
pub(crate) struct ShardReader {
    options: ReaderOptions,
    shard_idx: u16,
    shard: Arc<str>,
    /// Nodes not asked yet in this round.
    plan: Option<Plan>,
    /// The node asked now, or last.
    node: Option<InFlight>,
    body: Option<StreamBody>,
    /// When the stream was opened, or asked for.
    opened: Instant,
    /// When the wait is over; `None` while nobody waits.
    deadline: Option<Instant>,
    /// When the first attempt failed since it brought something whole: pieces that lead nowhere are no progress.
    failing_since: Option<Instant>,
    /// Whether a node of this round failed in a way that passes by itself.
    may_pass: bool,
    /// Since the last piece.
    attempts: u32,
    backoff: Backoff,
    asked: Asked,
    /// What a node said in this wait: tells more than that the time was over at last.
    told: Option<AttemptError>,
}

/// Position that the last attempt asked the node to hold.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// The session's.
    Session(Option<Position>),
    /// The one to go on behind.
    After(Position),
}

impl ShardReader {
    pub(crate) fn new(options: ReaderOptions, shard: &Shard) -> Self {
        let client = &options.router.options;
        Self {
            backoff: Backoff::new(client.first_pause, client.longest_pause),
            options,
            shard_idx: shard.idx,
            shard: shard.name.as_str().into(),
            plan: None,
            node: None,
            body: None,
            opened: Instant::now(),
            deadline: None,
            failing_since: None,
            may_pass: false,
            attempts: 0,
            asked: Asked::Session(None),
            told: None,
        }
    }

    pub(crate) fn shard_idx(&self) -> u16 {
        self.shard_idx
    }

    pub(crate) fn shard(&self) -> &Arc<str> {
        &self.shard
    }

    /// The node asked now, or last.
    pub(crate) fn node(&self) -> Option<&Address> {
        let node = self.node.as_ref()?;
        Some(node.lanes().address())
    }

    /// How many nodes can be asked, by the map in force.
    pub(crate) fn candidates(&self) -> usize {
        let routes = self.options.router.refresher.routes();
        let shard = routes.shard_of_idx(self.shard_idx);
        match self.options.consistency {
            Consistency::Primary => 1,
            _ => shard.map_or(0, |shard| shard.nodes.len()),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.body.is_some()
    }

    /// Starts the clock, unless it runs.
    pub(crate) fn begin(&mut self) {
        let patience = self.patience();
        self.deadline
            .get_or_insert_with(|| Instant::now() + patience);
    }

    /// Opens the stream at the node whose turn it is, with the terms of a read. What goes on behind a position asks
    /// for that one and not for the session's.
    pub(crate) async fn open(
        &mut self,
        uri: &str,
        after: Option<Position>,
    ) -> Result<(), AttemptError> {
        self.begin();
        self.attempts += 1;
        self.opened = Instant::now();
        let mut terms = self.read_terms();
        self.asked = Asked::Session(terms.min_position);
        if let Some(after) = after {
            self.asked = Asked::After(after);
            terms.min_position = None;
            terms.wait_ms = Some(self.wait_ms());
        }
        if self.node.is_none() && !self.choose() {
            // Another map is needed to reach it: as good as a redirect.
            return Err(AttemptError::Redirected { target: None });
        }
        let node = self.node.as_ref().ok_or(AttemptError::NotSent)?;
        let address = node.lanes().address();
        let refresher = &self.options.router.refresher;
        let limit = self.attempt_limit(self.options.router.options.attempt_timeout);
        let body = refresher
            .nodes()
            .stream(address, uri, &terms, limit)
            .await?;
        if let Some(identity) = body.header(header::MAP_VERSION) {
            refresher.heard(address, identity);
        }
        match body.header(header::SHARD) {
            Some(shard) if *shard != *self.shard => {
                let shard = shard.to_owned();
                return Err(AttemptError::OtherShard { shard });
            }
            _ => {}
        }
        node.judge(&Ok(()), Duration::ZERO);
        self.body = Some(body);
        self.opened = Instant::now();
        Ok(())
    }

    /// The next piece of the open stream; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, AttemptError> {
        let limit = match self.deadline {
            Some(_) => self.attempt_limit(self.options.silence),
            None => self.options.silence,
        };
        let Some(body) = &mut self.body else {
            return Err(AttemptError::Broken("it is not open".to_owned()));
        };
        let piece = body.chunk(limit).await?;
        if piece.is_some() {
            self.deadline = None;
            self.attempts = 0;
            self.told = None;
        }
        Ok(piece)
    }

    /// Says that what came held something whole, so that it goes on from a later place.
    pub(crate) fn progress(&mut self) {
        self.failing_since = None;
    }

    /// Ends the stream, which was read to its end.
    pub(crate) fn close(&mut self) {
        self.body = None;
    }

    /// Lets the session advance to what was shown.
    pub(crate) fn saw(&self, position: Position) {
        let session = self.options.session.lock();
        let mut session = session.unwrap_or_else(PoisonError::into_inner);
        session.advance(self.shard_idx, position);
    }

    /// Decides what comes after a failure, and waits if that is part of it. When it returns `Ok`, open again.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub(crate) async fn recover(&mut self, error: AttemptError) -> Result<(), Error> {
        self.begin();
        self.note(&error);
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.patience() {
            return Err(self.failed(error));
        }
        if self.is_forgotten(&error) {
            return self.check_time(error);
        }
        let (_, advice) = retry::advise(OpKind::Read, &error);
        match advice {
            Advice::Stop => Err(self.failed(error)),
            Advice::Wait(at_least) => self.pause(at_least, error).await,
            Advice::NextTarget | Advice::Replan => {
                self.may_pass = true;
                self.go_on(error).await
            }
            Advice::OtherTarget => match (self.next_node(), self.may_pass) {
                (true, _) => self.check_time(error),
                (false, true) => self.pause(Duration::ZERO, error).await,
                (false, false) => Err(self.failed(error)),
            },
        }
    }

    /// Another node at once; a pause and all of them again if there is none.
    pub(crate) async fn go_on(&mut self, error: AttemptError) -> Result<(), Error> {
        match self.next_node() {
            true => self.check_time(error),
            false => self.pause(Duration::ZERO, error).await,
        }
    }

    /// Goes to the next node of this round; false if all were asked.
    pub(crate) fn next_node(&mut self) -> bool {
        self.body = None;
        self.plan.is_some() && self.choose()
    }

    /// Waits, then lets all nodes have their turn again.
    pub(crate) async fn pause(
        &mut self,
        at_least: Duration,
        error: AttemptError,
    ) -> Result<(), Error> {
        let pause = self.backoff.next(at_least, &mut fastrand::Rng::new());
        let deadline = self.deadline.unwrap_or_else(Instant::now);
        if Instant::now() + pause >= deadline {
            return Err(self.failed(error));
        }
        sleep(pause).await;
        self.body = None;
        self.node = None;
        self.plan = None;
        self.may_pass = false;
        Ok(())
    }

    /// The error that ends it.
    pub(crate) fn failed(&mut self, error: AttemptError) -> Error {
        let error = match error {
            AttemptError::TimedOut => self.told.take().unwrap_or(error),
            error => error,
        };
        let (kind, _) = retry::advise(OpKind::Read, &error);
        let mut failed = Error::new(kind, self.options.op)
            .with_shard(&*self.shard)
            .with_attempts(self.attempts);
        if let Some(node) = self.node() {
            failed = failed.with_node(node.clone());
        }
        if is_lost(&error)
            && let Asked::After(lost) | Asked::Session(Some(lost)) = self.asked
        {
            failed = failed.with_lost_position(lost);
        }
        failed.with_source(error)
    }

    /// Takes note of a failure, for the choice of nodes and of the map.
    pub(crate) fn note(&mut self, error: &AttemptError) {
        if self.body.take().is_some() && self.opened.elapsed() >= STEADY {
            let client = &self.options.router.options;
            self.backoff = Backoff::new(client.first_pause, client.longest_pause);
        }
        let refresher = &self.options.router.refresher;
        let address = self.node.as_ref().map(|node| {
            node.judge(&Err(error.clone()), self.opened.elapsed());
            node.lanes().address()
        });
        if *error != AttemptError::TimedOut {
            self.told = Some(error.clone());
        }
        match error {
            AttemptError::NotConnected(_) => refresher.trigger(None),
            AttemptError::Redirected { .. } | AttemptError::OtherShard { .. } => {
                refresher.trigger(address);
            }
            _ => {}
        }
    }

    /// Whether a position of the session is lost that others have made it forget, and told their callers.
    fn is_forgotten(&self, error: &AttemptError) -> bool {
        match self.asked {
            Asked::Session(Some(lost)) if is_lost(error) => {
                let session = self.options.session.lock();
                let mut session = session.unwrap_or_else(PoisonError::into_inner);
                !session.forget(self.shard_idx, lost)
            }
            Asked::Session(_) | Asked::After(_) => false,
        }
    }

    fn patience(&self) -> Duration {
        self.options.timeout.min(LONGEST)
    }

    fn check_time(&mut self, error: AttemptError) -> Result<(), Error> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    /// How long the next exchange may take.
    fn attempt_limit(&self, longest: Duration) -> Duration {
        let left = self
            .deadline
            .map_or(longest, |deadline| deadline - Instant::now());
        longest.min(left)
    }

    /// Chooses the plan's next node, if there is one.
    fn choose(&mut self) -> bool {
        let routes = self.options.router.refresher.routes();
        let Some(routed) = routes.shard_of_idx(self.shard_idx) else {
            return false;
        };
        let consistency = self.options.consistency;
        let plan = self
            .plan
            .get_or_insert_with(|| Plan::new(OpKind::Read, consistency, routed.shard));
        let wants_level = wants_level(consistency);
        let router = &self.options.router;
        let place = router.next_place(plan, &routed, None, wants_level, self.attempts);
        // The plan may have been made for a map that named more nodes.
        let Some(node) = place.and_then(|place| routed.nodes.get(place)) else {
            // The one asked last stays, for errors.
            return false;
        };
        self.node = Some(node.count(Instant::now()));
        true
    }

    /// What a read of this consistency asks of the node.
    fn read_terms(&self) -> Terms {
        let mut terms = Terms::default();
        match self.options.consistency {
            Consistency::ReadYourWrites => {
                let session = self.options.session.lock();
                let session = session.unwrap_or_else(PoisonError::into_inner);
                terms.min_position = session.position(self.shard_idx);
                terms.wait_ms = terms.min_position.map(|_| self.wait_ms());
            }
            Consistency::MaxLag(lag) => terms.max_lag_ms = Some(u64::from(millis(lag))),
            Consistency::Eventual | Consistency::Primary => {}
        }
        terms
    }

    /// How long the node may wait to reach a position.
    fn wait_ms(&self) -> u32 {
        let longest = Duration::from_millis(MAX_WAIT_MS);
        let wait = self.options.router.options.catch_up_wait.min(longest);
        millis(self.attempt_limit(wait))
    }
}

fn is_lost(error: &AttemptError) -> bool {
    matches!(error, AttemptError::Refused(refusal) if refusal.code == ErrorCode::PositionLost)
}
