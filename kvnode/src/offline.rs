//! `kvnode check`: verifies a stopped node's data and changes nothing.

use std::{io::Write, path::Path};

use crate::{
    config::Sizes,
    data_dir::DataDir,
    durable::DataError,
    log::{self, CheckReport},
    storage::store_options,
    store::{Meta, Store},
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
    let log = check_log(&current, history, out)?;
    let (meta, store_sound) = check_store(&current, history, out)?;
    let apart = disagreement(&log, &meta);
    if let Some(problem) = &apart {
        let _ = writeln!(out, "log and lmdb: {problem}");
    }
    let sound = log.problems.is_empty() && store_sound && apart.is_none();
    let _ = writeln!(out, "{}", if sound { "sound" } else { "DAMAGED" });
    Ok(sound)
}

/// Why the next start refuses a log and an LMDB that are sound by themselves.
fn disagreement(log: &CheckReport, meta: &Meta) -> Option<String> {
    let (end, applied) = (log.end.position, meta.applied.position);
    let floor = applied.max(meta.durable_floor);
    if end.seq < floor.seq {
        return Some(format!(
            "the log ends at {end}, but was durable up to {floor}"
        ));
    }
    (log.truncated > applied.seq).then(|| {
        format!(
            "the log begins after seq {}, but LMDB contains it up to {applied} only",
            log.truncated
        )
    })
}

fn check_log(
    current: &Path,
    history: u128,
    out: &mut impl Write,
) -> Result<CheckReport, CheckError> {
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
    Ok(report)
}

fn check_store(
    current: &Path,
    history: u128,
    out: &mut impl Write,
) -> Result<(Meta, bool), CheckError> {
    let unreadable = |error: crate::store::StoreError| CheckError::Unreadable(error.to_string());
    let store = Store::open(
        &current.join("lmdb"),
        history,
        store_options(&Sizes::default()),
    )
    .map_err(unreadable)?;
    let report = store.verify(|_| {}).map_err(unreadable)?;
    let meta = store.meta().clone();
    let applied = meta.applied.position;
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
    Ok((meta, report.is_sound()))
}
