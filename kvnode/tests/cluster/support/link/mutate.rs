//! Changes the bodies of answers on the way, leaves HTTP around them intact, and watches whether the replica that got
//! them believed them.
//!
//! A body with its length in the head is changed as a whole and its length written anew; of a chunked one, each chunk
//! is a body of its own. A replica that asks `GET /log?after=N` again after a changed answer must ask for the same N:
//! whatever else it asks for, it has taken something of it.

use bytes::Bytes;
use kvclient::wire::log::Frame;

/// What is done to a body. Whole frames where it says so, bytes anywhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// One bit is the other way round.
    Flip,
    /// Bytes are missing, not the last ones.
    LeaveOut,
    /// Bytes come twice.
    Repeat,
    /// Two runs of bytes are in each other's place.
    Reorder,
    /// The last bytes are missing.
    CutShort,
    /// A frame is missing, not the last one.
    FrameLeftOut,
    /// A frame comes twice.
    FrameRepeated,
    /// Two frames are in each other's place.
    FramesReordered,
}

impl Change {
    /// All of them.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Flip,
        Self::LeaveOut,
        Self::Repeat,
        Self::Reorder,
        Self::CutShort,
        Self::FrameLeftOut,
        Self::FrameRepeated,
        Self::FramesReordered,
    ];

    /// Those that need not know what is in the body.
    pub(crate) const BYTES: &'static [Self] = &[
        Self::Flip,
        Self::LeaveOut,
        Self::Repeat,
        Self::Reorder,
        Self::CutShort,
    ];
}

/// What was done, and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Bodies that left with other bytes than they came with.
    pub(crate) changed: usize,
    /// Pulls after a changed answer that asked for what follows it: something of it was taken.
    pub(crate) applied: usize,
}

/// Decides which bodies are changed, and how.
#[derive(Debug)]
pub(crate) struct Mutator {
    rng: fastrand::Rng,
    changes: &'static [Change],
    /// The body of an answer that is changed is one of its first so many, if it has them.
    within: usize,
    most: usize,
    /// Bodies of this answer that pass before the one that is changed; `None` behind it. By turns, so that a replica
    /// is not struck several times in a row, after which it pauses for long.
    left: Option<usize>,
    requests: usize,
    tally: Tally,
    /// What the last pull asked for, and whether its answer was changed.
    asked: Option<u64>,
    doubted: Option<u64>,
}

impl Mutator {
    /// Changes one of the first `within` bodies of each answer, until `most` were changed. An answer that is one body
    /// is changed one time in `within`.
    ///
    /// One body and no more: whoever gets it hangs up, and what is changed behind it nobody reads.
    pub(crate) fn new(
        rng: fastrand::Rng,
        changes: &'static [Change],
        within: usize,
        most: usize,
    ) -> Self {
        Self {
            rng,
            changes,
            within,
            most,
            left: None,
            requests: 0,
            tally: Tally::default(),
            asked: None,
            doubted: None,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// A request passes.
    pub(super) fn saw_request(&mut self, piece: &[u8]) {
        let text = String::from_utf8_lossy(piece);
        self.left = Some(self.requests % self.within);
        self.requests += 1;
        let Some(rest) = text.strip_prefix("GET /log?after=") else {
            return;
        };
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        let after = digits.and_then(|digits| digits.parse().ok());
        if let Some(doubted) = self.doubted.take()
            && after != Some(doubted)
        {
            self.tally.applied += 1;
        }
        self.asked = after;
    }

    /// A body passes.
    pub(super) fn change(&mut self, body: &mut Vec<u8>) {
        if self.tally.changed >= self.most {
            return;
        }
        match self.left {
            Some(0) => self.left = None,
            Some(left) => {
                self.left = Some(left - 1);
                return;
            }
            None => return,
        }
        let before = body.clone();
        let change = self.changes[self.rng.usize(..self.changes.len())];
        apply(&mut self.rng, change, body);
        if *body == before {
            // There was one frame only, or the runs were equal.
            apply(&mut self.rng, Change::Flip, body);
        }
        self.tally.changed += 1;
        self.doubted = self.asked.take();
    }
}

fn apply(rng: &mut fastrand::Rng, change: Change, body: &mut Vec<u8>) {
    let len = body.len();
    match change {
        Change::Flip => body[rng.usize(..len)] ^= 1 << rng.u8(..8),
        Change::LeaveOut if len > 1 => {
            let end = rng.usize(1..len);
            body.drain(rng.usize(..end)..end);
        }
        Change::Repeat => {
            let end = rng.usize(1..=len);
            let run = body[rng.usize(..end)..end].to_vec();
            body.splice(end..end, run);
        }
        Change::Reorder if len > 1 => {
            let middle = rng.usize(1..len);
            let (from, to) = (rng.usize(..middle), rng.usize(middle + 1..=len));
            body[from..to].rotate_left(middle - from);
        }
        // Less than a header: what is left does not end where a frame does.
        Change::CutShort => body.truncate(len - rng.usize(1..40.min(len).max(2))),
        Change::FrameLeftOut | Change::FrameRepeated | Change::FramesReordered => {
            let mut frames = frames(body);
            if frames.len() > 1 {
                let at = rng.usize(..frames.len() - 1);
                match change {
                    Change::FrameLeftOut => drop(frames.remove(at)),
                    Change::FrameRepeated => frames.insert(at, frames[at].clone()),
                    _ => frames.swap(at, at + 1),
                }
                *body = frames.concat();
            }
        }
        Change::LeaveOut | Change::Reorder => {}
    }
}

/// The frames of a body; none if it is something else.
fn frames(body: &[u8]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(body);
    let mut frames = Vec::new();
    while !rest.is_empty() {
        match Frame::split_from(&mut rest) {
            Ok(frame) => frames.push(frame.bytes),
            Err(_) => return Vec::new(),
        }
    }
    frames
}

/// Finds the bodies in the bytes of answers.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    waiting: Vec<u8>,
    is_chunked: bool,
}

impl Bodies {
    /// Takes a piece and gives what may pass: whole answers and whole chunks, changed.
    pub(super) fn take(&mut self, piece: &[u8], mut change: impl FnMut(&mut Vec<u8>)) -> Vec<u8> {
        self.waiting.extend_from_slice(piece);
        let mut out = Vec::new();
        loop {
            let whole = match self.is_chunked {
                true => self.chunk(&mut change),
                false => self.answer(&mut change),
            };
            match whole {
                Some(bytes) => out.extend(bytes),
                None => return out,
            }
        }
    }

