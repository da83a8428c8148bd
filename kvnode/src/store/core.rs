//! What the threads of a store share: environment, memtables, positions.
//!
//! Readers pin both memtables in one load of `view` and take no lock but theirs, shortly. The commit thread and the
//! flush thread meet in `state`: whoever changes `view` holds it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use kvclient::{
    position::{Lineage, Position, Seq},
    wire::log::Link,
};
use tokio::sync::watch;

use super::{
    counting::Counting,
    env::Env,
    error::StoreError,
    meta::Meta,
    tables::{Problem, StoredEntry},
    view::View,
};
use crate::metrics::Histogram;

/// Checkpoints that are kept: a replica that lags by more of them has other troubles.
const KEPT_CHECKPOINTS: usize = 64;

/// What can be set about a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// What the file may grow to, in bytes. Default 64 GiB: only address space until it is used.
    pub map_size_bytes: usize,
    /// Size at which a memtable is frozen, in bytes; all that are live weigh at most twice as much. Default 64 MiB: a
    /// flush of so many random writes shares the pages they dirty, and publishing as much again at start takes half a
    /// second. Large values share no pages, so a memtable with an eighth of this in such values is frozen already.
    pub memtable_bytes: usize,
    /// A memtable is frozen at the first frame end at or past each multiple of this many seqs, so that primary and
    /// replica pass equal states. Default 1,048,576.
    pub checkpoint_every: u64,
    /// Reads at the same time. Default 1,024, above the threads that a node has.
    pub max_readers: u32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            map_size_bytes: 64 << 30,
            memtable_bytes: 64 << 20,
            checkpoint_every: 1 << 20,
            max_readers: 1024,
        }
    }
}

/// Counts and sums at one position, as one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// What LMDB contained.
    pub position: Position,
    /// Digest of the 64 counts and sums there.
    pub digest: u64,
}

/// What commit thread and flush thread tell each other.
pub(super) struct State {
    /// What LMDB contains.
    pub(super) meta: Arc<Meta>,
    /// The active memtable takes no more frames, but there is no room for another frozen one.
    pub(super) freeze_pending: bool,
    /// Why the last flush found no room; it is being tried again.
    pub(super) no_room: Option<String>,
    /// Why the flush thread has ended.
    pub(super) failure: Option<StoreError>,
    /// A floor to be written.
    pub(super) floor_wanted: Option<Position>,
    /// The flush thread is to end.
    pub(super) closing: bool,
    pub(super) checkpoints: VecDeque<Checkpoint>,
    /// The newest of them that stands at a multiple.
    pub(super) at_multiple: Option<Checkpoint>,
    /// States that somebody wants to compare.
    pub(super) counting: Counting,
    pub(super) flushes: u64,
    pub(super) flush_times: Histogram,
    /// The client at which the next flush goes on to look for requests to forget.
    pub(super) sweep_from: u128,
}

/// Everything shared.
pub(super) struct Core {
    pub(super) env: Env,
    pub(super) options: StoreOptions,
    pub(super) view: ArcSwap<View>,
    pub(super) lineage: ArcSwap<Lineage>,
    /// Every read asks, so asking writes to no memory that threads share. Not the watch: whoever holds a borrow of that
    /// could make the commit thread wait inside a memtable's lock.
    visible: ArcSwap<Position>,
    pub(super) visible_watch: watch::Sender<Position>,
    pub(super) applied: watch::Sender<Link>,
    pub(super) failed: watch::Sender<Option<StoreError>>,
    /// Std mutex: never held over an await, nor over a transaction of the flush thread.
    state: Mutex<State>,
    /// Something in `state` has changed.
    pub(super) changed: Condvar,
    damaged_reads: AtomicU64,
}

