//! What can be typed behind `kv backup` and `kv restore`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kvclient::{
    Position,
    backup::{self, time_of_text},
};

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Directory of the backup; made if it is not there
    pub(crate) dir: PathBuf,
    /// Go on adding what is written, until Ctrl-C
    #[arg(long)]
    pub(crate) follow: bool,
    /// Whom to copy from
    #[arg(long, value_enum, default_value_t)]
    pub(crate) from: CopyFrom,
    /// Only read all of the backup that is there and check it; asks no node
    #[arg(long, conflicts_with_all = ["follow", "from"])]
    pub(crate) verify: bool,
}

/// Whom to copy from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum CopyFrom {
    /// Replicas that are ready, else primaries
    #[default]
    Replicas,
    /// Primaries
    Primary,
}

impl From<CopyFrom> for backup::CopyFrom {
    fn from(from: CopyFrom) -> Self {
        match from {
            CopyFrom::Replicas => Self::Replicas,
            CopyFrom::Primary => Self::Primary,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Directory of the backup
    pub(crate) dir: PathBuf,
    /// Restore shards of the backup as they were at these positions, such as shard1=3.1207,shard2=2.900; others to the end
    #[arg(long, value_name = "SHARD=POSITION", value_delimiter = ',', value_parser = shard_position)]
    pub(crate) to_position: Vec<(String, Position)>,
    /// Restore all shards as they were at this time, such as 2026-11-26T12:05:09Z
    #[arg(long, value_name = "TIME", conflicts_with = "to_position", value_parser = time_of_text)]
    pub(crate) to_time: Option<u64>,
    /// Also into a cluster that has entries: they stay, unless the backup has the key
    #[arg(long)]
    pub(crate) into_non_empty: bool,
    /// Note here how far it has come [default: restore.progress in the directory of the backup]
    #[arg(long, value_name = "FILE")]
    pub(crate) progress: Option<PathBuf>,
}

fn shard_position(text: &str) -> Result<(String, Position), String> {
    let parsed = text.rsplit_once('=').and_then(|(shard, at)| {
        let at = at.parse().ok()?;
        Some((shard.to_owned(), at))
    });
    parsed.ok_or_else(|| format!("{text:?} names no shard and position; write shard1=3.1207"))
}
