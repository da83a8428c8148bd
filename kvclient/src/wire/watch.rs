//! A watch as server-sent events: what a client reads to follow a shard's changes. The decoder; the node writes them
//! in its handler.
//!
//! ```text
//! event: put | delete | expire        one record
//! id: epoch.seq                       its position: go on behind it with ?after=
//! data: {"key":..,"value":..,"expires_at_ms":..,"by_expiry":..,"time_ms":..}
//!
//! event: position                     first, when it is level, and every 5 s: all up to here was looked at
//! id: epoch.seq
//! data: {"position":"epoch.seq","visible":"epoch.seq"}
//!
//! event: log_truncated                the log no longer has what comes next; the stream ends
//! data: {"position":"epoch.seq","truncated":seq}
//! ```
//!
//! Bytes that are not text come as `key_b64` and `value_b64`. Lines end in LF, CR LF or CR; comments, events and fields
//! that are not known are skipped, as the format's specification has it
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>). What is longer than any event can be is an error,
//! so that a stream of something else does not fill the memory.

use std::mem;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;

use super::{MAX_VALUE_BYTES_CEILING, bytes::DecodeError, log::Effect, route};
use crate::{
    key::{Key, MAX_KEY_BYTES, escape},
    position::{Position, Seq},
};

/// The longest event: a byte of key or value takes at most six characters (`\u0001`), the rest is short.
const MAX_EVENT_BYTES: usize = 6 * (MAX_VALUE_BYTES_CEILING + MAX_KEY_BYTES) + 1024;

/// Where a watch of a shard begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFrom {
    /// With what is written from now on.
    Now,
    /// Behind a position.
    After(Position),
    /// With the oldest record that the log has.
    Earliest,
}

/// Path and query of a watch.
pub fn uri(prefix: &[u8], from: WatchFrom) -> String {
    let uri = format!("{}?prefix={}", route::WATCH, escape(prefix));
    match from {
        WatchFrom::Now => uri,
        WatchFrom::After(position) => format!("{uri}&after={position}"),
        WatchFrom::Earliest => format!("{uri}&after=earliest"),
    }
}

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// One record of the shard's log.
    Record {
        /// Its place in the log.
        position: Position,
        /// The key it is about.
        key: Key,
        /// What it does; never the start of a reign.
        effect: Effect,
        /// Shard time at which it was written, in Unix milliseconds.
        time_ms: u64,
    },
    /// All up to here was looked at.
    Position {
        /// Up to here.
        at: Position,
        /// As far as the node's readers see; equal to `at`: all that was written before has been told.
        visible: Option<Position>,
    },
    /// The log no longer has what comes next; nothing follows.
    Truncated {
        /// All up to here was looked at.
        position: Position,
        /// The last seq that the log no longer has.
        truncated: Seq,
    },
}

/// Takes a stream apart as it comes, in pieces cut anywhere.
#[derive(Debug, Default)]
pub struct WatchDecoder {
    buffer: BytesMut,
    /// So many bytes at the front of the buffer hold no end of a line.
    scanned: usize,
    /// The last line ended in CR: an LF right behind it belongs to that end.
    after_cr: bool,
    event: Fields,
}

/// An event that has not ended yet.
#[derive(Debug, Default)]
struct Fields {
    name: Bytes,
    id: Bytes,
    data: Option<Bytes>,
}

/// What the data of any event may hold.
#[derive(Debug, Deserialize)]
struct Data {
    key: Option<String>,
    key_b64: Option<String>,
    value: Option<String>,
    value_b64: Option<String>,
    expires_at_ms: Option<u64>,
    #[serde(default)]
    by_expiry: bool,
    #[serde(default)]
    time_ms: u64,
    position: Option<String>,
    visible: Option<String>,
    truncated: Option<Seq>,
}

