//! The store: what the log says, in a form that can be read by key.
//!
//! The log is the truth and LMDB is its index. Frames that are durable in the log are published into a memtable and
//! are visible from then on; a thread of the store's own puts full memtables into LMDB, each in one transaction with
//! the position it reaches. After a crash the log is read from there on and published again, which is harmless.
//!
//! `truncated <= applied <= visible <= durable`: the store knows the middle two. It is told of frames in order and
//! checks that they follow each other; that they are durable is the caller's promise.
//!
//! Called by: whoever commits (`publish`, one at a time), HTTP handlers (reads), the node (open, close, watches).

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod core;
mod count;
mod counting;
mod due;
mod effect;
mod env;
mod error;
mod flush;
mod leaves;
mod long_reads;
mod memtable;
mod merge;
mod meta;
mod publish;
mod read;
mod recall;
mod requests;
mod row;
mod scan;
mod staging;
mod sums;
mod sweep;
mod tables;
mod verify;
mod view;
mod writer;

use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use kvclient::{
    faults::{self, Guarantee},
    position::{Lineage, Position, Seq},
    wire::log::{Link, Record},
};
use tokio::sync::watch;

use self::{core::Core, env::Env};
use crate::metrics::Times;

pub use self::{
    core::{Checkpoint, StoreOptions},
    counting::{Count, CountAt},
    error::StoreError,
    memtable::TOGETHER,
    meta::{Meta, STORE_FORMAT},
    requests::{IDLE_MS, MAX_REQUESTS, Request, RequestId, kept_from},
    scan::{ScanContent, ScanLimits, ScanPage, ScanRange},
    staging::Staging,
    sums::{RangeSum, Sums},
    tables::Entry,
    verify::{Verifier, VerifyReport},
};

/// A store of one shard. Cheap to clone; the last clone to go stops the flush thread.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("visible", &self.visible())
            .finish_non_exhaustive()
    }
}

struct Inner {
    core: Arc<Core>,
    opened_with: Meta,
    /// Taken once, by the last clone.
    flush_thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a store counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Entries in LMDB, expired ones too; those only in memtables are not counted.
    pub entries: u64,
    /// Estimated memory of the live memtables, in bytes.
    pub memtable_bytes: usize,
    /// Memtables put into LMDB since it was opened.
    pub flushes: u64,
    /// Pages of LMDB ever used, free ones among them, in bytes.
    pub used_bytes: u64,
    /// What LMDB may grow to, in bytes.
    pub map_bytes: u64,
    /// Reads that met a damaged entry since it was opened.
    pub damaged_reads: u64,
    /// Most readers that LMDB ever had at once.
    pub readers: u32,
    /// Whether the last flush found no room.
    pub no_room: bool,
    /// How long the oldest read that lasts has lasted; LMDB's file grows meanwhile.
    pub oldest_read: Duration,
}

/// Positions of a log's history up to one that was visible.
#[derive(Debug)]
pub struct Held {
    visible: Position,
    lineage: Arc<Lineage>,
}

impl Held {
    /// Whether a position is one of them.
    pub fn contains(&self, position: Position) -> bool {
        self.lineage.holds(position, self.visible.seq)
    }
}

impl Store {
    /// Makes an empty store in `dir`, made if missing. Durable on return.
    ///
    /// # Errors
    /// `Refused`: there is one already. `Full`: no room. `Fatal`: give up and remove `dir`.
    pub fn create(dir: &Path, history: u128, options: &StoreOptions) -> Result<(), StoreError> {
        let env = Env::create(dir, options.map_size_bytes, options.max_readers)?;
        let mut txn = env.write()?;
        meta::write_history(&env, &mut txn, history)?;
        Meta::default().write(&env, &mut txn)?;
        txn.commit()?;
        if env.close() {
            return Ok(());
        }
        Err(StoreError::Fatal(
            "the new store could not be closed".into(),
        ))
    }

    /// Opens the store in `dir` and starts its flush thread. Frames after [`Self::applied`] must be published again
    /// before it is read.
    ///
    /// # Errors
    /// `Refused`: there is none, or it is of another history, another format or an unfinished copy: exit 3; nothing
    /// was made in its place. `Damaged`: its `meta` cannot be trusted: exit 3. `Full`: no room even to open it.
    /// `Fatal`: exit 5.
    pub fn open(dir: &Path, history: u128, options: StoreOptions) -> Result<Self, StoreError> {
        if !env::exists(dir) {
            let file = dir.join("data.mdb");
            return Err(StoreError::Refused(format!(
                "{} is gone or empty; a new one would be taken for all the data there ever was",
                file.display()
            )));
        }
        let env = Env::open(dir, options.map_size_bytes, options.max_readers)?;
        let opened_with = open_meta(&env, history).map_err(StoreError::of_reading)?;
        if faults::is_off(Guarantee::ShortReads) {
            std::mem::forget(env.long_read()?);
        }
        let core = Arc::new(Core::new(env, options, opened_with.clone()));
        let flushing = Arc::clone(&core);
        let flush_thread = thread::Builder::new()
            .name("flush".into())
            .spawn(move || flushing.run_flushes())?;
        Ok(Self {
            inner: Arc::new(Inner {
                core,
                opened_with,
                flush_thread: Mutex::new(Some(flush_thread)),
            }),
        })
    }

