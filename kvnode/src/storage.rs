//! One generation of a shard's data, opened: log, store and commit thread together.
//!
//! A node has one in force. A replica that takes a snapshot builds the next one beside it and changes over.

use std::{path::Path, sync::Arc, time::Instant};

use kvclient::{
    faults::{self, Guarantee},
    wire::{
        MAX_VALUE_BYTES_CEILING,
        log::{Link, largest_frame_bytes},
    },
};
use tokio::sync::mpsc;

use crate::{
    clock::ShardClock,
    commit::{self, Commit, CommitParts, CommitThread},
    config::Sizes,
    feed::Feed,
    kept_log::KeptLog,
    log::{Log, LogError, LogOptions, StartFrom},
    store::{Store, StoreError, StoreOptions},
};

/// A generation in force. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Durable frames.
    pub log: Log,
    /// Visible entries.
    pub store: Store,
    /// The way to change them.
    pub commit: Commit,
    /// The changes, for those who watch.
    pub feed: Feed,
    /// Log for replicas that have just copied.
    pub kept_log: Arc<KeptLog>,
    /// The log's history.
    pub history: u128,
}

/// What must be waited for when a generation is closed.
#[derive(Debug)]
pub struct StorageThreads {
    commit: CommitThread,
    store: Store,
}

/// Why a generation cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It is not what it should be: exit 3. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// Reading or writing failed: exit 5.
    #[error("{0}")]
    Failed(String),
}

impl From<LogError> for StorageError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Refused(why) => Self::Refused(why),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<StoreError> for StorageError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(why) => Self::Refused(why),
            damaged @ StoreError::Damaged { .. } => Self::Refused(damaged.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Where failures of storage threads are told; the node exits on the first.
pub type FailureSender = mpsc::Sender<String>;

/// The log's options for these sizes. It takes whatever any primary may write and a segment can hold: a replica's
/// own value limit says nothing about frames of its primary.
pub fn log_options(sizes: &Sizes) -> LogOptions {
    let largest = largest_frame_bytes(MAX_VALUE_BYTES_CEILING);
    LogOptions {
        segment_bytes: sizes.log_segment_bytes,
        retention_bytes: sizes.log_retention_bytes,
        max_frame_bytes: largest.min(LogOptions::frame_bytes_in(sizes.log_segment_bytes)),
    }
}

/// The store's options for these sizes.
pub fn store_options(sizes: &Sizes) -> StoreOptions {
    let max_readers = match faults::is_off(Guarantee::ReaderSlots) {
        true => 1,
        false => StoreOptions::default().max_readers,
    };
    StoreOptions {
        max_readers,
        map_size_bytes: sizes.map_bytes,
        memtable_bytes: sizes.memtable_bytes,
        checkpoint_every: sizes.checkpoint_every,
    }
}

/// Makes an empty generation whose log begins behind `base`.
///
/// # Errors
/// [`StorageError::Failed`] if it cannot be written.
pub fn create(dir: &Path, history: u128, base: Link, sizes: &Sizes) -> Result<(), StorageError> {
    Store::create(&dir.join("lmdb"), history, &store_options(sizes))?;
    drop(Log::create(
        &dir.join("log"),
        history,
        base,
        log_options(sizes),
    )?);
    Ok(())
}

/// Opens a generation: recovers the log, replays what LMDB does not have, starts the threads.
///
/// # Errors
/// [`StorageError`]: the node must not start on it.
pub fn open(
    dir: &Path,
    history: u128,
    sizes: &Sizes,
    clock: &Arc<ShardClock>,
    failures: &FailureSender,
) -> Result<(Storage, StorageThreads), StorageError> {
    let store = Store::open(&dir.join("lmdb"), history, store_options(sizes))?;
    let meta = store.meta();
    clock.saw_frame(meta.time_ms);
    let start = StartFrom {
        applied: meta.applied.position,
        floor: meta.applied.position.max(meta.durable_floor),
    };
    let mut replayed = 0_u64;
    let mut replay = |frame: kvclient::wire::log::Frame| {
        let records = frame
            .records()
            .map_err(|error| LogError::Refused(error.to_string()))?;
        clock.saw_frame(frame.header.time_ms);
        replayed += records.len() as u64;
        store
            .publish(frame.header.link(), frame.header.time_ms, &records)
            .map_err(|error| {
                LogError::Refused(format!("a frame of the log cannot be applied: {error}"))
            })
    };
    let (log, writer, recovered) = Log::open(
        &dir.join("log"),
        history,
        start,
        log_options(sizes),
        &mut replay,
    )?;
    clock.saw_frame(recovered.end_time_ms);
    if let Some(cut) = &recovered.cut {
        tracing::warn!(after = %cut.after, bytes = cut.bytes, "cut a torn tail off the log; nothing in it was acknowledged");
    }
    tracing::info!(durable = %log.durable(), applied = %start.applied, replayed, "recovered");
    let tell = failures.clone();
    let own_largest = largest_frame_bytes(sizes.max_value_bytes);
    let (commit, thread) = commit::start(CommitParts {
        log: writer,
        store: store.clone(),
        clock: Arc::clone(clock),
        max_frame_bytes: own_largest.min(log_options(sizes).max_frame_bytes),
        on_failure: Box::new(move |why| drop(tell.try_send(why))),
    })
    .map_err(|error| StorageError::Failed(format!("no thread for commits: {error}")))?;
    let storage = Storage {
        feed: Feed::new(log.clone(), store.subscribe()),
        log,
        store: store.clone(),
        commit,
        kept_log: Arc::default(),
        history,
    };
    Ok((
        storage,
        StorageThreads {
            commit: thread,
            store,
        },
    ))
}

impl Storage {
    /// Gives log segments free as flushes make them superfluous, and tells of failed flushes. Runs until the
    /// store is closed.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn upkeep(self, failures: FailureSender) {
        let mut applied = self.store.subscribe_applied();
        let mut failure = self.store.subscribe_failure();
        let (log, kept_log) = (self.log.clone(), Arc::clone(&self.kept_log));
        drop(self);
        loop {
            tokio::select! {
                changed = applied.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    kept_log.expire(Instant::now());
                    let (log, seq) = (log.clone(), applied.borrow_and_update().position.seq);
                    let released = tokio::task::spawn_blocking(move || log.release(seq)).await;
                    if let Ok(Err(error)) = released {
                        tracing::warn!(%error, "log segments cannot be given free; tried again after the next flush");
                    }
                }
                changed = failure.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some(error) = failure.borrow_and_update().as_ref() {
                        let _ = failures.try_send(format!("the flush to LMDB failed: {error}"));
                    }
                }
            }
        }
    }
}

