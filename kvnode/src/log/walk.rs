//! Walking the frames of one segment along the chain.

use bytes::Bytes;
use kvclient::wire::log::{FRAME_HEADER_BYTES, Frame, FrameHeader};

use super::{
    error::LogError,
    milestones::Place,
    segment::{Segment, len},
};

/// A walk from frame to frame. It ends where no frame continues the chain; why it does is for others to judge.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    segment: &'a Segment,
    place: Place,
    chunk: Bytes,
    chunk_at: u64,
    chunk_bytes: usize,
}

impl<'a> Walk<'a> {
    /// Starts at `place`, which must be one between frames. Reads the file in steps of `chunk_bytes`.
    pub(super) fn new(segment: &'a Segment, place: Place, chunk_bytes: usize) -> Self {
        Self {
            segment,
            place,
            chunk: Bytes::new(),
            chunk_at: 0,
            chunk_bytes,
        }
    }

    /// Where the next frame begins.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The header of the next frame, which is not passed yet. Its body is within the file but was not looked at.
    pub(super) fn header(&mut self) -> Result<Option<FrameHeader>, LogError> {
        let head = self.bytes(FRAME_HEADER_BYTES)?;
        let header = head
            .first_chunk()
            .and_then(FrameHeader::parse)
            .filter(|header| header.check_follows(&self.place.link).is_ok())
            .filter(|header| self.place.behind(header).at <= self.segment.bytes);
        Ok(header)
    }

    /// Passes the frame of this header.
    pub(super) fn skip(&mut self, header: &FrameHeader) {
        self.place = self.place.behind(header);
        self.segment.pass(self.place);
    }

    /// The next frame, all its checksums right; it is passed.
    pub(super) fn frame(&mut self) -> Result<Option<Frame>, LogError> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let mut bytes = self.bytes(header.frame_bytes())?;
        let Ok(frame) = Frame::split_from(&mut bytes) else {
            return Ok(None);
        };
        self.skip(&header);
        Ok(Some(frame))
    }

    /// What is wrong where the walk ended, in words.
    pub(super) fn problem(&mut self) -> Result<String, LogError> {
        let head = self.bytes(FRAME_HEADER_BYTES)?;
        if head.iter().all(|&byte| byte == 0) {
            return Ok("there are zeros where a frame should begin".into());
        }
        let Some(header) = head.first_chunk().and_then(FrameHeader::parse) else {
            return Ok("the checksum of the frame's header is wrong".into());
        };
        if let Err(error) = header.check_follows(&self.place.link) {
            return Ok(error.to_string());
        }
        let bytes = header.frame_bytes();
        if self.place.behind(&header).at > self.segment.bytes {
            return Ok(format!("the frame's {bytes} bytes go beyond the segment"));
        }
        Ok(format!(
            "the checksum of the frame's body ({bytes} bytes) is wrong"
        ))
    }

    /// The same as an error.
    pub(super) fn damage(&mut self) -> LogError {
        match self.problem() {
            Ok(problem) => {
                let seq = self.place.seq() + 1;
                LogError::damage(&self.segment.path, self.place.at, seq, problem)
            }
            Err(error) => error,
        }
    }

    /// Up to `bytes` bytes from here on; fewer at the end of the file.
    fn bytes(&mut self, bytes: usize) -> Result<Bytes, LogError> {
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        let end = (self.place.at + bytes as u64).min(self.segment.bytes);
        if self.place.at < self.chunk_at || end > chunk_end {
            self.chunk = self
                .segment
                .read(self.place.at, bytes.max(self.chunk_bytes))?;
            self.chunk_at = self.place.at;
        }
        let from = len(self.place.at - self.chunk_at);
        let to = len(end.saturating_sub(self.chunk_at)).max(from);
        Ok(self.chunk.slice(from..to))
    }
}
