//! The life of one op: attempt, judge, recover, until an answer or the deadline.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    attempt::Ended,
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
pub(super) struct Walk<'a> {
    course: Course<'a>,
    first: Next,
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
        let began = course.intent.began;
        let node = course.next_node(&routed, &op, began);
        let node = node.expect("a new plan has a target");
        let first = course.next_at(node, op, Why::Chosen, began);
        router.counts.ops.fetch_add(1, Relaxed);
        router.budgets.retry.pay_in();
        course.pay_in();
        Ok(Self { course, first })
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

    pub(super) async fn run(self) -> Result<OpResult, Error> {
        let Self {
            mut course,
            first: mut next,
        } = self;
        loop {
            let Ended {
                node,
                ticket,
                at,
                answer,
                ..
            } = course.attempt(next).await;
            match answer {
                Ok(result) => {
                    course.succeeded(ticket.op(), &result, at);
                    return Ok(result);
                }
                // Boxed: hardly any op comes here, and every op would be larger for it.
                Err(error) => {
                    let failure = Failure {
                        node,
                        ticket,
                        error,
                    };
                    next = Box::pin(course.recover(failure)).await?;
                }
            }
        }
    }
}
