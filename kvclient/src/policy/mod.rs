//! Decisions about ops, apart from the code that carries them out: which node to ask, and whether to ask again.
//!
//! Everything here is pure: what it depends on is passed in, also randomness. `read` chooses among the nodes
//! that may answer, [`retry`] holds the one table of what is tried again.

pub(crate) mod read;
pub mod retry;

use std::time::Duration;

/// How new the answer to a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// Any node of the shard that holds everything this session has written or read. The default: as scalable as
    /// reads from replicas are, without their surprises.
    #[default]
    ReadYourWrites,
    /// Any node of the shard, as it is. The least waiting; may be older than what was read before. What it shows
    /// counts as seen all the same.
    Eventual,
    /// Any node of the shard whose copy is at most this old (whole milliseconds).
    MaxLag(Duration),
    /// The primary: every acknowledged write, whoever made it.
    Primary,
}

/// What matters about an op when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Changes nothing: can be repeated anywhere, any number of times.
    Read,
    /// May change something: goes to the primary, and is repeated only if it surely was not applied.
    Write,
}
