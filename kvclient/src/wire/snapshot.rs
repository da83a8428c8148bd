//! A copy of one shard as a stream: what a new replica is built from, and what a backup is.
//!
//! ```text
//! stream   magic "KVSNAP" | version u16 = 1 | chunks
//! chunk    kind u8 | length u32 (of the payload) | crc u32 (CRC32C of kind, length and payload) | payload
//!
//! kind 1   header    history u128, start position (epoch u32, seq u64), start crc u32, shard name and slots (each
//!                    u32 length + UTF-8), lineage (see `log`)
//! kind 2   requests  remembered request ids: position (epoch u32, seq u64), time u64 (Unix milliseconds) and mark
//!                    (see `log`), to the end
//! kind 3   entries   key_len u16, key, epoch u32, seq u64, expiry u64 (0: never), value u32 length + bytes, to the end
//! kind 4   frames    whole frames of the log
//! kind 5   end       end position (epoch u32, seq u64), end crc u32, number of entries u64, shard time u64 (Unix
//!                    milliseconds)
//! ```
//!
//! One header, any number of requests, entries in key order (expired ones too), frames after the start up to the
//! end, one end. The entries are read while writes go on, so they are a mixture of states between start and end;
//! replaying the frames makes the copy exact at the end, since replay of effects is harmless. Before the end
//! nothing of it may be served. A stream without its end is not a copy.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    bytes::{DecodeError, Reader, put_len, put_position, put_sized},
    log::{Link, RequestMark, decode_lineage, encode_lineage},
};
use crate::{
    key::MAX_KEY_BYTES,
    position::{Lineage, Position},
};

const MAGIC: &[u8; 6] = b"KVSNAP";
const VERSION: u16 = 1;

/// Largest payload of a chunk: one entry or frame of the largest value fits.
pub const MAX_CHUNK_BYTES: usize = 64 << 20;

/// What a stream is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Whose copy it is, and from where on frames will follow.
    Header(Header),
    /// Request ids and their outcomes.
    Requests(Vec<Request>),
    /// Entries in key order.
    Entries(Vec<Entry>),
    /// Whole frames of the log.
    Frames(Bytes),
    /// The copy is complete.
    End {
        /// Where it is exact.
        end: Link,
        /// How many entries were sent.
        entries: u64,
        /// Shard time there or later, Unix milliseconds: what was expired at the source stays so in the copy.
        time_ms: u64,
    },
}

/// Whose copy it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// History of the log.
    pub history: u128,
    /// Frames after this one will follow.
    pub start: Link,
    /// Name of the shard.
    pub shard: String,
    /// Its slots as text.
    pub slots: String,
    /// Lineage up to the start.
    pub lineage: Lineage,
}

/// A remembered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where its record stands.
    pub position: Position,
    /// Shard time of that record, Unix milliseconds.
    pub time_ms: u64,
    /// Who asked, and what was answered.
    pub mark: RequestMark,
}

/// A stored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// Where it was written.
    pub position: Position,
    /// Unix milliseconds from which on it is absent.
    pub expires_at_ms: Option<u64>,
    /// The value.
    pub value: Bytes,
}

/// The first bytes of a stream.
pub fn preamble() -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out
}

impl Chunk {
    fn kind(&self) -> u8 {
        match self {
            Self::Header(_) => 1,
            Self::Requests(_) => 2,
            Self::Entries(_) => 3,
            Self::Frames(_) => 4,
            Self::End { .. } => 5,
        }
    }

