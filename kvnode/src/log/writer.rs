//! The one writer of the log's tail.
//!
//! An append is: reserve files for the segments it will need, make the window durable if there are several
//! frames, write, sync, and only then let readers see it. A run of frames that ends a segment is synced before
//! the next segment is begun, so a segment that exists proves that everything before its base is durable.

use std::sync::Arc;

use bytes::Bytes;
use kvclient::{
    faults,
    wire::log::{Frame, Link},
};

use super::{
    error::LogError,
    header::SegmentHeader,
    milestones::Place,
    segment::{Segment, Spare},
    state::Shared,
    window::{Span, Window},
};

/// Appends frames. There is one per log, and one thread at a time has it.
#[derive(Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    end: Place,
    window: Window,
    // What an earlier append failed with. After a failed sync nobody knows what is on disk, so nothing may follow.
    failed: Option<String>,
}

impl LogWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        segment: Arc<Segment>,
        end: Place,
        window: Window,
    ) -> Self {
        Self {
            shared,
            segment,
            end,
            window,
            failed: None,
        }
    }

    /// What the next frame has to follow.
    pub fn end(&self) -> Link {
        self.end.link
    }

    /// What still fits the segment, in bytes.
    pub fn room_bytes(&self) -> u64 {
        self.segment.bytes - self.end.at
    }

    /// Appends frames and syncs them, with one sync if it is one frame and the segment has room. On return they
    /// are durable and readers see them. No frames: nothing happens.
    ///
    /// # Errors
    /// - [`LogError::NoSpace`]: nothing was written; the same frames may be appended later.
    /// - [`LogError::Refused`]: these frames do not follow the log's end or are too large; nothing was written.
    /// - [`LogError::Io`]: the frames are of unknown outcome and every later append fails. Exit 5; the next start
    ///   finds out what is there.
    pub fn append_synced(&mut self, frames: &[Frame]) -> Result<(), LogError> {
        if let Some(failure) = &self.failed {
            let source = std::io::Error::other(format!("an earlier append failed: {failure}"));
            return Err(LogError::io("append to", &self.segment.path)(source));
        }
        self.check(frames)?;
        let Some(last) = frames.last() else {
            return Ok(());
        };
        let (here, further) = self.plan(frames);
        let spares = self.shared.spares.take(further.len())?;
        let end = last.header.link();
        let span = (frames.len() > 1).then(|| Span {
            after: self.end.seq(),
            end: end.position.seq,
        });
        let written = self.write(span, here, further.into_iter().zip(spares));
        if let Err(error) = &written {
            self.failed = Some(error.to_string());
        } else {
            self.shared.publish(end);
        }
        written
    }

    fn check(&self, frames: &[Frame]) -> Result<(), LogError> {
        let mut link = self.end.link;
        for frame in frames {
            let header = &frame.header;
            let refuse = |what| Err(LogError::Refused(format!("cannot append: {what}")));
            if let Err(error) = header.check_follows(&link) {
                return refuse(error.to_string());
            }
            let (bytes, most) = (frame.bytes.len(), self.shared.home.options.max_frame_bytes);
            if bytes != header.frame_bytes() || bytes > most {
                let seq = header.first_seq;
                return refuse(format!(
                    "the frame at seq {seq} has {bytes} bytes, at most {most} are allowed"
                ));
            }
            link = header.link();
        }
        Ok(())
    }

    /// Splits frames into the run that still fits this segment, maybe empty, and one run per further segment.
    fn plan<'a>(&self, frames: &'a [Frame]) -> (&'a [Frame], Vec<&'a [Frame]>) {
        let (here, mut rest) = frames.split_at(fitting(frames, self.room_bytes()));
        let mut further = Vec::new();
        let whole_segment = self.shared.home.options.segment_bytes - self.segment.start().at;
        while !rest.is_empty() {
            let (run, left) = rest.split_at(fitting(rest, whole_segment));
            further.push(run);
            rest = left;
        }
        (here, further)
    }

    fn write<'a>(
        &mut self,
        span: Option<Span>,
        here: &[Frame],
        further: impl Iterator<Item = (&'a [Frame], Spare)>,
    ) -> Result<(), LogError> {
        if let Some(span) = span {
            self.window.set(span)?;
            faults::point("log.window_written");
        }
        self.write_run(here)?;
        for (run, spare) in further {
            self.begin_segment(spare)?;
            self.write_run(run)?;
        }
        Ok(())
    }

    fn write_run(&mut self, run: &[Frame]) -> Result<(), LogError> {
        let bytes = match run {
            [] => return Ok(()),
            [one] => one.bytes.clone(),
            several => joined(several),
        };
        faults::point("log.before_write");
        self.segment.write(self.end.at, &bytes)?;
        faults::point("log.before_sync");
        self.segment.sync()?;
        faults::point("log.after_sync");
        self.end = self.segment.appended(self.end, run);
        Ok(())
    }

    fn begin_segment(&mut self, spare: Spare) -> Result<(), LogError> {
        let header = SegmentHeader {
            number: self.segment.header.number + 1,
            history: self.shared.home.history,
            base: self.end.link,
        };
        let segment = Arc::new(Segment::begin(&self.shared.home.dir, spare, header)?);
        self.shared.push(Arc::clone(&segment));
        self.end = segment.start();
        self.segment = segment;
        Ok(())
    }

    /// Makes the next write fail, as on a broken disk.
    #[cfg(test)]
    pub(super) fn break_disk(&mut self) {
        self.segment = Arc::new(self.segment.read_only_twin());
    }
}

fn joined(frames: &[Frame]) -> Bytes {
    let bytes: Vec<&[u8]> = frames.iter().map(|frame| &frame.bytes[..]).collect();
    bytes.concat().into()
}

/// How many of the frames fit into so many bytes.
fn fitting(frames: &[Frame], room: u64) -> usize {
    let mut left = room;
    frames
        .iter()
        .take_while(|frame| {
            let rest = left.checked_sub(frame.bytes.len() as u64);
            left = rest.unwrap_or(0);
            rest.is_some()
        })
        .count()
}
