//! One attempt of an op: on its way to a node, or over; and two copies of a read that race.
//!
//! However it ends, the node's health, its counts, the trace and the call's history hear of it here and nowhere else.

use std::{sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use tokio::time::{Instant, timeout_at};

use crate::{
    attempt::AttemptError,
    coalesce::{Answer, InFlight, Sending, Ticket},
    history::{Attempt, Why},
    intent::Intent,
    policy::OpKind,
    router::Router,
    wire::batch::OpResult,
};

/// An op on its way to one node.
pub(super) struct Trip {
    pub(super) node: InFlight,
    pub(super) ticket: Arc<Ticket>,
    pub(super) sending: Sending,
    pub(super) why: Why,
    /// The pause before it.
    pub(super) paused: Duration,
}

/// An attempt that is over.
pub(super) struct Ended {
    /// The node it ended at.
    pub(super) node: InFlight,
    pub(super) ticket: Arc<Ticket>,
    pub(super) why: Why,
    /// When it ended.
    pub(super) at: Instant,
    /// The answer, judged.
    pub(super) answer: Result<OpResult, AttemptError>,
}

/// Whose attempts they are.
#[derive(Clone, Copy)]
pub(super) struct Notes<'a> {
    pub(super) intent: &'a Intent<'a>,
    pub(super) router: &'a Router,
}

impl Trip {
    /// Waits for the answer until `at`; then it is still on its way.
    pub(super) async fn until(&mut self, at: Instant) -> Option<Answer> {
        timeout_at(at, &mut self.sending).await.ok()
    }

    /// Waits for the answer as long as the ticket has time.
    pub(super) async fn end(self, notes: Notes<'_>) -> Ended {
        let answer = self.sending.answer().await;
        let over = (self.node, self.ticket, self.why, self.paused);
        Ended::new(over, answer, notes)
    }

    /// It is over with this answer.
    pub(super) fn ended(self, answer: Answer, notes: Notes<'_>) -> Ended {
        let over = (self.node, self.ticket, self.why, self.paused);
        Ended::new(over, answer, notes)
    }

    /// It is over since the other copy was faster.
    fn outrun(self, notes: Notes<'_>) {
        self.node.outrun(self.why != Why::Hedge);
        let end = || "outrun by the other copy".to_owned();
        notes.write(&self.node, &self.ticket, (self.why, self.paused), end);
    }
}

impl Ended {
    fn new(
        (node, ticket, why, paused): (InFlight, Arc<Ticket>, Why, Duration),
        answer: Answer,
        notes: Notes<'_>,
    ) -> Self {
        let answer = answer
            .and_then(AttemptError::check)
            .and_then(|result| check_whole(notes.intent, result));
        let at = Instant::now();
        node.note(&answer, at - ticket.began(), at);
        let end = || match &answer {
            Ok(result) => result.status.to_string(),
            Err(error) => error.to_string(),
        };
        notes.write(&node, &ticket, (why, paused), end);
        Self {
            node,
            ticket,
            why,
            at,
            answer,
        }
    }
}

impl Notes<'_> {
    fn write(
        self,
        node: &InFlight,
        ticket: &Ticket,
        (why, paused): (Why, Duration),
        end: impl Fn() -> String,
    ) {
        let address = node.lanes().address();
        tracing::debug!(node = %address, %why, end = end(), "attempt");
        let Some(history) = self.intent.history() else {
            return;
        };
        let routes = self.router.refresher.routes();
        let shard = &routes.shard(self.intent.slot).shard.name;
        history.push(ticket.began(), |after| Attempt {
            op: self.intent.name(),
            key: ticket.op().key.clone(),
            shard: shard.clone(),
            node: address.clone(),
            why,
            after,
            paused,
            took: ticket.began().elapsed(),
            end: end(),
        });
    }
}

/// A hit brings its value, and a write its position: without them it is no answer.
fn check_whole(intent: &Intent<'_>, result: OpResult) -> Result<OpResult, AttemptError> {
    let position = result.position.or(result.etag);
    let missing = match (intent.kind, result.status) {
        (OpKind::Read, 200) => result.value.is_none(),
        (OpKind::Read, _) => false,
        // An atomic batch has one for each of its ops.
        (OpKind::Write | OpKind::RepeatableWrite, 200..=299) => {
            position.is_none() && !intent.is_atomic()
        }
        (OpKind::Write | OpKind::RepeatableWrite, _) => false,
    };
    if missing {
        let problem = "a success without its value or position".to_owned();
        return Err(AttemptError::Undecodable(problem));
    }
    Ok(result)
}

/// Waits for the first of two copies that brings an answer. If neither does, the end of the one that failed last.
pub(super) async fn race(mut first: Trip, mut second: Trip, notes: Notes<'_>) -> Ended {
    let latest = first.ticket.until().max(second.ticket.until());
    let raced = timeout_at(latest, select(&mut first.sending, &mut second.sending)).await;
    let (answer, done, other) = match raced {
        Ok(Either::Left((answer, _))) => (answer, first, second),
        Ok(Either::Right((answer, _))) => (answer, second, first),
        Err(_) => {
            // Neither waits any more: each only says how far it got.
            second.end(notes).await;
            return first.end(notes).await;
        }
    };
    let done = done.ended(answer, notes);
    if done.answer.is_ok() {
        other.outrun(notes);
        return done;
    }
    other.end(notes).await
}
