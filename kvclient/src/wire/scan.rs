//! A scan as frames: what a client reads that merges the scans of all shards. Encoder and decoder, side by side.
//!
//! ```text
//! stream   magic "KVC1" | entries, in the order asked for | one end
//! item     length u32 (of what follows) | kind u8 | fields u8 | kind's own part
//!
//! kind 1   entry: key_len u16 | key | position: epoch u32, seq u64 | the fields flagged, in the order of their bits
//! fields   0x01 ttl     u64 ms until it expires
//!          0x02 value   u32 length + bytes; absent if only keys were asked for
//!
//! kind 2   end: position: epoch u32, seq u64 | number of shards u32 | u32 length + name of the shard | the field flagged
//! fields   0x01 next    u32 length + text; absent if nothing follows
//! ```
//!
//! Little-endian. A stream without its end is not an answer: the node failed on the way, and what came is a part.
//!
//! `next` is opaque text, usable as `?after=` of a request with otherwise equal parameters. It holds the last key that
//! was looked at, in the alphabet of base64url without padding: so it stays what it is whether or not the caller
//! escapes it on its way into a URL, also if the key is not text.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Buf, Bytes, BytesMut};

use super::{
    MAX_VALUE_BYTES_CEILING,
    bytes::{DecodeError, Reader, put_len, put_position, put_sized},
    route,
};
use crate::{
    key::{Key, escape},
    position::Position,
};

/// Entries of a scan if the caller does not say.
pub const DEFAULT_SCAN_LIMIT: usize = 1_000;

/// Most entries of one scan: what a caller asks for who then goes on with `next`.
pub const MAX_SCAN_LIMIT: usize = 100_000;

const MAGIC: &[u8; 4] = b"KVC1";

/// The largest item: a value with its key and the rest, all of which is far below a kilobyte.
const MAX_ITEM_BYTES: usize = MAX_VALUE_BYTES_CEILING + 1024;

const KIND_ENTRY: u8 = 1;
const KIND_END: u8 = 2;
const ENTRY_TTL: u8 = 0x01;
const ENTRY_VALUE: u8 = 0x02;
const END_NEXT: u8 = 0x01;

/// What a scan asks a node for. Keys without bounds: leave them empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanRequest {
    /// First bytes of all keys wanted.
    pub prefix: Bytes,
    /// No key before it, in the order of bytes.
    pub start: Bytes,
    /// No key at it or behind it, in the order of bytes.
    pub end: Bytes,
    /// Text that [`after_key`] made: only what follows it, in the order of the scan.
    pub after: Option<String>,
    /// Most entries, 1 to [`MAX_SCAN_LIMIT`].
    pub limit: usize,
    /// Whether the last key comes first.
    pub reverse: bool,
    /// Whether values are left out.
    pub keys_only: bool,
}

impl ScanRequest {
    /// Path and query.
    pub fn to_uri(&self) -> String {
        let mut uri = format!("{}?limit={}", route::KV, self.limit);
        let bounds = [
            ("prefix", &self.prefix),
            ("start", &self.start),
            ("end", &self.end),
        ];
        for (name, key) in bounds.into_iter().filter(|(_, key)| !key.is_empty()) {
            uri.push_str(&format!("&{name}={}", escape(key)));
        }
        if let Some(after) = &self.after {
            uri.push_str(&format!("&after={after}"));
        }
        for (name, is_set) in [("reverse", self.reverse), ("keys_only", self.keys_only)] {
            if is_set {
                uri.push_str(&format!("&{name}=true"));
            }
        }
        uri
    }
}

/// One entry that a scan brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEntry {
    /// Its key.
    pub key: Key,
    /// Its value; `None` if only keys were asked for.
    pub value: Option<Bytes>,
    /// Position of the write that made it: its entity tag.
    pub position: Position,
    /// Milliseconds until it expires; `None`: never.
    pub ttl_ms: Option<u64>,
}

/// What stands behind the last entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEnd {
    /// Where to go on, see [`after_key`]; `None` if nothing follows.
    pub next: Option<String>,
    /// Name of the shard that was scanned.
    pub shard: String,
    /// Number of shards: the others are scanned at their nodes.
    pub shards: u32,
    /// What the node had made visible after the last entry was read.
    pub position: Position,
}

/// One item of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanItem {
    /// An entry.
    Entry(ScanEntry),
    /// The end; nothing follows.
    End(ScanEnd),
}

