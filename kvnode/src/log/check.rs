//! `kvnode check`: reads the whole log, every byte of every frame, and changes nothing.
//!
//! Recovery stops at the first thing that is wrong; this goes on in the next segment and lists them all. The log
//! must not be open for writing meanwhile.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use kvclient::{position::Seq, wire::log::Link};

use super::{
    ending::{Ending, judge},
    error::LogError,
    files::Listing,
    milestones::Place,
    recovery::CutTail,
    segment::{Access, Segment},
    walk::Walk,
    window::Window,
};

const CHUNK_BYTES: usize = 1 << 20;

/// What a log holds and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// Last seq before the oldest segment.
    pub truncated: Seq,
    /// Where the chain of the last readable segment ends.
    pub end: Link,
    /// Number of segments that could be read.
    pub segments: usize,
    /// Number of good frames.
    pub frames: u64,
    /// Number of records in them.
    pub records: u64,
    /// What the next start will cut off; no problem, unless LMDB says that it was durable.
    pub torn: Option<CutTail>,
    /// Everything that is wrong, oldest segment first.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The segment, or the directory.
    pub file: PathBuf,
    /// Byte in the file at which it begins, if it is in a frame.
    pub at: Option<u64>,
    /// Seq that is expected there, if known.
    pub seq: Option<Seq>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(at) = self.at {
            write!(f, ", byte {at}")?;
        }
        if let Some(seq) = self.seq {
            write!(f, ", seq {seq}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Checks the log of `dir` against its history. Damage is in the report, not an error.
///
/// # Errors
/// [`LogError::Io`]: the directory or a file cannot be read; the rest was not looked at.
pub fn check(dir: &Path, history: u128) -> Result<CheckReport, LogError> {
    let mut report = CheckReport::default();
    let segments = open_all(dir, history, &mut report)?;
    report.segments = segments.len();
    report.truncated = segments.first().map_or(0, Segment::base_seq);
    for (nth, segment) in segments.iter().enumerate() {
        check_segment(dir, segment, segments.get(nth + 1), &mut report)?;
    }
    Ok(report)
}

impl CheckReport {
    fn problem(&mut self, file: &Path, what: impl Into<String>) {
        self.problems.push(Problem {
            file: file.to_path_buf(),
            at: None,
            seq: None,
            what: what.into(),
        });
    }

    fn problem_at(&mut self, segment: &Segment, place: Place, what: String) {
        self.problems.push(Problem {
            file: segment.path.clone(),
            at: Some(place.at),
            seq: Some(place.seq() + 1),
            what,
        });
    }
}

fn open_all(dir: &Path, history: u128, report: &mut CheckReport) -> Result<Vec<Segment>, LogError> {
    let listing = Listing::read(dir)?;
    let mut segments = Vec::new();
    let mut expected = listing.segments.first().map_or(1, |(number, _)| *number);
    for (number, path) in listing.segments {
        if number != expected {
            report.problem(
                dir,
                format!("segments {expected} to {} are missing", number - 1),
            );
        }
        expected = number + 1;
        match Segment::open(path.clone(), number, history, Access::Read) {
            Ok(segment) => segments.push(segment),
            Err(LogError::Refused(what)) => report.problem(&path, what),
            Err(error) => return Err(error),
        }
    }
    if segments.is_empty() {
        report.problem(dir, "there is no log segment");
    }
    Ok(segments)
}

fn check_segment(
    dir: &Path,
    segment: &Segment,
    next: Option<&Segment>,
    report: &mut CheckReport,
) -> Result<(), LogError> {
    let mut walk = Walk::new(segment, segment.start(), CHUNK_BYTES);
    loop {
        let begin = walk.place();
        let Some(frame) = walk.frame()? else { break };
        report.frames += 1;
        report.records += u64::from(frame.header.count);
        if let Err(error) = frame.records() {
            let what = format!("the frame's checksums are right, but: {error}");
            report.problem_at(segment, begin, what);
        }
    }
    report.end = walk.place().link;
    let behind = match next {
        Some(next) => behind_joint(walk.place(), next),
        None => behind_end(dir, segment, walk.place(), report)?,
    };
    if let Some(behind) = behind {
        let what = format!("{}; {behind}", walk.problem()?);
        report.problem_at(segment, walk.place(), what);
    }
    Ok(())
}

/// What shows that the chain must not end here, though another segment follows.
fn behind_joint(end: Place, next: &Segment) -> Option<String> {
    let (file, seq) = (next.path.display(), next.base_seq());
    (next.header.base != end.link).then(|| format!("the next segment, {file}, follows seq {seq}"))
}

/// What shows that the chain must not end here, in the last segment. What is merely torn is noted.
fn behind_end(
    dir: &Path,
    segment: &Segment,
    end: Place,
    report: &mut CheckReport,
) -> Result<Option<String>, LogError> {
    match judge(segment, end, Window::read(dir))? {
        Ending::Clean => Ok(None),
        Ending::Torn { bytes } => {
            report.torn = Some(CutTail {
                after: end.link.position,
                bytes,
                file: segment.path.clone(),
            });
            Ok(None)
        }
        Ending::Damaged(later) => Ok(Some(later.to_string())),
    }
}
