//! Makes sure that the disk has what recovery has seen.
//!
//! What is read after a kill comes from the page cache, which may be ahead of the disk; after a failed sync it may
//! even call pages clean that the disk never got, and a new sync would do nothing. So the kept frames above the
//! floor are written again, where they are and as they are, and everything behind them is zeroed.

use std::{path::Path, sync::Arc};

use kvclient::{
    position::{Position, Seq},
    wire::log::Frame,
};

use super::{error::LogError, files::sync_dir, milestones::Place, segment::Segment, walk::Walk};

const CHUNK_BYTES: usize = 1 << 20;

/// Makes sure that the disk has what the walk has seen. A crash in here leaves the same chain: frames are
/// overwritten with themselves, and the window is there until what it excuses is gone.
pub(super) fn make_durable(
    dir: &Path,
    segments: &[Arc<Segment>],
    end: Place,
    floor: Position,
) -> Result<(), LogError> {
    let mut rewrite = Rewrite::default();
    for_frames_after(segments, end, floor.seq, |segment, at, frame| {
        rewrite.add(segment, at, &frame)
    })?;
    rewrite.flush()?;
    if let Some(last) = segments.last() {
        last.zero_from(end.at)?;
    }
    for segment in segments.iter().filter(|s| s.known_end().seq() > floor.seq) {
        segment.sync()?;
    }
    segments.last().map_or(Ok(()), |last| last.sync())?;
    sync_dir(dir)
}

/// Calls `each` with segment, byte and frame for every frame up to `end` that holds a seq above `after`.
pub(super) fn for_frames_after(
    segments: &[Arc<Segment>],
    end: Place,
    after: Seq,
    mut each: impl FnMut(&Arc<Segment>, u64, Frame) -> Result<(), LogError>,
) -> Result<(), LogError> {
    for (nth, segment) in segments.iter().enumerate() {
        let next = segments.get(nth + 1);
        let until = next.map_or(end.seq(), |next| next.base_seq());
        if until <= after {
            continue;
        }
        let mut walk = Walk::new(segment, segment.place_before(after), CHUNK_BYTES);
        while walk.place().seq() < until {
            let at = walk.place().at;
            let Some(frame) = walk.frame()? else {
                return Err(walk.damage());
            };
            if frame.header.last_seq() > after {
                each(segment, at, frame)?;
            }
        }
    }
    Ok(())
}

/// Writes frames back where they are, in large pieces.
#[derive(Default)]
struct Rewrite {
    segment: Option<Arc<Segment>>,
    at: u64,
    bytes: Vec<u8>,
}

impl Rewrite {
    fn add(&mut self, segment: &Arc<Segment>, at: u64, frame: &Frame) -> Result<(), LogError> {
        let same = self
            .segment
            .as_ref()
            .is_some_and(|s| Arc::ptr_eq(s, segment));
        if !same || self.bytes.len() >= CHUNK_BYTES {
            self.flush()?;
            self.segment = Some(Arc::clone(segment));
            self.at = at;
        }
        self.bytes.extend_from_slice(&frame.bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        if let Some(segment) = self.segment.take() {
            segment.write(self.at, &self.bytes)?;
        }
        self.bytes.clear();
        Ok(())
    }
}
