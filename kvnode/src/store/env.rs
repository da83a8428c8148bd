//! Opens LMDB, and is the only file with `unsafe`.
//!
//! Durability flags are LMDB's defaults, always: a commit returns after its data pages and its meta page are synced.
//! The flags are read back and anything weaker is refused, because with `NO_SYNC` a power loss can leave an
//! environment that opens as empty without an error.
//!
//! LMDB does not sync the directory that names its files; this does. No code may open `data.mdb` or `lock.mdb` by
//! itself: closing them again would drop LMDB's locks (`lmdb.h`, caveats).

use std::{
    fs::{self, DirBuilder, File},
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use heed::{
    CommitOrAbort, CompactionOption, Database, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithoutTls,
    types::Bytes,
};

use super::{error::StoreError, long_reads::LongReads};

/// Read transactions are not tied to threads, so that one may outlive a call (see `verify`). Each begin takes the
/// lock of the reader table; with a slot per thread instead, a point read took about a fifth less.
pub(super) type Tls = WithoutTls;

/// A table from bytes to bytes, ordered by key.
pub(super) type Table = Database<'static, Bytes, Bytes>;

/// LMDB takes only multiples of the page size; no machine in use has pages larger than this.
const MAP_GRAIN_BYTES: usize = 64 << 10;

/// A disk with less room than this counts as full when a write fails: LMDB writes 64 pages at once.
const NO_ROOM_BYTES: u64 = 1 << 20;

/// How long closing waits for readers to let go.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// An open environment and its tables. Cheap to clone.
#[derive(Clone)]
pub(super) struct Env {
    env: heed::Env<Tls>,
    long_reads: Arc<LongReads>,
    /// Entries.
    pub(super) data: Table,
    /// Entries that expire, by time.
    pub(super) expiry: Table,
    /// Remembered requests.
    pub(super) requests: Table,
    /// Identity, state, sums.
    pub(super) meta: Table,
}

/// A read that lasts.
pub(super) struct LongRead {
    pub(super) txn: RoTxn<'static, Tls>,
    _began: Arc<Instant>,
}

/// How much of the map is in use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Pages ever used, free ones among them.
    pub(super) used_bytes: u64,
    /// What the file may grow to.
    pub(super) map_bytes: u64,
}

impl Env {
    /// Makes an environment in `dir`, made if missing.
    ///
    /// # Errors
    /// `Refused`: there is one already. Else as [`Self::open`].
    pub(super) fn create(
        dir: &Path,
        map_size_bytes: usize,
        max_readers: u32,
    ) -> Result<Self, StoreError> {
        if exists(dir) {
            let why = format!("there is a store in {} already", dir.display());
            return Err(StoreError::Refused(why));
        }
        Self::open(dir, map_size_bytes, max_readers)
    }

    /// Opens the environment in `dir`, made if missing, with its four tables.
    ///
    /// # Errors
    /// `Full`: no room even for that. `Fatal`: it cannot be used, or this process has it open already.
    pub(super) fn open(
        dir: &Path,
        map_size_bytes: usize,
        max_readers: u32,
    ) -> Result<Self, StoreError> {
        create_dir(dir)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options
            .map_size(map_size_bytes.next_multiple_of(MAP_GRAIN_BYTES))
            .max_readers(max_readers)
            .max_dbs(4);
        #[expect(unsafe_code, reason = "LMDB maps a file into memory")]
        // SAFETY: the file must not change but through LMDB. The node holds a lock on its data directory, creates
        // the file with mode 0600 and never opens it otherwise; heed refuses a second environment on one path.
        let env = unsafe { options.open(dir) }?;
        refuse_weak_flags(&env)?;
        env.clear_stale_readers()?;
        let opened = Self::with_tables(&env)?;
        sync_dir(dir)?;
        Ok(opened)
    }

    fn with_tables(env: &heed::Env<Tls>) -> Result<Self, StoreError> {
        let txn = env.write_txn()?;
        let tables = env.create_databases_and_commit(txn, |opener, txn| {
            let mut table = |name| opener.create_database::<Bytes, Bytes>(txn, Some(name));
            let tables = (
                table("data")?,
                table("expiry")?,
                table("requests")?,
                table("meta")?,
            );
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
        })?;
        let (data, expiry, requests, meta) = tables
            .commit()
            .ok_or_else(|| StoreError::Fatal("LMDB: tables were not created".into()))?;
        Ok(Self {
            env: env.clone(),
            long_reads: Arc::default(),
            data,
            expiry,
            requests,
            meta,
        })
    }

