//! Segments on disk -> the chain that they hold, or exactly why not.
//!
//! 1. Every segment's header is read; numbers must follow each other and the oldest must reach back to `applied`.
//! 2. The chain is walked from the segment that holds the first record LMDB lacks, every checksum verified.
//! 3. Where it ends, [`super::ending`] judges: clean, torn, or damaged. Up to here nothing was changed, so whoever
//!    is refused can copy the directory and try again.
//! 4. What was torn is cut and what is kept is made durable: frames above the floor are written once more, the
//!    rest of the last segment is zeroed, all is synced. After a kill the page cache may hold what the disk does
//!    not, and after a failed sync it may call pages clean that the disk never got.
//! 5. Only then are frames replayed, so the caller may let LMDB have them at once.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use kvclient::{
    faults,
    position::{Position, Seq},
    wire::log::{Frame, Link},
};

use super::{
    ending::{Ending, judge},
    error::LogError,
    files::Listing,
    milestones::Place,
    rewrite::{for_frames_after, make_durable},
    segment::{Access, Segment},
    state::{Chain, Home},
    walk::Walk,
    window::Window,
};

const CHUNK_BYTES: usize = 1 << 20;
const WHAT_NOW: &str = "Nothing was changed. Keep a copy of the directory. A replica can start over with an empty \
                        data directory; a primary needs the missing file back, a backup, or a promoted replica";

/// What LMDB knows about the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartFrom {
    /// Last position in LMDB; what follows is replayed.
    pub applied: Position,
    /// The larger of `applied` and `durable_floor`: the log was durable up to here and must reach it.
    pub floor: Position,
}

/// What a start found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Where the log ends.
    pub end: Link,
    /// Shard time of the last frame, Unix milliseconds; 0 if no frame is in the log.
    pub end_time_ms: u64,
    /// What was cut off, if anything was. Nobody was told that it was written.
    pub cut: Option<CutTail>,
}

/// The torn end of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// The last position before it.
    pub after: Position,
    /// How many bytes of it can be told from what lay there before.
    pub bytes: u64,
    /// The segment.
    pub file: PathBuf,
}

/// Recovers the log of `home`. See the module's header for what happens in which order.
pub(super) fn recover(
    home: &Home,
    listing: &Listing,
    start: StartFrom,
    replay: &mut dyn FnMut(Frame) -> Result<(), LogError>,
) -> Result<(Chain, Recovered), LogError> {
    let dir = &home.dir;
    let floor = start.floor.max(start.applied);
    let start = StartFrom { floor, ..start };
    let segments = open_segments(home, listing)?;
    let first = first_needed(&segments, start.applied)?;
    let (passed, needed) = segments.split_at(first);
    let (end, last_time_ms) = walk_chain(needed, start)?;
    let cut = judge_end(dir, &segments[segments.len() - 1], end, floor)?;
    let window = Window::open(dir)?;
    make_durable(dir, needed, end, floor)?;
    faults::point("recovery.rewritten");
    window.clear()?;
    for_frames_after(needed, end, start.applied.seq, |_, _, frame| replay(frame))?;
    let end_time_ms = match last_time_ms {
        Some(time_ms) => time_ms,
        None => time_before(passed)?,
    };
    let recovered = Recovered {
        end: end.link,
        end_time_ms,
        cut,
    };
    let chain = Chain {
        segments: segments.into(),
        end,
        window,
    };
    Ok((chain, recovered))
}

fn open_segments(home: &Home, listing: &Listing) -> Result<Vec<Arc<Segment>>, LogError> {
    let dir = &home.dir;
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(listing.segments.len());
    for (number, path) in &listing.segments {
        if let Some(last) = segments.last() {
            check_next(last, *number, dir)?;
        }
        let segment = Segment::open(path.clone(), *number, home.history, Access::ReadWrite)?;
        segments.push(Arc::new(segment));
    }
    if segments.is_empty() {
        return Err(refused(format!(
            "{}: there is no log segment",
            dir.display()
        )));
    }
    Ok(segments)
}

fn check_next(last: &Segment, number: u64, dir: &Path) -> Result<(), LogError> {
    let expected = last.header.number + 1;
    if number == expected {
        return Ok(());
    }
    Err(refused(format!(
        "{}: segment {expected} is missing; segments {} and {number} are there",
        dir.display(),
        last.header.number
    )))
}

