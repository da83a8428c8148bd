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

/// Makes a directory, with all above it that are missing. Their names are durable on return: a data directory whose
/// name the disk lost takes everything acknowledged with it, and the next start takes it for a new one.
pub(crate) fn make_dir(path: &Path) -> Result<(), DataError> {
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let missing = path.ancestors().take_while(is_missing).count();
    fs::create_dir_all(path).map_err(failed("cannot make", path))?;
    // One that is there may have been made by a start that was killed before it came to the sync.
    for above in path.ancestors().skip(1).take(missing.max(1)) {
        match sync_dir(above) {
            // Whoever made a directory in one that this process cannot read answers for its name.
            Err(DataError::Io { error, .. })
                if missing == 0 && error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), DataError> {
    // The parent of a bare name is the empty path.
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("cannot sync", path))
}

/// For `map_err`: what was being done, to which file.
pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |error| DataError::Io { what, path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_with_all_above_them() {
        let temp = tempfile::tempdir().expect("tempdir");
        let deep = temp.path().join("a/b/c");
        for _ in 0..2 {
            make_dir(&deep).expect("made, or there");
            assert!(deep.is_dir());
        }
        make_dir(Path::new("src")).expect("a bare name");
        let file = temp.path().join("file");
        fs::write(&file, b"").expect("a file");
        assert!(make_dir(&file.join("x")).is_err());
    }
}
