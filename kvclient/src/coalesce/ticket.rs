//! One op on its way: waiting in a lane, sent, or answered.
//!
//! A ticket is shared by the caller, who waits for the answer, and the lane, which sends it. It knows at every
//! moment whether it was sent, since that is the difference between "not applied" and "unknown" when a caller's
//! time is over. A channel would hold the answer but not that.
//!
//! A timer for each ticket would cost more than all else that is done for it. So the drain that will send it, or has,
//! watches its time, with one timer for all; a caller has one of his own only where the drain might stand still while
//! he does not.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    attempt::AttemptError,
    wire::batch::{Op, OpResult},
};

/// What an attempt came to.
pub(crate) type Answer = Result<OpResult, AttemptError>;

/// An op and how far it got.
#[derive(Debug)]
pub(crate) struct Ticket {
    op: Op,
    /// All ops of an atomic batch; `op` is the first of them.
    atomic: Option<Arc<[Op]>>,
    /// When the attempt began.
    began: Instant,
    /// When its caller gives up.
    until: Instant,
    /// Std lock: never held over an await, and for a few moves only.
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    Sent(Option<Waker>),
    Answered(Answer),
    /// The caller has gone, or has his answer.
    Closed,
}

impl Ticket {
    pub(crate) fn new(
        op: Op,
        atomic: Option<Arc<[Op]>>,
        began: Instant,
        until: Instant,
    ) -> Arc<Self> {
        Arc::new(Self {
            op,
            atomic,
            began,
            until,
            state: Mutex::new(State::Waiting(None)),
        })
    }

    pub(crate) fn op(&self) -> &Op {
        &self.op
    }

    /// All ops of an atomic batch.
    pub(crate) fn atomic(&self) -> Option<&Arc<[Op]>> {
        self.atomic.as_ref()
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Marks it as sent; `false` if nobody waits for it any more, so that it need not be sent.
    pub(crate) fn begin_sending(&self) -> bool {
        let mut state = self.lock();
        match &mut *state {
            State::Waiting(waker) => {
                *state = State::Sent(waker.take());
                true
            }
            State::Sent(_) | State::Answered(_) | State::Closed => false,
        }
    }

    /// Hands over the answer, if somebody still waits for it.
    pub(crate) fn answer(&self, answer: Answer) {
        self.settle(|_| answer);
    }

    /// Its time is over: so it is told how far it got, if somebody still waits for it.
    pub(crate) fn expire(&self) {
        self.settle(|state| Err(state.given_up()));
    }

    fn settle(&self, answer: impl FnOnce(&State) -> Answer) {
        let mut state = self.lock();
        let waker = match &mut *state {
            State::Waiting(waker) | State::Sent(waker) => waker.take(),
            State::Answered(_) | State::Closed => return,
        };
        *state = State::Answered(answer(&state));
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes it back: the answer if there is one, else whether it was sent.
    fn close(&self) -> Answer {
        mem::replace(&mut *self.lock(), State::Closed).ended()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The answer if there is one, else how far it got.
    fn ended(self) -> Answer {
        match self {
            Self::Answered(answer) => answer,
            other => Err(other.given_up()),
        }
    }

    /// What to tell somebody who waits no longer.
    fn given_up(&self) -> AttemptError {
        match self {
            Self::Waiting(_) => AttemptError::NotSent,
            Self::Sent(_) | Self::Answered(_) | Self::Closed => AttemptError::TimedOut,
        }
    }
}

/// Who sees to it that a wait ends with the ticket's time.
#[derive(Debug)]
pub(crate) enum Watched {
    /// The drain, which runs wherever the caller does.
    ByDrain,
    /// The caller: the drain runs on another runtime, which may stand still. Boxed: hardly any op comes here, and every
    /// op would be larger for it.
    ByCaller(Pin<Box<Sleep>>),
}

/// The caller's side of a ticket: the answer, at most until the ticket's time is over. Dropped, it takes an op that was
/// not sent out of the lane.
#[derive(Debug)]
pub(crate) struct Pending {
    ticket: Arc<Ticket>,
    watched: Watched,
    is_over: bool,
}

impl Pending {
    pub(crate) fn new(ticket: Arc<Ticket>, watched: Watched) -> Self {
        Self {
            ticket,
            watched,
            is_over: false,
        }
    }
}

impl Watched {
    /// By the caller, until then.
    pub(crate) fn by_caller(until: Instant) -> Self {
        Self::ByCaller(Box::pin(sleep_until(until)))
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            Self::ByDrain => false,
            Self::ByCaller(time) => time.as_mut().poll(context).is_ready(),
        }
    }
}

impl Future for Pending {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let this = self.get_mut();
        let is_late = this.watched.is_over(context);
        let mut state = this.ticket.lock();
        match &mut *state {
            State::Waiting(waker) | State::Sent(waker) if !is_late => {
                match waker {
                    Some(old) => old.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            _ => {}
        }
        let over = mem::replace(&mut *state, State::Closed);
        drop(state);
        this.is_over = true;
        Poll::Ready(over.ended())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_over {
            // The answer, if one is there, has nobody left to read it.
            let _ = self.ticket.close();
        }
    }
}
