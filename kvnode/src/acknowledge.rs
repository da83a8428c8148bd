//! Writes that more nodes than the primary must have synced before they are answered.
//!
//! Before such a write is queued: are enough replicas connected? If not it is refused, and nothing is written. Once it
//! is durable and visible here, its answer waits until enough of them have synced it too. If its time is over before,
//! or this node's reign ends, or the node stops, what becomes of it is unknown: it is here, and where else is not said.
//!
//! What is counted is in [`acks`]. Nothing is polled and no lock is held while it waits: whoever waits is woken when a
//! replica has synced more, and compares.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use kvclient::{
    position::Position,
    shard_map::ShardMap,
    wire::{
        MAX_WAIT_MS,
        batch::{Ack, OpResult, Terms},
        error::{Applied, ErrorCode},
    },
};
use tokio::{select, time::timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    commit::Commit,
    metrics::Metrics,
    ownership::{Place, own_shard},
    replication::{acks, progress::Progress},
};

/// Time for acknowledgements of a write that says nothing of it: the longest that any wait may be asked for.
const DEFAULT_WAIT: Duration = Duration::from_millis(MAX_WAIT_MS);

/// What decides whether a write has reached enough replicas.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledge<'a> {
    /// The map in force, which says who is a replica.
    pub map: &'a ArcSwap<ShardMap>,
    /// This node's place in it.
    pub place: &'a Place,
    /// What replicas have synced.
    pub progress: &'a Progress,
    /// Ends all waits: the node stops, and replicas no longer reach it.
    pub no_more: &'a CancellationToken,
    /// Where it is counted how waits end.
    pub metrics: &'a Metrics,
}

/// What a write that is durable here still waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owed {
    /// Who must have synced it.
    pub ack: Ack,
    /// How long its answer waits for that.
    pub until: Instant,
}

/// Why a wait ended too soon.
enum Ended {
    Late,
    NoReign,
    Stopping,
}

impl Owed {
    /// What the answer to a write that came at `arrived` waits for; `None`: for the primary only.
    pub fn of(terms: &Terms, arrived: Instant) -> Option<Self> {
        let ack = terms.ack?;
        let wait = terms
            .wait_ms
            .map(|ms| Duration::from_millis(ms.into()).min(DEFAULT_WAIT));
        let left = terms
            .time_left_ms
            .map(|ms| Duration::from_millis(ms.into()));
        let time = [wait, left].into_iter().flatten().min();
        Some(Self {
            ack,
            until: arrived + time.unwrap_or(DEFAULT_WAIT),
        })
    }
}

impl Acknowledge<'_> {
    /// The refusal of a new write that cannot reach as many replicas as it must: too few are connected, or in the map.
    pub fn refuse(self, ack: Ack) -> Option<OpResult> {
        let map = self.map.load();
        let shard = own_shard(&map, self.place);
        let now = Instant::now();
        let replicas = self.progress.replicas();
        let connected = replicas.iter().filter(|(_, replica)| {
            replica.is_connected(now) && acks::is_replica(shard, &replica.address)
        });
        let connected: Vec<_> = connected.map(|(_, replica)| &replica.address).collect();
        let needed = acks::needed(ack, shard);
        if connected.len() >= needed {
            return None;
        }
        let away = shard.replicas.iter().map(|node| &node.address);
        let away: Vec<_> = away
            .filter(|address| !connected.contains(address))
            .map(ToString::to_string)
            .collect();
        let message = format!(
            "this write must reach {needed} of the shard's {} replicas, and {} are connected{}; nothing was written",
            shard.replicas.len(),
            connected.len(),
            match away.is_empty() {
                true => String::new(),
                false => format!("; {} did not pull within 5 s", away.join(", ")),
            }
        );
        let code = ErrorCode::TooFewReplicas;
        Some(OpResult::refused(code, message, Some(Applied::No)))
    }

    /// The one of several that asks for most.
    pub fn strongest(self, of: impl Iterator<Item = Ack>) -> Option<Ack> {
        acks::strongest(of, own_shard(&self.map.load(), self.place))
    }

    /// Waits until a write that is durable here has reached all that it must.
    ///
    /// # Errors
    /// What to answer instead of its result.
    ///
    /// # Cancel safety
    /// May be dropped; the write stays what it is.
    pub async fn reached(
        self,
        commit: &Commit,
        owed: Owed,
        position: Position,
    ) -> Result<(), OpResult> {
        let mut acked = self.progress.subscribe_acked();
        let needed_at_first = acks::needed(owed.ack, own_shard(&self.map.load(), self.place));
        loop {
            let (synced, needed) = {
                let map = self.map.load();
                let shard = own_shard(&map, self.place);
                let synced = acked.borrow_and_update().count(shard, position);
                // A map that came meanwhile may ask for more, but makes no promise smaller.
                (synced, needed_at_first.max(acks::needed(owed.ack, shard)))
            };
            let unknown = |why: Ended| self.unknown(why, position, (synced, needed));
            // Looked at after the count: what replicas say to a node that does not reign any more proves nothing.
            if !commit.reigns() {
                return Err(unknown(Ended::NoReign));
            }
            if synced >= needed {
                return Ok(());
            }
            if let Err(why) = self.more(owed.until, acked.changed()).await {
                return Err(unknown(why));
            }
        }
    }

    /// Waits until something has changed.
    async fn more<T>(self, until: Instant, changed: impl Future<Output = T>) -> Result<(), Ended> {
        select! {
            biased;
            changed = timeout_at(until.into(), changed) => changed.map(|_| ()).map_err(|_| Ended::Late),
            () = self.no_more.cancelled() => Err(Ended::Stopping),
        }
    }

    fn unknown(self, why: Ended, position: Position, (synced, needed): (usize, usize)) -> OpResult {
        let why = match why {
            Ended::Late => "the time for it is over",
            Ended::NoReign => "this node takes writes no longer",
            Ended::Stopping => "this node stops",
        };
        let message = format!(
            "the write is durable on the primary and on {synced} of the {needed} replicas that it must reach, and {why}; \
             it may reach them yet"
        );
        let mut unknown = OpResult::refused(ErrorCode::AckTimeout, message, Some(Applied::Unknown));
        unknown.position = Some(position);
        unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_it_waits() {
        let arrived = Instant::now();
        for (wait_ms, time_left_ms, expected_ms) in [
            (None, None, 5_000),
            (Some(200), None, 200),
            (Some(0), None, 0),
            (Some(60_000), None, 5_000),
            (None, Some(300), 300),
            (None, Some(20_000), 20_000),
            (Some(60_000), Some(20_000), 5_000),
            (Some(400), Some(300), 300),
            (Some(200), Some(300), 200),
        ] {
            let terms = Terms {
                ack: Some(Ack::All),
                wait_ms,
                time_left_ms,
                ..Terms::default()
            };
            let expected = Owed {
                ack: Ack::All,
                until: arrived + Duration::from_millis(expected_ms),
            };
            assert_eq!(Owed::of(&terms, arrived), Some(expected), "{terms:?}");
        }
        assert_eq!(Owed::of(&Terms::default(), arrived), None);
    }
}
