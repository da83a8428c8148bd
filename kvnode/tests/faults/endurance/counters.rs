//! Counters that many tasks count up together, under request ids and with patience: each step is done once, so what the
//! tasks were told is 1, 2, 3 ... with none missing and none twice.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kvclient::{Client, Outcome, wire::batch::OpResult};

use super::{arena::SHARDS, watch::Watch};
use crate::support::{oracle::Verdict, shard_of};

const COUNTERS: usize = 6;

/// Between two steps of a task.
const PAUSE: Duration = Duration::from_millis(5);

/// What tasks were told, by counter.
#[derive(Debug, Default)]
pub(super) struct Counters {
    told: BTreeMap<String, Told>,
}

#[derive(Debug, Default)]
struct Told {
    values: Vec<i64>,
    unknown: usize,
}

impl Counters {
    /// Counts until told to stop.
    pub(super) async fn work(client: Client, watch: Arc<Watch>, mut rng: fastrand::Rng) -> Self {
        let mut counters = Self::default();
        while watch.goes_on() {
            let name = format!("counter:{}", rng.usize(..COUNTERS));
            let shard = shard_of(name.as_bytes(), SHARDS);
            let step = watch.write(shard, client.incr(&name, 1)).await;
            let told = counters.told.entry(name).or_default();
            match step {
                Ok(value) => told.values.push(value),
                Err(error) if error.outcome() == Outcome::Unknown => told.unknown += 1,
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        counters
    }

    /// Adds what another task was told.
    pub(super) fn merge(&mut self, other: Self) {
        for (name, told) in other.told {
            let mine = self.told.entry(name).or_default();
            mine.values.extend(told.values);
            mine.unknown += told.unknown;
        }
    }

    /// Names of all counters.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.told.keys()
    }

    /// Steps that were acknowledged.
    pub(super) fn steps(&self) -> usize {
        self.told.values().map(|told| told.values.len()).sum()
    }

    /// Judges what a shard's primary answers for one of them.
    pub(super) fn judge(&self, watch: &Watch, name: &str, found: &OpResult, verdict: &mut Verdict) {
        let told = &self.told[name];
        let mut values = told.values.clone();
        values.sort_unstable();
        values.dedup();
        let acked = i64::try_from(values.len()).expect("few");
        let most = acked + i64::try_from(told.unknown).expect("few");
        let text = found
            .value
            .as_ref()
            .map_or("0".into(), |value| String::from_utf8_lossy(value));
        let counted: i64 = text.parse().expect("a number");
        // A value that was told twice stands for a step that was lost between.
        let lost = told.values.len() - values.len();
        verdict.lost += lost + usize::from(counted < values.last().copied().unwrap_or(0));
        verdict.duplicated += usize::from(counted > most);
        verdict.unknown_applied +=
            usize::try_from((counted - acked).clamp(0, most - acked)).expect("few");
        if lost > 0 || !(acked..=most).contains(&counted) {
            watch.violation(format!(
                "{name} is {counted} at the end, {acked} values were told, {lost} of them twice, {} unknown",
                told.unknown
            ));
        }
    }
}
