//! The data directory with its generation in force: opened at start, begun by a first pull, changed by a snapshot,
//! closed at the end. All of it blocks.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use kvclient::{
    faults::{self, Guarantee},
    position::Epoch,
    wire::log::Link,
};
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    data_dir::DataDir,
    durable::DataError,
    marker::{Marker, State},
    readiness::Readiness,
    service::Service,
    storage::{self, FailureSender, Storage, StorageError, StorageThreads},
    store::{StoreError, VerifyReport},
};

/// Owner of everything below the data directory.
#[derive(Debug)]
pub struct Home {
    inner: Mutex<Inner>,
    failures: FailureSender,
    runtime: Handle,
}

#[derive(Debug)]
struct Inner {
    dir: DataDir,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    threads: StorageThreads,
    upkeep: AbortHandle,
    /// Feeds the watchers.
    feed: AbortHandle,
    /// Ends the verification that goes on behind the start.
    closing: Arc<AtomicBool>,
}

/// Why a generation is not in force.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The directory around it.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The generation itself.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Home {
    /// Takes a locked directory. `runtime` runs the upkeep of what is opened, `failures` hears of what fails.
    pub fn new(dir: DataDir, failures: FailureSender, runtime: Handle) -> Self {
        Self {
            inner: Mutex::new(Inner { dir, open: None }),
            failures,
            runtime,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The marker as it is now.
    pub fn marker(&self) -> Marker {
        self.lock().dir.marker().clone()
    }

    /// Where tails that parted are kept.
    pub fn diverged_dir(&self) -> PathBuf {
        self.lock().dir.path().join("diverged")
    }

    /// Remembers a newer reign of another node.
    ///
    /// # Errors
    /// It is not remembered beyond this process.
    pub fn fence(&self, epoch: Epoch) -> Result<(), DataError> {
        self.lock().dir.fence(epoch)
    }

    /// Remembers that the data is wrong although it is whole.
    ///
    /// # Errors
    /// It is not remembered beyond this process.
    pub fn distrust(&self, why: &str) -> Result<(), DataError> {
        self.lock().dir.distrust(why)
    }

    /// Remembers that a replica's first copy is complete.
    ///
    /// # Errors
    /// It is not remembered: the next start refuses reads until it is level with its primary again.
    pub fn copied(&self) -> Result<(), DataError> {
        self.lock().dir.copied()
    }

    /// Opens the generation in force and gives it to the service.
    ///
    /// # Errors
    /// [`HomeError`]: the node must not start on it.
    pub fn open(&self, service: &Arc<Service>) -> Result<(), HomeError> {
        let mut inner = self.lock();
        let path = inner.dir.current()?;
        let history = inner.dir.history().ok_or_else(|| {
            DataError::Refused(format!(
                "{}: node.toml does not say which history it holds",
                path.display()
            ))
        })?;
        let (storage, open) = self.open_at(service, &path, history)?;
        put_in_force(&mut inner, service, storage, open);
        Ok(())
    }

    /// Opens the generation in force for one look at it and closes it again; nothing is served from it.
    ///
    /// # Errors
    /// [`HomeError`]: it cannot be opened; it stays as it is.
    pub fn look<T>(
        &self,
        service: &Service,
        look: impl FnOnce(&Storage) -> T,
    ) -> Result<T, HomeError> {
        let inner = self.lock();
        let path = inner.dir.current()?;
        let sizes = &service.config.sizes;
        let history = inner.dir.history().unwrap_or_default();
        let (storage, threads) =
            storage::open(&path, history, sizes, &service.clock, &self.failures)?;
        let seen = look(&storage);
        storage.commit.stop();
        drop(storage);
        threads.close().map_err(StorageError::from)?;
        Ok(seen)
    }

    /// Makes an empty generation of a history, puts it in force and opens it. `state` is what the marker says of it
    /// from then on.
    ///
    /// # Errors
    /// [`HomeError`]: nothing is in force.
    pub fn begin(
        &self,
        service: &Arc<Service>,
        history: u128,
        state: State,
    ) -> Result<(), HomeError> {
        let mut inner = self.lock();
        let path = inner.dir.new_generation()?;
        storage::create(&path, history, Link::default(), &service.config.sizes)?;
        let path = inner.dir.finish_generation(&path)?;
        inner.dir.install(&path, history, state)?;
        let (storage, open) = self.open_at(service, &path, history)?;
        put_in_force(&mut inner, service, storage, open);
        Ok(())
    }

    /// An empty directory for the next generation.
    ///
    /// # Errors
    /// [`DataError`]: there is no room or no right to make it.
    pub fn new_generation(&self) -> Result<PathBuf, DataError> {
        self.lock().dir.new_generation()
    }

    /// Opens the generation that was built at `unfinished` and puts it in force instead of the one that is. The old
    /// one is removed, unless a person wants it kept (`--rejoin`); only in that case may the new one have another
    /// history, or lack what the old one holds.
    ///
    /// # Errors
    /// [`HomeError`]: the old generation is in force and open as before.
    pub fn change_to(
        &self,
        service: &Arc<Service>,
        unfinished: &Path,
        history: u128,
        old: OldGeneration,
    ) -> Result<(), HomeError> {
        let mut inner = self.lock();
        let old_path = inner.dir.current().ok();
        let path = inner.dir.finish_generation(unfinished)?;
        let (storage, open) = self.open_at(service, &path, history)?;
        let installed = match old {
            OldGeneration::Keep => Ok(()),
            OldGeneration::Remove => check_replaces(service, &storage),
        }
        .and_then(|()| Ok(inner.dir.install(&path, history, State::Ready)?));
        if let Err(error) = installed {
            close_storage(Arc::new(storage), open);
            return Err(error);
        }
        put_in_force(&mut inner, service, storage, open);
        if let (OldGeneration::Remove, Some(old)) = (old, old_path)
            && let Err(error) = std::fs::remove_dir_all(&old)
        {
            tracing::warn!(path = %old.display(), %error, "the old generation cannot be removed");
        }
        Ok(())
    }

    /// Closes what is open, leaving a floor for the next start.
    pub fn close(&self, service: &Service) {
        let open = self.lock().open.take();
        if let (Some(storage), Some(open)) = (service.storage.swap(None), open) {
            close_storage(storage, open);
        }
    }

    fn open_at(
        &self,
        service: &Arc<Service>,
        path: &Path,
        history: u128,
    ) -> Result<(Storage, Open), HomeError> {
        let sizes = &service.config.sizes;
        let (storage, threads) =
            storage::open(path, history, sizes, &service.clock, &self.failures)?;
        let closing = Arc::new(AtomicBool::new(false));
        verify(service, &storage, &closing)?;
        let upkeep = Storage::upkeep(storage.clone(), self.failures.clone());
        let upkeep = self.runtime.spawn(upkeep).abort_handle();
        let feed = storage.feed.clone().run(service.stopping.clone());
        let feed = self.runtime.spawn(feed).abort_handle();
        let open = Open {
            threads,
            upkeep,
            feed,
            closing,
        };
        Ok((storage, open))
    }
}

/// What becomes of the generation that another one replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldGeneration {
    /// A person gave it up: it stays aside until removed by hand.
    Keep,
    /// The new one holds all that it held.
    Remove,
}

