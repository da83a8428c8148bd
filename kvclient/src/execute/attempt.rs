//! One attempt of an op: on its way to a node, or over; and two copies of a read that race.
//!
//! However it ends, the node's health, its counts, the trace and the call's history hear of it here and nowhere else.

use std::{mem, sync::Arc, time::Duration};

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

/// How an attempt ended.
pub(super) struct Ended {
    /// When.
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
    /// It is over with this answer.
    pub(super) fn ended(&self, answer: Answer, notes: Notes<'_>) -> Ended {
        let answer = judged(notes.intent, answer);
        let at = Instant::now();
        self.node.note(&answer, at - self.ticket.began(), at);
        notes.write(self, || match &answer {
            Ok(result) => result.status.to_string(),
            Err(error) => error.to_string(),
        });
        Ended { at, answer }
    }

    /// It is over since the other copy was faster.
    fn outrun(&self, notes: Notes<'_>) {
        self.node.outrun(self.why != Why::Hedge);
        notes.write(self, || "outrun by the other copy".to_owned());
    }

    /// Waits for the answer as long as the ticket has time.
    async fn end(&mut self, notes: Notes<'_>) -> Ended {
        let answer = (&mut self.sending).await;
        self.ended(answer, notes)
    }
}

impl Notes<'_> {
    fn write(self, trip: &Trip, end: impl Fn() -> String) {
        let Trip { ticket, why, .. } = trip;
        let address = trip.node.lanes().address();
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
            why: *why,
            after,
            paused: trip.paused,
            took: ticket.began().elapsed(),
            end: end(),
        });
    }
}

/// The answer, if it is one.
fn judged(intent: &Intent<'_>, answer: Answer) -> Answer {
    match &answer {
        Ok(result) if AttemptError::is_answer(result) => match is_whole(intent, result) {
            true => answer,
            false => {
                let problem = "a success without its value or position".to_owned();
                Err(AttemptError::Undecodable(problem))
            }
        },
        _ => answer.and_then(AttemptError::check),
    }
}

/// A hit brings its value, and a write its position.
fn is_whole(intent: &Intent<'_>, result: &OpResult) -> bool {
    let position = result.position.or(result.etag);
    match (intent.kind, result.status) {
        (OpKind::Read, 200) => result.value.is_some(),
        (OpKind::Read, _) => true,
        // An atomic batch has one for each of its ops.
        (OpKind::Write | OpKind::RepeatableWrite, 200..=299) => {
            position.is_some() || intent.is_atomic()
        }
        (OpKind::Write | OpKind::RepeatableWrite, _) => true,
    }
}

/// Waits for the first of two copies that brings an answer; `trip` is that copy then. If neither does, it is the one that
/// failed last.
pub(super) async fn race(trip: &mut Trip, mut second: Trip, notes: Notes<'_>) -> Ended {
    let latest = trip.ticket.until().max(second.ticket.until());
    let raced = timeout_at(latest, select(&mut trip.sending, &mut second.sending)).await;
    let (answer, other) = match raced {
        Ok(Either::Left((answer, _))) => (answer, second),
        Ok(Either::Right((answer, _))) => (answer, mem::replace(trip, second)),
        Err(_) => {
            // Neither waits any more: each only says how far it got.
            second.end(notes).await;
            return trip.end(notes).await;
        }
    };
    let done = trip.ended(answer, notes);
    if done.answer.is_ok() {
        other.outrun(notes);
        return done;
    }
    *trip = other;
    trip.end(notes).await
}
