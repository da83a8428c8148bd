//! Backups of a cluster: copied from its nodes, checked, and restored into any cluster. The tool `kv` is a program over
//! this module (`kv backup`, `kv restore`).
//!
//! A backup is a directory with, for each shard, the snapshot stream of [`wire::snapshot`](crate::wire::snapshot) as a node sent
//! it and the frames of the log behind it, as they are in the nodes' files. Nothing is translated, so every checksum that
//! protects the data on its way and on the nodes' disks protects it here too, and the same bytes can be read on every
//! architecture.
//!
//! - [`Puller`] copies: whole at first, then only the log since. What it has is always whole, see [`BackupDir`].
//! - [`verify()`] reads all of it and checks all of it.
//! - [`States`] gives the entries of a shard at any moment since the snapshot; [`restore()`] writes those of all shards
//!   into a cluster, whatever its shards are.
//!
//! Shards are copied one beside the other, and there is no moment that all share: each is exact at a position of its own.
//! [`Until::TimeMs`] restores all of them to one time, as far as their clocks agree.

mod adding;
mod chain;
mod copy;
mod dir;
mod entries;
mod error;
mod fold;
mod manifest;
mod progress;
mod pull;
mod restore;
mod source;
mod state;
mod time;
mod until;
mod verify;

pub use self::{
    chain::{Chain, PlacedRecord},
    copy::{CheckedCopy, CopyCheck},
    dir::BackupDir,
    error::BackupError,
    manifest::{FORMAT, FileEntry, Manifest, ShardBackup},
    pull::{CopyFrom, Puller, Report},
    restore::{IntoNonEmpty, RestoreOptions, RestoreReport, Summary, restore},
    state::{Restored, States},
    time::{time_of_text, time_text},
    until::Until,
    verify::{Verified, verify},
};