    /// Where it stood when it was opened.
    pub fn meta(&self) -> &Meta {
        &self.inner.opened_with
    }

    /// The last position contained in LMDB.
    pub fn applied(&self) -> Link {
        *self.inner.core.applied.borrow()
    }

    /// Follows [`Self::applied`]: the log before it may go.
    pub fn subscribe_applied(&self) -> watch::Receiver<Link> {
        self.inner.core.applied.subscribe()
    }

    /// The last position that readers see: always the end of a frame.
    pub fn visible(&self) -> Position {
        self.inner.core.visible()
    }

    /// Follows [`Self::visible`], never ahead of it.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        self.inner.core.visible_watch.subscribe()
    }

    /// Follows the flush thread: `Some` once it has ended by a failure. The node must then stop with exit 5; reads
    /// still answer, and nothing can be published any more.
    pub fn subscribe_failure(&self) -> watch::Receiver<Option<StoreError>> {
        self.inner.core.failed.subscribe()
    }

    /// All reigns up to `visible`. A reign is in it before its first record is visible.
    pub fn lineage(&self) -> Arc<Lineage> {
        self.inner.core.lineage.load_full()
    }

    /// Whether readers see a position of this log's history.
    pub fn holds(&self, position: Position) -> bool {
        self.held().contains(position)
    }

    /// The positions that readers see now, and go on to see.
    pub fn held(&self) -> Held {
        let core = &self.inner.core;
        // In this order: a lineage that is older than `visible` would take a newer reign's seqs for those before it.
        let visible = core.visible();
        let lineage = core.lineage.load_full();
        Held { visible, lineage }
    }

    /// The entry of a key, expired or not: compare with [`Entry::is_expired`].
    ///
    /// # Errors
    /// `Damaged`: answer 500. `Busy`: answer 503. `Fatal`: exit 5.
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.inner.core.entry(key)
    }

    /// As [`Self::get`] for each of some keys, in their order; [`TOGETHER`] of them are looked up best. Fewer than were
    /// asked for, but one at least, if their values have more than `max_bytes`.
    ///
    /// # Errors
    /// As [`Self::get`], key by key.
    pub fn get_each<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]> + Clone,
        max_bytes: usize,
    ) -> Vec<Result<Option<Entry>, StoreError>> {
        self.inner.core.entries(keys, max_bytes)
    }

    /// The next page of a range, expired entries too. It may take a while: not inline on a worker.
    ///
    /// # Errors
    /// `Damaged`: one entry on the page cannot be trusted; answer 500. `Busy`: answer 503. `Fatal`: exit 5.
    pub fn scan(&self, range: &ScanRange, limits: &ScanLimits) -> Result<ScanPage, StoreError> {
        self.inner.core.scan(range, limits)
    }

    /// Up to `max` entries whose time has come at shard time `now_ms`, oldest first, each with the position it has.
    /// It may be overwritten by the time the answer is used: delete it only if it still has that position.
    ///
    /// # Errors
    /// `Busy`: try again later. `Fatal`: exit 5.
    pub fn expired(&self, now_ms: u64, max: usize) -> Result<Vec<(Bytes, Position)>, StoreError> {
        self.inner.core.due(now_ms, max)
    }

    /// Up to `max` remembered requests behind `after`, by client and n; fewer if their outcomes are large, none at the
    /// end only. Requests below their client's floor may be among them.
    ///
    /// # Errors
    /// `Damaged`: a row cannot be trusted. `Busy`: try again later. `Fatal`: exit 5.
    pub fn requests(
        &self,
        after: Option<RequestId>,
        max: usize,
    ) -> Result<Vec<Request>, StoreError> {
        self.inner.core.requests(after, max)
    }

    /// Whether a frame may be written to the log. Asked before it is written: a refusal then means that nothing
    /// happened.
    ///
    /// # Errors
    /// `Full`: refuse writes with 507; a replica pauses its pull. `Fatal`: exit 5.
    pub fn can_accept(&self) -> Result<(), StoreError> {
        self.inner.core.can_accept()
    }

    /// Whether [`Self::publish`] would not have to wait now.
    pub fn has_room(&self) -> bool {
        self.inner.core.has_room()
    }

    /// Makes one durable frame visible as a whole: its effects, then `visible` = `link.position`. Only who
    /// commits may call it. Frames that are visible already change nothing. Waits while memtables weigh what two may and
    /// the flush of the oldest one makes progress.
    ///
    /// # Errors
    /// `Fatal`: the frame does not follow, or storage has failed. It may come back at the next start: those who wait
    /// for it get an unknown outcome; exit 5.
    pub fn publish(
        &self,
        link: Link,
        time_ms: u64,
        records: &[(Position, Record)],
    ) -> Result<(), StoreError> {
        self.inner.core.publish(link, time_ms, records)
    }

    /// Puts all that is visible into LMDB, and waits for it.
    ///
    /// # Errors
    /// `Full`: not now; what is in memory stays there and is tried again. `Fatal`: exit 5.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.inner.core.flush()
    }

    /// Writes how far the log has reached, and waits for it: the last step of a clean stop. Flushes write as much of
    /// it as is visible.
    ///
    /// # Errors
    /// `Full`: the floor stays lower, which is safe. `Fatal`: exit 5.
    pub fn write_floor(&self, durable: Position) -> Result<(), StoreError> {
        self.inner.core.write_floor(durable)
    }

    /// Begins to check all that is in LMDB now, in steps: the first ones before the node is ready, the rest behind it.
    ///
    /// # Errors
    /// `Damaged`: `meta` cannot be trusted. `Busy`: try again. `Fatal`: exit 5.
    pub fn verifier(&self) -> Result<Verifier, StoreError> {
        Verifier::new(&self.inner.core.env)
    }

    /// Checks all that is in LMDB now, telling `progress` the bytes seen so far.
    ///
    /// # Errors
    /// As [`Self::verifier`]; what is damaged is not an error but in the report.
    pub fn verify(&self, progress: impl FnMut(u64)) -> Result<VerifyReport, StoreError> {
        self.verifier()?.run(progress)
    }

    /// The newest checkpoints, oldest first, at most 64: one after each flush since it was opened.
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        self.inner.core.lock().checkpoints.iter().copied().collect()
    }

    /// Up to `count` of the newest of these, and the newest at a multiple of [`StoreOptions::checkpoint_every`] if it
    /// is older.
    pub fn newest_checkpoints(&self, count: usize) -> Vec<Checkpoint> {
        self.inner.core.newest_checkpoints(count)
    }

    /// What is contained at the end of the first frame that reaches `seq`, for comparison with another node's. If it
    /// is `Waiting`, ask again when [`Self::subscribe_applied`] tells of a change; the flush does not wait until a
    /// memtable is full.
    ///
    /// # Errors
    /// `Full`: no room to flush; ask again later. `Fatal`: exit 5.
    pub fn count_at(&self, seq: Seq) -> Result<CountAt, StoreError> {
        self.inner.core.count_at(seq)
    }

    /// Bytes of pages in LMDB that hold something: the size of what [`Self::compact_into`] writes.
    ///
    /// # Errors
    /// `Busy`: try again. `Fatal`: exit 5.
    pub fn live_bytes(&self) -> Result<u64, StoreError> {
        self.inner.core.env.live_bytes()
    }

    /// Writes what is in LMDB into an empty file, without free pages. Nothing may be published meanwhile if the copy is
    /// to take this one's place. It is not synced.
    ///
    /// # Errors
    /// `Full`: no room. `Fatal`: it cannot be read or written. The copy is of no use then.
    pub fn compact_into(&self, file: &mut File) -> Result<(), StoreError> {
        self.inner.core.env.copy_compactly(file)
    }

    /// What it counts.
    pub fn stats(&self) -> StoreStats {
        let core = &self.inner.core;
        let space = core.env.space();
        let memtables = core.view.load();
        let state = core.lock();
        StoreStats {
            entries: state.meta.sums.entries(),
            memtable_bytes: memtables.memtables().map(|m| m.read().bytes()).sum(),
            flushes: state.flushes,
            used_bytes: space.used_bytes,
            map_bytes: space.map_bytes,
            damaged_reads: core.damaged_reads(),
            readers: core.env.readers(),
            no_room: state.no_room.is_some(),
            oldest_read: core.env.oldest_long_read(),
        }
    }

    /// How long each flush of a memtable took.
    pub fn flush_times(&self) -> Times {
        self.inner.core.lock().flush_times.times()
    }

    /// Stops the flush thread after its current transaction and closes LMDB. What is only in memtables is in the log.
    /// False if another clone, or a verification, still has it open.
    pub fn close(self) -> bool {
        let env = self.inner.core.env.clone();
        drop(self);
        env.close()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.lock().closing = true;
        self.core.changed.notify_all();
        let thread = self.flush_thread.lock().ok().and_then(|mut t| t.take());
        if let Some(thread) = thread {
            // It catches its panics, so there is nothing to hear from it here.
            let _ = thread.join();
        }
    }
}

/// What an environment says about itself.
fn open_meta(env: &Env, history: u128) -> Result<Meta, StoreError> {
    let txn = env.read()?;
    match meta::read_history(env, &txn)? {
        Some(stored) if stored != history => Err(StoreError::Refused(format!(
            "it belongs to history {stored:032x}, not to {history:032x}"
        ))),
        Some(_) => Meta::read(env, &txn),
        None => Err(StoreError::Refused(
            "it does not say which history it belongs to".into(),
        )),
    }
}

#[cfg(test)]
mod tests;
