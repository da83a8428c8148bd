//! Stores many keys fast, as a program that loads data would: many ops in one call, several calls under way.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use kvclient::Client;

use crate::load::{key, value};

/// Keys of one call; more of them bring nothing.
const CALL_KEYS: usize = 1_000;

/// Calls under way at the same time.
const CALLS: usize = 8;

/// Prime, so that multiples of it pass each number once, in an order that is none.
const STEP: usize = 7_368_787;

/// Stores the first `keys` keys and says how long it took. Neighbours do not come one after the other: that would be
/// easier on a tree than what programs do.
pub(super) async fn fill(kv: &Client, keys: usize, value_bytes: usize) -> anyhow::Result<Duration> {
    anyhow::ensure!(
        !keys.is_multiple_of(STEP),
        "{keys} keys would not all be passed"
    );
    let began = Instant::now();
    stream::iter((0..keys).step_by(CALL_KEYS))
        .map(|from| {
            let kv = kv.clone();
            let numbers = from..(from + CALL_KEYS).min(keys);
            let task = async move {
                let numbers = numbers.map(|number| number * STEP % keys);
                let items = numbers.map(|number| (key(number), value(number, value_bytes)));
                kv.put_many(items).await
            };
            // A task of its own: the calls of one task would share one core.
            async { tokio::spawn(task).await?.context("filling") }
        })
        .buffer_unordered(CALLS)
        .try_for_each(|written| async move {
            anyhow::ensure!(!written.is_empty(), "nothing was stored");
            Ok(())
        })
        .await?;
    Ok(began.elapsed())
}
