//! Who is how far: a replica's lag behind its primary, and a primary's view of its replicas.
//!
//! Lag in milliseconds on a replica is now - t, where t is the send time of the newest pull whose answer's durable
//! position is visible here, plus the time the primary held that pull. Only monotonic clocks are used. It grows
//! while the primary is paused or cut off, which is what a reader wants to know.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use kvclient::{
    position::{Epoch, Position},
    shard_map::Address,
};
use tokio::sync::watch;

use super::acks::{Acked, ReplicaProgress, Replicas};

/// Progress of this node and, on a primary, of its replicas.
#[derive(Debug, Default)]
pub struct Progress {
    /// Std mutex: held for a few loads and stores, never over an await.
    inner: Mutex<Inner>,
    /// What replicas have synced, for writes that wait for it; changed under the lock of `inner`.
    acked: watch::Sender<Acked>,
}

#[derive(Debug, Default)]
struct Inner {
    as_of: Option<Instant>,
    primary_durable: Position,
    largest_epoch: Epoch,
    trouble: Option<String>,
    replicas: Replicas,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was durable on the primary at `as_of` is visible here.
    pub fn caught_up(&self, as_of: Instant) {
        let mut inner = self.lock();
        inner.as_of = inner.as_of.max(Some(as_of));
    }

    /// The primary has said how far it is.
    pub fn saw_primary(&self, durable: Position) {
        self.lock().primary_durable = durable;
    }

    /// Milliseconds behind the primary; `None` if this replica was never level with it.
    pub fn lag_ms(&self) -> Option<u64> {
        let as_of = self.lock().as_of?;
        Some(u64::try_from(as_of.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Records behind the primary, as of the last pull.
    pub fn lag_records(&self, visible: Position) -> Option<u64> {
        let inner = self.lock();
        (inner.primary_durable != Position::ZERO)
            .then(|| inner.primary_durable.seq.saturating_sub(visible.seq))
    }

    /// The last pull did not advance, or (`None`) it did.
    pub fn set_trouble(&self, why: Option<String>) {
        self.lock().trouble = why;
    }

    /// Why the last pull did not advance.
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// An epoch was heard of, from whomever.
    pub fn saw_epoch(&self, epoch: Epoch) {
        let mut inner = self.lock();
        inner.largest_epoch = inner.largest_epoch.max(epoch);
    }

    /// The largest epoch heard of.
    pub fn largest_epoch(&self) -> Epoch {
        self.lock().largest_epoch
    }

    /// A replica has pulled and so acknowledged everything up to `durable`.
    pub fn saw_replica(&self, node_id: u64, address: Address, durable: Position) {
        let replica = ReplicaProgress {
            address,
            durable,
            seen: Instant::now(),
        };
        let mut inner = self.lock();
        inner.replicas.saw(node_id, replica);
        let acked = inner.replicas.acked();
        // Most pulls of an idle shard say nothing new: nobody is woken for them.
        self.acked.send_if_modified(|known| {
            let is_new = *known != acked;
            *known = acked;
            is_new
        });
    }

    /// The replicas that pulled since this node started, by node id.
    pub fn replicas(&self) -> Vec<(u64, ReplicaProgress)> {
        self.lock().replicas.list()
    }

    /// What replicas have synced, now and whenever it changes.
    pub fn subscribe_acked(&self) -> watch::Receiver<Acked> {
        self.acked.subscribe()
    }

    /// Has those who wait for replicas look again: something else that they go by has changed.
    pub fn wake_waiting(&self) {
        self.acked.send_modify(|_| ());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lag_is_unknown_until_level_and_never_goes_back() {
        let progress = Progress::default();
        assert_eq!(
            (progress.lag_ms(), progress.lag_records(Position::ZERO)),
            (None, None)
        );
        let now = Instant::now();
        progress.caught_up(now);
        progress.caught_up(now - Duration::from_secs(60));
        assert!(progress.lag_ms().expect("level once") < 50_000);
        progress.saw_primary(Position::new(1, 9));
        assert_eq!(progress.lag_records(Position::new(1, 4)), Some(5));
    }

    #[test]
    fn who_waits_is_woken_by_what_is_new() {
        let progress = Progress::default();
        let mut acked = progress.subscribe_acked();
        let pull = |seq| {
            let address = "h:1".parse().expect("address");
            progress.saw_replica(1, address, Position::new(1, seq));
        };
        let mut is_woken = || {
            let changed = acked.has_changed().expect("the sender is there");
            acked.mark_unchanged();
            changed
        };
        pull(1);
        assert!(is_woken(), "the first pull");
        pull(1);
        assert!(!is_woken(), "a pull that says nothing new");
        pull(2);
        assert!(is_woken(), "a pull that says more");
        progress.wake_waiting();
        assert!(is_woken(), "something else");
    }

    #[test]
    fn a_replica_counts_once_however_often_it_pulls() {
        let progress = Progress::default();
        let address: Address = "h:1".parse().expect("address");
        progress.saw_replica(1, address.clone(), Position::new(1, 1));
        progress.saw_replica(1, address, Position::new(1, 2));
        let replicas = progress.replicas();
        assert_eq!(replicas.len(), 1);
        assert_eq!(replicas[0].1.durable, Position::new(1, 2));
    }
}
