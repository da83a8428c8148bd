//! The log record by record: for those who look for some of them, wanted or not.
//!
//! A step reads some frames and decodes every record in them; nothing is kept between steps but the seq to go on behind.
//! A frame became visible as a whole, so the last one is visited to its end.

use bytes::Bytes;
use kvclient::{
    position::{Position, Seq},
    wire::log::{Frame, Record},
};

use super::{error::LogError, state::Shared, tail::ReadFrames};

/// Where a step has led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walked {
    /// All records up to here were visited.
    To(Position),
    /// The log no longer has what comes next.
    Truncated,
}

impl Shared {
    pub(super) fn visit_after(
        &self,
        after: Seq,
        until: Position,
        max_bytes: usize,
        visit: &mut dyn FnMut(Position, u64, &Record),
    ) -> Result<Walked, LogError> {
        let mut frames = match self.read_after(after, max_bytes)? {
            ReadFrames::Frames(frames) => frames,
            ReadFrames::UpToDate => Bytes::new(),
            ReadFrames::Truncated => return Ok(Walked::Truncated),
        };
        let mut at = None;
        while !frames.is_empty() {
            let frame = Frame::split_from(&mut frames).map_err(undecodable)?;
            if frame.header.first_seq > until.seq {
                break;
            }
            for (position, record) in frame.records().map_err(undecodable)? {
                // The first frame may begin before `after`.
                if position.seq > after {
                    visit(position, frame.header.time_ms, &record);
                }
            }
            at = Some(frame.header.link().position);
        }
        let nothing = || LogError::Refused(format!("the log has nothing after seq {after}"));
        // What is durable is there, so there must have been a frame.
        at.map(Walked::To).ok_or_else(nothing)
    }
}

fn undecodable(error: impl std::fmt::Display) -> LogError {
    LogError::Refused(error.to_string())
}
