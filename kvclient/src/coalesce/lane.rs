//! Gathers concurrent ops of one kind to one node into batches.
//!
//! ```text
//! lane idle        an op leaves at once, in its caller's own future: no task, no hop, no timer
//! lane busy        ops gather in the queue; the first one starts the drain, a task that sends what has gathered
//!                  when the exchange under way is over, again and again, until the queue is empty
//! queue full       callers wait to get in
//! exchange late    it no longer counts: the next batch leaves beside it, and it ends on its own
//! time over        the drain tells those whose op it sent, or would have, with one timer for all of them
//! ```
//!
//! Nothing here waits in order to gather: the exchange under way is the wait, so a batch is as large as the load.
//!
//! An exchange lasts as long as the most patient of its ops, so it must not be what all others wait for: out for
//! longer than `late_after`, it steps aside. Not more than `late_batches` do; one that finds no place is given up
//! after `longest_turn`, so no op holds up the others for longer than that, whatever its own timeout.
//!
//! Cancel safety: a caller that goes away takes an unsent op along and lets a sent one go; others notice nothing.
//! An exchange in a caller's future that is no longer polled delays others by `patience`, once. A drain that ends
//! before its time (its runtime stops) answers everyone it leaves behind. All drains of a lane run on one runtime at a
//! time; callers on others watch their time themselves, since that one may stand still.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::{self, Handle},
    select,
    sync::{Notify, Semaphore, SemaphorePermit},
    task::yield_now,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    link::Link,
    ticket::{Answer, Pending, Ticket, Watched},
};
use crate::{
    attempt::AttemptError,
    wire::{batch::OpResult, batch::encode_ops},
};

/// A drain looks at least this often whose time is over.
const LONGEST_LOOK: Duration = Duration::from_secs(3_600);

/// Reads or writes on their way to one node.
#[derive(Debug)]
pub(crate) struct Lane {
    link: Arc<Link>,
    /// One permit per exchange that may be under way.
    turns: Semaphore,
    /// One permit per late exchange that others need not wait for.
    late: Semaphore,
    /// Bytes that may still enter the queue.
    room: Semaphore,
    /// Std lock: never held over an await.
    state: Mutex<State>,
    /// Somebody's time is over sooner than any drain would look.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Ticket>>,
    /// Drain tasks under way, without those that have stepped aside.
    drains: usize,
    /// Where they run; nothing if there are none.
    runtime: Option<runtime::Id>,
    /// When a drain looks next whose time is over.
    looks_at: Option<Instant>,
}

