//! Whether a node serves, and if not, why: what `/readyz` says, and what refuses reads and writes.

use kvclient::shard_map::{Address, ShardMap};

/// Whether this node serves, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// Not yet, or not for writes: the reason, for a person. Reads are answered if there is data.
    NotReady(String),
    /// A replica's first copy has not reached the primary yet: no reads either.
    Copying,
    /// Its log has parted from the primary's: no reads either.
    Diverged(String),
    /// Stored data is not what was written: no writes, and what is read is checked entry by entry.
    Damaged(String),
    /// It stops.
    Stopping,
}

impl Readiness {
    /// `ready`, or why not.
    pub fn to_text(&self) -> String {
        match self {
            Self::Ready => "ready".into(),
            Self::NotReady(why) => format!("not ready: {why}"),
            Self::Copying => "not ready: makes its first copy of the primary's data".into(),
            Self::Diverged(why) => format!("diverged: {why}"),
            Self::Damaged(why) => format!("damaged: {why}"),
            Self::Stopping => "stopping".into(),
        }
    }
}

/// Two nodes go by maps of one version and different contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapConflict {
    /// The other node.
    pub node: Address,
    /// Its map's identity.
    pub identity: String,
}

impl MapConflict {
    /// What is wrong and how to mend it, for a person.
    pub fn to_text(&self, own: &ShardMap) -> String {
        format!(
            "map_conflict: {} goes by shard map {}, this node by {}. Give all nodes the same file, with a new version",
            self.node,
            self.identity,
            own.identity()
        )
    }
}
