//! What arrives in pieces: scans, snapshots, watches. Where a stream is cut changes nothing.

use bytes::Bytes;
use kvclient::{
    key::Key,
    position::Position,
    wire::{
        log::{Link, RequestMark},
        scan::{ScanDecoder, ScanEnd, ScanEntry, ScanItem, encode_start},
        snapshot::{self, Chunk, Entry, Header, Request, preamble},
        watch::WatchDecoder,
    },
};

use super::{
    Decoder,
    bytes::{frame, lineage},
};

/// A scan as frames.
pub(crate) const SCAN: Decoder = Decoder {
    name: "scan",
    decode: |input| {
        let items = whole_and_in_pieces(input, scanned)?;
        let mut written = Vec::new();
        encode_start(&mut written);
        for item in items {
            match item {
                ScanItem::Entry(entry) => entry.encode(&mut written),
                ScanItem::End(end) => end.encode(&mut written),
            }
        }
        Some(written)
    },
    valid: || {
        let mut written = Vec::new();
        encode_start(&mut written);
        entry(None, None).encode(&mut written);
        entry(Some(5), Some(Bytes::from_static(b"value"))).encode(&mut written);
        let end = ScanEnd {
            position: Position::new(1, 9),
            shards: 3,
            shard: "shard1".into(),
            next: Some("a2V5".into()),
        };
        end.encode(&mut written);
        vec![written]
    },
};

/// A snapshot's stream.
pub(crate) const SNAPSHOT: Decoder = Decoder {
    name: "snapshot",
    decode: |input| {
        let chunks = whole_and_in_pieces(input, copied)?;
        Some(written(&chunks))
    },
    valid: || vec![written(&chunks()), written(&[])],
};

/// A chunk whose checksum is made right: only then does what it guards get looked at.
pub(crate) const SEALED_CHUNK: Decoder = Decoder {
    name: "sealed chunk",
    decode: |input| {
        let (kind, payload) = input.split_first()?;
        let mut head = vec![*kind];
        head.extend_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head), payload);
        let sealed = [&preamble()[..], &head, &crc.to_le_bytes(), payload].concat();
        let chunk = copied(&[&sealed])?.pop()?;
        Some(unsealed(&chunk))
    },
    valid: || chunks().iter().map(unsealed).collect(),
};

/// A watch's events. Nodes alone write them, so they are only read.
pub(crate) const WATCH: Decoder = Decoder {
    name: "watch",
    decode: |input| {
        whole_and_in_pieces(input, watched)?;
        Some(input.to_vec())
    },
    valid: || {
        let put =
            "event: put\nid: 1.2\ndata: {\"key\":\"a\",\"value_b64\":\"/w==\",\"time_ms\":3}\n\n";
        let position =
            "event: position\r\nid: 1.2\r\ndata: {\"position\":\"1.2\"}\r\n\r\n: nothing\n\n";
        let truncated =
            "event: log_truncated\rdata: {\"position\":\"1.2\",\r\ndata:\"truncated\":9}\r\r";
        [put, position, truncated]
            .map(|text| text.as_bytes().to_vec())
            .to_vec()
    },
};

/// Reads a stream at once and byte by byte; both have to give the same.
fn whole_and_in_pieces<T: PartialEq + std::fmt::Debug>(
    input: &[u8],
    read: impl Fn(&[&[u8]]) -> Option<Vec<T>>,
) -> Option<Vec<T>> {
    let whole = read(&[input]);
    let pieces: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(read(&pieces), whole, "in pieces");
    whole
}

fn scanned(pieces: &[&[u8]]) -> Option<Vec<ScanItem>> {
    let (mut decoder, mut items) = (ScanDecoder::new(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        while let Some(item) = decoder.next_item().ok()? {
            items.push(item);
        }
    }
    decoder.finish().ok()?;
    Some(items)
}

fn copied(pieces: &[&[u8]]) -> Option<Vec<Chunk>> {
    let (mut decoder, mut chunks) = (snapshot::Decoder::new(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        while let Some(chunk) = decoder.next_chunk().ok()? {
            chunks.push(chunk);
        }
    }
    Some(chunks)
}

fn watched(pieces: &[&[u8]]) -> Option<Vec<kvclient::wire::watch::WatchItem>> {
    let (mut decoder, mut items) = (WatchDecoder::new(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        while let Some(item) = decoder.next_item().ok()? {
            items.push(item);
        }
    }
    Some(items)
}

fn written(chunks: &[Chunk]) -> Vec<u8> {
    let chunks = chunks.iter().map(Chunk::encode);
    [preamble()].into_iter().chain(chunks).flatten().collect()
}

/// Kind and payload, without length and checksum.
fn unsealed(chunk: &Chunk) -> Vec<u8> {
    let encoded = chunk.encode();
    [&encoded[..1], &encoded[9..]].concat()
}

fn entry(ttl_ms: Option<u64>, value: Option<Bytes>) -> ScanEntry {
    ScanEntry {
        key: Key::new("key").expect("a key"),
        value,
        position: Position::new(1, 2),
        ttl_ms,
    }
}

fn chunks() -> Vec<Chunk> {
    let at = Link {
        position: Position::new(3, 40),
        crc: 7,
    };
    let mark = RequestMark {
        client: 1,
        n: 2,
        floor: 1,
        digest: 5,
        outcome: b"ok"[..].into(),
    };
    vec![
        Chunk::Header(Header {
            history: 1,
            start: at,
            shard: "shard1".into(),
            slots: "0-5460".into(),
            lineage: lineage(),
        }),
        Chunk::Requests(vec![Request {
            position: at.position,
            time_ms: 1,
            mark,
        }]),
        Chunk::Entries(vec![Entry {
            key: Bytes::from_static(b"key"),
            position: at.position,
            expires_at_ms: Some(9),
            value: Bytes::from_static(b"value"),
        }]),
        Chunk::Frames(frame(&at).bytes),
        Chunk::End {
            end: at,
            entries: 1,
            time_ms: 2,
        },
    ]
}