impl Lane {
    pub(crate) fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            turns: Semaphore::new(link.options.batches_in_flight),
            late: Semaphore::new(link.options.late_batches),
            room: Semaphore::new(link.options.queue_bytes as usize),
            link,
            state: Mutex::default(),
            sooner: Notify::new(),
        })
    }

    /// Puts an op into the queue if others are under way and there is room, and sees to it that it gets sent.
    /// `None`: [`Self::send`] it.
    pub(crate) fn join(self: &Arc<Self>, ticket: &Arc<Ticket>) -> Option<Pending> {
        let state = self.lock();
        if state.is_idle() && self.turns.available_permits() > 0 {
            return None;
        }
        self.room.try_acquire_many(weight(ticket)).ok()?.forget();
        Some(self.enter(state, ticket))
    }

    /// Sends an op and waits for its answer.
    pub(crate) async fn send(self: &Arc<Self>, ticket: &Arc<Ticket>) -> Answer {
        if let Some(turn) = self.idle_turn() {
            return self.send_now(ticket, turn).await;
        }
        let Ok(room) = timeout_at(ticket.until(), self.room.acquire_many(weight(ticket))).await
        else {
            return Err(AttemptError::NotSent);
        };
        // The drain gives it back.
        room.expect("a lane's room is never closed").forget();
        self.enter(self.lock(), ticket).answer().await
    }

    /// Puts an op into the queue if there is room, without starting to send: for callers that have more ops at
    /// hand. [`Self::start_drain`] must follow.
    pub(crate) fn try_push(&self, ticket: &Arc<Ticket>) -> Option<Pending> {
        self.room.try_acquire_many(weight(ticket)).ok()?.forget();
        Some(self.push(&mut self.lock(), ticket, Handle::current().id()))
    }

    /// Sees to it that what is in the queue gets sent.
    pub(crate) fn start_drain(self: &Arc<Self>) {
        self.start_drain_of(self.lock(), Handle::current().id());
    }

    /// Puts an op into the queue that has its room, and sees to it that it gets sent.
    fn enter(self: &Arc<Self>, mut state: MutexGuard<'_, State>, ticket: &Arc<Ticket>) -> Pending {
        let here = Handle::current().id();
        let pending = self.push(&mut state, ticket, here);
        self.start_drain_of(state, here);
        pending
    }

    fn start_drain_of(self: &Arc<Self>, mut state: MutexGuard<'_, State>, here: runtime::Id) {
        let may_start = state.drains < self.link.options.batches_in_flight
            && state.runtime.is_none_or(|runtime| runtime == here);
        if state.queue.is_empty() || !may_start {
            return;
        }
        state.drains += 1;
        state.runtime = Some(here);
        drop(state);
        let drain = Drain {
            lane: self.clone(),
            batch: Vec::new(),
            is_counted: true,
        };
        // Ends by itself with the queue; every exchange has a time limit.
        tokio::spawn(drain.run());
    }

    fn push(&self, state: &mut State, ticket: &Arc<Ticket>, here: runtime::Id) -> Pending {
        state.queue.push_back(ticket.clone());
        if state.looks_at.is_some_and(|at| ticket.until() < at) {
            self.sooner.notify_waiters();
        }
        let watched = match state.runtime.is_none_or(|runtime| runtime == here) {
            true => Watched::ByDrain,
            false => Watched::ByCaller,
        };
        Pending::new(ticket.clone(), watched)
    }

    /// A turn for an op that has nobody before it.
    fn idle_turn(&self) -> Option<SemaphorePermit<'_>> {
        match self.lock().is_idle() {
            true => self.turns.try_acquire().ok(),
            false => None,
        }
    }

    /// Waits for `work`, and tells everyone in the batch and in the queue whose time is over meanwhile.
    async fn watch_over<T>(&self, batch: &[Arc<Ticket>], work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let sooner = self.sooner.notified();
            let at = self.expire(batch);
            select! {
                biased;
                done = &mut work => return done,
                () = sooner => {}
                () = sleep_until(at) => {}
            }
        }
    }

    /// Tells those whose time is over; when to look again.
    fn expire(&self, batch: &[Arc<Ticket>]) -> Instant {
        let now = Instant::now();
        let mut state = self.lock();
        let mut next = now + LONGEST_LOOK;
        for ticket in batch.iter().chain(&state.queue) {
            match ticket.until() > now {
                true => next = next.min(ticket.until()),
                false => ticket.expire(),
            }
        }
        state.looks_at = Some(next);
        next
    }

    async fn send_now(&self, ticket: &Arc<Ticket>, turn: SemaphorePermit<'_>) -> Answer {
        let batch = std::slice::from_ref(ticket);
        let mut results = self.exchange_in_turn(batch, || drop(turn)).await?;
        Ok(results.pop().expect("one result for one op"))
    }

    /// An exchange that others wait for, but not for ever: once late, it calls `step_aside` and goes on alone.
    async fn exchange_in_turn(
        &self,
        batch: &[Arc<Ticket>],
        step_aside: impl FnOnce(),
    ) -> Result<Vec<OpResult>, AttemptError> {
        let options = &self.link.options;
        let mut exchange = pin!(self.exchange(batch));
        if let Ok(answer) = timeout(options.late_after, &mut exchange).await {
            return answer;
        }
        let patience = options.longest_turn.saturating_sub(options.late_after);
        let place = timeout(patience, self.late.acquire());
        let _place = select! {
            answer = &mut exchange => return answer,
            place = place => place.map_err(|_| AttemptError::TimedOut)?,
        };
        step_aside();
        exchange.await
    }

    /// One HTTP exchange: as many results as tickets.
    async fn exchange(&self, batch: &[Arc<Ticket>]) -> Result<Vec<OpResult>, AttemptError> {
        let body = encode_ops(batch.iter().map(|ticket| ticket.op()));
        let latest = batch.iter().map(|ticket| ticket.until()).max();
        let limit = latest.map_or_else(Default::default, |at| at - Instant::now());
        if limit.is_zero() {
            return Err(AttemptError::NotSent);
        }
        self.link.batch(body, batch.len(), limit).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether nobody stands before an op that comes now.
    fn is_idle(&self) -> bool {
        self.drains == 0 && self.queue.is_empty()
    }

    /// A drain is over, or counts no longer.
    fn end_drain(&mut self) {
        self.drains -= 1;
        if self.drains == 0 {
            self.runtime = None;
            self.looks_at = None;
        }
    }
}

