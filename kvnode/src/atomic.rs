//! An atomic batch, from ownership to the commit thread: all of it is done here or nothing.

use std::{iter, time::Instant};

use kvclient::{
    position::Position,
    slot::Slot,
    wire::{
        batch::{Op, OpResult, RequestId, Terms},
        error::{Applied, ErrorCode},
    },
};

use crate::{
    acknowledge::Owed,
    commit::{AtomicAnswer, AtomicOps, named},
    metrics::OpOutcome,
    ownership::Access,
    pending::deadline,
    service::{Service, turned_away},
};

/// Does all of a batch's ops in order, or none of them. Only the primary takes it, even if it writes nothing: what it
/// reads is one moment of the shard.
///
/// # Errors
/// The refusal of the whole, which names the op that was the reason.
///
/// # Cancel safety
/// Once queued it is decided, whether or not the caller still waits.
pub async fn execute(service: &Service, ops: Vec<Op>, id: Option<RequestId>) -> AtomicAnswer {
    let arrived = Instant::now();
    let counting = service.metrics.begin_ops(&ops, arrived);
    let answer = execute_whole(service, ops, id, arrived).await;
    match &answer {
        Ok(results) => counting.end(results.iter().map(OpOutcome::of)),
        Err(refusal) => counting.end(iter::repeat(OpOutcome::of(refusal))),
    }
    answer
}

async fn execute_whole(
    service: &Service,
    ops: Vec<Op>,
    id: Option<RequestId>,
    arrived: Instant,
) -> AtomicAnswer {
    let Some(first) = ops.first() else {
        return Ok(Vec::new());
    };
    if let Some(refusal) = refuse_slots(&ops) {
        return Err(refusal);
    }
    let elsewhere = turned_away(
        &service.route(&first.key, Access::Write, &service.map.load()),
        Some(Applied::No),
    );
    if let Some(refusal) = elsewhere {
        return Err(refusal);
    }
    let storage = service.storage.load_full();
    let storage = storage.ok_or_else(|| service.not_ready(Some(Applied::No)))?;
    for (at, op) in ops.iter().enumerate() {
        let refusal = match op.action.is_write() {
            true => service.refuse_write(op),
            false => service.readable(&op.terms, arrived).await.err(),
        };
        if let Some(refusal) = refusal {
            return Err(named(at, op, refusal));
        }
    }
    let owed = owed(service, &ops, arrived);
    let refusal = owed.and_then(|owed| service.acknowledge().refuse(owed.ack));
    let until = ops
        .iter()
        .filter_map(|op| deadline(&op.terms, arrived))
        .min();
    let batch = AtomicOps::new(ops, id, until).refused_if_new(refusal);
    let mut answer = storage.commit.write_atomic(batch).await;
    let Some(owed) = owed else {
        return answer;
    };
    if let Some(position) = last_position(&answer) {
        let reached = service
            .acknowledge()
            .reached(&storage.commit, owed, position);
        answer = reached.await.and(answer);
    }
    if let Err(refusal) = &answer {
        service.metrics.saw_ack(refusal);
    }
    answer
}

/// What the answer waits for: the strongest of what its ops ask for, and no longer than the least patient of them.
fn owed(service: &Service, ops: &[Op], arrived: Instant) -> Option<Owed> {
    let writes = || ops.iter().filter(|op| op.action.is_write());
    let acks = writes().filter_map(|op| op.terms.ack);
    let terms = Terms {
        ack: service.acknowledge().strongest(acks),
        wait_ms: writes().filter_map(|op| op.terms.wait_ms).min(),
        time_left_ms: ops.iter().filter_map(|op| op.terms.time_left_ms).min(),
        ..Terms::default()
    };
    Owed::of(&terms, arrived)
}

/// Position of the last of its ops that wrote anything.
fn last_position(answer: &AtomicAnswer) -> Option<Position> {
    let results = answer.iter().flatten();
    let written = results.filter(|result| result.applied == Some(Applied::Yes));
    written.filter_map(|result| result.position).max()
}

/// The refusal of keys of several slots.
fn refuse_slots(ops: &[Op]) -> Option<OpResult> {
    let slot = |op: &Op| Slot::of(&op.key).number();
    let stray = |pair: &&[Op]| slot(&pair[0]) != slot(&pair[1]);
    let (at, pair) = ops.windows(2).enumerate().find(|(_, pair)| stray(pair))?;
    let message = format!(
        "its slot is {}, that of the op before it {}; keys of an atomic batch share one, for example by a common part in \
         braces, as {{user:1}}:cart and {{user:1}}:name. Nothing was done",
        slot(&pair[1]),
        slot(&pair[0])
    );
    let refusal = OpResult::refused(ErrorCode::CrossSlot, message, Some(Applied::No));
    Some(named(at + 1, &pair[1], refusal))
}
