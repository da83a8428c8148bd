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
    batch::{Batch, Queued, expire, weight},
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
    queue: VecDeque<Queued>,
    /// Drain tasks under way, without those that have stepped aside.
    drains: usize,
    /// Where they run; nothing if there are none.
    runtime: Option<runtime::Id>,
    /// Nobody's time in the queue is over before this. It may be that of one who left the queue long ago: then who
    /// looks finds nobody, and whose is next.
    earliest: Option<Instant>,
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
        let queued = Queued::new(ticket);
        let state = self.lock();
        if state.is_idle() && self.turns.available_permits() > 0 {
            return None;
        }
        self.room.try_acquire_many(queued.weight).ok()?.forget();
        Some(self.enter(state, queued))
    }

    /// Sends an op and waits for its answer.
    pub(crate) async fn send(self: &Arc<Self>, ticket: &Arc<Ticket>) -> Answer {
        if let Some(turn) = self.idle_turn() {
            return self.send_now(ticket, turn).await;
        }
        let queued = Queued::new(ticket);
        let room = self.room.acquire_many(queued.weight);
        let Ok(room) = timeout_at(ticket.until(), room).await else {
            return Err(AttemptError::NotSent);
        };
        // The drain gives it back.
        room.expect("a lane's room is never closed").forget();
        self.enter(self.lock(), queued).await
    }

    /// Puts an op into the queue if there is room, without starting to send: for callers that have more ops at
    /// hand. [`Self::start_drain`] must follow.
    pub(crate) fn try_push(&self, ticket: &Arc<Ticket>) -> Option<Pending> {
        let queued = Queued::new(ticket);
        self.room.try_acquire_many(queued.weight).ok()?.forget();
        Some(self.push(&mut self.lock(), queued, Handle::current().id()))
    }

    /// Sees to it that what is in the queue gets sent.
    pub(crate) fn start_drain(self: &Arc<Self>) {
        self.start_drain_of(self.lock(), Handle::current().id());
    }

    /// Puts an op into the queue that has its room, and sees to it that it gets sent.
    fn enter(self: &Arc<Self>, mut state: MutexGuard<'_, State>, queued: Queued) -> Pending {
        let here = Handle::current().id();
        let pending = self.push(&mut state, queued, here);
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
            taken: Vec::new(),
            batch: Batch::default(),
            is_counted: true,
        };
        // Ends by itself with the queue; every exchange has a time limit.
        tokio::spawn(drain.run());
    }

    fn push(&self, state: &mut State, queued: Queued, here: runtime::Id) -> Pending {
        let (ticket, until) = (queued.ticket.clone(), queued.ticket.until());
        state.queue.push_back(queued);
        if state.earliest.is_none_or(|earliest| until < earliest) {
            state.earliest = Some(until);
            self.sooner.notify_waiters();
        }
        let watched = match state.runtime.is_none_or(|runtime| runtime == here) {
            true => Watched::ByDrain,
            false => Watched::by_caller(until),
        };
        Pending::new(ticket, watched)
    }

    /// A turn for an op that has nobody before it.
    fn idle_turn(&self) -> Option<SemaphorePermit<'_>> {
        match self.lock().is_idle() {
            true => self.turns.try_acquire().ok(),
            false => None,
        }
    }

    /// Waits for `work`, and tells everyone in the batch and in the queue whose time is over meanwhile.
    async fn watch_over<T>(&self, batch: &Batch, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut in_batch = batch.earliest;
        loop {
            let sooner = self.sooner.notified();
            let in_queue = self.lock().earliest;
            let at = in_batch.into_iter().chain(in_queue).min();
            let at = at.unwrap_or_else(|| Instant::now() + LONGEST_LOOK);
            select! {
                biased;
                done = &mut work => return done,
                () = sooner => {}
                () = sleep_until(at) => in_batch = self.expire(batch),
            }
        }
    }

    /// Tells those whose time is over; when that of the next in the batch is.
    fn expire(&self, batch: &Batch) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.lock();
        let queue = state.queue.iter().map(|queued| &queued.ticket);
        state.earliest = expire(queue, now);
        expire(&batch.tickets, now)
    }

    async fn send_now(&self, ticket: &Arc<Ticket>, turn: SemaphorePermit<'_>) -> Answer {
        let batch = Batch::of(ticket.clone());
        let mut results = self.exchange_in_turn(&batch, || drop(turn)).await?;
        Ok(results.pop().expect("one result for one op"))
    }

    /// An exchange that others wait for, but not for ever: once late, it calls `step_aside` and goes on alone.
    async fn exchange_in_turn(
        &self,
        batch: &Batch,
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
    async fn exchange(&self, batch: &Batch) -> Result<Vec<OpResult>, AttemptError> {
        let tickets = &batch.tickets;
        let body = encode_ops(tickets.iter().map(|ticket| ticket.op()));
        let limit = batch.latest.map(|at| at - Instant::now());
        let limit = limit.unwrap_or_default();
        if limit.is_zero() {
            return Err(AttemptError::NotSent);
        }
        self.link.batch(body, tickets.len(), limit).await
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
        }
    }
}