impl StorageThreads {
    /// Ends the threads: the queue is worked off, then the floor is written, so that the next start knows how far
    /// the log has to reach. All clones of the [`Storage`] must be gone or going. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] if the floor could not be written; nothing is lost.
    pub fn close(self) -> Result<(), StoreError> {
        let durable = self.commit.join().map(|log| log.end().position);
        let written = durable.map_or(Ok(()), |durable| self.store.write_floor(durable));
        self.store.close();
        written
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kvclient::wire::log::{Effect, Frame, FrameBuilder, Record};

    use super::*;
    use crate::commit::AppendError;

    fn opened(dir: &Path, sizes: &Sizes) -> (Storage, StorageThreads) {
        let clock = Arc::new(ShardClock::start(0));
        open(dir, 1, sizes, &clock, &mpsc::channel(1).0).unwrap()
    }

    fn frame(after: Link, value_bytes: usize) -> Frame {
        let effect = Effect::Put {
            value: vec![b'v'; value_bytes].into(),
            expires_at_ms: None,
        };
        let mut builder = FrameBuilder::new();
        builder.push(&Record::new(Bytes::from_static(b"key"), effect));
        builder.finish(&after, 1, 1)
    }

    fn reign() -> Frame {
        let mut builder = FrameBuilder::new();
        builder.push(&Record::epoch_start(9, "a:1"));
        builder.finish(&Link::default(), 1, 1)
    }

    /// A replica with the default value limit died with exit 5, at each start again, over a frame of its primary that
    /// was larger than its own could be.
    #[tokio::test]
    async fn a_replica_with_a_smaller_value_limit_takes_what_its_segments_can_hold() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            log_segment_bytes: 8 << 20,
            ..Sizes::default()
        };
        create(dir.path(), 1, Link::default(), &sizes).unwrap();
        let (storage, threads) = opened(dir.path(), &sizes);
        let first = reign();
        let after = first.header.link();
        storage.commit.append(vec![first]).await.unwrap();

        let refused = storage.commit.append(vec![frame(after, 9 << 20)]).await;
        let Err(AppendError::Malformed(why)) = refused else {
            panic!("{refused:?}");
        };
        for part in [
            "8384512 are allowed",
            "--log-segment-size",
            "--max-value-size",
        ] {
            assert!(why.contains(part), "{why}");
        }
        let large = frame(after, 6 << 20);
        let end = large.header.link();
        storage.commit.append(vec![large]).await.unwrap();
        assert_eq!(storage.log.end(), end);

        drop(storage);
        threads.close().unwrap();
        let (storage, _threads) = opened(dir.path(), &sizes);
        assert_eq!(storage.log.end(), end, "it opens again");
    }
}
