//! One watcher's own reading of the log: from frames to the events of one prefix.
//!
//! Costs the decoding of every record, wanted or not. It is for watchers that are behind; those at the end are fed
//! (`hub.rs`).

use std::io;

use bytes::Bytes;
use kvclient::{position::Position, wire::log::Frame};

use super::event::{record_event, truncated_event};
use crate::log::{Log, ReadFrames};

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
        let mut step = Step {
            events: Vec::new(),
            at,
            truncated: false,
        };
        match self.log.read_after(at.seq, STEP_BYTES) {
            Ok(ReadFrames::Frames(frames)) => self.take(frames, visible, &mut step)?,
            Ok(ReadFrames::UpToDate) => {}
            Ok(ReadFrames::Truncated) => {
                truncated_event(&mut step.events, at, self.log.truncated());
                step.truncated = true;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        if step.at == at && !step.truncated {
            // What is visible is durable, so there must have been a frame.
            return Err(io::Error::other(format!("the log has nothing after {at}")));
        }
        Ok(step)
    }

    fn take(&self, mut frames: Bytes, visible: Position, step: &mut Step) -> io::Result<()> {
        while !frames.is_empty() {
            let frame = Frame::split_from(&mut frames).map_err(io::Error::other)?;
            if frame.header.last_seq() > visible.seq {
                break;
            }
            for (position, record) in frame.records().map_err(io::Error::other)? {
                // The first frame may begin before where the watcher is.
                if position.seq > step.at.seq && record.key.starts_with(&self.prefix) {
                    record_event(&mut step.events, position, frame.header.time_ms, &record);
                }
            }
            step.at = frame.header.link().position;
        }
        Ok(())
    }
}