impl WatchDecoder {
    /// A decoder at the front of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next event, or `None` until more is pushed.
    ///
    /// # Errors
    /// [`DecodeError`]: this is not such a stream. Of no use from then on.
    pub fn next_item(&mut self) -> Result<Option<WatchItem>, DecodeError> {
        while let Some(line) = self.next_line()? {
            if !line.is_empty() {
                self.event.take(line)?;
                continue;
            }
            if let Some(item) = mem::take(&mut self.event).decode()? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// The next whole line, without its end.
    fn next_line(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if self.after_cr && !self.buffer.is_empty() {
            self.after_cr = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let rest = &self.buffer[self.scanned..];
        let found = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let len = self.scanned + found.unwrap_or(rest.len());
        if len > MAX_EVENT_BYTES {
            return Err(error(format!("a line of {len} bytes is too long")));
        }
        if found.is_none() {
            self.scanned = len;
            return Ok(None);
        }
        self.scanned = 0;
        let line = self.buffer.split_to(len).freeze();
        self.after_cr = self.buffer.get_u8() == b'\r';
        Ok(Some(line))
    }
}

impl Fields {
    /// Takes one line that is not empty.
    fn take(&mut self, line: Bytes) -> Result<(), DecodeError> {
        let colon = line.iter().position(|&byte| byte == b':');
        let name_len = colon.unwrap_or(line.len());
        let mut value = line.slice((name_len + 1).min(line.len())..);
        if value.starts_with(b" ") {
            value.advance(1);
        }
        match &line[..name_len] {
            b"event" => self.name = value,
            b"id" => self.id = value,
            b"data" => self.add_data(value)?,
            // A comment, or a field of no use here.
            _ => {}
        }
        Ok(())
    }

    /// Nodes send one line of data; several are one text with line breaks in it.
    fn add_data(&mut self, value: Bytes) -> Result<(), DecodeError> {
        let data = match self.data.take() {
            None => value,
            Some(data) if data.len() + value.len() > MAX_EVENT_BYTES => {
                return Err(error("an event is too long"));
            }
            Some(data) => [&data[..], b"\n", &value[..]].concat().into(),
        };
        self.data = Some(data);
        Ok(())
    }

    /// The event; `None` for one that is not known or says nothing.
    fn decode(self) -> Result<Option<WatchItem>, DecodeError> {
        let Some(data) = self.data else {
            return Ok(None);
        };
        if !matches!(
            &*self.name,
            b"put" | b"delete" | b"expire" | b"position" | b"log_truncated"
        ) {
            return Ok(None);
        }
        let data: Data = serde_json::from_slice(&data)
            .map_err(|problem| error(format!("the data of an event: {problem}")))?;
        if *self.name == *b"log_truncated" {
            return Ok(Some(WatchItem::Truncated {
                position: position(data.position.unwrap_or_default().as_bytes())?,
                truncated: data
                    .truncated
                    .ok_or_else(|| error("truncated is missing"))?,
            }));
        }
        let at = position(&self.id)?;
        Ok(Some(match &*self.name {
            b"position" => WatchItem::Position {
                at,
                visible: data
                    .visible
                    .map(|text| position(text.as_bytes()))
                    .transpose()?,
            },
            name => data.into_record(name, at)?,
        }))
    }
}

impl Data {
    fn into_record(self, name: &[u8], position: Position) -> Result<WatchItem, DecodeError> {
        let key = bytes("key", self.key, self.key_b64)?;
        let effect = match name {
            b"put" => Effect::Put {
                value: bytes("value", self.value, self.value_b64)?,
                expires_at_ms: self.expires_at_ms,
            },
            b"delete" => Effect::Delete {
                by_expiry: self.by_expiry,
            },
            _ => Effect::Expire {
                expires_at_ms: self.expires_at_ms,
            },
        };
        Ok(WatchItem::Record {
            position,
            key: Key::new(key).map_err(|problem| error(problem.to_string()))?,
            effect,
            time_ms: self.time_ms,
        })
    }
}

/// Bytes that come as text or, if they are none, as base64.
fn bytes(name: &str, text: Option<String>, base64: Option<String>) -> Result<Bytes, DecodeError> {
    match (text, base64) {
        (Some(text), _) => Ok(text.into()),
        (None, Some(base64)) => {
            let decoded = STANDARD.decode(base64);
            let decoded = decoded.map_err(|problem| error(format!("{name}_b64: {problem}")))?;
            Ok(decoded.into())
        }
        (None, None) => Err(error(format!("{name} is missing"))),
    }
}

fn position(text: &[u8]) -> Result<Position, DecodeError> {
    let parsed = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    let problem = || format!("{:?} is not a position", text.escape_ascii().to_string());
    parsed.ok_or_else(|| error(problem()))
}

fn error(problem: impl Into<String>) -> DecodeError {
    DecodeError::new("watch", problem)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(mut stream: &[u8], piece_bytes: usize) -> Result<Vec<WatchItem>, DecodeError> {
        let mut decoder = WatchDecoder::new();
        let mut items = Vec::new();
        while !stream.is_empty() {
            let (piece, rest) = stream.split_at(piece_bytes.min(stream.len()));
            decoder.push(piece);
            stream = rest;
            while let Some(item) = decoder.next_item()? {
                items.push(item);
            }
        }
        Ok(items)
    }

    fn record(seq: Seq, key: &'static [u8], effect: Effect) -> WatchItem {
        WatchItem::Record {
            position: Position::new(3, seq),
            key: Key::new(key).unwrap(),
            effect,
            time_ms: 99,
        }
    }

    fn position(seq: Seq, visible: Option<Seq>) -> WatchItem {
        WatchItem::Position {
            at: Position::new(3, seq),
            visible: visible.map(|seq| Position::new(3, seq)),
        }
    }

    fn put(value: &'static [u8], expires_at_ms: Option<u64>) -> Effect {
        Effect::Put {
            value: Bytes::from_static(value),
            expires_at_ms,
        }
    }

    const GOLDEN: &str = concat!(
        "event: position\nid: 3.6\ndata: {\"position\":\"3.6\"}\n\n",
        "event: put\nid: 3.7\ndata: {\"key\":\"k\",\"value\":\"a\\nb\",\"time_ms\":99}\n\n",
        "event: put\nid: 3.8\n",
        "data: {\"key_b64\":\"/w==\",\"value_b64\":\"/g==\",\"expires_at_ms\":5,\"time_ms\":99}\n\n",
        "event: delete\nid: 3.9\ndata: {\"key\":\"k\",\"by_expiry\":true,\"time_ms\":99}\n\n",
        "event: expire\nid: 3.10\ndata: {\"key\":\"k\",\"expires_at_ms\":null,\"time_ms\":99}\n\n",
        "event: log_truncated\ndata: {\"position\":\"3.10\",\"truncated\":90}\n\n",
    );

    fn golden_items() -> Vec<WatchItem> {
        vec![
            position(6, None),
            record(7, b"k", put(b"a\nb", None)),
            record(8, b"\xff", put(b"\xfe", Some(5))),
            record(9, b"k", Effect::Delete { by_expiry: true }),
            record(
                10,
                b"k",
                Effect::Expire {
                    expires_at_ms: None,
                },
            ),
            WatchItem::Truncated {
                position: Position::new(3, 10),
                truncated: 90,
            },
        ]
    }

    #[test]
    fn golden_text_however_it_is_cut_and_its_lines_end() {
        for end in ["\n", "\r\n", "\r"] {
            let text = GOLDEN.replace('\n', end);
            for piece_bytes in 1..80 {
                let items = decode_all(text.as_bytes(), piece_bytes).expect("well-formed");
                // A CR that ends the text may be half of an end; the event it ends is whole all the same.
                assert_eq!(items, golden_items(), "{end:?} in pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn what_is_not_known_is_skipped() {
        let text = ": a comment\n\nretry: 5\n\nevent: news\nid: 9.9\ndata: {}\n\nevent: put\n\ndata\n\n\n\
            event:position\nnonsense\nid:3.6\ndata:{\"position\":\"3.6\",\"new\":[1]}\n\n";
        let items = decode_all(text.as_bytes(), 7).expect("well-formed");
        assert_eq!(items, [position(6, None)]);
    }

    #[test]
    fn data_of_several_lines_is_one() {
        let text = "event: position\nid: 3.6\ndata: {\"position\":\ndata: \"3.6\"}\n\n";
        let items = decode_all(text.as_bytes(), 5).expect("well-formed");
        assert_eq!(items, [position(6, None)]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in [
            "event: position\nid: 3\ndata: {}\n\n",
            "event: position\ndata: {}\n\n",
            "event: put\nid: 3.6\ndata: {\"value\":\"v\"}\n\n",
            "event: put\nid: 3.6\ndata: {\"key\":\"k\"}\n\n",
            "event: put\nid: 3.6\ndata: {\"key_b64\":\"?\",\"value\":\"\"}\n\n",
            "event: put\nid: 3.6\ndata: {\"key\":\"\",\"value\":\"\"}\n\n",
            "event: put\nid: 3.6\ndata: not json\n\n",
            "event: log_truncated\ndata: {\"position\":\"3.6\"}\n\n",
        ] {
            assert!(decode_all(text.as_bytes(), 9).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut decoder = WatchDecoder::new();
        let piece = vec![b'x'; 8 << 20];
        let pushed = (0..20).find(|_| {
            decoder.push(&piece);
            decoder.next_item().is_err()
        });
        assert!(pushed.is_some());
    }

    #[test]
    fn requests() {
        assert_eq!(uri(b"", WatchFrom::Now), "/watch?prefix=");
        assert_eq!(
            uri(b"a&\xff", WatchFrom::After(Position::new(3, 7))),
            "/watch?prefix=a%26%FF&after=3.7"
        );
    }

    proptest! {
        #[test]
        fn values_of_any_bytes_come_back(
            key in proptest::collection::vec(any::<u8>(), 1..20),
            value in ".{0,40}",
            piece_bytes in 1_usize..60,
        ) {
            let data = serde_json::json!({
                "key_b64": STANDARD.encode(&key), "value": value, "time_ms": 99,
            });
            let text = format!("event: put\nid: 3.7\ndata: {data}\n\n");
            let item = WatchItem::Record {
                position: Position::new(3, 7),
                key: Key::new(key).expect("short"),
                effect: Effect::Put { value: value.into(), expires_at_ms: None },
                time_ms: 99,
            };
            prop_assert_eq!(decode_all(text.as_bytes(), piece_bytes), Ok(vec![item]));
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            piece_bytes in 1_usize..60,
        ) {
            let _ = decode_all(&bytes, piece_bytes);
            let text = [b"event: put\nid: 1.1\ndata: ", &bytes[..], b"\n\n"].concat();
            let _ = decode_all(&text, piece_bytes);
        }
    }
}