/// A task that empties the queue.
struct Drain {
    lane: Arc<Lane>,
    /// Sent and not answered yet.
    batch: Vec<Arc<Ticket>>,
    /// Whether it is one of the lane's drains and answers for the queue: until that is empty, or until it has
    /// stepped aside.
    is_counted: bool,
}

impl Drain {
    async fn run(mut self) {
        let lane = self.lane.clone();
        // With or without a turn: see "patience".
        let turn = timeout(lane.link.options.patience, lane.turns.acquire());
        let mut turn = lane.watch_over(&[], turn).await.ok();
        while self.is_counted && self.take_batch() {
            let step_aside = || {
                turn = None;
                self.is_counted = false;
                lane.lock().end_drain();
                lane.start_drain();
            };
            let exchange = lane.exchange_in_turn(&self.batch, step_aside);
            let answer = lane.watch_over(&self.batch, exchange).await;
            self.hand_out(answer);
            // Those just answered run first, and what they ask for next is in the next batch.
            yield_now().await;
        }
    }

    /// Takes a batch out of the queue; `false` and the drain over if nothing is left.
    fn take_batch(&mut self) -> bool {
        let options = &self.lane.link.options;
        let mut state = self.lane.lock();
        let (mut batch_bytes, mut freed) = (0, 0);
        let now = Instant::now();
        while self.batch.len() < options.batch_ops && batch_bytes < options.batch_bytes {
            let Some(ticket) = state.queue.pop_front() else {
                break;
            };
            freed += weight(&ticket) as usize;
            if ticket.until() <= now {
                ticket.expire();
            } else if ticket.begin_sending() {
                batch_bytes += ticket.op().weight_bytes();
                self.batch.push(ticket);
            }
        }
        if self.batch.is_empty() {
            state.end_drain();
            self.is_counted = false;
        }
        drop(state);
        self.lane.room.add_permits(freed);
        !self.batch.is_empty()
    }

    fn hand_out(&mut self, answer: Result<Vec<OpResult>, AttemptError>) {
        let shared = self.batch.len() > 1;
        match answer {
            Ok(results) => {
                for (ticket, mut result) in self.batch.drain(..).zip(results) {
                    if shared {
                        result.value = result.value.map(|value| detach(&value));
                    }
                    ticket.answer(Ok(result));
                }
            }
            Err(error) => {
                for ticket in self.batch.drain(..) {
                    ticket.answer(Err(error.clone()));
                }
            }
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        for ticket in self.batch.drain(..) {
            let problem = "the runtime that sent it has stopped".to_owned();
            ticket.answer(Err(AttemptError::Broken(problem)));
        }
        if !self.is_counted {
            return;
        }
        let mut state = self.lane.lock();
        state.end_drain();
        let left: Vec<_> = state.queue.drain(..).collect();
        drop(state);
        let freed: usize = left.iter().map(|ticket| weight(ticket) as usize).sum();
        self.lane.room.add_permits(freed);
        for ticket in left {
            ticket.answer(Err(AttemptError::NotSent));
        }
    }
}

/// A value of its own: a slice of a batch's answer would keep the whole answer in memory for as long as the
/// caller keeps the value.
fn detach(value: &Bytes) -> Bytes {
    Bytes::copy_from_slice(value)
}

/// What an op counts against the queue's room.
fn weight(ticket: &Ticket) -> u32 {
    u32::try_from(ticket.op().weight_bytes()).unwrap_or(u32::MAX)
}
