//! `kvnode check`: verifies a stopped node's data and changes nothing.

use std::{io::Write, path::Path};

use crate::{
    config::Sizes, data_dir::DataDir, durable::DataError, log, storage::store_options, store::Store,
};

/// Why the data cannot even be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The directory around it.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The generation in it.
    #[error("{0}")]
    Unreadable(String),
}

/// Walks log and LMDB, writes a report, and says whether all is sound.
///
/// # Errors
/// [`CheckError`]: nothing could be checked.
pub fn check(data: &Path, out: &mut impl Write) -> Result<bool, CheckError> {
    let dir = DataDir::look(data)?;
    let Some(history) = dir.history() else {
        let _ = writeln!(out, "{}: nothing was ever stored here", data.display());
        return Ok(true);
    };
    let current = dir.current()?;
    let _ = writeln!(
        out,
        "{}: shard {:?}, slots {}",
        current.display(),
        dir.marker().shard,
        dir.marker().slots
    );
    let log_sound = check_log(&current, history, out)?;
    let store_sound = check_store(&current, history, out)?;
    let sound = log_sound && store_sound;
    let _ = writeln!(out, "{}", if sound { "sound" } else { "DAMAGED" });
    Ok(sound)
}

fn check_log(current: &Path, history: u128, out: &mut impl Write) -> Result<bool, CheckError> {
    let report = log::check(&current.join("log"), history);
    let report = report.map_err(|error| CheckError::Unreadable(error.to_string()))?;
    let _ = writeln!(
        out,
        "log: seq {} to {}, {} frames, {} records, {} segments",
        report.truncated + 1,
        report.end.position,
        report.frames,
        report.records,
        report.segments
    );
    if let Some(torn) = &report.torn {
        let _ = writeln!(
            out,
            "log: {} bytes after {} are torn; the next start cuts them",
            torn.bytes, torn.after
        );
    }
    for problem in &report.problems {
        let _ = writeln!(out, "log: {problem}");
    }
    Ok(report.problems.is_empty())
}

fn check_store(current: &Path, history: u128, out: &mut impl Write) -> Result<bool, CheckError> {
    let unreadable = |error: crate::store::StoreError| CheckError::Unreadable(error.to_string());
    let store = Store::open(
        &current.join("lmdb"),
        history,
        store_options(&Sizes::default()),
    )
    .map_err(unreadable)?;
    let report = store.verify(|_| {}).map_err(unreadable)?;
    let applied = store.applied().position;
    store.close();
    let _ = writeln!(
        out,
        "lmdb: {} entries, {} bytes, applied {applied}",
        report.entries, report.bytes
    );
    for problem in &report.problems {
        let _ = writeln!(out, "lmdb: {problem}");
    }
    if report.problems_untold > 0 {
        let _ = writeln!(out, "lmdb: and {} problems more", report.problems_untold);
    }
    Ok(report.is_sound())
}