/// A task that empties the queue.
struct Drain {
    lane: Arc<Lane>,
    /// Out of the queue and not looked at yet. Kept for its memory.
    taken: Vec<Queued>,
    /// Sent and not answered yet.
    batch: Batch,
    /// Whether it is one of the lane's drains and answers for the queue: until that is empty, or until it has
    /// stepped aside.
    is_counted: bool,
}

impl Drain {
    async fn run(mut self) {
        let lane = self.lane.clone();
        // With or without a turn: see "patience".
        let turn = timeout(lane.link.options.patience, lane.turns.acquire());
        let mut turn = lane.watch_over(&self.batch, turn).await.ok();
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
        while self.batch.tickets.is_empty() && self.take_from_queue() {
            let now = Instant::now();
            for Queued { ticket, .. } in self.taken.drain(..) {
                if ticket.until() <= now {
                    ticket.expire();
                } else if ticket.begin_sending() {
                    self.batch.push(ticket);
                }
            }
        }
        !self.batch.tickets.is_empty()
    }

    /// Takes what fits into a batch. Callers wait for the queue meanwhile, so no ticket is looked at here.
    fn take_from_queue(&mut self) -> bool {
        let options = &self.lane.link.options;
        let mut state = self.lane.lock();
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            let has_room = bytes < options.batch_bytes;
            bytes += queued.weight as usize;
            has_room
        };
        let most = state.queue.iter().take(options.batch_ops);
        let count = most.take_while(fits).count();
        self.taken.extend(state.queue.drain(..count));
        if count == 0 {
            state.end_drain();
            self.is_counted = false;
        }
        drop(state);
        self.lane.room.add_permits(weight(&self.taken));
        count > 0
    }

    fn hand_out(&mut self, answer: Result<Vec<OpResult>, AttemptError>) {
        let shared = self.batch.tickets.len() > 1;
        match answer {
            Ok(results) => {
                for (ticket, mut result) in self.batch.empty().zip(results) {
                    if shared {
                        result.value = result.value.map(|value| detach(&value));
                    }
                    ticket.answer(Ok(result));
                }
            }
            Err(error) => {
                for ticket in self.batch.empty() {
                    ticket.answer(Err(error.clone()));
                }
            }
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        for ticket in self.batch.empty() {
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
        self.lane.room.add_permits(weight(&left));
        for Queued { ticket, .. } in left {
            ticket.answer(Err(AttemptError::NotSent));
        }
    }
}

/// A value of its own: a slice of a batch's answer would keep the whole answer in memory for as long as the
/// caller keeps the value.
fn detach(value: &Bytes) -> Bytes {
    Bytes::copy_from_slice(value)
}
