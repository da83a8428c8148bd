//! What every row is given: how long to measure, how often, and where the programs are.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;

/// Options of a run that rows go by.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) form: Form,
    /// What one measurement lasts, without its warm-up.
    pub(crate) lasts: Duration,
    /// How often each side has its turn.
    pub(crate) rounds: usize,
    /// Where servers keep their data.
    pub(crate) dir: PathBuf,
}

/// How much of a row is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the table wants it.
    Full,
    /// About a second: shows that the row works, and its figures mean nothing.
    Short,
}

/// Where the programs are. `None`: not installed, which the table says.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) kvnode: PathBuf,
    pub(crate) redis: Option<PathBuf>,
    pub(crate) valkey: Option<PathBuf>,
    pub(crate) etcd: Option<PathBuf>,
    pub(crate) wrk: Option<PathBuf>,
    pub(crate) strace: Option<PathBuf>,
}

impl Bench {
    /// Keys that a row uses which does not name a number of its own.
    pub(crate) fn keys(&self) -> usize {
        match self.form {
            Form::Full => 100_000,
            Form::Short => 2_000,
        }
    }

    /// What comes before each measurement.
    pub(crate) fn warm_up(&self) -> Duration {
        self.lasts / 8
    }

    /// A directory that goes with what is dropped.
    pub(crate) fn directory(&self) -> anyhow::Result<TempDir> {
        tempfile::Builder::new()
            .prefix("performance-")
            .tempdir_in(&self.dir)
            .with_context(|| format!("no directory can be made in {}", self.dir.display()))
    }
}

/// A program as an option names it, which must then be there; else from `PATH`.
pub(crate) fn find(named: Option<&Path>, program: &str) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = named {
        anyhow::ensure!(path.is_file(), "{} is not there", path.display());
        return Ok(Some(path.to_owned()));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates = env::split_paths(&path).map(|dir| dir.join(program));
    Ok(candidates.find(|candidate| candidate.is_file()))
}
