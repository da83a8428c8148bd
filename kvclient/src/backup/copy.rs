//! A snapshot stream, checked while it arrives or is read back.
//!
//! Takes the rules of [`wire::snapshot`](crate::wire::snapshot) at their word: one header, entries in key order, frames that
//! follow each other from the start to the end, one end, as many entries as it says, and nothing behind it. A stream
//! without its end is never a copy.

use bytes::Bytes;

use super::chain::Chain;
use crate::{
    position::Position,
    wire::{
        bytes::DecodeError,
        snapshot::{Chunk, Decoder, Header, preamble},
    },
};

/// Checks a stream.
#[derive(Debug, Default)]
pub struct CopyCheck {
    decoder: Decoder,
    begun: Option<Begun>,
    end: Option<CheckedCopy>,
}

#[derive(Debug)]
struct Begun {
    header: Header,
    chain: Chain,
    entries: u64,
    last_key: Bytes,
    frames_at: Option<u64>,
}

/// What a whole stream turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedCopy {
    /// Its header.
    pub header: Header,
    /// Its end: where it is exact, and the time there.
    pub chain: Chain,
    /// How many entries it has.
    pub entries: u64,
    /// Bytes before its frames.
    pub frames_at: u64,
}

impl CopyCheck {
    /// A check at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`DecodeError`]: this is no snapshot; give it up.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        if self.end.is_some() && !piece.is_empty() {
            return Err(problem("something stands behind its end"));
        }
        self.decoder.push(piece);
        loop {
            let at = self.decoder.taken_bytes().max(preamble().len() as u64);
            let Some(chunk) = self.decoder.next_chunk()? else {
                break;
            };
            if self.end.is_some() {
                return Err(problem("something stands behind its end"));
            }
            self.take(at, chunk)?;
        }
        match self.end.is_some() && self.decoder.has_more() {
            true => Err(problem("something stands behind its end")),
            false => Ok(()),
        }
    }

    /// Entries that have come.
    pub fn entries(&self) -> u64 {
        self.begun.as_ref().map_or(0, |begun| begun.entries)
    }

    /// Where it begins, once that is known.
    pub fn start(&self) -> Option<Position> {
        let begun = self.begun.as_ref()?;
        Some(begun.header.start.position)
    }

    /// What it was, if that was all of it.
    ///
    /// # Errors
    /// [`DecodeError`]: its end has not come.
    pub fn finish(self) -> Result<CheckedCopy, DecodeError> {
        self.end.ok_or_else(|| problem("it ends before its end"))
    }

    fn take(&mut self, at: u64, chunk: Chunk) -> Result<(), DecodeError> {
        match (chunk, &mut self.begun) {
            (Chunk::Header(header), None) => {
                self.begun = Some(Begun::new(header));
                Ok(())
            }
            (Chunk::Header(_), Some(_)) => Err(problem("a second header")),
            (_, None) => Err(problem("no header at its start")),
            (Chunk::Requests(_), Some(_)) => Ok(()),
            (Chunk::Entries(entries), Some(begun)) => {
                entries.iter().try_for_each(|entry| begun.key(&entry.key))
            }
            (Chunk::Frames(frames), Some(begun)) => {
                begun.frames_at.get_or_insert(at);
                begun.chain.take_all(frames)
            }
            (
                Chunk::End {
                    end,
                    entries,
                    time_ms,
                },
                Some(begun),
            ) => {
                if (begun.chain.end, begun.entries) != (end, entries) {
                    return Err(problem("its end does not fit what came before"));
                }
                let mut chain = begun.chain.clone();
                chain.time_ms = chain.time_ms.max(time_ms);
                self.end = Some(CheckedCopy {
                    header: begun.header.clone(),
                    chain,
                    entries,
                    frames_at: begun.frames_at.unwrap_or(at),
                });
                Ok(())
            }
        }
    }
}

impl Begun {
    fn new(header: Header) -> Self {
        Self {
            chain: Chain {
                end: header.start,
                lineage: header.lineage.clone(),
                time_ms: 0,
            },
            header,
            entries: 0,
            last_key: Bytes::new(),
            frames_at: None,
        }
    }

    fn key(&mut self, key: &Bytes) -> Result<(), DecodeError> {
        if self.frames_at.is_some() {
            return Err(problem("entries behind its frames"));
        }
        if *key <= self.last_key {
            return Err(problem("its entries are not in key order"));
        }
        // A copy: the key alone would keep the memory of its whole chunk.
        self.last_key = Bytes::copy_from_slice(key);
        self.entries += 1;
        Ok(())
    }
}

