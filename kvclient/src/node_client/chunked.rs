//! A body in chunks, put together while it arrives.
//!
//! ```text
//! 5;any=extension CRLF   length in hex digits
//! hello CRLF
//! 0 CRLF                 the last one
//! name: value CRLF CRLF  trailer, thrown away; mostly only the last CRLF
//! ```
//!
//! Nodes announce lengths; proxies between may not. Pure: bytes in, bytes out. What is not complete is left where
//! it is, so the room for a line or a trailer is that of the caller's buffer.

use httparse::{Status, parse_chunk_size};

/// How far a body in chunks has been read.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a chunk's length.
    #[default]
    Length,
    /// Within a chunk: bytes to come.
    Within(u64),
    /// Behind a chunk's bytes.
    Behind,
    Trailer,
    Over,
}

impl Chunked {
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Appends what `input` brings to the body and says how much of `input` is done with.
    ///
    /// # Errors
    /// The bytes are no chunks.
    pub(super) fn push(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, &'static str> {
        let mut taken = 0;
        while let Some(used) = self.step(&input[taken..], body)? {
            taken += used;
        }
        Ok(taken)
    }

    /// One piece of it; `None` if there is no whole one.
    fn step(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, &'static str> {
        match self.state {
            State::Length => {
                // The parser takes no digits at all for a 0, which would be the end.
                if input.first().is_some_and(|b| !b.is_ascii_hexdigit()) {
                    return Err("a chunk without a length");
                }
                let parsed = parse_chunk_size(input).map_err(|_| "a chunk without a length")?;
                let Status::Complete((used, length)) = parsed else {
                    return Ok(None);
                };
                self.state = match length {
                    0 => State::Trailer,
                    _ => State::Within(length),
                };
                Ok(Some(used))
            }
            State::Within(left) => {
                let used = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                body.extend_from_slice(&input[..used]);
                self.state = match left - used as u64 {
                    0 => State::Behind,
                    left => State::Within(left),
                };
                Ok((used > 0).then_some(used))
            }
            State::Behind => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::Length;
                    Ok(Some(2))
                }
                [] | [b'\r'] => Ok(None),
                _ => Err("a chunk longer than its length"),
            },
            State::Trailer => {
                let end = match input.starts_with(b"\r\n") {
                    true => Some(2),
                    false => input
                        .windows(4)
                        .position(|at| at == b"\r\n\r\n")
                        .map(|at| at + 4),
                };
                if end.is_some() {
                    self.state = State::Over;
                }
                Ok(end)
            }
            State::Over => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, and what is left of the input; in pieces as they may arrive.
    fn read(
        input: &[u8],
        cuts: &[prop::sample::Index],
    ) -> Result<(Vec<u8>, Vec<u8>, bool), &'static str> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.push(input.len());
        cuts.sort_unstable();
        let (mut chunked, mut body) = (Chunked::default(), Vec::new());
        let (mut buffer, mut arrived) = (Vec::new(), 0);
        for cut in cuts {
            buffer.extend_from_slice(&input[arrived..cut]);
            arrived = cut;
            let taken = chunked.push(&buffer, &mut body)?;
            buffer.drain(..taken);
        }
        Ok((body, buffer, chunked.is_over()))
    }

    #[test]
    fn chunks_become_one_body() {
        for (input, body, rest, is_over) in [
            ("5\r\nhello\r\n0\r\n\r\n", "hello", "", true),
            (
                "1;a=b\r\nx\r\n0a\r\n0123456789\r\n0\r\nt: v\r\n\r\n",
                "x0123456789",
                "",
                true,
            ),
            ("0\r\n\r\nmore", "", "more", true),
            ("5\r\nhel", "hel", "", false),
            ("5\r\nhello\r\n0\r\nt: v\r\n", "hello", "t: v\r\n", false),
        ] {
            let read = read(input.as_bytes(), &[]).unwrap();
            assert_eq!(read, (body.into(), rest.into(), is_over), "{input:?}");
        }
        for input in [
            "x\r\n",
            "\r\n",
            "1\r\nab\r\n",
            "fffffffffffffffff\r\n",
            "-1\r\n",
        ] {
            assert!(read(input.as_bytes(), &[]).is_err(), "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_chunks_arrive(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read(&input, &cuts), Ok((chunks.concat(), Vec::new(), true)));
        }

        #[test]
        fn no_bytes_make_it_panic(
            input in prop::collection::vec(prop_oneof![Just(b'1'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..100),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let _ = read(&input, &cuts);
        }
    }
}
