//! What a watch tells: a change of a key, with its place and time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{
    key::Key,
    position::Position,
    shard_reader::ShardReader,
    wire::{log::Effect, watch::WatchItem},
};

/// One change of one key.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use futures_util::TryStreamExt;
///
/// let mut changes = kv.watch("user:");
/// while let Some(event) = changes.try_next().await? {
///     let age = event.time.elapsed().unwrap_or_default();
///     println!("{} at {} ({:.1?} ago): {}", event.shard, event.position, age, event.key);
///     // By this, whoever stores what it makes of an event knows an event that comes a second time.
///     let _place = (event.shard_idx, event.position);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Name of the shard that owns the key.
    pub shard: Arc<str>,
    /// Its number, as in [`Session`](crate::Session).
    pub shard_idx: u16,
    /// Place of the change in the shard's log. Events of one shard come in this order; those of different shards in
    /// none.
    pub position: Position,
    /// The key.
    pub key: Key,
    /// What became of it.
    pub change: Change,
    /// When it was written, by the shard's clock.
    pub time: SystemTime,
}

/// What became of a key.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::collections::HashMap;
/// use futures_util::TryStreamExt;
/// use kvclient::Change;
///
/// let mut copy = HashMap::new();
/// let mut changes = kv.watch("price:").from_start();
/// while let Some(event) = changes.try_next().await? {
///     match event.change {
///         Change::Put { value, .. } => _ = copy.insert(event.key, value),
///         Change::Delete { by_expiry } => {
///             copy.remove(&event.key);
///             println!("{} is gone{}", event.key, if by_expiry { ": its time was over" } else { "" });
///         }
///         Change::Expire { .. } => {} // the deletion will be told when it is there
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has this value from now on.
    Put {
        /// The whole value.
        value: Bytes,
        /// When it will be absent; `None`: never.
        expires_at: Option<SystemTime>,
    },
    /// It is absent from now on.
    Delete {
        /// Whether its time had come, rather than somebody removed it.
        by_expiry: bool,
    },
    /// Its value stays, its expiry changes.
    Expire {
        /// When it will be absent; `None`: never.
        expires_at: Option<SystemTime>,
    },
}

/// Where an item leads, and its event if it has one.
pub(super) fn event_of(item: WatchItem, shard: &ShardReader) -> (Position, Option<Event>) {
    let (position, key, effect, time_ms) = match item {
        WatchItem::Position { at, .. } | WatchItem::Truncated { position: at, .. } => {
            return (at, None);
        }
        WatchItem::Record {
            position,
            key,
            effect,
            time_ms,
        } => (position, key, effect, time_ms),
    };
    let change = match effect {
        Effect::Put {
            value,
            expires_at_ms,
        } => Change::Put {
            value,
            expires_at: expires_at_ms.map(time),
        },
        Effect::Delete { by_expiry } => Change::Delete { by_expiry },
        Effect::Expire { expires_at_ms } => Change::Expire {
            expires_at: expires_at_ms.map(time),
        },
        Effect::EpochStart { .. } => return (position, None),
    };
    let event = Event {
        shard: shard.shard().clone(),
        shard_idx: shard.shard_idx(),
        position,
        key,
        change,
        time: time(time_ms),
    };
    (position, Some(event))
}

/// A point in time; one that is out of range is the last that a clock may show in practice.
fn time(unix_ms: u64) -> SystemTime {
    const YEAR_10000_MS: u64 = 253_402_300_800_000;
    SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms.min(YEAR_10000_MS))
}
