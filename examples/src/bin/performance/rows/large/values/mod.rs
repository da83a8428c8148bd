//! Large values: beside the peers, and how large LMDB's files become when everything is overwritten again and again.

mod beside;
mod file;

use futures_util::{FutureExt, future::BoxFuture};

use super::MIB;
use crate::{
    bench::{Bench, Form},
    outcome::Outcome,
};

/// Ops under way at the same time, beside the peers. Overwriting has more of them, as filling does.
const TASKS: usize = 16;

/// Bytes of all values together, of which each node has a third. The first is what the peers have too. What flushes leave
/// free in a file does not grow with what is live, so a file of less data is larger for its size.
const LIVE_BYTES: [u64; 2] = [256 * MIB, 1024 * MIB];
const LIVE_BYTES_SHORT: [u64; 1] = [8 * MIB];

pub(in super::super) fn run_4k(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench, 4 << 10).boxed()
}

pub(in super::super) fn run_64k(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench, 64 << 10).boxed()
}

pub(in super::super) fn run_1m(bench: &Bench) -> BoxFuture<'_, anyhow::Result<Outcome>> {
    measure(bench, 1 << 20).boxed()
}

async fn measure(bench: &Bench, value_bytes: usize) -> anyhow::Result<Outcome> {
    let sizes = match bench.form {
        Form::Full => &LIVE_BYTES[..],
        Form::Short => &LIVE_BYTES_SHORT[..],
    };
    let mut outcome = beside::measure(bench, stock(sizes[0], value_bytes)?).await?;
    let mut reached = true;
    for live_bytes in sizes {
        let stock = stock(*live_bytes, value_bytes)?;
        let file = file::measure(bench, stock).await?;
        outcome.ours += &format!("; file {:.2} times {} MiB", file.times, live_bytes / MIB);
        outcome.lines.push(file.line);
        reached &= file.times <= file::GOAL;
    }
    outcome.reached = Some(reached);
    Ok(outcome)
}

/// What is stored.
#[derive(Debug, Clone, Copy)]
struct Stock {
    keys: usize,
    value_bytes: usize,
}

fn stock(live_bytes: u64, value_bytes: usize) -> anyhow::Result<Stock> {
    let keys = usize::try_from(live_bytes)? / value_bytes;
    Ok(Stock { keys, value_bytes })
}
