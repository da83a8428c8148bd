//! The load that every side gets: tasks that each do one op after the other on random keys.
//!
//! The same loop in the same runtime for all sides. What is read is checked, so that no side wins by answering with
//! something else. Ops of the warm-up are done and not counted.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use crate::{bench::Bench, contender::Contender};

/// Bytes of each key; the last of them are its number.
pub(crate) const KEY_BYTES: usize = 16;
pub(crate) const KEY_DIGITS: usize = 8;

/// Bytes of each value, where a row does not say otherwise.
pub(crate) const VALUE_BYTES: usize = 100;

/// Most writes under way at once while a store is filled, and most bytes of them.
const FILLING: usize = 256;
const FILLING_BYTES: usize = 16 << 20;

/// One op of this many is a write in [`Work::Mixed`].
const MIXED_WRITES: usize = 10;

/// What the tasks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Get,
    Set,
    /// Nine reads to one write.
    Mixed,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) tasks: usize,
    /// Connections of a peer's client to each of its servers; the tasks are dealt out to them.
    pub(crate) connections: usize,
    pub(crate) keys: usize,
    pub(crate) value_bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) lasts: Duration,
}

/// What each op of a measurement took, in tenths of a microsecond, and how long all of it lasted.
#[derive(Debug)]
pub(crate) struct Times {
    ops: Vec<u32>,
    lasted: Duration,
}

/// When counting begins and ends.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

impl Times {
    /// Of ops that were timed elsewhere.
    pub(crate) fn new(ops: Vec<Duration>, lasted: Duration) -> Self {
        let ops = ops.into_iter().map(tenths_of_micros).collect();
        Self { ops, lasted }
    }

    pub(crate) fn ops_per_second(&self) -> f64 {
        self.ops.len() as f64 / self.lasted.as_secs_f64()
    }

    pub(crate) fn count(&self) -> usize {
        self.ops.len()
    }

    /// The time in microseconds within which this part of the ops ended, of 1,000.
    pub(crate) fn within_us(&mut self, thousandths: usize) -> f64 {
        let at = (self.ops.len() * thousandths / 1_000).min(self.ops.len().saturating_sub(1));
        if self.ops.is_empty() {
            return f64::NAN;
        }
        let (_, tenths, _) = self.ops.select_nth_unstable(at);
        f64::from(*tenths) / 10.0
    }
}

impl Load {
    /// What [`Load::fill`] needs to know, and nothing to run.
    pub(crate) fn to_fill(keys: usize) -> Self {
        Self {
            work: Work::Set,
            tasks: 1,
            connections: 1,
            keys,
            value_bytes: VALUE_BYTES,
            warm_up: Duration::ZERO,
            lasts: Duration::ZERO,
        }
    }

    /// A measurement as the run wants it, on so many keys.
    pub(crate) fn of(bench: &Bench, work: Work, tasks: usize, keys: usize) -> Self {
        Self {
            work,
            tasks,
            warm_up: bench.warm_up(),
            lasts: bench.lasts,
            ..Self::to_fill(keys)
        }
    }

    /// Stores every key once.
    pub(crate) async fn fill<C: Contender>(&self, contender: &C) -> anyhow::Result<()> {
        let at_once = FILLING.min(FILLING_BYTES / self.value_bytes);
        stream::iter(0..self.keys)
            .map(|number| {
                let mut contender = contender.clone();
                async move {
                    contender
                        .set(key(number), value(number, self.value_bytes))
                        .await
                }
            })
            .buffer_unordered(at_once)
            .try_collect::<()>()
            .await
            .context("filling")
    }

    /// Keeps the tasks at work. `counting` is called when the warm-up is over, to read meters.
    pub(crate) async fn run<C: Contender>(
        &self,
        contenders: &[C],
        counting: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Times> {
        let from = Instant::now() + self.warm_up;
        let until = from + self.lasts;
        let window = Window { from, until };
        let mut running = JoinSet::new();
        for task in 0..self.tasks {
            let contender = contenders[task % contenders.len()].clone();
            running.spawn(one_task(contender, *self, window));
        }
        tokio::time::sleep_until(from.into()).await;
        counting()?;
        let mut ops = Vec::new();
        while let Some(done) = running.join_next().await {
            ops.append(&mut done??);
        }
        ensure!(!ops.is_empty(), "not one op ended in {:?}", self.lasts);
        let lasted = self.lasts;
        Ok(Times { ops, lasted })
    }
}

async fn one_task<C: Contender>(
    mut contender: C,
    load: Load,
    window: Window,
) -> anyhow::Result<Vec<u32>> {
    let mut times = Vec::new();
    let mut began = Instant::now();
    while began < window.until {
        let number = fastrand::usize(..load.keys);
        if load.next_is_read() {
            let found = contender.get(key(number)).await?;
            check(number, found.as_deref(), load.value_bytes)?;
        } else {
            let value = value(number, load.value_bytes);
            contender.set(key(number), value).await?;
        }
        let ended = Instant::now();
        if (window.from..window.until).contains(&ended) {
            times.push(tenths_of_micros(ended - began));
        }
        began = ended;
    }
    Ok(times)
}

impl Load {
    fn next_is_read(&self) -> bool {
        match self.work {
            Work::Get => true,
            Work::Set => false,
            Work::Mixed => fastrand::usize(..MIXED_WRITES) != 0,
        }
    }
}

/// Small, so that a measurement of millions of ops needs little memory; longer than seven minutes counts as that.
fn tenths_of_micros(took: Duration) -> u32 {
    u32::try_from(took.as_nanos() / 100).unwrap_or(u32::MAX)
}

/// A key's text. Made anew for each op, and of no more cost to it than must be: what the load costs, all sides pay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyText([u8; KEY_BYTES]);

pub(crate) fn key(number: usize) -> KeyText {
    let mut text = *b"measure:00000000";
    let mut rest = number;
    for digit in text[KEY_BYTES - KEY_DIGITS..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    KeyText(text)
}

impl KeyText {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for KeyText {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// The key, and the letter x up to the length: what is read tells whether it belongs to what was asked for.
pub(crate) fn value(number: usize, bytes: usize) -> Bytes {
    let mut value = Vec::with_capacity(bytes.max(KEY_BYTES));
    value.extend_from_slice(key(number).as_bytes());
    value.resize(bytes, b'x');
    value.into()
}

fn check(number: usize, found: Option<&[u8]>, bytes: usize) -> anyhow::Result<()> {
    let key = key(number);
    let found = found.with_context(|| format!("{key} was stored and is missing"))?;
    let same = found.len() == bytes && found.starts_with(key.as_bytes());
    ensure!(same, "{key} has the value of another");
    Ok(())
}
