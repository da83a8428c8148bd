//! A record: one effect on one key, or the start of a reign.
//!
//! ```text
//! offset  size  field
//!      0     1  kind        1 put, 2 delete, 3 expire, 4 epoch_start
//!      1     1  flags       1 request mark, 2 delete by expiry, 4 expiry; others must be 0
//!      2     2  key_len     0 for epoch_start, else 1..=511
//!      4     4  value_len   put: the value; epoch_start: 8 + the node's address; else 0
//!      8     -  key
//!      -     -  value       put: raw; epoch_start: reign id u64, address as UTF-8
//!      -     8  expiry      if flagged (put, expire): Unix milliseconds, > 0
//!      -     -  mark        if flagged: client u128, n u64, floor u64, digest u64, outcome as u32 length + bytes
//! ```
//!
//! A record takes effect on a key if its seq is larger than the stored entry's. `delete` and `expire` on an absent
//! key do nothing. So replaying records is harmless, any number of times.

use bytes::Bytes;

use crate::{
    key::MAX_KEY_BYTES,
    position::{Position, Reign},
    wire::{
        bytes::{DecodeError, Reader, put_len, put_sized},
        short_bytes::ShortBytes,
    },
};

const FLAG_MARK: u8 = 1;
const FLAG_BY_EXPIRY: u8 = 2;
const FLAG_EXPIRY: u8 = 4;

/// One effect on one key, or the start of a reign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key; empty for [`Effect::EpochStart`].
    pub key: Bytes,
    /// What happens to it.
    pub effect: Effect,
    /// Identity of the request that made it, if it had one.
    pub mark: Option<RequestMark>,
}

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The key has this value from now on.
    Put {
        /// The whole value.
        value: Bytes,
        /// Unix milliseconds from which on it is absent.
        expires_at_ms: Option<u64>,
    },
    /// The key is absent from now on.
    Delete {
        /// Whether its time had come, rather than somebody asked.
        by_expiry: bool,
    },
    /// The value stays, the expiry changes.
    Expire {
        /// Unix milliseconds from which on it is absent; `None`: never.
        expires_at_ms: Option<u64>,
    },
    /// A reign begins.
    EpochStart {
        /// Drawn at random.
        reign_id: u64,
        /// Address of the node that begins it.
        node: String,
    },
}

/// Identity of a write, remembered with its outcome so that a repeat is answered and not done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMark {
    /// The client's random id.
    pub client: u128,
    /// Counts up per client.
    pub n: u64,
    /// The lowest `n` that is not forgotten: what the client said, or more if the shard had to forget by itself; 0 if
    /// neither.
    pub floor: u64,
    /// xxh3-64 of the encoded op (see [`crate::wire::batch::Op::encode`]) or batch, to notice another one under a known
    /// id.
    pub digest: u64,
    /// The encoded answer (see [`crate::wire::batch`]): a result, or for an atomic batch all of them.
    pub outcome: ShortBytes,
}

impl Record {
    /// A record without a request mark.
    pub fn new(key: Bytes, effect: Effect) -> Self {
        Self {
            key,
            effect,
            mark: None,
        }
    }

    /// The record that begins a reign.
    pub fn epoch_start(reign_id: u64, node: impl Into<String>) -> Self {
        Self::new(
            Bytes::new(),
            Effect::EpochStart {
                reign_id,
                node: node.into(),
            },
        )
    }

    /// The reign that this record begins, if it is one that does.
    pub fn reign_at(&self, position: Position) -> Option<Reign> {
        match self.effect {
            Effect::EpochStart { reign_id, .. } => Some(Reign {
                epoch: position.epoch,
                first_seq: position.seq,
                reign_id,
            }),
            Effect::Put { .. } | Effect::Delete { .. } | Effect::Expire { .. } => None,
        }
    }