    /// The chunk with its head.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind(), 0, 0, 0, 0, 0, 0, 0, 0];
        match self {
            Self::Header(header) => header.encode(&mut out),
            Self::Requests(requests) => {
                for request in requests {
                    put_position(&mut out, request.position);
                    out.extend_from_slice(&request.time_ms.to_le_bytes());
                    request.mark.encode(&mut out);
                }
            }
            Self::Entries(entries) => entries.iter().for_each(|entry| entry.encode(&mut out)),
            Self::Frames(frames) => out.extend_from_slice(frames),
            Self::End {
                end,
                entries,
                time_ms,
            } => {
                put_position(&mut out, end.position);
                out.extend_from_slice(&end.crc.to_le_bytes());
                out.extend_from_slice(&entries.to_le_bytes());
                out.extend_from_slice(&time_ms.to_le_bytes());
            }
        }
        let mut len = Vec::with_capacity(4);
        put_len(&mut len, out.len() - CHUNK_HEAD_BYTES);
        out[1..5].copy_from_slice(&len);
        let crc = checksum(out[0], &len, &out[CHUNK_HEAD_BYTES..]);
        out[5..CHUNK_HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(kind: u8, payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("snapshot chunk", payload.clone());
        let chunk = match kind {
            1 => Self::Header(Header::decode(&mut reader)?),
            2 => {
                let mut requests = Vec::new();
                while reader.remaining() > 0 {
                    requests.push(Request {
                        position: reader.position("position")?,
                        time_ms: reader.u64("time")?,
                        mark: RequestMark::decode(&mut reader)?,
                    });
                }
                Self::Requests(requests)
            }
            3 => {
                let mut entries = Vec::new();
                while reader.remaining() > 0 {
                    entries.push(Entry::decode(&mut reader)?);
                }
                Self::Entries(entries)
            }
            4 => return Ok(Self::Frames(payload)),
            5 => {
                let end = Link {
                    position: reader.position("end")?,
                    crc: reader.u32("end crc")?,
                };
                Self::End {
                    end,
                    entries: reader.u64("number of entries")?,
                    time_ms: reader.u64("time")?,
                }
            }
            other => return Err(reader.error(format!("kind {other} is unknown"))),
        };
        reader.end()?;
        Ok(chunk)
    }
}

/// What stands before a chunk's payload: kind, length and checksum.
pub const CHUNK_HEAD_BYTES: usize = 9;

fn checksum(kind: u8, len: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&[kind]), len), payload)
}

impl Header {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.history.to_le_bytes());
        put_position(out, self.start.position);
        out.extend_from_slice(&self.start.crc.to_le_bytes());
        put_sized(out, self.shard.as_bytes());
        put_sized(out, self.slots.as_bytes());
        encode_lineage(&self.lineage, out);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let text = |reader: &mut Reader, field: &str| {
            let bytes = reader.sized(field)?;
            String::from_utf8(bytes.to_vec())
                .map_err(|_| reader.error(format!("{field} is not UTF-8")))
        };
        Ok(Self {
            history: reader.u128("history")?,
            start: Link {
                position: reader.position("start")?,
                crc: reader.u32("start crc")?,
            },
            shard: text(reader, "shard")?,
            slots: text(reader, "slots")?,
            lineage: decode_lineage(reader)?,
        })
    }
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        let key_len = u16::try_from(self.key.len()).expect("a key has at most 511 bytes");
        out.extend_from_slice(&key_len.to_le_bytes());
        out.extend_from_slice(&self.key);
        put_position(out, self.position);
        out.extend_from_slice(&self.expires_at_ms.unwrap_or(0).to_le_bytes());
        put_sized(out, &self.value);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let key_len = usize::from(reader.u16("key length")?);
        if !(1..=MAX_KEY_BYTES).contains(&key_len) {
            return Err(reader.error(format!("a key of {key_len} bytes")));
        }
        Ok(Self {
            key: reader.bytes(key_len, "key")?,
            position: reader.position("position")?,
            expires_at_ms: Some(reader.u64("expiry")?).filter(|&at| at != 0),
            value: reader.sized("value")?,
        })
    }
}

