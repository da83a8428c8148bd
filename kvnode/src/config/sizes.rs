//! Sizes: what they are by default, and which go together.

use bytesize::ByteSize;
use kvclient::wire::{self, log::largest_frame_bytes};

use super::{args::Settings, error::ConfigError};

/// All sizes, in bytes unless named otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Largest value.
    pub max_value_bytes: usize,
    /// One memtable.
    pub memtable_bytes: usize,
    /// Address space for LMDB.
    pub map_bytes: usize,
    /// A log segment.
    pub log_segment_bytes: u64,
    /// Log kept beyond what recovery needs.
    pub log_retention_bytes: u64,
    /// Log kept at most while a snapshot is streamed, and until its replica is level.
    pub snapshot_log_limit_bytes: u64,
    /// Request bodies held at once, and unread answers.
    pub max_in_flight_bytes: usize,
    /// Records between two comparisons of primary and replica.
    pub checkpoint_every: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            max_value_bytes: wire::DEFAULT_MAX_VALUE_BYTES,
            memtable_bytes: 64 << 20,
            map_bytes: 64 << 30,
            log_segment_bytes: 64 << 20,
            log_retention_bytes: 1 << 30,
            snapshot_log_limit_bytes: 8 << 30,
            max_in_flight_bytes: 256 << 20,
            checkpoint_every: 1 << 20,
        }
    }
}

impl Settings {
    pub(super) fn sizes(&self) -> Result<Sizes, ConfigError> {
        let default = Sizes::default();
        let or = |size: Option<ByteSize>, default: u64| size.map_or(default, |size| size.as_u64());
        let memory = |name: &str, size: Option<ByteSize>, default: usize| {
            usize::try_from(or(size, default as u64)).map_err(|_| {
                ConfigError::new(format!(
                    "{name} is larger than this machine's address space"
                ))
            })
        };
        let sizes = Sizes {
            max_value_bytes: memory(
                "--max-value-size",
                self.max_value_size,
                default.max_value_bytes,
            )?,
            memtable_bytes: memory(
                "--memtable-size",
                self.memtable_size,
                default.memtable_bytes,
            )?,
            map_bytes: memory("--map-size", self.map_size, default.map_bytes)?,
            log_segment_bytes: or(self.log_segment_size, default.log_segment_bytes),
            log_retention_bytes: or(self.log_retention, default.log_retention_bytes),
            snapshot_log_limit_bytes: or(self.snapshot_log_limit, default.snapshot_log_limit_bytes),
            max_in_flight_bytes: memory(
                "--max-in-flight",
                self.max_in_flight,
                default.max_in_flight_bytes,
            )?,
            checkpoint_every: self
                .checkpoint_every
                .unwrap_or(default.checkpoint_every)
                .max(1),
        };
        sizes.check()?;
        Ok(sizes)
    }
}

impl Sizes {
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::new(text));
        if self.max_value_bytes > wire::MAX_VALUE_BYTES_CEILING {
            return wrong(format!(
                "--max-value-size is {}, at most 16MiB",
                ByteSize(self.max_value_bytes as u64)
            ));
        }
        let frame = largest_frame_bytes(self.max_value_bytes) as u64;
        // A segment's header takes one page.
        if self.log_segment_bytes < frame + 4_096 {
            return wrong(format!(
                "--log-segment-size is {}, but a frame of the log may take {frame} bytes and lies whole in one \
                 segment; give at least {}",
                ByteSize(self.log_segment_bytes),
                ByteSize(frame + 4_096)
            ));
        }
        // What is kept is counted in whole segments: the one being read from and the one being written.
        if self.snapshot_log_limit_bytes < self.log_segment_bytes.saturating_mul(2) {
            return wrong(format!(
                "--snapshot-log-limit is {}, too little for any snapshot while writes go on; give at least two log \
                 segments, {}",
                ByteSize(self.snapshot_log_limit_bytes),
                ByteSize(self.log_segment_bytes.saturating_mul(2))
            ));
        }
        if self.memtable_bytes < 1 << 16 {
            return wrong("--memtable-size is below 64KiB".into());
        }
        if self.max_in_flight_bytes < wire::MAX_BATCH_BYTES + self.max_value_bytes {
            return wrong(
                "--max-in-flight is smaller than one batch and one value together".into(),
            );
        }
        Ok(())
    }
}
