//! What can be typed behind `kv export` and `kv import`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::terms::AckArgs;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub(crate) prefix: OsString,
    /// Write into this file, which must not be there yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// File of lines; none or "-": standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// What to do with a key that is there
    #[arg(long, value_enum, default_value_t)]
    pub(crate) on_conflict: OnConflict,
    #[command(flatten)]
    pub(crate) ack: AckArgs,
}

/// What to do with a key that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OnConflict {
    /// Store the line's entry in its place
    #[default]
    Replace,
    /// Leave it as it is
    Skip,
}
