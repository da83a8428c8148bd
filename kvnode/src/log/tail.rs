//! Reading what is durable: frames after a seq, and the links between them.
//!
//! Nothing beyond the durable end is ever given out, so no replica can be ahead of a primary that loses power.
//! Who has read everything waits on [`Log::subscribe`](super::Log::subscribe) and asks again. Reads take no lock
//! while they read the file; a segment that is removed meanwhile stays readable through its open file.

use std::sync::Arc;

use bytes::Bytes;
use kvclient::{
    position::Seq,
    wire::log::{Frame, FrameHeader, Link},
};

use super::{
    error::LogError,
    milestones::Place,
    segment::{Segment, len},
    state::{Shared, State},
    walk::Walk,
};

/// Small, since the places of frames are known to about 64 KiB and at the tail exactly.
const LOCATE_CHUNK_BYTES: usize = 16 << 10;

/// What follows a seq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrames {
    /// Whole durable frames as they are in the file, at least one. Maybe fewer than there are and than asked for.
    Frames(Bytes),
    /// Nothing yet: the seq is the durable end, or beyond it.
    UpToDate,
    /// Frames after it are no longer here.
    Truncated,
}

/// A segment and the last seq in it that is durable.
struct Stretch {
    segment: Arc<Segment>,
    until: Seq,
}

impl Shared {
    pub(super) fn read_after(&self, seq: Seq, max_bytes: usize) -> Result<ReadFrames, LogError> {
        let stretch = {
            let state = self.state();
            if seq >= state.end.position.seq {
                return Ok(ReadFrames::UpToDate);
            }
            if seq < state.truncated() {
                return Ok(ReadFrames::Truncated);
            }
            state.stretch_after(seq)
        };
        stretch.read(seq, max_bytes).map(ReadFrames::Frames)
    }

    pub(super) fn link_at(&self, seq: Seq) -> Result<Option<Link>, LogError> {
        let stretch = {
            let state = self.state();
            if seq == state.end.position.seq {
                return Ok(Some(state.end));
            }
            if seq > state.end.position.seq || seq < state.truncated() {
                return Ok(None);
            }
            state.stretch_after(seq)
        };
        let (place, _) = locate(&stretch.segment, seq)?;
        Ok((place.seq() == seq).then_some(place.link))
    }
}

impl State {
    /// Where `seq + 1` is; `seq` must be in the log and before its durable end.
    fn stretch_after(&self, seq: Seq) -> Stretch {
        let nth = self.segment_after(seq);
        let next_base = self.segments.get(nth + 1).map(|next| next.base_seq());
        let durable = self.end.position.seq;
        Stretch {
            segment: Arc::clone(&self.segments[nth]),
            until: next_base.map_or(durable, |base| base.min(durable)),
        }
    }
}

impl Stretch {
    fn read(&self, seq: Seq, max_bytes: usize) -> Result<Bytes, LogError> {
        let (place, header) = locate(&self.segment, seq)?;
        let known_end = self.segment.known_end();
        let end_at = match known_end.seq() >= self.until {
            true => known_end.at,
            false => self.segment.bytes,
        };
        let there = len(end_at.saturating_sub(place.at));
        let wanted = max_bytes.min(there).max(header.frame_bytes());
        let bytes = self.segment.read(place.at, wanted)?;
        let whole = whole_frames(&bytes, place.link, self.until);
        if whole == 0 {
            return Err(Walk::new(&self.segment, place, wanted).damage());
        }
        Ok(bytes.slice(..whole))
    }
}

/// Length of the good frames at the front of `bytes` that continue the chain, none beyond seq `until`. What cuts
/// it short may be the end of `bytes` or damage; the read that begins there tells.
fn whole_frames(bytes: &Bytes, mut link: Link, until: Seq) -> usize {
    let mut rest = bytes.clone();
    let mut whole = 0;
    while link.position.seq < until {
        match Frame::split_from(&mut rest) {
            Ok(frame) if frame.header.check_follows(&link).is_ok() => {
                whole += frame.bytes.len();
                link = frame.header.link();
            }
            _ => break,
        }
    }
    whole
}

/// Finds the frame that holds `seq + 1`, which must be durable in this segment.
fn locate(segment: &Segment, seq: Seq) -> Result<(Place, FrameHeader), LogError> {
    let mut walk = Walk::new(segment, segment.place_before(seq), LOCATE_CHUNK_BYTES);
    loop {
        match walk.header()? {
            Some(header) if header.last_seq() > seq => return Ok((walk.place(), header)),
            Some(header) => walk.skip(&header),
            None => return Err(walk.damage()),
        }
    }
}
