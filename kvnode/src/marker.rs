//! The marker `node.toml`: whose data a directory holds, and what to expect of it.

use std::{fs, io, path::Path};

use kvclient::{
    position::Epoch,
    shard_map::{Role, Shard},
    wire::log::LOG_FORMAT,
};
use serde::{Deserialize, Serialize};

use crate::durable::{DataError, failed, replace};

/// Name of the file.
const FILE: &str = "node.toml";

/// What the marker says of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing was ever acknowledged from here.
    Creating,
    /// A replica's first copy, by the log, that has not reached the primary yet: no reads.
    Copying,
    /// Data is there; if it is not, it was lost.
    Ready,
    /// A person gave the data up: a snapshot into a new generation is awaited.
    Rejoining,
}

/// The marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Format of log and tables.
    pub format: u32,
    /// Drawn at random when the directory was made; 16 hex digits.
    pub node_id: String,
    /// Name of the shard.
    pub shard: String,
    /// Its slots, as `0-5460,9000`.
    pub slots: String,
    /// `primary` or `replica`.
    pub role: String,
    /// What to expect of the data.
    pub state: State,
    /// History of the log, 32 hex digits; empty until it is known.
    pub history: String,
    /// A reign that another node has told of. As long as it is newer than any in the log: no writes until
    /// `--promote`, which begins a newer one. 0: none.
    #[serde(default)]
    pub fenced_by: Epoch,
    /// Why the data is wrong although it is whole, until `--rejoin`; empty: it is not.
    #[serde(default)]
    pub distrust: String,
}

/// A person's word, given once on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// None: go on as before.
    #[default]
    None,
    /// Become, or stay, the primary.
    Promote,
    /// Give up this node's data and copy the primary's.
    Rejoin,
}

impl Marker {
    /// The marker of a directory in which nothing was stored yet.
    pub(crate) fn fresh(shard: &Shard, role: Role) -> Self {
        Self {
            format: LOG_FORMAT,
            node_id: format!("{:016x}", fastrand::u64(1..)),
            shard: shard.name.clone(),
            slots: shard.slots_text(),
            role: role.to_string(),
            state: State::Creating,
            history: String::new(),
            fenced_by: 0,
            distrust: String::new(),
        }
    }

    /// Reads the marker of a directory, if there is one.
    ///
    /// # Errors
    /// [`DataError`]: it is damaged or cannot be read.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, DataError> {
        let file = path.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("cannot read", &file)(error)),
        };
        let marker = toml::from_str::<Self>(&text);
        let refused = |error| DataError::Refused(format!("{} is damaged: {error}", file.display()));
        marker.map(Some).map_err(refused)
    }

    /// Writes it if it differs from what is there: a full disk must not keep a node from starting.
    ///
    /// # Errors
    /// [`DataError`]: the one before is still there.
    pub(crate) fn save(&self, path: &Path) -> Result<(), DataError> {
        if matches!(Self::read(path), Ok(Some(there)) if there == *self) {
            return Ok(());
        }
        let text = toml::to_string(self).map_err(|error| DataError::Refused(error.to_string()))?;
        let text = format!(
            "# Whose data this is. kvnode refuses to start if it contradicts the shard map; do not edit.\n{text}"
        );
        replace(path, FILE, text.as_bytes())
    }

    /// The marker as it is after a start of its node as `role` of `shard`, with a person's word.
    ///
    /// # Errors
    /// [`DataError::Refused`]: the map contradicts it; says what to do.
    pub(crate) fn admit(
        self,
        path: &Path,
        shard: &Shard,
        role: Role,
        order: Order,
    ) -> Result<Self, DataError> {
        let mut marker = self;
        let refused =
            |problem: String| Err(DataError::Refused(format!("{}: {problem}", path.display())));
        if marker.format != LOG_FORMAT {
            return refused(format!(
                "its format is {}, this kvnode writes {LOG_FORMAT}; use the version that wrote it",
                marker.format
            ));
        }
        if marker.shard != shard.name {
            return refused(format!(
                "it holds shard {:?}, but the map makes this node one of shard {:?}; give the node its own directory",
                marker.shard, shard.name
            ));
        }
        if marker.slots != shard.slots_text() {
            return refused(format!(
                "it holds slots {} of shard {:?}, but the map gives that shard {}; changing slots would hide or strand \
             data: put the old map back",
                marker.slots,
                shard.name,
                shard.slots_text()
            ));
        }
        match (marker.role.as_str(), role, order) {
            ("primary", Role::Primary, Order::None) | ("replica", Role::Replica, Order::None) => {}
            ("replica", Role::Primary, Order::Promote)
                if matches!(marker.state, State::Creating | State::Copying) =>
            {
                return refused(
                "--promote is given, but this replica never finished its first copy of the primary; promote a node \
                 that has the data"
                    .into(),
            );
            }
            // The copy that --rejoin asked for did not come; the data that it set aside is still in force.
            (_, Role::Primary, Order::Promote) if marker.state == State::Rejoining => {
                marker.state = State::Ready
            }
            (_, Role::Primary, Order::Promote) => {}
            (_, Role::Replica, Order::Rejoin) if marker.state != State::Creating => {
                marker.state = State::Rejoining;
                marker.distrust.clear();
            }
            (_, Role::Replica, Order::Rejoin) => {}
            (_, Role::Primary, Order::Rejoin) => {
                return refused(
                    "--rejoin is for replicas, and the map makes this node the primary".into(),
                );
            }
            (_, Role::Replica, Order::Promote) => {
                return refused(
                "--promote is given, but the map makes this node a replica; change the map first"
                    .into(),
            );
            }
            ("replica", Role::Primary, Order::None) => {
                return refused(format!(
                    "this node is a replica of shard {:?}, and the map makes it the primary. If the old primary is gone \
                 for good, or runs as a replica by the same map, start this node once with --promote",
                    shard.name
                ));
            }
            (_, Role::Replica | Role::Primary, Order::None) => {
                return refused(format!(
                    "this node was the primary of shard {:?}, and the map makes it a replica. If the new primary is the \
                 one to follow, start this node once with --rejoin: it copies the primary into a new generation and \
                 keeps its own data aside",
                    shard.name
                ));
            }
        }
        marker.role = role.to_string();
        Ok(marker)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marker() -> Marker {
        Marker {
            format: LOG_FORMAT,
            node_id: "0123456789abcdef".into(),
            shard: "shard1".into(),
            slots: "0-5460".into(),
            role: "replica".into(),
            state: State::Ready,
            history: "00000000000000000000000000000001".into(),
            fenced_by: 3,
            distrust: "it \"is\" wrong".into(),
        }
    }

    proptest! {
        // Each case syncs two files.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// A marker that a person or a disk has changed is read, or refused as damaged; what is read stays as it is.
        #[test]
        fn a_changed_marker_is_read_or_refused(at in any::<prop::sample::Index>(), with in any::<u8>(), len in 0..400_usize) {
            let dir = tempfile::tempdir().unwrap();
            marker().save(dir.path()).unwrap();
            let file = dir.path().join(FILE);
            let mut bytes = fs::read(&file).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = with;
            bytes.truncate(len.max(1));
            fs::write(&file, bytes).unwrap();
            if let Ok(Some(read)) = Marker::read(dir.path()) {
                fs::remove_file(&file).unwrap();
                read.save(dir.path()).unwrap();
                prop_assert_eq!(Marker::read(dir.path()).unwrap(), Some(read));
            }
        }
    }
}
