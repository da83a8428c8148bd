//! The life of one op: attempt, judge, recover, until an answer or the deadline.

use std::sync::atomic::Ordering::Relaxed;

use tracing::{Instrument, Level, Span};

use super::{
    attempt::{Ended, Trip},
    course::{Course, Failure, Next},
};
use crate::{
    coalesce::Travel,
    error::{Error, ErrorKind},
    history::Why,
    intent::Intent,
    policy::{OpKind, retry::Backoff},
    router::Router,
    wire::batch::{Op, OpResult},
};

/// An op that is about to be carried out.
pub(crate) struct Walk<'a> {
    course: Course<'a>,
    first: Next,
    span: Span,
}

impl<'a> Walk<'a> {
    pub(super) fn new(router: &'a Router, intent: Intent<'a>, op: Op) -> Result<Self, Error> {
        if let Some(ack) = intent.unsound_ack() {
            let problem = format!("{ack:?}: a number of replicas is 1 to 253");
            return Err(intent.error(ErrorKind::Invalid).with_source(problem));
        }
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
        let span = match tracing::enabled!(Level::DEBUG) {
            true => tracing::debug_span!("op", op = course.intent.name(), key = %op.key),
            false => Span::none(),
        };
        let began = course.intent.began;
        let node = course.next_node(&routed, &op, began);
        let node = node.expect("a new plan has a target");
        let first = course.next_at(node, op, Why::Chosen, began);
        router.counts.ops.fetch_add(1, Relaxed);
        router.budgets.retry.pay_in();
        course.pay_in();
        Ok(Self {
            course,
            first,
            span,
        })
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

    /// All attempts. A future as small as can be: each op of a program holds one, and moves it once or twice.
    pub(crate) fn run(self) -> impl Future<Output = Result<OpResult, Error>> + Send + use<'a> {
        let Self {
            mut course,
            first,
            span,
        } = self;
        // A block and no function, whose arguments would be in it twice.
        let attempts = async move {
            let mut trip = course.send(first);
            loop {
                let Ended { at, answer } = course.end(&mut trip).await;
                let error = match answer {
                    Ok(result) => {
                        course.succeeded(trip.ticket.op(), &result, at);
                        return Ok(result);
                    }
                    Err(error) => error,
                };
                let Trip { node, ticket, .. } = trip;
                let failure = Failure {
                    node,
                    ticket,
                    error,
                };
                // Boxed: hardly any op comes here, and every op would be larger for it.
                let next = Box::pin(course.recover(failure)).await?;
                trip = course.send(next);
            }
        };
        attempts.instrument(span)
    }
}