fn problem(problem: &str) -> DecodeError {
    DecodeError::new("snapshot", problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        position::{Lineage, Reign},
        wire::{
            log::{Effect, FrameBuilder, Link, Record},
            snapshot::Entry,
        },
    };

    fn header() -> Header {
        let mut lineage = Lineage::new();
        let reign = Reign {
            epoch: 1,
            first_seq: 1,
            reign_id: 9,
        };
        lineage.push(reign).expect("the first");
        Header {
            history: 5,
            start: Link {
                position: Position::new(1, 4),
                crc: 77,
            },
            shard: "s".into(),
            slots: "0-16383".into(),
            lineage,
        }
    }

    fn entries(keys: &[&'static str]) -> Chunk {
        let entry = |key: &&'static str| Entry {
            key: Bytes::from_static(key.as_bytes()),
            position: Position::new(1, 2),
            expires_at_ms: None,
            value: Bytes::from_static(b"v"),
        };
        Chunk::Entries(keys.iter().map(entry).collect())
    }

    fn end(link: Link, entries: u64) -> Chunk {
        Chunk::End {
            end: link,
            entries,
            time_ms: 6,
        }
    }

    /// Frames behind the start, and where they end.
    fn frames() -> (Chunk, Link) {
        let mut builder = FrameBuilder::new();
        let effect = Effect::Delete { by_expiry: false };
        builder.push(&Record::new(Bytes::from_static(b"a"), effect));
        let frame = builder.finish(&header().start, 1, 70);
        (Chunk::Frames(frame.bytes), frame.header.link())
    }

    fn stream(chunks: &[Chunk]) -> Vec<u8> {
        let mut out = preamble();
        chunks
            .iter()
            .for_each(|chunk| out.extend_from_slice(&chunk.encode()));
        out
    }

    fn check(bytes: &[u8], size: usize) -> Result<CheckedCopy, DecodeError> {
        let mut check = CopyCheck::new();
        for piece in bytes.chunks(size) {
            check.push(piece)?;
        }
        check.finish()
    }

    fn whole() -> Vec<u8> {
        let (frames, link) = frames();
        let chunks = [
            Chunk::Header(header()),
            entries(&["a", "b"]),
            entries(&["c"]),
            frames,
            end(link, 3),
        ];
        stream(&chunks)
    }

    #[test]
    fn a_whole_copy_says_what_it_is() {
        for size in [1, 7, 1_000] {
            let copy = check(&whole(), size).expect("whole");
            assert_eq!((copy.entries, copy.chain.time_ms), (3, 70));
            assert_eq!(copy.chain.end, frames().1);
            let at = usize::try_from(copy.frames_at).expect("small");
            assert_eq!(whole()[at..][..1], [4], "a chunk of frames begins there");
        }
        let empty = stream(&[Chunk::Header(header()), end(header().start, 0)]);
        let copy = check(&empty, 9).expect("whole");
        assert_eq!((copy.entries, copy.chain.time_ms), (0, 6));
    }

    #[test]
    fn cut_anywhere_it_is_never_whole() {
        let whole = whole();
        for len in 0..whole.len() {
            assert!(check(&whole[..len], 64).is_err(), "cut to {len}");
        }
        let longer = [&whole[..], b"x"].concat();
        for size in [1, longer.len()] {
            assert!(check(&longer, size).is_err(), "pieces of {size}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (frames, link) = frames();
        let start = || Chunk::Header(header());
        let stranger = Link { crc: 1, ..link };
        for (what, chunks) in [
            ("no header", vec![entries(&["a"]), end(header().start, 1)]),
            (
                "two headers",
                vec![start(), start(), end(header().start, 0)],
            ),
            (
                "order",
                vec![start(), entries(&["b", "a"]), end(header().start, 2)],
            ),
            (
                "twice",
                vec![
                    start(),
                    entries(&["a"]),
                    entries(&["a"]),
                    end(header().start, 2),
                ],
            ),
            (
                "number",
                vec![start(), entries(&["a"]), end(header().start, 2)],
            ),
            ("frames missing", vec![start(), end(link, 0)]),
            (
                "another end",
                vec![start(), frames.clone(), end(stranger, 0)],
            ),
            (
                "frames twice",
                vec![start(), frames.clone(), frames.clone(), end(link, 0)],
            ),
            (
                "entries late",
                vec![start(), frames, entries(&["a"]), end(link, 1)],
            ),
        ] {
            assert!(check(&stream(&chunks), 1_000).is_err(), "{what}");
        }
    }
}