/// The text that resumes a scan behind a key, in the order of the scan.
pub fn after_key(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// Reads what [`after_key`] wrote; `None` for anything else.
pub fn parse_after(text: &str) -> Option<Key> {
    Key::new(URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// Appends what a stream begins with.
pub fn encode_start(out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
}

impl ScanEntry {
    /// Appends the entry.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut fields = 0;
        let mut item_bytes = 4 + self.key.as_bytes().len() + 12;
        if self.ttl_ms.is_some() {
            fields |= ENTRY_TTL;
            item_bytes += 8;
        }
        if let Some(value) = &self.value {
            fields |= ENTRY_VALUE;
            item_bytes += 4 + value.len();
        }
        let key = self.key.as_bytes();
        let key_len = u16::try_from(key.len()).expect("a key has at most 511 bytes");
        put_len(out, item_bytes);
        out.extend_from_slice(&[KIND_ENTRY, fields]);
        out.extend_from_slice(&key_len.to_le_bytes());
        out.extend_from_slice(key);
        put_position(out, self.position);
        if let Some(ttl_ms) = self.ttl_ms {
            out.extend_from_slice(&ttl_ms.to_le_bytes());
        }
        if let Some(value) = &self.value {
            put_sized(out, value);
        }
    }

    fn decode(fields: u8, reader: &mut Reader) -> Result<Self, DecodeError> {
        if fields & !(ENTRY_TTL | ENTRY_VALUE) != 0 {
            return Err(reader.error(format!("fields {fields:#x} of an entry are unknown")));
        }
        let key_len = usize::from(reader.u16("key length")?);
        let key = Key::new(reader.bytes(key_len, "key")?);
        Ok(Self {
            key: key.map_err(|error| reader.error(error.to_string()))?,
            position: reader.position("position")?,
            ttl_ms: match fields & ENTRY_TTL {
                0 => None,
                _ => Some(reader.u64("ttl")?),
            },
            value: match fields & ENTRY_VALUE {
                0 => None,
                _ => Some(reader.sized("value")?),
            },
        })
    }
}

impl ScanEnd {
    /// Appends the end.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let next_bytes = self.next.as_ref().map_or(0, |next| 4 + next.len());
        put_len(out, 2 + 12 + 4 + 4 + self.shard.len() + next_bytes);
        let fields = self.next.as_ref().map_or(0, |_| END_NEXT);
        out.extend_from_slice(&[KIND_END, fields]);
        put_position(out, self.position);
        out.extend_from_slice(&self.shards.to_le_bytes());
        put_sized(out, self.shard.as_bytes());
        if let Some(next) = &self.next {
            put_sized(out, next.as_bytes());
        }
    }

    fn decode(fields: u8, reader: &mut Reader) -> Result<Self, DecodeError> {
        if fields & !END_NEXT != 0 {
            return Err(reader.error(format!("fields {fields:#x} of the end are unknown")));
        }
        Ok(Self {
            position: reader.position("position")?,
            shards: reader.u32("number of shards")?,
            shard: text(reader, "shard")?,
            next: match fields & END_NEXT {
                0 => None,
                _ => Some(text(reader, "next")?),
            },
        })
    }
}

impl ScanItem {
    fn decode(item: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("scan item", item);
        let (kind, fields) = (reader.u8("kind")?, reader.u8("fields")?);
        let item = match kind {
            KIND_ENTRY => Self::Entry(ScanEntry::decode(fields, &mut reader)?),
            KIND_END => Self::End(ScanEnd::decode(fields, &mut reader)?),
            other => return Err(reader.error(format!("kind {other} is unknown"))),
        };
        reader.end()?;
        Ok(item)
    }
}

fn text(reader: &mut Reader, field: &'static str) -> Result<String, DecodeError> {
    let bytes = reader.sized(field)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| reader.error(format!("{field} is not UTF-8")))
}

/// Takes a stream apart as it comes, in pieces cut anywhere.
#[derive(Debug, Default)]
pub struct ScanDecoder {
    buffer: BytesMut,
    expects: Expects,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Expects {
    #[default]
    Magic,
    Item,
    Nothing,
}

impl ScanDecoder {
    /// A decoder at the front of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next item, or `None` until more is pushed.
    ///
    /// # Errors
    /// [`DecodeError`]: this is not such a stream, or something stands behind its end. Of no use from then on.
    pub fn next_item(&mut self) -> Result<Option<ScanItem>, DecodeError> {
        let error = |problem: String| DecodeError::new("scan", problem);
        if self.expects == Expects::Magic {
            if self.buffer.len() < MAGIC.len() {
                return Ok(None);
            }
            if self.buffer.split_to(MAGIC.len()) != MAGIC[..] {
                return Err(error("does not begin with its magic".into()));
            }
            self.expects = Expects::Item;
        }
        if self.expects == Expects::Nothing && !self.buffer.is_empty() {
            return Err(error("something stands behind the end".into()));
        }
        let Some(head) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let item_bytes = u32::from_le_bytes(*head) as usize;
        if item_bytes > MAX_ITEM_BYTES {
            return Err(error(format!("an item of {item_bytes} bytes is too long")));
        }
        if self.buffer.len() < 4 + item_bytes {
            return Ok(None);
        }
        self.buffer.advance(4);
        let item = ScanItem::decode(self.buffer.split_to(item_bytes).freeze())?;
        if matches!(item, ScanItem::End(_)) {
            self.expects = Expects::Nothing;
        }
        Ok(Some(item))
    }