impl Core {
    pub(super) fn new(env: Env, options: StoreOptions, meta: Meta) -> Self {
        Self {
            env,
            options,
            view: ArcSwap::default(),
            lineage: ArcSwap::from_pointee(meta.lineage.clone()),
            visible: ArcSwap::from_pointee(meta.applied.position),
            visible_watch: watch::Sender::new(meta.applied.position),
            applied: watch::Sender::new(meta.applied),
            failed: watch::Sender::new(None),
            state: Mutex::new(State {
                meta: Arc::new(meta),
                freeze_pending: false,
                no_room: None,
                failure: None,
                floor_wanted: None,
                closing: false,
                checkpoints: VecDeque::new(),
                at_multiple: None,
                counting: Counting::default(),
                flushes: 0,
                flush_times: Histogram::default(),
                sweep_from: 0,
            }),
            changed: Condvar::new(),
            damaged_reads: AtomicU64::new(0),
        }
    }

    /// The last position that readers see.
    pub(super) fn visible(&self) -> Position {
        **self.visible.load()
    }

    /// Lets readers know of a position. The watch has to be told behind it, without a lock.
    pub(super) fn set_visible(&self, position: Position) {
        self.visible.store(Arc::new(position));
    }

    /// The state, locked.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Waits until something in the state has changed.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).expect("no holder panics")
    }

    /// Freezes the active memtable, at once or as soon as others are gone.
    pub(super) fn freeze(&self, state: &mut State) {
        let view = self.view.load();
        let end = view.active.read().end();
        let has_room = view.has_room(2 * self.options.memtable_bytes);
        state.freeze_pending = end.is_some() && !has_room;
        if let Some((end, _)) = end.filter(|_| has_room) {
            state.counting.frozen(end.position.seq);
            self.view.store(Arc::new(view.with_active_frozen()));
            self.changed.notify_all();
        }
    }

    /// Whether a frame that ends at `end` is the first to reach a checkpoint after `before`.
    pub(super) fn passes_checkpoint(&self, before: Seq, end: Seq) -> bool {
        let every = self.options.checkpoint_every.max(1);
        before / every < end / every
    }

    /// Up to `count` of the newest checkpoints, oldest first, and the newest one at a multiple if it is older than
    /// those: that is where primary and replica meet for sure.
    pub(super) fn newest_checkpoints(&self, count: usize) -> Vec<Checkpoint> {
        let state = self.lock();
        let kept = &state.checkpoints;
        let newest = kept.range(kept.len().saturating_sub(count)..).copied();
        let oldest = newest.clone().next();
        let is_older =
            |one: &Checkpoint| oldest.is_some_and(|oldest| one.position < oldest.position);
        let at_multiple = state.at_multiple.filter(is_older);
        at_multiple.into_iter().chain(newest).collect()
    }

    /// Counts a damaged entry.
    pub(super) fn damaged(&self, key: &[u8], problem: Problem) -> StoreError {
        self.damaged_reads.fetch_add(1, Ordering::Relaxed);
        let error = StoreError::damaged_entry(key, problem);
        tracing::error!(%error, "stored data is not what was written");
        error
    }

    /// Entries found damaged so far.
    pub(super) fn damaged_reads(&self) -> u64 {
        self.damaged_reads.load(Ordering::Relaxed)
    }

    /// A stored row, checked.
    pub(super) fn check<'a>(
        &self,
        key: &[u8],
        row: &'a [u8],
    ) -> Result<StoredEntry<'a>, StoreError> {
        StoredEntry::check(key, row).map_err(|problem| self.damaged(key, problem))
    }
}

impl State {
    /// Whether flushes advance: not after a failure, and not while there is no room.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let no_room = self.no_room.clone();
        no_room.map_or(Ok(()), |why| Err(StoreError::Full(why)))
    }

    /// Remembers the sums of what LMDB contains now.
    pub(super) fn add_checkpoint(&mut self) -> Checkpoint {
        if self.checkpoints.len() == KEPT_CHECKPOINTS {
            self.checkpoints.pop_front();
        }
        let checkpoint = Checkpoint {
            position: self.meta.applied.position,
            digest: self.meta.sums.digest(),
        };
        self.checkpoints.push_back(checkpoint);
        checkpoint
    }
}
