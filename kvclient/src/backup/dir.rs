//! The directory of a backup: which files are where, who may touch them, and how they become durable.
//!
//! ```text
//! DIR/backup.lock            held while somebody writes (or, shared, reads)
//! DIR/backup.json            what there is: every shard is in it
//! DIR/backup.part.json       the same of a first backup that is not whole yet; never restored from
//! DIR/shard-0/snapshot-1.97  the shard's snapshot stream, byte for byte as it came; named by where it starts
//! DIR/shard-0/log-00000000000000000213    frames behind it, as they came; named by their first seq
//! DIR/shard-0/snapshot.part  a snapshot that is arriving
//! ```
//!
//! Order: a file is synced, and its directory, before a manifest names it; a manifest is written under another name,
//! synced and renamed; a file is removed only after a synced manifest no longer names it. So at any moment, also after
//! a power cut, the manifest in place names what is there. Bytes behind the length that it gives are the rest of an
//! interrupted run; the next one cuts them off.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    error::BackupError,
    manifest::{FileEntry, Manifest, ShardBackup},
};

const WHOLE: &str = "backup.json";
const PART: &str = "backup.part.json";
const LOCK: &str = "backup.lock";

/// Bytes written between two syncs: a sync at the end of a large file alone would hold up all others for too long.
const SYNC_EVERY_BYTES: u64 = 64 << 20;

/// A snapshot that is arriving.
const SNAPSHOT_PART: &str = "snapshot.part";

/// A directory that nobody else writes to meanwhile. Clones share its lock.
#[derive(Debug, Clone)]
pub struct BackupDir {
    path: PathBuf,
    /// `None`: copied from elsewhere, where nobody writes any more.
    _lock: Option<Arc<File>>,
}

impl BackupDir {
    /// Opens a directory to write into, and makes it if it is not there.
    ///
    /// # Errors
    /// [`BackupError::Busy`]: somebody else uses it. [`BackupError::File`]: it cannot be made.
    pub fn create(path: &Path) -> Result<Self, BackupError> {
        fs::create_dir_all(path).map_err(BackupError::file("make the directory", path))?;
        let lock = path.join(LOCK);
        let file = OpenOptions::new().create(true).append(true).open(&lock);
        let file = file.map_err(BackupError::file("open", &lock))?;
        Self::locked(path, file.try_lock(), Some(file))
    }

