//! The log: every write of the shard in order, durable before anybody hears of it. LMDB is only its index.
//!
//! A directory of preallocated files (`segment.rs`) that hold one chain of frames
//! ([`kvclient::wire::log`]). The commit thread has the one [`LogWriter`]; everybody else has a [`Log`], which is
//! cheap to clone. All of it blocks, reads included; nothing here waits for another node.
//!
//! **What a crash can do.** Take away what was being appended: its frames are of unknown outcome. After a kill
//! they are usually there, after a power cut the last may be torn, and of several appended at once any may be
//! missing. Recovery keeps the frames up to the first broken one, makes them durable, and cuts the rest.
//!
//! **What a crash cannot do.** Take away a frame whose append returned. Leave a hole: whatever is broken with a
//! later frame behind it, ends below the floor that LMDB knows, or lacks a segment, is damage and is refused,
//! because a shorter log would silently take acknowledged writes away. Show a reader something that then
//! disappears: only durable frames are given out, and recovery syncs what it keeps before it gives it out.
//!
//! **Going on to the next segment**, crash by crash: the header is written into the spare and synced (a crash
//! leaves a spare); the spare is renamed (it is a spare or an empty segment with a good header, both fine); the
//! directory is synced; only now is a frame written into it. All earlier frames were synced before, so a segment
//! proves that everything before its base was durable. **Leaving the log**: segments go oldest first; each is
//! renamed to a spare or removed, and the directory synced, before the next one goes or the file is used again.
//! The remains in a recycled file carry smaller seqs than its new base, so they never continue the chain.
//!
//! A full disk is felt only when a spare is made; frames go to bytes that the file already has. After any other
//! failed write or sync the writer refuses everything: what the disk then holds, only the next start can tell.

mod check;
mod ending;
mod error;
mod files;
mod header;
mod milestones;
mod records;
mod recovery;
mod retention;
mod rewrite;
mod segment;
mod spare;
mod state;
mod tail;
mod walk;
mod window;
mod writer;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use kvclient::{
    position::{Position, Seq},
    wire::log::{Frame, Link, Record},
};
use tokio::sync::watch;

pub use self::{
    check::{CheckReport, Problem, check},
    error::LogError,
    records::Walked,
    recovery::{CutTail, Recovered, StartFrom},
    retention::Hold,
    state::LogOptions,
    tail::ReadFrames,
    writer::LogWriter,
};
use self::{
    files::{Listing, sync_dir},
    header::{HEADER_BYTES, SegmentHeader},
    milestones::Place,
    segment::Segment,
    spare::Spares,
    state::{Chain, Home, Shared},
    window::Window,
};

/// A shard's log on this node. Clones are handles to the same log.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

/// How large a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// Number of segments that hold frames, or will next.
    pub segments: usize,
    /// Length of their files.
    pub bytes: u64,
    /// Number of files that are ready to become segments.
    pub spares: usize,
    /// Number of holds that keep segments from being removed, or did until they cost too much.
    pub holds: usize,
}

impl Log {
    /// Makes an empty log in `dir` whose first frame will follow `base`: the default link for a new shard, the end
    /// of a snapshot for a copy. On return it is durable, name and all. Make it in a directory that is not in force
    /// yet: after a crash in between there may be a log where the caller does not know of one.
    ///
    /// # Errors
    /// - [`LogError::Refused`]: a log is there already, or the options do not fit each other.
    /// - [`LogError::NoSpace`]: try again when there is room.
    /// - [`LogError::Io`]: storage failure.
    pub fn create(
        dir: &Path,
        history: u128,
        base: Link,
        options: LogOptions,
    ) -> Result<(Self, LogWriter), LogError> {
        options.check()?;
        std::fs::create_dir_all(dir).map_err(LogError::io("create", dir))?;
        sync_dir(&dir.join(".."))?;
        let listing = Listing::read(dir)?;
        if let Some((_, path)) = listing.segments.first() {
            let path = path.display();
            return Err(LogError::Refused(format!(
                "{path}: there is a log already, a new one is not made over it"
            )));
        }
        let window = Window::open(dir)?;
        let spares = Spares::start(dir, options.segment_bytes, &listing)?;
        let header = SegmentHeader {
            number: 1,
            history,
            base,
        };
        let begin = |spare| Segment::begin(dir, spare, header).map(Arc::new);
        let segments = spares.take(1)?.into_iter().map(begin);
        let chain = Chain {
            segments: segments.collect::<Result<_, _>>()?,
            end: Place {
                at: HEADER_BYTES,
                link: base,
            },
            window,
        };
        let home = Home {
            dir: dir.to_path_buf(),
            history,
            options,
        };
        Ok(Self::assemble(home, spares, chain))
    }

