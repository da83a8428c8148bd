//! What was asked of the node, and what came of it.
//!
//! What alerts ask for is there from the start, as zeros: a rate begins with the second value of a series, and would not
//! see what made the first.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{
    sample::{Label, counter, gauge},
    times::histogram,
};
use crate::metrics::{Metrics, OpKind, OpOutcome, Times};

/// Answers, ops, connections, and what is held for them.
pub(super) fn requests(registry: &mut Registry, metrics: &Metrics) {
    let answers = Family::<Label, Counter>::default();
    for class in 1..=5 {
        let label = [("status", format!("{class}xx"))];
        answers.get_or_create(&label).inc_by(metrics.answers(class));
    }
    registry.register(
        "http_answers",
        "HTTP answers by class of their status",
        answers,
    );
    ops(registry, metrics);
    counter(
        registry,
        "slow_requests",
        "Requests that took longer than --slow-request-ms",
        metrics.slow.count(),
    );
    gauge(
        registry,
        "connections",
        "Connections that are open",
        metrics.connections(),
    );
    let (batches, ops) = metrics.batches();
    counter(registry, "batches", "Batches taken", batches);
    counter(registry, "batch_ops", "Ops in batches", ops);
    counter(
        registry,
        "ack_timeouts",
        "Writes that did not reach enough replicas in time",
        metrics.ack_timeouts(),
    );
    counter(
        registry,
        "too_few_replicas",
        "Writes refused since too few replicas were connected",
        metrics.too_few_replicas(),
    );
    gauge(
        registry,
        "in_flight_body_bytes",
        "Request bodies held now",
        metrics.in_flight.bytes(),
    );
    gauge(
        registry,
        "unread_answer_bytes",
        "Large answers and streams that their readers have not taken yet",
        metrics.unread.bytes(),
    );
    gauge(
        registry,
        "watches",
        "Watches that are open",
        metrics.watches(),
    );
    counter(
        registry,
        "expired_entries",
        "Entries deleted because their time had come",
        metrics.expired(),
    );
}

fn ops(registry: &mut Registry, metrics: &Metrics) {
    let refusals = Family::<Label, Counter>::default();
    for (code, count) in metrics.refusals.each() {
        let label = [("reason", code.as_str().to_owned())];
        refusals.get_or_create(&label).inc_by(count);
    }
    let help = "Ops and requests that were refused, by the code of the error";
    registry.register("refusals", help, refusals);
    let times = metrics.ops.each().filter(is_shown);
    let times = times.map(|(kind, outcome, times)| {
        let labels = vec![("op", kind.as_str()), ("outcome", outcome.as_str())];
        (labels, times)
    });
    let help = "Time of each op by what it is and what came of it, from its request's arrival until its answer was made";
    histogram(registry, "op_seconds", help, times.collect());
}

/// Outcomes that were met, and those that none should meet: a write alone can have an unknown one.
fn is_shown((kind, outcome, times): &(OpKind, OpOutcome, Times)) -> bool {
    let is_fault = match outcome {
        OpOutcome::Failed => true,
        OpOutcome::Unknown => *kind != OpKind::Get,
        _ => false,
    };
    is_fault || times.count() > 0
}