/// Number, in the list, of the segment that holds the first record after `applied`, or will hold it.
fn first_needed(segments: &[Arc<Segment>], applied: Position) -> Result<usize, LogError> {
    let begun = segments.partition_point(|segment| segment.base_seq() <= applied.seq);
    begun.checked_sub(1).ok_or_else(|| {
        let oldest = &segments[0];
        refused(format!(
            "{}: the oldest segment begins after seq {}, but LMDB contains the log up to {applied} only; segments before it are missing",
            oldest.path.display(),
            oldest.base_seq()
        ))
    })
}

/// Walks through all of these segments. Gives the end and the time of the last frame.
fn walk_chain(
    segments: &[Arc<Segment>],
    start: StartFrom,
) -> Result<(Place, Option<u64>), LogError> {
    let mut time_ms = None;
    let mut end = segments[0].start();
    for (nth, segment) in segments.iter().enumerate() {
        let mut walk = Walk::new(segment, segment.start(), CHUNK_BYTES);
        for known in [start.applied, start.floor] {
            check_epoch(segment, walk.place(), known, segment.base_seq())?;
        }
        while let Some(frame) = walk.frame()? {
            time_ms = Some(frame.header.time_ms);
            for known in [start.applied, start.floor] {
                check_epoch(segment, walk.place(), known, frame.header.first_seq)?;
            }
        }
        end = walk.place();
        if let Some(next) = segments.get(nth + 1) {
            check_joint(&mut walk, next)?;
        }
    }
    Ok((end, time_ms))
}

/// Checks that LMDB and the log mean the same record: the one at `known`, if it is among `first..=` this place.
fn check_epoch(
    segment: &Segment,
    place: Place,
    known: Position,
    first: Seq,
) -> Result<(), LogError> {
    let there = place.link.position;
    if !(first..=there.seq).contains(&known.seq) || there.epoch == known.epoch {
        return Ok(());
    }
    Err(refused(format!(
        "{}, byte {}: seq {} is of epoch {} in the log but of epoch {} in LMDB; they are not of the same node",
        segment.path.display(),
        place.at,
        known.seq,
        there.epoch,
        known.epoch
    )))
}

/// Checks that the next segment continues where the walk ended. It was begun when all before it was synced, so
/// what is missing was lost, not torn.
fn check_joint(walk: &mut Walk<'_>, next: &Segment) -> Result<(), LogError> {
    if walk.place().link == next.header.base {
        return Ok(());
    }
    let damage = walk.damage();
    Err(refused(format!(
        "{damage}; the next segment, {}, follows seq {}",
        next.path.display(),
        next.base_seq()
    )))
}

fn judge_end(
    dir: &Path,
    last: &Segment,
    end: Place,
    floor: Position,
) -> Result<Option<CutTail>, LogError> {
    let ending = judge(last, end, Window::read(dir))?;
    let problem = || Walk::new(last, end, CHUNK_BYTES).damage();
    if let Ending::Damaged(later) = ending {
        return Err(refused(format!("{}; {later}", problem())));
    }
    if end.seq() < floor.seq {
        return Err(refused(format!(
            "{}; so the log ends at {}, but was durable up to {floor}",
            problem(),
            end.link.position
        )));
    }
    Ok(match ending {
        Ending::Torn { bytes } => Some(CutTail {
            after: end.link.position,
            bytes,
            file: last.path.clone(),
        }),
        Ending::Clean | Ending::Damaged(_) => None,
    })
}

/// Time of the last frame in segments that were not walked; 0 if there is none.
fn time_before(segments: &[Arc<Segment>]) -> Result<u64, LogError> {
    for segment in segments.iter().rev() {
        let mut walk = Walk::new(segment, segment.start(), CHUNK_BYTES);
        let mut time_ms = None;
        while let Some(header) = walk.header()? {
            time_ms = Some(header.time_ms);
            walk.skip(&header);
        }
        if let Some(time_ms) = time_ms {
            return Ok(time_ms);
        }
    }
    Ok(0)
}

fn refused(what: String) -> LogError {
    LogError::Refused(format!("{what}. {WHAT_NOW}"))
}