    /// Begins a short read. Its thread must not wait for anything before it ends.
    pub(super) fn read(&self) -> Result<RoTxn<'_, Tls>, StoreError> {
        Ok(self.env.read_txn()?)
    }

    /// Begins a read that keeps the environment open. Pages freed meanwhile are not used again, so the file grows.
    pub(super) fn long_read(&self) -> Result<LongRead, StoreError> {
        Ok(LongRead {
            txn: self.env.clone().static_read_txn()?,
            _began: self.long_reads.begin(),
        })
    }

    /// How long the oldest such read has lasted.
    pub(super) fn oldest_long_read(&self) -> Duration {
        self.long_reads.oldest()
    }

    /// Begins a write. It must be committed or dropped on the thread that began it: heed lets it move, and then the
    /// next one waits for ever (heed issue 339).
    pub(super) fn write(&self) -> Result<RwTxn<'_>, StoreError> {
        Ok(self.env.write_txn()?)
    }

    /// Pages that hold something, in bytes, and the two that every file begins with: what a copy without free pages has.
    pub(super) fn live_bytes(&self) -> Result<u64, StoreError> {
        let txn = self.read()?;
        let mut bytes = self.env.unnamed_database_stat().non_free_page_size();
        for table in [&self.data, &self.expiry, &self.requests, &self.meta] {
            bytes += table.stat(&txn)?.non_free_page_size();
        }
        let page_bytes = self.env.unnamed_database_stat().page_size as usize;
        Ok((bytes + 2 * page_bytes) as u64)
    }

    /// Writes a copy without free pages into an empty file, which is not synced.
    pub(super) fn copy_compactly(&self, file: &mut File) -> Result<(), StoreError> {
        Ok(self.env.copy_to_file(file, CompactionOption::Enabled)?)
    }

    /// How full the map is.
    pub(super) fn space(&self) -> Space {
        let info = self.env.info();
        let page_bytes = u64::from(self.env.unnamed_database_stat().page_size);
        Space {
            used_bytes: (info.last_page_number as u64 + 1) * page_bytes,
            map_bytes: info.map_size as u64,
        }
    }

    /// Most readers that there ever were at once: slots of the reader table are used again and never given back.
    pub(super) fn readers(&self) -> u32 {
        self.env.info().number_of_readers
    }

    /// What a failed write transaction means. LMDB calls a write that was cut short by a full disk an I/O error
    /// (`mdb_page_flush` in mdb.c knows no better code); with no room left on the disk it is taken for that. The
    /// transaction is gone, the next one writes all its pages anew.
    pub(super) fn judge_failure(&self, error: StoreError) -> StoreError {
        let StoreError::Fatal(why) = error else {
            return error;
        };
        match room_bytes(self.env.path()) {
            Some(room) if room < NO_ROOM_BYTES => {
                StoreError::Full(format!("the disk has {room} bytes left: {why}"))
            }
            _ => StoreError::Fatal(why),
        }
    }

    /// Closes the environment once nobody else uses it. False: somebody still does.
    pub(super) fn close(self) -> bool {
        let closing = self.env.clone().prepare_for_closing();
        drop(self);
        closing.wait_timeout(CLOSE_WAIT)
    }
}

/// Says whether an environment is in `dir`, without touching it. LMDB takes an empty file for none.
pub(super) fn exists(dir: &Path) -> bool {
    match fs::metadata(dir.join("data.mdb")) {
        Ok(file) => file.len() > 0,
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

/// Room on the disk for a process without privileges.
fn room_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn refuse_weak_flags(env: &heed::Env<Tls>) -> Result<(), StoreError> {
    let weak =
        EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC | EnvFlags::WRITE_MAP | EnvFlags::MAP_ASYNC;
    let flags = env.get_flags()?;
    if flags & weak.bits() != 0 {
        return Err(StoreError::Fatal(format!(
            "LMDB is open with flags {flags:#x}, which do not survive a power loss"
        )));
    }
    Ok(())
}

/// Creates a directory that only its owner may enter, and makes its name durable.
fn create_dir(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    dir.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    // The parent of a bare name is the empty path.
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    Ok(File::open(dir)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_once_and_again_after_closing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/lmdb");
        assert!(!exists(&path));
        let env = Env::open(&path, 1 << 20, 10).unwrap();
        assert!(exists(&path));
        assert!(matches!(
            Env::open(&path, 1 << 20, 10),
            Err(StoreError::Fatal(_))
        ));
        assert!(env.close());
        let env = Env::open(&path, 1 << 20, 10).unwrap();
        assert!(env.space().used_bytes < env.space().map_bytes);
        let second = env.clone();
        drop(second);
        assert!(env.close());
    }

    #[test]
    fn weak_flags_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        #[expect(unsafe_code, reason = "to see that a weak flag is refused")]
        // SAFETY: the environment is this test's own and is thrown away.
        let env = unsafe { options.flags(EnvFlags::NO_SYNC).open(dir.path()) }.unwrap();
        assert!(refuse_weak_flags(&env).is_err());
    }

    #[test]
    fn readers_are_limited() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::open(dir.path(), 1 << 20, 2).unwrap();
        let _held = (env.read().unwrap(), env.read().unwrap());
        assert_eq!(env.read().err(), Some(StoreError::Busy));
    }
}