    /// Opens the log of `dir` and calls `replay` with every frame that holds a seq after `start.applied`, in order.
    /// These frames are durable by then.
    ///
    /// # Errors
    /// - [`LogError::Refused`]: the data is not what it must be, says what and where. Nothing was changed; exit 3.
    /// - [`LogError::Io`]: storage failure, exit 5. So is [`LogError::NoSpace`], since nothing large is made here.
    /// - Whatever `replay` gives.
    pub fn open(
        dir: &Path,
        history: u128,
        start: StartFrom,
        options: LogOptions,
        replay: &mut dyn FnMut(Frame) -> Result<(), LogError>,
    ) -> Result<(Self, LogWriter, Recovered), LogError> {
        options.check()?;
        let home = Home {
            dir: dir.to_path_buf(),
            history,
            options,
        };
        let listing = Listing::read(dir)?;
        let (chain, recovered) = recovery::recover(&home, &listing, start, replay)?;
        let spares = Spares::start(dir, options.segment_bytes, &listing)?;
        let (log, writer) = Self::assemble(home, spares, chain);
        Ok((log, writer, recovered))
    }

    fn assemble(home: Home, spares: Spares, chain: Chain) -> (Self, LogWriter) {
        let Chain {
            segments,
            end,
            window,
        } = chain;
        let last = Arc::clone(&segments[segments.len() - 1]);
        let shared = Arc::new(Shared::new(home, spares, segments, end.link));
        let writer = LogWriter::new(Arc::clone(&shared), last, end, window);
        (Self { shared }, writer)
    }

    /// The last durable position.
    pub fn durable(&self) -> Position {
        self.end().position
    }

    /// The durable end: what the next frame will follow.
    pub fn end(&self) -> Link {
        self.shared.state().end
    }

    /// The durable position as it grows. A reader that is up to date waits here.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        self.shared.subscribe()
    }

    /// The last seq that is no longer in the log; 0 if all are.
    pub fn truncated(&self) -> Seq {
        self.shared.state().truncated()
    }

    /// The end of the frame whose last seq is `seq`; `None` if no durable frame of this log ends there. At
    /// [`Self::truncated`] it is what the oldest frame follows.
    ///
    /// # Errors
    /// As [`Self::read_after`].
    pub fn link_at(&self, seq: Seq) -> Result<Option<Link>, LogError> {
        self.shared.link_at(seq)
    }

    /// Durable frames from the one that holds `seq + 1` on, at most `max_bytes` of them but at least one. If `seq`
    /// is inside a frame, that frame comes whole.
    ///
    /// # Errors
    /// - [`LogError::Refused`]: the frame is damaged on disk; nothing of it is given out.
    /// - [`LogError::Io`]: the file cannot be read.
    pub fn read_after(&self, seq: Seq, max_bytes: usize) -> Result<ReadFrames, LogError> {
        self.shared.read_after(seq, max_bytes)
    }

    /// Visits the records behind `after` in order, each with its position and the time of its frame in Unix
    /// milliseconds, at most up to the end of the frame that has `until`, and gives where that led. About `max_bytes`
    /// of frames are read, at least one frame. `until` is durable and lies behind `after`. Blocks.
    ///
    /// # Errors
    /// As [`Self::read_after`]; [`LogError::Refused`] also if a record does not decode.
    pub fn visit_after(
        &self,
        after: Seq,
        until: Position,
        max_bytes: usize,
        mut visit: impl FnMut(Position, u64, &Record),
    ) -> Result<Walked, LogError> {
        self.shared.visit_after(after, until, max_bytes, &mut visit)
    }

    /// Keeps the frames after `seq` in the log until the hold is dropped, or the segments that hold them have more
    /// than `limit_bytes` together. `None`: there are as many holds as may be. What is gone already stays gone: look
    /// at [`Self::truncated`] afterwards.
    pub fn hold(&self, seq: Seq, limit_bytes: u64) -> Option<Hold> {
        Hold::new(Arc::clone(&self.shared), seq, limit_bytes)
    }

    /// Lets go of segments that LMDB contains wholly, that nobody holds within his limit, and that are beyond the
    /// retention. Called after each flush, from any thread; `applied` must be durable in LMDB.
    ///
    /// # Errors
    /// [`LogError::Io`]: storage failure.
    pub fn release(&self, applied: Seq) -> Result<(), LogError> {
        self.shared.release(applied)
    }

    /// From now on, or no longer, the log finds the disk full.
    #[cfg(test)]
    pub(crate) fn set_disk_full(&self, full: bool) {
        self.shared.spares.set_disk_full(full);
    }

    /// How large the log is.
    pub fn stats(&self) -> LogStats {
        let spares = self.shared.spares.ready();
        let state = self.shared.state();
        LogStats {
            segments: state.segments.len(),
            bytes: state.bytes_from(0),
            spares,
            holds: state.holds.len(),
        }
    }
}
