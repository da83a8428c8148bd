//! Where a chain ends: clean, torn by a crash, or damaged.
//!
//! A frame that a crash tore has nothing of the same chain behind it, for each append is synced before the next
//! begins. So a broken frame with a later one behind it is damage, and nothing may be cut. The exception is an
//! append of several frames, which [`super::window`] makes known.
//!
//! A broken frame that is the very last of the log looks the same whether a crash tore it or the disk lost it.
//! Above the floor it is taken for torn; this is the one place where that guess is made.

use std::fmt;

use kvclient::{
    position::Seq,
    wire::log::{FRAME_HEADER_BYTES, Frame, FrameHeader},
};

use super::{
    error::LogError,
    files::ZEROS,
    milestones::Place,
    segment::{Segment, len},
    walk::Walk,
    window::Span,
};

/// A record takes at least this much of a frame, which bounds how far seqs can advance over a stretch of file.
const MIN_RECORD_BYTES: u64 = 8;
const CHUNK_BYTES: usize = 1 << 20;
const ZERO_STEP_BYTES: usize = 4096;

/// How the chain ends in the log's last segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing of the chain lies behind the end.
    Clean,
    /// The last append did not arrive whole; so many bytes of it are known to have.
    Torn { bytes: u64 },
    /// A frame is broken, yet later ones are there.
    Damaged(Later),
}

/// Whole frames of the same chain behind a broken one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Later {
    /// Byte at which the first of them begins.
    pub(super) at: u64,
    /// Its first seq.
    pub(super) first_seq: Seq,
    /// The last seq of all of them.
    pub(super) last_seq: Seq,
    /// Byte behind the last of them.
    pub(super) end_at: u64,
}

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last, at) = (self.first_seq, self.last_seq, self.at);
        write!(
            f,
            "later frames are there, seqs {first} to {last} from byte {at} on"
        )
    }
}

/// Judges the end of the chain at `place` of the last segment.
pub(super) fn judge(
    segment: &Segment,
    place: Place,
    window: Option<Span>,
) -> Result<Ending, LogError> {
    let begun = begun_bytes(segment, place)?;
    let Some(later) = find_later(segment, place)? else {
        return Ok(match begun {
            0 => Ending::Clean,
            bytes => Ending::Torn { bytes },
        });
    };
    let torn =
        window.is_some_and(|span| span.covers(place.seq() + 1) && later.last_seq <= span.end);
    Ok(match torn {
        true => Ending::Torn {
            bytes: later.end_at - place.at,
        },
        false => Ending::Damaged(later),
    })
}

/// How much of the next frame is there for certain. Remains of the file's former life do not count: they have
/// neither its seq nor its `prev`. So a frame of which less than that arrived is not noticed, and not missed.
fn begun_bytes(segment: &Segment, place: Place) -> Result<u64, LogError> {
    if let Some(header) = Walk::new(segment, place, FRAME_HEADER_BYTES).header()? {
        return Ok(header.frame_bytes() as u64);
    }
    let head = segment.read(place.at, FRAME_HEADER_BYTES)?;
    let is_prev = place.link.crc != 0 && head.get(8..12) == Some(&place.link.crc.to_le_bytes());
    let is_seq = head.get(16..24) == Some(&(place.seq() + 1).to_le_bytes());
    Ok(if is_prev || is_seq {
        FRAME_HEADER_BYTES as u64
    } else {
        0
    })
}

/// Searches the rest of the segment for whole frames that can only come after the one missing at `place`.
///
/// Behind a broken body the search goes on where that frame ends; behind a broken header, at every byte. There a
/// value that holds a copy of a frame could be taken for one, so its seq must fit the bytes that lie between.
fn find_later(segment: &Segment, place: Place) -> Result<Option<Later>, LogError> {
    let broken = Walk::new(segment, place, FRAME_HEADER_BYTES).header()?;
    let mut at = broken.map_or(place.at + 1, |header| place.behind(&header).at);
    let mut later: Option<Later> = None;
    while let Some((found_at, header)) = next_frame(segment, at, place)? {
        at = found_at + header.frame_bytes() as u64;
        let first = later.unwrap_or(Later {
            at: found_at,
            first_seq: header.first_seq,
            last_seq: 0,
            end_at: 0,
        });
        later = Some(Later {
            last_seq: first.last_seq.max(header.last_seq()),
            end_at: at,
            ..first
        });
    }
    Ok(later)
}

/// The first whole frame at or behind byte `from` that can be a later one.
fn next_frame(
    segment: &Segment,
    mut from: u64,
    place: Place,
) -> Result<Option<(u64, FrameHeader)>, LogError> {
    // Seqs near to each other have the same top byte. It sorts out most of what is not zeros at once.
    let top_byte = place.seq().to_le_bytes()[7];
    loop {
        let chunk = segment.read(from, CHUNK_BYTES)?;
        let mut at = 0;
        while let Some(head) = chunk[at..].first_chunk::<FRAME_HEADER_BYTES>() {
            if head[23] != top_byte {
                at += 1;
                continue;
            }
            if is_zeros(&chunk[at..]) {
                // A header may begin in the last zeros.
                at += ZERO_STEP_BYTES - FRAME_HEADER_BYTES;
                continue;
            }
            let candidate_at = from + at as u64;
            if can_be_later(head, candidate_at, place)
                && let Some(header) = whole_frame(segment, candidate_at, head)?
            {
                return Ok(Some((candidate_at, header)));
            }
            at += 1;
        }
        if from + chunk.len() as u64 >= segment.bytes {
            return Ok(None);
        }
        from += at as u64;
    }
}

fn is_zeros(bytes: &[u8]) -> bool {
    bytes.get(..ZERO_STEP_BYTES) == Some(&ZEROS[..ZERO_STEP_BYTES])
}

/// Cheap look at a would-be header, before any checksum.
fn can_be_later(head: &[u8; FRAME_HEADER_BYTES], at: u64, place: Place) -> bool {
    let field = |from: usize| {
        let bytes = head[from..].first_chunk();
        u32::from_le_bytes(bytes.copied().unwrap_or_default())
    };
    let first_seq = u64::from(field(16)) | u64::from(field(20)) << 32;
    let most_between = (at - place.at) / MIN_RECORD_BYTES;
    let advance = first_seq.saturating_sub(place.seq() + 1);
    (1..=most_between).contains(&advance) && field(12) >= place.link.position.epoch
}

fn whole_frame(
    segment: &Segment,
    at: u64,
    head: &[u8; FRAME_HEADER_BYTES],
) -> Result<Option<FrameHeader>, LogError> {
    let Some(header) = FrameHeader::parse(head) else {
        return Ok(None);
    };
    if header.frame_bytes() > len(segment.bytes - at) {
        return Ok(None);
    }
    let mut bytes = segment.read(at, header.frame_bytes())?;
    Ok(Frame::split_from(&mut bytes).ok().map(|_| header))
}
