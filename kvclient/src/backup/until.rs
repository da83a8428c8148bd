//! To which state a shard is restored, and whether the backup has it.
//!
//! A snapshot is read while writes go on, so before its end it is a mixture: no state before [`ShardBackup::first`] can
//! be had, and none is made up. From there on every end of a frame is a state that readers saw. A position within a
//! frame means the end of that frame: writes that were synced together became visible together, and half an atomic batch
//! was never there to be read.

use super::{manifest::ShardBackup, time::time_text};
use crate::{position::Position, wire::log::FrameHeader};

/// How far the log is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Until {
    /// All of it.
    #[default]
    End,
    /// To the end of the frame that has this position.
    Position(Position),
    /// All frames before the first that was decided later than this shard time, Unix milliseconds.
    TimeMs(u64),
}

impl Until {
    /// Checks that a shard's backup has that state.
    ///
    /// # Errors
    /// What it has instead.
    pub fn check(self, shard: &ShardBackup) -> Result<(), String> {
        let name = &shard.name;
        match self {
            Self::End => Ok(()),
            Self::Position(at) if at < shard.first => Err(format!(
                "the backup of shard {name} begins at {}: {at} is before that",
                shard.first
            )),
            Self::Position(at) if at > shard.last => Err(format!(
                "the backup of shard {name} ends at {}: {at} is behind that",
                shard.last
            )),
            Self::Position(at) if shard.lineage.position_at(at.seq) != at => Err(format!(
                "the log of shard {name} has no {at}: that seq was written at {}",
                shard.lineage.position_at(at.seq)
            )),
            Self::Position(_) => Ok(()),
            Self::TimeMs(ms) if ms < shard.first_time_ms => Err(format!(
                "the backup of shard {name} begins at {}, after that time",
                time_text(shard.first_time_ms)
            )),
            Self::TimeMs(ms) if ms > shard.complete_until_ms => Err(format!(
                "the backup of shard {name} is complete up to {}, before that time",
                time_text(shard.complete_until_ms)
            )),
            Self::TimeMs(_) => Ok(()),
        }
    }

    /// Whether a frame belongs to it, if all before it do.
    pub fn takes(self, frame: &FrameHeader) -> bool {
        match self {
            Self::End => true,
            Self::Position(at) => frame.first_seq <= at.seq,
            Self::TimeMs(ms) => frame.time_ms <= ms,
        }
    }
}
