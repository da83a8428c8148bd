//! Log that is kept for replicas which have just copied the shard, until they go on from there.
//!
//! A copy ends at a position, and what follows must still be there when the replica asks for it, which is after it has
//! checked and synced what it copied. Where writes are fast and little log is kept it would be gone by then, and the
//! replica would copy again and again.
//!
//! Kept until the replica has synced what was durable when it first asked, until it has not come for a minute, and within the
//! limit that the copy had.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kvclient::{position::Seq, shard_map::Address};

use crate::log::Hold;

/// Longest time for which log is kept for a replica that does not come.
const LONGEST: Duration = Duration::from_secs(60);

/// By the replica's address.
#[derive(Debug, Default)]
pub struct KeptLog(Mutex<HashMap<Address, Kept>>);

#[derive(Debug)]
struct Kept {
    hold: Hold,
    copied: Seq,
    since: Instant,
    /// What the replica has to reach: set by its first pull.
    level_at: Option<Seq>,
}

impl KeptLog {
    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica has copied all up to `copied`.
    pub fn keep(&self, replica: Address, hold: Hold, copied: Seq) {
        hold.set_aside(copied);
        let kept = Kept {
            hold,
            copied,
            since: Instant::now(),
            level_at: None,
        };
        self.lock().insert(replica, kept);
    }

    /// A replica copies anew: what was kept for it is of no use to it.
    pub fn forget(&self, replica: &Address) {
        self.lock().remove(replica);
    }

    /// A replica has synced all up to `after` and asks for what follows; the log ends at `durable`.
    pub fn pulled(&self, replica: &Address, after: Seq, durable: Seq) {
        let mut all = self.lock();
        // Before it has changed over to its copy it may ask from where it was.
        let Some(kept) = all.get_mut(replica).filter(|kept| after >= kept.copied) else {
            return;
        };
        if after >= *kept.level_at.get_or_insert(durable) {
            all.remove(replica);
        } else {
            // It is on its way, however long that takes.
            kept.since = Instant::now();
            kept.hold.advance(after);
        }
    }

    /// Lets go of what was kept for longer than it may be.
    pub fn expire(&self, now: Instant) {
        self.lock()
            .retain(|_, kept| now.saturating_duration_since(kept.since) < LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use kvclient::{
        key::Key,
        wire::{
            batch::{Action, Op},
            log::Link,
        },
    };
    use tokio::sync::mpsc;

    use crate::{
        clock::ShardClock,
        commit::WriteOp,
        config::Sizes,
        storage::{self, Storage, StorageThreads},
    };

    use super::*;

    const LIMIT: u64 = 1 << 30;

    /// A primary that keeps no more log than it must, in segments that a few writes fill.
    async fn primary(dir: &Path) -> (Storage, StorageThreads) {
        let sizes = Sizes {
            log_segment_bytes: 8 << 20,
            log_retention_bytes: 0,
            ..Sizes::default()
        };
        storage::create(dir, 1, Link::default(), &sizes).unwrap();
        let clock = Arc::new(ShardClock::start(0));
        let failures = mpsc::channel(1).0;
        let (storage, threads) = storage::open(dir, 1, &sizes, &clock, &failures).unwrap();
        let reign = storage.commit.begin_reign(1, 9, "a:1".into());
        reign.await.unwrap();
        (storage, threads)
    }

    /// Fills three segments, and lets the log go as far as it may.
    async fn write(storage: &Storage) {
        for nth in 0..24 {
            let value = vec![b'v'; 1 << 20].into();
            let action = Action::Put {
                value,
                ttl_ms: None,
            };
            let op = Op::new(Key::new(nth.to_string()).unwrap(), action);
            storage.commit.write(vec![WriteOp::new(op, None)]).await;
        }
        let store = storage.store.clone();
        let flushed = tokio::task::spawn_blocking(move || store.flush());
        flushed.await.unwrap().unwrap();
        storage.kept_log.expire(Instant::now());
        storage
            .log
            .release(storage.store.applied().position.seq)
            .unwrap();
    }

    fn reaches_back_to(storage: &Storage, seq: Seq) -> bool {
        storage.log.truncated() <= seq
    }

    /// A replica whose primary kept little log and wrote much came back for what its copy ended with a moment too late,
    /// and copied again, for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_follows_a_copy_is_there_until_the_replica_is_level() {
        let dir = tempfile::tempdir().unwrap();
        let (storage, _threads) = primary(dir.path()).await;
        let replica: Address = "b:1".parse().unwrap();
        let copied = storage.log.durable().seq;
        let hold = storage.log.hold(0, LIMIT).unwrap();
        storage.kept_log.keep(replica.clone(), hold, copied);
        write(&storage).await;
        assert!(reaches_back_to(&storage, copied), "it was not there yet");
        // From before its copy: says nothing of what it has copied.
        storage
            .kept_log
            .pulled(&replica, 0, storage.log.durable().seq);
        let first = storage.log.durable().seq;
        storage.kept_log.pulled(&replica, copied, first);
        write(&storage).await;
        assert!(reaches_back_to(&storage, copied), "it is on its way");
        storage
            .kept_log
            .pulled(&replica, first, storage.log.durable().seq);
        write(&storage).await;
        assert!(!reaches_back_to(&storage, copied), "it was level");
        assert_eq!(storage.log.stats().holds, 0);
    }

    /// Replicas whose copies had come damaged, and which waited before they tried again, kept the others from copying.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_takes_no_place_of_those_who_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (storage, _threads) = primary(dir.path()).await;
        for nth in 0..20 {
            let hold = storage.log.hold(0, LIMIT).unwrap();
            let replica = format!("b:{}", nth + 1).parse().unwrap();
            storage.kept_log.keep(replica, hold, 0);
        }
        assert_eq!(storage.log.stats().holds, 20);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_does_not_come_holds_nothing_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (storage, _threads) = primary(dir.path()).await;
        let keep = |replica: &str| {
            let hold = storage.log.hold(0, LIMIT).unwrap();
            let kept_log = &storage.kept_log;
            kept_log.keep(replica.parse().unwrap(), hold, 0);
        };
        keep("b:1");
        keep("b:1");
        assert_eq!(storage.log.stats().holds, 1, "one for each replica");
        keep("c:1");
        storage.kept_log.forget(&"b:1".parse().unwrap());
        assert_eq!(storage.log.stats().holds, 1);
        storage.kept_log.expire(Instant::now() + LONGEST / 2);
        assert_eq!(storage.log.stats().holds, 1);
        storage.kept_log.expire(Instant::now() + LONGEST);
        assert_eq!(storage.log.stats().holds, 0);
    }
}