/// Takes a stream apart as it arrives, in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    begun: bool,
    pushed_bytes: u64,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what arrived.
    pub fn push(&mut self, piece: &[u8]) {
        self.pushed_bytes += piece.len() as u64;
        self.buffer.extend_from_slice(piece);
    }

    /// Bytes of the chunks that were taken, and of the stamp before them: where the next chunk begins in the stream.
    pub fn taken_bytes(&self) -> u64 {
        self.pushed_bytes - self.buffer.len() as u64
    }

    /// Whether bytes of a chunk wait for the rest of it.
    pub fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next whole chunk; `None` until more has arrived.
    ///
    /// # Errors
    /// [`DecodeError`]: the stream is damaged or something else; give it up.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, DecodeError> {
        let error = |problem: &str| DecodeError::new("snapshot", problem);
        if !self.begun {
            let Some(start) = self.buffer.first_chunk::<8>() else {
                return Ok(None);
            };
            if start[..] != preamble() {
                return Err(error("it does not start with this format's stamp"));
            }
            self.buffer.advance(8);
            self.begun = true;
        }
        let Some(head) = self.buffer.first_chunk::<CHUNK_HEAD_BYTES>().copied() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > MAX_CHUNK_BYTES {
            return Err(error("a chunk is larger than any may be"));
        }
        if self.buffer.len() < CHUNK_HEAD_BYTES + len {
            return Ok(None);
        }
        self.buffer.advance(CHUNK_HEAD_BYTES);
        let payload = self.buffer.split_to(len).freeze();
        let crc = u32::from_le_bytes([head[5], head[6], head[7], head[8]]);
        if checksum(head[0], &head[1..5], &payload) != crc {
            return Err(error("the checksum of a chunk is wrong"));
        }
        Chunk::decode(head[0], payload).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Reign;

    fn chunks() -> Vec<Chunk> {
        let mut lineage = Lineage::new();
        lineage
            .push(Reign {
                epoch: 1,
                first_seq: 1,
                reign_id: 9,
            })
            .expect("first");
        let link = Link {
            position: Position::new(1, 4),
            crc: 77,
        };
        let mark = RequestMark {
            client: 1,
            n: 2,
            floor: 0,
            digest: 3,
            outcome: b"o"[..].into(),
        };
        let entry = |key: &'static str, expires_at_ms| Entry {
            key: Bytes::from_static(key.as_bytes()),
            position: Position::new(1, 2),
            expires_at_ms,
            value: Bytes::from_static(b"v"),
        };
        vec![
            Chunk::Header(Header {
                history: 5,
                start: link,
                shard: "s".into(),
                slots: "0-16383".into(),
                lineage,
            }),
            Chunk::Requests(vec![Request {
                position: Position::new(1, 2),
                time_ms: 6,
                mark,
            }]),
            Chunk::Entries(vec![entry("a", None), entry("b", Some(8))]),
            Chunk::Frames(Bytes::from_static(b"frames")),
            Chunk::End {
                end: link,
                entries: 2,
                time_ms: 6,
            },
        ]
    }

    fn stream() -> Vec<u8> {
        let mut out = preamble();
        chunks()
            .iter()
            .for_each(|chunk| out.extend_from_slice(&chunk.encode()));
        out
    }

    fn decode(pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<Vec<Chunk>, DecodeError> {
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(chunk) = decoder.next_chunk()? {
                found.push(chunk);
            }
        }
        Ok(found)
    }

    #[test]
    fn a_stream_comes_back_in_pieces_of_any_size() {
        let stream = stream();
        for size in [1, 2, 7, 100, stream.len()] {
            assert_eq!(
                decode(&mut stream.chunks(size)),
                Ok(chunks()),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn every_single_bit_matters() {
        let good = stream();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = decode(&mut std::iter::once(&bad[..]));
            let whole = found.is_ok_and(|found| found.len() == chunks().len());
            assert!(!whole, "bit {bit} flipped unnoticed");
        }
    }

    /// Frozen: backups on disk look like this.
    #[test]
    fn golden_stream() {
        let hex: String = stream().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = concat!(
        "4b56534e415001000148000000ff89dfb0050000000000000000000000000000000100000004000000000000",
        "004d000000010000007307000000302d31363338330100000001000000010000000000000009000000000000",
        "000241000000fc33a41a01000000020000000000000006000000000000000100000000000000000000000000",
        "0000020000000000000000000000000000000300000000000000010000006f0338000000a07231ce01006101",
        "0000000200000000000000000000000000000001000000760100620100000002000000000000000800000000",
        "000000010000007604060000006e22c6466672616d65730520000000ce9a905d010000000400000000000000",
        "4d00000002000000000000000600000000000000",
    );
}
