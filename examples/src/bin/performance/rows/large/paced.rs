//! Writes at a given rate, whatever the nodes do: what is late does not make the next ones later.

use std::{ops::Range, time::Duration};

use kvclient::{Client, position::Position};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::load::{VALUE_BYTES, key, value};

const EVERY: Duration = Duration::from_millis(10);

/// So many writes a second, on keys drawn from so many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) writes_per_second: usize,
    pub(super) keys: usize,
    pub(super) lasts: Duration,
}

/// Writes that were acknowledged together.
#[derive(Debug, Clone)]
pub(super) struct Call<T> {
    /// Their numbers, from zero on; the value of a write begins with its number as [`key`] has it.
    pub(super) writes: Range<usize>,
    /// What was noted of them.
    pub(super) noted: T,
}

impl Pace {
    /// Writes, and runs `acknowledged` with the newest position of each call, when it is acknowledged. What those runs
    /// came to, in the order of the writes.
    pub(super) async fn run<T, F>(
        self,
        kv: &Client,
        acknowledged: impl Fn(Position) -> F + Clone + Send + 'static,
    ) -> anyhow::Result<Vec<Call<T>>>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>> + Send,
    {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let call = self.writes_per_second / 100;
        let until = Instant::now() + self.lasts;
        let (mut calls, mut count) = (JoinSet::new(), 0);
        while Instant::now() < until {
            ticks.tick().await;
            let writes = count..count + call;
            count = writes.end;
            let (kv, acknowledged) = (kv.clone(), acknowledged.clone());
            calls.spawn(async move {
                let key = || key(fastrand::usize(..self.keys));
                let items = writes
                    .clone()
                    .map(|write| (key(), value(write, VALUE_BYTES)));
                let items: Vec<_> = items.collect();
                let written = kv.put_many(items).await?;
                let newest = written.iter().map(|written| written.position).max();
                let noted = acknowledged(newest.unwrap_or_default()).await?;
                anyhow::Ok(Call { writes, noted })
            });
        }
        let mut results = Vec::new();
        while let Some(result) = calls.join_next().await {
            results.push(result??);
        }
        results.sort_unstable_by_key(|call: &Call<T>| call.writes.start);
        Ok(results)
    }
}

/// How many there were in all calls.
pub(super) fn writes<T>(calls: &[Call<T>]) -> usize {
    calls.last().map_or(0, |call| call.writes.end)
}