    /// Opens a directory to read.
    ///
    /// # Errors
    /// [`BackupError::Busy`]: somebody writes into it. [`BackupError::Missing`]: it holds no backup.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let lock = path.join(LOCK);
        match File::open(&lock) {
            Ok(file) => Self::locked(path, file.try_lock_shared(), Some(file)),
            // Copied from elsewhere without it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::locked(path, Ok(()), None)
            }
            Err(error) => Err(BackupError::file("open", &lock)(error)),
        }
    }

    fn locked(
        path: &Path,
        locked: Result<(), TryLockError>,
        file: Option<File>,
    ) -> Result<Self, BackupError> {
        match locked {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: file.map(Arc::new),
            }),
            Err(TryLockError::WouldBlock) => Err(BackupError::Busy(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(BackupError::file("lock", path)(error)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it, also if it is not whole; `None`: nothing yet.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] or [`BackupError::File`]: it is there and cannot be read.
    pub fn manifest(&self) -> Result<Option<Manifest>, BackupError> {
        match self.read(WHOLE)? {
            Some(manifest) if !manifest.is_whole() => {
                let path = self.path.join(WHOLE);
                Err(BackupError::damaged(&path, "not every shard is in it"))
            }
            Some(manifest) => Ok(Some(manifest)),
            None => self.read(PART),
        }
    }

    /// What is in it, if that is a whole backup.
    ///
    /// # Errors
    /// [`BackupError::Missing`], [`BackupError::Half`], or as [`Self::manifest`].
    pub fn whole_manifest(&self) -> Result<Manifest, BackupError> {
        match self.manifest()? {
            Some(manifest) if manifest.is_whole() => Ok(manifest),
            Some(manifest) => Err(BackupError::Half {
                dir: self.path.clone(),
                shards: manifest.shards.len(),
            }),
            None if self.holds_shards() => Err(BackupError::Half {
                dir: self.path.clone(),
                shards: 0,
            }),
            None => Err(BackupError::Missing(self.path.clone())),
        }
    }

    fn holds_shards(&self) -> bool {
        self.path.join("shard-0").is_dir()
    }

    fn read(&self, name: &str) -> Result<Option<Manifest>, BackupError> {
        let path = self.path.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BackupError::file("read", &path)(error)),
        };
        let manifest = Manifest::decode(&text);
        manifest
            .map(Some)
            .map_err(|problem| BackupError::damaged(&path, problem))
    }

    /// Puts a manifest in force. What it names must be synced.
    ///
    /// # Errors
    /// [`BackupError::File`]: the one before is still in force.
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let name = match manifest.is_whole() {
            true => WHOLE,
            false => PART,
        };
        replace(&self.path.join(name), &manifest.encode())?;
        if manifest.is_whole() {
            remove(&self.path.join(PART))?;
        }
        Ok(())
    }

    /// Where a shard's files are.
    pub fn shard_dir(&self, idx: u16) -> PathBuf {
        self.path.join(format!("shard-{idx}"))
    }

    /// A file of a shard.
    pub fn file(&self, idx: u16, name: &str) -> PathBuf {
        self.shard_dir(idx).join(name)
    }

    /// Begins a shard's snapshot.
    pub(crate) fn begin_snapshot(&self, idx: u16) -> Result<Writing, BackupError> {
        let dir = self.shard_dir(idx);
        fs::create_dir_all(&dir).map_err(BackupError::file("make the directory", &dir))?;
        sync_dir(&self.path)?;
        let path = dir.join(SNAPSHOT_PART);
        let file = File::create(&path).map_err(BackupError::file("create", &path))?;
        Ok(Writing::new(path, file))
    }

    /// Gives an arrived snapshot its name.
    pub(crate) fn name_snapshot(
        &self,
        idx: u16,
        part: Writing,
        name: &str,
    ) -> Result<FileEntry, BackupError> {
        let entry = part.synced(name)?;
        let path = self.file(idx, name);
        let from = self.file(idx, SNAPSHOT_PART);
        fs::rename(&from, &path).map_err(BackupError::file("rename", &from))?;
        sync_dir(&self.shard_dir(idx))?;
        Ok(entry)
    }

    /// Opens a shard's log file behind what the manifest knows of it, or a new one.
    pub(crate) fn open_log(&self, idx: u16, entry: &FileEntry) -> Result<Writing, BackupError> {
        let path = self.file(idx, &entry.name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(BackupError::file("open", &path))?;
        let found = file.metadata().map_err(BackupError::file("read", &path))?;
        if found.len() < entry.bytes {
            let problem = format!(
                "it has {} bytes, the manifest says {}",
                found.len(),
                entry.bytes
            );
            return Err(BackupError::damaged(&path, problem));
        }
        file.set_len(entry.bytes)
            .map_err(BackupError::file("cut", &path))?;
        sync_dir(&self.shard_dir(idx))?;
        Ok(Writing {
            bytes: entry.bytes,
            crc32c: entry.crc32c,
            ..Writing::new(path, file)
        })
    }

    /// Removes whatever of a shard its part of the manifest does not name.
    pub(crate) fn remove_others(&self, shard: &ShardBackup) -> Result<(), BackupError> {
        let dir = self.shard_dir(shard.idx);
        let listed = fs::read_dir(&dir).map_err(BackupError::file("read", &dir))?;
        for entry in listed {
            let entry = entry.map_err(BackupError::file("read", &dir))?;
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(|name| {
                name.starts_with("snapshot-") || name.starts_with("log-") || name == SNAPSHOT_PART
            });
            let is_named = shard.files().any(|file| *file.name == *name);
            if is_ours && !is_named {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A file that grows, with the checksum of what is in it.
#[derive(Debug)]
pub(crate) struct Writing {
    path: PathBuf,
    file: File,
    bytes: u64,
    crc32c: u32,
}

impl Writing {
    fn new(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file,
            bytes: 0,
            crc32c: 0,
        }
    }

    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), BackupError> {
        let written = self.file.write_all(piece);
        written.map_err(BackupError::file("write", &self.path))?;
        let before = self.bytes / SYNC_EVERY_BYTES;
        self.bytes += piece.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, piece);
        match self.bytes / SYNC_EVERY_BYTES > before {
            true => self.sync(),
            false => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), BackupError> {
        let synced = self.file.sync_data();
        synced.map_err(BackupError::file("sync", &self.path))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Syncs it: what may then stand in a manifest, under this name.
    pub(crate) fn synced(&self, name: &str) -> Result<FileEntry, BackupError> {
        self.sync()?;
        Ok(FileEntry {
            name: name.to_owned(),
            bytes: self.bytes,
            crc32c: self.crc32c,
        })
    }

    /// Gives the room back that an interrupted snapshot takes.
    pub(crate) fn discard(self) {
        // If that fails, the next run removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Replaces a small file as a whole: there is the old one or the new one, never a part.
pub(crate) fn replace(path: &Path, text: &[u8]) -> Result<(), BackupError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(text)?;
        file.sync_all()
    };
    write().map_err(BackupError::file("write", &new))?;
    fs::rename(&new, path).map_err(BackupError::file("replace", path))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BackupError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes names in a directory durable, where directories can be opened.
fn sync_dir(path: &Path) -> Result<(), BackupError> {
    if !cfg!(unix) {
        return Ok(());
    }
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(BackupError::file("sync", path))
}