    /// Says that the stream is over.
    ///
    /// # Errors
    /// [`DecodeError`] if its end has not been read: entries may be missing.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.expects == Expects::Nothing && self.buffer.is_empty() {
            return Ok(());
        }
        Err(DecodeError::new("scan", "the stream was cut off"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(mut stream: &[u8], piece_bytes: usize) -> Result<Vec<ScanItem>, DecodeError> {
        let mut decoder = ScanDecoder::new();
        let mut items = Vec::new();
        while !stream.is_empty() {
            let (piece, rest) = stream.split_at(piece_bytes.min(stream.len()));
            decoder.push(piece);
            stream = rest;
            while let Some(item) = decoder.next_item()? {
                items.push(item);
            }
        }
        decoder.finish()?;
        Ok(items)
    }

    fn encode_all(items: &[ScanItem]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_start(&mut out);
        for item in items {
            match item {
                ScanItem::Entry(entry) => entry.encode(&mut out),
                ScanItem::End(end) => end.encode(&mut out),
            }
        }
        out
    }

    fn entry() -> ScanEntry {
        ScanEntry {
            key: Key::new("k\u{ff}").unwrap(),
            value: Some(Bytes::from_static(b"v")),
            position: Position::new(1, 2),
            ttl_ms: Some(3),
        }
    }

    fn end() -> ScanEnd {
        ScanEnd {
            next: Some("a8O_".into()),
            shard: "s1".into(),
            shards: 3,
            position: Position::new(1, 9),
        }
    }

    #[test]
    fn golden_stream() {
        let stream = encode_all(&[ScanItem::Entry(entry()), ScanItem::End(end())]);
        let golden = b"KVC1\
            \x20\0\0\0\x01\x03\x03\0k\xc3\xbf\x01\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0v\
            \x20\0\0\0\x02\x01\x01\0\0\0\x09\0\0\0\0\0\0\0\x03\0\0\0\x02\0\0\0s1\x04\0\0\0a8O_";
        assert_eq!(stream, golden, "{}", stream.escape_ascii());
    }

    #[test]
    fn a_part_is_not_an_answer() {
        let stream = encode_all(&[ScanItem::Entry(entry()), ScanItem::End(end())]);
        for len in 0..stream.len() {
            assert!(decode_all(&stream[..len], 7).is_err(), "{len} bytes");
        }
        let mut longer = stream;
        longer.push(0);
        assert!(decode_all(&longer, 7).is_err(), "something behind the end");
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for (at, byte, why) in [
            (0, b'X', "magic"),
            (8, 3, "kind"),
            (9, 4, "field"),
            (7, 0xff, "length"),
        ] {
            let mut stream = encode_all(&[ScanItem::Entry(entry()), ScanItem::End(end())]);
            stream[at] = byte;
            assert!(decode_all(&stream, usize::MAX).is_err(), "{why}");
        }
    }

    #[test]
    fn resuming_is_text_that_no_url_changes() {
        for key in [&b"user:1"[..], b"\0\xff\xfe", b"a b+c/%", &[0xff; 511]] {
            let text = after_key(key);
            assert_eq!(escape(text.as_bytes()), text);
            assert_eq!(
                parse_after(&text).expect("its own text").as_bytes(),
                key,
                "{text}"
            );
        }
        for text in ["", "a", "dXNlcjox=", "user:1", &"A".repeat(700)] {
            assert_eq!(parse_after(text), None, "{text:?}");
        }
    }

    #[test]
    fn requests() {
        let all = ScanRequest {
            limit: 7,
            ..ScanRequest::default()
        };
        assert_eq!(all.to_uri(), "/kv?limit=7");
        let some = ScanRequest {
            prefix: Bytes::from_static(b"a&b"),
            start: Bytes::from_static(b"a&b\xff"),
            end: Bytes::from_static(b"a+c"),
            after: Some(after_key(b"\xff")),
            limit: 1,
            reverse: true,
            keys_only: true,
        };
        assert_eq!(
            some.to_uri(),
            "/kv?limit=1&prefix=a%26b&start=a%26b%FF&end=a%2Bc&after=_w&reverse=true&keys_only=true"
        );
    }

    fn any_entry() -> impl Strategy<Value = ScanItem> {
        let key = proptest::collection::vec(any::<u8>(), 1..40);
        let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        let parts = (
            key,
            value,
            any::<(u32, u64)>(),
            proptest::option::of(any::<u64>()),
        );
        parts.prop_map(|(key, value, (epoch, seq), ttl_ms)| {
            ScanItem::Entry(ScanEntry {
                key: Key::new(key).expect("short"),
                value: value.map(Bytes::from),
                position: Position { epoch, seq },
                ttl_ms,
            })
        })
    }

    proptest! {
        #[test]
        fn streams_come_back_however_they_are_cut(
            mut items in proptest::collection::vec(any_entry(), 0..5),
            next in proptest::option::of("[A-Za-z0-9_-]{1,20}"),
            shard in "[a-z]{0,9}",
            shards: u32,
            piece_bytes in 1_usize..60,
        ) {
            items.push(ScanItem::End(ScanEnd { next, shard, shards, position: Position::new(1, 2) }));
            prop_assert_eq!(decode_all(&encode_all(&items), piece_bytes), Ok(items));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut stream = MAGIC.to_vec();
            stream.extend(bytes);
            let _ = decode_all(&stream, usize::MAX);
        }
    }
}