    fn answer(&mut self, change: &mut impl FnMut(&mut Vec<u8>)) -> Option<Vec<u8>> {
        let head_bytes = find(&self.waiting, b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.waiting[..head_bytes]).into_owned();
        if head.contains("transfer-encoding: chunked") {
            self.is_chunked = true;
            return Some(self.waiting.drain(..head_bytes).collect());
        }
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let length: usize = length.unwrap_or(0);
        if self.waiting.len() < head_bytes + length {
            return None;
        }
        let head_as_it_is: Vec<u8> = self.waiting.drain(..head_bytes).collect();
        let mut body: Vec<u8> = self.waiting.drain(..length).collect();
        if length == 0 || !head.starts_with("HTTP/1.1 200") {
            return Some([head_as_it_is, body].concat());
        }
        change(&mut body);
        let head = head.replace(
            &format!("content-length: {length}\r\n"),
            &format!("content-length: {}\r\n", body.len()),
        );
        Some([head.into_bytes(), body].concat())
    }

    fn chunk(&mut self, change: &mut impl FnMut(&mut Vec<u8>)) -> Option<Vec<u8>> {
        let size_bytes = find(&self.waiting, b"\r\n")? + 2;
        let size = String::from_utf8_lossy(&self.waiting[..size_bytes - 2]).into_owned();
        let size = usize::from_str_radix(&size, 16).expect("the size of a chunk");
        if self.waiting.len() < size_bytes + size + 2 {
            return None;
        }
        let whole: Vec<u8> = self.waiting.drain(..size_bytes + size + 2).collect();
        if size == 0 {
            self.is_chunked = false;
            return Some(whole);
        }
        let mut body = whole[size_bytes..size_bytes + size].to_vec();
        change(&mut body);
        if body.is_empty() {
            // A chunk of no bytes would be the end of the answer.
            return Some(body);
        }
        let size = format!("{:x}\r\n", body.len()).into_bytes();
        Some([size, body, b"\r\n".to_vec()].concat())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_found_in_pieces_of_any_size_and_http_stays_whole() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        let stream = [&plain[..], chunked, plain].concat();
        for piece in 1..stream.len() {
            let mut bodies = Bodies::default();
            let (mut out, mut seen) = (Vec::new(), Vec::new());
            for part in stream.chunks(piece) {
                out.extend(bodies.take(part, |body| {
                    seen.push(body.clone());
                    body.push(b'!');
                }));
            }
            let expected = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc!";
            assert_eq!(
                seen,
                [&b"abc"[..], b"ab", b"c", b"abc"],
                "pieces of {piece}"
            );
            assert!(out.starts_with(expected) && out.ends_with(expected));
            assert!(find(&out, b"3\r\nab!\r\n2\r\nc!\r\n0\r\n\r\n").is_some());
        }
    }

    #[test]
    fn every_change_changes_and_is_noticed_if_it_is_believed() {
        for change in Change::BYTES {
            let mut mutator = Mutator::new(
                fastrand::Rng::with_seed(7),
                std::slice::from_ref(change),
                1,
                100,
            );
            for n in 0..100_usize {
                mutator.saw_request(format!("GET /log?after={n}&max_bytes=1 ").as_bytes());
                let before: Vec<u8> = (0..=u8::try_from(n).unwrap()).collect();
                let mut body = before.clone();
                mutator.change(&mut body);
                assert_ne!(body, before, "{change:?}");
            }
            let believed = Tally {
                changed: 100,
                applied: 99,
            };
            assert_eq!(mutator.tally(), believed);
        }
    }
}
