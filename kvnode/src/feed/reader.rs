//! One watcher's own reading of the log: from frames to the events of one prefix.
//!
//! Costs the decoding of every record, wanted or not. It is for watchers that are behind; those at the end are fed
//! (`hub.rs`).

use std::io;

use bytes::Bytes;
use kvclient::position::Position;

use super::event::{record_event, truncated_event};
use crate::log::{Log, Walked};

/// Bytes of frames read in one step: what a watcher that catches up holds in memory, and a few milliseconds of work.
pub(super) const STEP_BYTES: usize = 256 << 10;

/// From frames of the log to events.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) log: Log,
    pub(super) prefix: Bytes,
}

/// What a step has found.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) events: Vec<u8>,
    /// All up to here is in `events`, as far as it is wanted.
    pub(super) at: Position,
    /// The log no longer has what comes next, and `events` says so.
    pub(super) truncated: bool,
}

impl Reader {
    /// Reads on behind `at`, at most up to `visible`, which is behind it and the end of a frame. Blocks.
    pub(super) fn step(&self, at: Position, visible: Position) -> io::Result<Step> {
        let mut events = Vec::new();
        let walked =
            self.log
                .visit_after(at.seq, visible, STEP_BYTES, |position, time_ms, record| {
                    if record.key.starts_with(&self.prefix) {
                        record_event(&mut events, position, time_ms, record);
                    }
                });
        Ok(match walked.map_err(io::Error::other)? {
            Walked::To(at) => Step {
                events,
                at,
                truncated: false,
            },
            Walked::Truncated => {
                truncated_event(&mut events, at, self.log.truncated());
                Step {
                    events,
                    at,
                    truncated: true,
                }
            }
        })
    }
}
