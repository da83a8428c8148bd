//! Takes a sample of the node each second, for as long as it runs.
//!
//! A sample costs some dozens of microseconds: counters are read where they are, and one small file of the system.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    memory::Memory,
    metrics::{OpKind, OpOutcome, Ops},
    service::Service,
    vitals::{Counted, EVERY, Sample},
};

/// Samples until dropped.
///
/// # Cancel safety
/// May be dropped at any `.await`.
pub async fn run(service: Arc<Service>) {
    let mut ticks = interval(EVERY);
    // A node that stood still has one long sample, not many empty ones.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = counted(&service.metrics.ops);
    loop {
        ticks.tick().await;
        let now = counted(&service.metrics.ops);
        service.vitals.add(sample(&service, now.since(&before)));
        before = now;
    }
}

fn counted(ops: &Ops) -> Counted {
    let mut counted = Counted::default();
    for (kind, outcome, times) in ops.each() {
        if matches!(
            outcome,
            OpOutcome::Refused | OpOutcome::Failed | OpOutcome::Unknown
        ) {
            counted.failed += times.count();
        }
        let all = match kind {
            OpKind::Get => &mut counted.reads,
            _ => &mut counted.writes,
        };
        *all = all.and(&times);
    }
    counted
}

fn sample(service: &Service, sample: Sample) -> Sample {
    let storage = service.storage.load();
    let storage = storage.as_ref();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Sample {
        at_ms: u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
        lag_ms: service.lag_ms(),
        log_bytes: storage.map_or(0, |storage| storage.log.stats().bytes),
        lmdb_bytes: storage.map_or(0, |storage| storage.store.stats().used_bytes),
        memory_bytes: Memory::now().anonymous_bytes,
        watches: service.metrics.watches(),
        ..sample
    }
}
