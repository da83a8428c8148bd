//! Writes at a given rate, whatever the nodes do: what is late does not make the next ones later.

use std::time::Duration;

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

impl Pace {
    /// Writes, and runs `acknowledged` with the newest position of each call, when it is acknowledged. How many writes
    /// there were, and what those runs came to.
    pub(super) async fn run<T, F>(
        self,
        kv: &Client,
        acknowledged: impl Fn(Position) -> F + Clone + Send + 'static,
    ) -> anyhow::Result<(usize, Vec<T>)>
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
            count += call;
            let (kv, acknowledged) = (kv.clone(), acknowledged.clone());
            calls.spawn(async move {
                let numbers = (0..call).map(|_| fastrand::usize(..self.keys));
                let items = numbers.map(|number| (key(number), value(number, VALUE_BYTES)));
                let items: Vec<_> = items.collect();
                let written = kv.put_many(items).await?;
                let newest = written.iter().map(|written| written.position).max();
                acknowledged(newest.unwrap_or_default()).await
            });
        }
        let mut results = Vec::new();
        while let Some(result) = calls.join_next().await {
            results.push(result??);
        }
        Ok((count, results))
    }
}
