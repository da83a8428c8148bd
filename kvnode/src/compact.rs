//! `kvnode compact`: rewrites a stopped node's LMDB file without its free pages.
//!
//! ```text
//! gen-1/lmdb/data.mdb          in force until the rename, untouched
//! gen-1/lmdb.new/data.mdb      the copy: written, synced, verified as `kvnode check` does, then renamed over the other
//! ```
//!
//! The rename is the only step that changes what is in force, and it replaces the file as a whole: whatever interrupts it,
//! there is one whole file under that name. What is left in `lmdb.new` is removed by the next start of the node, or the
//! next compaction. The log is not touched; what it has beyond `applied` is read again at the next start, as always.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use crate::{
    config::Sizes,
    data_dir::{DataDir, UNFINISHED_LMDB},
    durable::{DataError, failed, sync_dir},
    machine,
    storage::store_options,
    store::{Meta, Store, StoreError},
};

/// Why nothing was compacted.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The directory around it, or the file system.
    #[error(transparent)]
    Data(#[from] DataError),
    /// What is stored is damaged; it stays as it is.
    #[error("{0}")]
    Refused(String),
    /// There is no room for the copy, or it cannot be written.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for CompactError {
    fn from(error: StoreError) -> Self {
        match error.of_reading() {
            StoreError::Full(why) => Self::Failed(why),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// The files of one compaction.
struct Files {
    old: PathBuf,
    new_dir: PathBuf,
    new: PathBuf,
}

impl Files {
    fn of(generation: &Path) -> Self {
        let new_dir = generation.join(UNFINISHED_LMDB);
        Self {
            old: generation.join("lmdb/data.mdb"),
            new: new_dir.join("data.mdb"),
            new_dir,
        }
    }
}

/// Makes the LMDB file of a stopped node as small as what it holds, and says how large it was and is.
///
/// # Errors
/// [`CompactError`]: what was there is in force as it was.
pub fn compact(data: &Path, out: &mut impl Write) -> Result<(), CompactError> {
    let dir = DataDir::look(data)?;
    let Some(history) = dir.history() else {
        let _ = writeln!(out, "{}: nothing was ever stored here", data.display());
        return Ok(());
    };
    let generation = dir.current()?;
    let files = Files::of(&generation);
    remove_unfinished(&files.new_dir)?;
    let store = Store::open(
        &generation.join("lmdb"),
        history,
        store_options(&Sizes::default()),
    )?;
    let copied = copy(&store, &files, out);
    let meta = store.meta().clone();
    store.close();
    let swapped = match copied {
        Ok(Copied::Whole) => verify(&files, history, &meta, out).and_then(|()| swap(&files, out)),
        Ok(Copied::NotWorth) => Ok(()),
        Err(error) => Err(error),
    };
    let removed = remove_unfinished(&files.new_dir);
    swapped.and_then(|()| Ok(removed?))
}

/// Whether there is a copy.
enum Copied {
    Whole,
    /// It would be no smaller.
    NotWorth,
}

fn copy(store: &Store, files: &Files, out: &mut impl Write) -> Result<Copied, CompactError> {
    let size = size_of(&files.old)?;
    let live = store.live_bytes()?;
    let _ = writeln!(
        out,
        "{}: {size} bytes, of which {live} hold something",
        files.old.display()
    );
    if live >= size {
        let _ = writeln!(out, "nothing to gain");
        return Ok(Copied::NotWorth);
    }
    let free = machine::disk_of(&files.old).map(|disk| disk.free_bytes);
    let told = free.map_or(String::new(), |free| format!("; {free} are free"));
    let _ = writeln!(out, "the copy needs {live} bytes beside it{told}");
    if free.is_some_and(|free| free < live) {
        let why = format!(
            "{}: not enough room for the copy; nothing was changed",
            files.old.display()
        );
        return Err(CompactError::Failed(why));
    }
    fs::create_dir(&files.new_dir).map_err(failed("cannot make", &files.new_dir))?;
    let mut file = create_like(&files.new, &files.old)?;
    store.compact_into(&mut file).map_err(|error| {
        CompactError::Failed(format!("cannot write {}: {error}", files.new.display()))
    })?;
    file.sync_all().map_err(failed("cannot sync", &files.new))?;
    Ok(Copied::Whole)
}

/// A new file that the node's user can open: root may compact what is another user's.
fn create_like(new: &Path, old: &Path) -> Result<File, DataError> {
    let make = || {
        let owner = fs::metadata(old)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(new)?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (owner.uid(), owner.gid()) {
            chown(new, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(file)
    };
    make().map_err(failed("cannot make", new))
}

/// Reads all of the copy, as `kvnode check` reads what is in force, and compares it with what was copied.
fn verify(
    files: &Files,
    history: u128,
    meta: &Meta,
    out: &mut impl Write,
) -> Result<(), CompactError> {
    let copy = Store::open(&files.new_dir, history, store_options(&Sizes::default()))?;
    let report = copy.verify(|_| {});
    let is_same = copy.meta() == meta;
    copy.close();
    let report = report?;
    for problem in &report.problems {
        let _ = writeln!(out, "lmdb: {problem}");
    }
    if !report.is_sound() || !is_same {
        let why = format!(
            "{}: the copy is not sound, so what was there stays. kvnode check says whether that is",
            files.old.display()
        );
        return Err(CompactError::Refused(why));
    }
    let _ = writeln!(
        out,
        "the copy is synced and sound: {} entries, applied {}",
        report.entries, meta.applied.position
    );
    Ok(())
}

fn swap(files: &Files, out: &mut impl Write) -> Result<(), CompactError> {
    let before = size_of(&files.old)?;
    fs::rename(&files.new, &files.old).map_err(failed("cannot rename", &files.new))?;
    sync_dir(files.old.parent().unwrap_or(Path::new(".")))?;
    let after = size_of(&files.old)?;
    let _ = writeln!(
        out,
        "{}: {after} bytes now, {} fewer",
        files.old.display(),
        before.saturating_sub(after)
    );
    Ok(())
}

fn remove_unfinished(dir: &Path) -> Result<(), DataError> {
    match dir.exists() {
        true => fs::remove_dir_all(dir).map_err(failed("cannot remove unfinished", dir)),
        false => Ok(()),
    }
}

fn size_of(file: &Path) -> Result<u64, DataError> {
    let metadata = fs::metadata(file).map_err(failed("cannot read", file))?;
    Ok(metadata.len())
}
