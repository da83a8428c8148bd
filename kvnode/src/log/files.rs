//! Names in the log's directory, and small things that several files need.
//!
//! `0000000000000001.seg` are segments. `spare-1.seg` is preallocated and ready to become one; `spare-1.new` is
//! being preallocated and worth nothing after a crash. `window` belongs to [`super::window`].

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::error::LogError;

/// What files are zeroed with.
pub(super) static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

const SEGMENT_DIGITS: usize = 16;

/// The log's files, as the directory lists them.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Segments by number, ascending.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// Complete spares.
    pub(super) spares: Vec<PathBuf>,
    /// Spares that were never finished.
    pub(super) unfinished: Vec<PathBuf>,
    /// A spare's number that is free.
    pub(super) next_spare: u64,
}

impl Listing {
    /// Lists `dir`. Files with other names are not the log's business.
    pub(super) fn read(dir: &Path) -> Result<Self, LogError> {
        let mut listing = Self {
            next_spare: 1,
            ..Self::default()
        };
        for entry in std::fs::read_dir(dir).map_err(LogError::io("list", dir))? {
            let path = entry.map_err(LogError::io("list", dir))?.path();
            listing.add(path);
        }
        listing.segments.sort_unstable();
        Ok(listing)
    }

    fn add(&mut self, path: PathBuf) {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some((stem, kind)) = name.and_then(|name| name.split_once('.')) else {
            return;
        };
        let spare_number: Option<u64> = stem.strip_prefix("spare-").and_then(|n| n.parse().ok());
        match (spare_number, kind) {
            (Some(number), "seg") => {
                self.next_spare = self.next_spare.max(number + 1);
                self.spares.push(path);
            }
            (Some(_), "new") => self.unfinished.push(path),
            (None, "seg") => {
                let digits =
                    stem.len() == SEGMENT_DIGITS && stem.bytes().all(|b| b.is_ascii_digit());
                if let (true, Ok(number)) = (digits, stem.parse()) {
                    self.segments.push((number, path));
                }
            }
            _ => {}
        }
    }
}

/// Where segment `number` lives.
pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:0SEGMENT_DIGITS$}.seg"))
}

/// Where spare `number` lives once it is complete.
pub(super) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("spare-{number}.seg"))
}

/// Makes names durable: files made, renamed or removed in `dir`.
pub(super) fn sync_dir(dir: &Path) -> Result<(), LogError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(LogError::io("sync", dir))
}

/// Removes a file of the log; durable after [`sync_dir`].
pub(super) fn remove(path: &Path) -> Result<(), LogError> {
    std::fs::remove_file(path).map_err(LogError::io("remove", path))
}

/// Locks. No code of the log panics while it holds a lock half-way through a change, so a poisoned one is whole.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