    /// Length of the encoded record.
    pub fn encoded_bytes(&self) -> usize {
        let effect = match &self.effect {
            Effect::Put {
                value,
                expires_at_ms,
            } => value.len() + expires_at_ms.map_or(0, |_| 8),
            Effect::Delete { .. } => 0,
            Effect::Expire { expires_at_ms } => expires_at_ms.map_or(0, |_| 8),
            Effect::EpochStart { node, .. } => 8 + node.len(),
        };
        let mark = self
            .mark
            .as_ref()
            .map_or(0, |mark| 16 + 3 * 8 + 4 + mark.outcome.len());
        8 + self.key.len() + effect + mark
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, mut flags, value_len, expiry) = match &self.effect {
            Effect::Put {
                value,
                expires_at_ms,
            } => (1, 0, value.len(), *expires_at_ms),
            Effect::Delete { by_expiry } => {
                (2, if *by_expiry { FLAG_BY_EXPIRY } else { 0 }, 0, None)
            }
            Effect::Expire { expires_at_ms } => (3, 0, 0, *expires_at_ms),
            Effect::EpochStart { node, .. } => (4, 0, 8 + node.len(), None),
        };
        if expiry.is_some() {
            flags |= FLAG_EXPIRY;
        }
        if self.mark.is_some() {
            flags |= FLAG_MARK;
        }
        let key_len = u16::try_from(self.key.len()).expect("a key has at most 511 bytes");
        let [key_0, key_1] = key_len.to_le_bytes();
        out.extend_from_slice(&[kind, flags, key_0, key_1]);
        put_len(out, value_len);
        out.extend_from_slice(&self.key);
        match &self.effect {
            Effect::Put { value, .. } => out.extend_from_slice(value),
            Effect::EpochStart { reign_id, node } => {
                out.extend_from_slice(&reign_id.to_le_bytes());
                out.extend_from_slice(node.as_bytes());
            }
            Effect::Delete { .. } | Effect::Expire { .. } => {}
        }
        if let Some(expires_at_ms) = expiry {
            out.extend_from_slice(&expires_at_ms.to_le_bytes());
        }
        if let Some(mark) = &self.mark {
            mark.encode(out);
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let kind = reader.u8("kind")?;
        let flags = reader.u8("flags")?;
        let key_len = usize::from(reader.u16("key length")?);
        let value_len = reader.u32("value length")? as usize;
        let key = reader.bytes(key_len, "key")?;
        let value = reader.bytes(value_len, "value")?;
        let allowed = FLAG_MARK
            | match kind {
                1 | 3 => FLAG_EXPIRY,
                2 => FLAG_BY_EXPIRY,
                _ => 0,
            };
        if flags & !allowed != 0 {
            return Err(reader.error(format!("flags {flags:#x} are unknown for kind {kind}")));
        }
        let key_ok = if kind == 4 {
            key_len == 0
        } else {
            (1..=MAX_KEY_BYTES).contains(&key_len)
        };
        if !key_ok {
            return Err(reader.error(format!("kind {kind} with a key of {key_len} bytes")));
        }
        if matches!(kind, 2 | 3) && value_len != 0 {
            return Err(reader.error(format!("kind {kind} with a value of {value_len} bytes")));
        }
        let expires_at_ms = match flags & FLAG_EXPIRY {
            0 => None,
            _ => Some(reader.u64("expiry")?),
        };
        if expires_at_ms == Some(0) {
            return Err(reader.error("an expiry of 0"));
        }
        let effect = match kind {
            1 => Effect::Put {
                value,
                expires_at_ms,
            },
            2 => Effect::Delete {
                by_expiry: flags & FLAG_BY_EXPIRY != 0,
            },
            3 => Effect::Expire { expires_at_ms },
            4 => Self::decode_epoch_start(value)?,
            other => return Err(reader.error(format!("kind {other} is unknown"))),
        };
        let mark = match flags & FLAG_MARK {
            0 => None,
            _ => Some(RequestMark::decode(reader)?),
        };
        Ok(Self { key, effect, mark })
    }

    fn decode_epoch_start(value: Bytes) -> Result<Effect, DecodeError> {
        let mut reader = Reader::new("epoch_start record", value);
        let reign_id = reader.u64("reign id")?;
        let node = reader.bytes(reader.remaining(), "node")?;
        let node = String::from_utf8(node.to_vec())
            .map_err(|_| reader.error("the node's address is not UTF-8"))?;
        Ok(Effect::EpochStart { reign_id, node })
    }
}

impl RequestMark {
    /// Appends the mark: client, n, floor, digest, outcome behind its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut head = [0; 16 + 3 * 8];
        head[..16].copy_from_slice(&self.client.to_le_bytes());
        head[16..24].copy_from_slice(&self.n.to_le_bytes());
        head[24..32].copy_from_slice(&self.floor.to_le_bytes());
        head[32..].copy_from_slice(&self.digest.to_le_bytes());
        out.extend_from_slice(&head);
        put_sized(out, &self.outcome);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes end too early.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            client: reader.u128("client")?,
            n: reader.u64("request number")?,
            floor: reader.u64("floor")?,
            digest: reader.u64("digest")?,
            outcome: reader.sized("outcome")?[..].into(),
        })
    }
}
