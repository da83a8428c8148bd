//! What writer, readers and retention share.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use kvclient::{
    position::{Position, Seq},
    wire::log::{Link, MIN_LARGEST_FRAME_BYTES},
};
use tokio::sync::watch;

use super::{
    error::LogError,
    files::locked,
    header::HEADER_BYTES,
    milestones::Place,
    segment::{Segment, len},
    spare::Spares,
    window::Window,
};

/// Sizes of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Length of a segment's file. 64 MiB: preallocated in well under a second, and rarely followed by the next.
    pub segment_bytes: u64,
    /// How much log is kept that LMDB no longer needs, so that replicas catch up without a snapshot: 1 GiB.
    pub retention_bytes: u64,
    /// The largest frame that is taken.
    pub max_frame_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            retention_bytes: 1 << 30,
            max_frame_bytes: MIN_LARGEST_FRAME_BYTES,
        }
    }
}

impl LogOptions {
    /// The largest frame that a segment of this length can hold.
    pub fn frame_bytes_in(segment_bytes: u64) -> usize {
        len(segment_bytes.saturating_sub(HEADER_BYTES))
    }

    /// Whether the largest frame fits a segment. If not, no log can be opened with these options.
    pub fn fit(&self) -> bool {
        self.max_frame_bytes <= Self::frame_bytes_in(self.segment_bytes)
    }

    pub(super) fn check(&self) -> Result<(), LogError> {
        if self.fit() {
            return Ok(());
        }
        Err(LogError::Refused(format!(
            "a log segment of {} bytes cannot hold a frame of {} bytes; make segments larger",
            self.segment_bytes, self.max_frame_bytes
        )))
    }
}

/// Whose log it is, where, and of which sizes.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) dir: PathBuf,
    pub(super) history: u128,
    pub(super) options: LogOptions,
}

/// A chain that may be appended to: durable, with nothing of it behind its end.
#[derive(Debug)]
pub(super) struct Chain {
    /// Oldest first, never empty.
    pub(super) segments: VecDeque<Arc<Segment>>,
    /// In the last segment.
    pub(super) end: Place,
    /// Covers nothing.
    pub(super) window: Window,
}

/// The log behind all its handles.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) home: Home,
    pub(super) spares: Spares,
    /// Held while segments are removed, so that they go oldest first.
    pub(super) releasing: Mutex<()>,
    // std mutex: held for a few instructions, never over I/O.
    state: Mutex<State>,
    durable: watch::Sender<Position>,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    /// Oldest first, never empty. The last is the one being written.
    pub(super) segments: VecDeque<Arc<Segment>>,
    /// The durable end.
    pub(super) end: Link,
    /// Who keeps more than is needed, by the id of the hold.
    pub(super) holds: BTreeMap<u64, Held>,
}

/// What one hold keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// The frames after this.
    pub(super) after: Seq,
    pub(super) limit_bytes: u64,
    /// It has cost more than its limit once; frames it wanted may be gone.
    pub(super) lapsed: bool,
    /// Somebody reads by it now; there may be only so many.
    pub(super) is_read_by: bool,
}

impl Shared {
    pub(super) fn new(
        home: Home,
        spares: Spares,
        segments: VecDeque<Arc<Segment>>,
        end: Link,
    ) -> Self {
        Self {
            home,
            spares,
            releasing: Mutex::new(()),
            state: Mutex::new(State {
                segments,
                end,
                holds: BTreeMap::new(),
            }),
            durable: watch::Sender::new(end.position),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Adds the segment that will be written next.
    pub(super) fn push(&self, segment: Arc<Segment>) {
        self.state().segments.push_back(segment);
    }

    /// Lets readers see everything up to `end`, which is synced.
    pub(super) fn publish(&self, end: Link) {
        self.state().end = end;
        self.durable.send_replace(end.position);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Position> {
        self.durable.subscribe()
    }
}

impl State {
    /// The last seq that is no longer in the log.
    pub(super) fn truncated(&self) -> Seq {
        self.segments.front().map_or(0, |oldest| oldest.base_seq())
    }

    /// Number, counted from the oldest, of the segment that holds `seq + 1` or will.
    pub(super) fn segment_after(&self, seq: Seq) -> usize {
        let begun = self.segments.partition_point(|s| s.base_seq() <= seq);
        begun.saturating_sub(1)
    }

    /// Length of all segments from this one on.
    pub(super) fn bytes_from(&self, first: usize) -> u64 {
        self.segments.iter().skip(first).map(|s| s.bytes).sum()
    }
}
