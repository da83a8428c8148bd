//! Small files that are whole after any crash, and what goes wrong with the directory that holds them.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use kvclient::faults;

/// Why a data directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Another process runs on it: exit 4.
    #[error("{0} is in use by another kvnode; two nodes never share a data directory")]
    InUse(PathBuf),
    /// It holds something else than it should: exit 3. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The file system failed: exit 5.
    #[error("{what} {path}: {error}", path = .path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// How it failed.
        error: io::Error,
    },
}

/// Replaces a small file so that a crash leaves the old or the new one, whole.
pub(crate) fn replace(dir: &Path, name: &str, contents: &[u8]) -> Result<(), DataError> {
    let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(contents)?;
        file.sync_all()?;
        faults::point("file.written");
        fs::rename(&new, &path)
    };
    write().map_err(failed("cannot write", &path))?;
    faults::point("file.renamed");
    sync_dir(dir)
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), DataError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("cannot sync", path))
}

/// For `map_err`: what was being done, to which file.
pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |error| DataError::Io { what, path, error }
}
