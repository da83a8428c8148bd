//! The data directory with its generation in force: opened at start, begun by a first pull, changed by a snapshot,
//! closed at the end. All of it blocks.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use kvclient::{position::Epoch, wire::log::Link};
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    data_dir::{DataDir, DataError, Marker},
    service::Service,
    storage::{self, FailureSender, Storage, StorageError, StorageThreads},
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
    open: Option<(StorageThreads, AbortHandle)>,
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

    /// Opens the generation in force and gives it to the service.
    ///
    /// # Errors
    /// [`HomeError`]: the node must not start on it.
    pub fn open(&self, service: &Service) -> Result<(), HomeError> {
        self.open_in(&mut self.lock(), service)
    }

    /// Makes an empty generation of a history, puts it in force and opens it.
    ///
    /// # Errors
    /// [`HomeError`]: nothing is in force.
    pub fn begin(&self, service: &Service, history: u128) -> Result<(), HomeError> {
        let mut inner = self.lock();
        let path = inner.dir.new_generation()?;
        storage::create(&path, history, Link::default(), &service.config.sizes)?;
        inner.dir.install(&path, history)?;
        self.open_in(&mut inner, service)
    }

    /// An empty directory for the next generation.
    ///
    /// # Errors
    /// [`DataError`]: there is no room or no right to make it.
    pub fn new_generation(&self) -> Result<PathBuf, DataError> {
        self.lock().dir.new_generation()
    }

    /// Closes the generation in force, puts the finished one at `path` in force instead and opens it. The old one
    /// is removed unless a person wanted it kept (`--rejoin`).
    ///
    /// # Errors
    /// [`HomeError`]: nothing is open; the next start finds one of the two in force, whole.
    pub fn change_to(
        &self,
        service: &Service,
        path: &Path,
        history: u128,
        keep_old: bool,
    ) -> Result<(), HomeError> {
        let mut inner = self.lock();
        let old = inner.dir.current().ok();
        Self::close_in(&mut inner, service);
        inner.dir.install(path, history)?;
        self.open_in(&mut inner, service)?;
        if let Some(old) = old.filter(|_| !keep_old)
            && let Err(error) = std::fs::remove_dir_all(&old)
        {
            tracing::warn!(path = %old.display(), %error, "the old generation cannot be removed");
        }
        Ok(())
    }

    /// Closes what is open, leaving a floor for the next start.
    pub fn close(&self, service: &Service) {
        Self::close_in(&mut self.lock(), service);
    }

    fn open_in(&self, inner: &mut Inner, service: &Service) -> Result<(), HomeError> {
        let path = inner.dir.current()?;
        let history = inner.dir.history().ok_or_else(|| {
            DataError::Refused(format!(
                "{}: node.toml does not say which history it holds",
                path.display()
            ))
        })?;
        let sizes = &service.config.sizes;
        let (storage, threads) =
            storage::open(&path, history, sizes, &service.clock, &self.failures)?;
        let upkeep = self
            .runtime
            .spawn(Storage::upkeep(storage.clone(), self.failures.clone()));
        inner.open = Some((threads, upkeep.abort_handle()));
        service.storage.store(Some(storage.into()));
        Ok(())
    }

    fn close_in(inner: &mut Inner, service: &Service) {
        let storage = service.storage.swap(None);
        let Some((threads, upkeep)) = inner.open.take() else {
            return;
        };
        if let Some(storage) = storage {
            storage.commit.stop();
        }
        upkeep.abort();
        if let Err(error) = threads.close() {
            tracing::warn!(%error, "the floor could not be written; the next start trusts the log alone");
        }
    }
}