/// Changes over; what was in force before is closed once nothing new can reach it.
fn put_in_force(inner: &mut Inner, service: &Service, storage: Storage, open: Open) {
    let before = service.storage.swap(Some(Arc::new(storage)));
    let open_before = inner.open.replace(open);
    if let (Some(storage), Some(open)) = (before, open_before) {
        close_storage(storage, open);
    }
}

/// Closes one generation. Its last handle has to be given here: LMDB closes only when nobody holds it.
fn close_storage(storage: Arc<Storage>, open: Open) {
    open.closing.store(true, Ordering::Release);
    storage.commit.stop();
    drop(storage);
    open.upkeep.abort();
    open.feed.abort();
    if let Err(error) = open.threads.close() {
        tracing::warn!(%error, "the floor could not be written; the next start trusts the log alone");
    }
}

/// A copy replaces data silently only if it is of the same history and goes beyond it.
fn check_replaces(service: &Service, copy: &Storage) -> Result<(), HomeError> {
    let Some(old) = service.storage.load_full() else {
        return Ok(());
    };
    let (held, end) = (old.log.durable(), copy.log.durable());
    let contains = old.history == copy.history && copy.store.lineage().holds(held, end.seq);
    if contains || faults::is_off(Guarantee::Handshake) {
        return Ok(());
    }
    Err(StorageError::Refused(format!(
        "the primary's snapshot ends at {end} and does not contain {held}, which this replica holds"
    ))
    .into())
}

/// How much of the data is verified before the node is ready: about a second. The rest follows behind.
const VERIFY_FIRST_BYTES: u64 = 256 << 20;

/// Bytes verified between two looks at whether the node closes.
const VERIFY_STEP_BYTES: u64 = 16 << 20;

/// Compares what is stored with its checksums, counts and sums.
fn verify(
    service: &Arc<Service>,
    storage: &Storage,
    closing: &Arc<AtomicBool>,
) -> Result<(), HomeError> {
    let mut verifier = storage.store.verifier().map_err(StorageError::from)?;
    let more = verifier
        .step(VERIFY_FIRST_BYTES)
        .map_err(|error| unreadable(error.of_reading()))?;
    judge(verifier.report()).map_err(StorageError::Refused)?;
    if !more {
        return Ok(());
    }
    let (service, closing) = (Arc::clone(service), Arc::clone(closing));
    let rest = move || {
        while !closing.load(Ordering::Acquire) {
            match verifier.step(VERIFY_STEP_BYTES) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let error = unreadable(error.of_reading());
                    tracing::error!(%error, "stored data cannot be verified to its end");
                    service.set_readiness(Readiness::Damaged(error.to_string()));
                    return;
                }
            }
        }
        if let Err(why) = judge(verifier.report())
            && !closing.load(Ordering::Acquire)
        {
            tracing::error!(%why, "stored data is damaged");
            service.set_readiness(Readiness::Damaged(why));
        }
    };
    let thread = std::thread::Builder::new()
        .name("verify".into())
        .spawn(rest);
    thread.map(drop).map_err(|error| {
        StorageError::Failed(format!("no thread to verify the data: {error}")).into()
    })
}

/// LMDB cannot be walked through, so its pages are damaged.
fn unreadable(error: StoreError) -> StorageError {
    match StorageError::from(error) {
        StorageError::Refused(why) => StorageError::Refused(format!("{why}. {DAMAGED}")),
        other => other,
    }
}

/// What to do about damage.
const DAMAGED: &str = "If another node of the shard is sound, start this one once with --rejoin as a replica of it; \
                       else put a backup back";

fn judge(report: &VerifyReport) -> Result<(), String> {
    if report.problems.is_empty() {
        return Ok(());
    }
    let shown = report
        .problems
        .iter()
        .take(3)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    let all = report.problems.len() as u64 + report.problems_untold;
    Err(format!(
        "{all} problems in the stored data: {shown}. kvnode check lists them. {DAMAGED}"
    ))
}
