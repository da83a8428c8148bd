//! What became of one op of a batch.
//!
//! ```text
//! answer    magic "KVR1" | count u32 | results, one per op, in order
//! result    length u32 | status u16 | applied u8 (0 a read, 1 yes, 2 no, 3 unknown) | fields u8 | fields
//! fields    0x01 position        epoch u32, seq u64: the write's, or visible after the lookup
//!           0x02 etag            epoch u32, seq u64: the entry's
//!           0x04 ttl             u64 ms until it expires
//!           0x08 value           u32 length + bytes: value, or a counter's new decimal value
//!           0x10 error           u32 length + code, u32 length + message
//!           0x20 target          u32 length + address of the node to ask instead
//! ```
//!
//! Little-endian. A decoder refuses unknown fields.

use bytes::Bytes;

use crate::{
    position::Position,
    wire::{
        bytes::{DecodeError, Reader, put_position, put_sized},
        error::{Applied, ErrorCode},
    },
};

mod result_field {
    pub(super) const POSITION: u8 = 0x01;
    pub(super) const ETAG: u8 = 0x02;
    pub(super) const TTL: u8 = 0x04;
    pub(super) const VALUE: u8 = 0x08;
    pub(super) const ERROR: u8 = 0x10;
    pub(super) const TARGET: u8 = 0x20;
    pub(super) const ALL: u8 = 0x3f;
}

/// What became of an op.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpResult {
    /// HTTP status.
    pub status: u16,
    /// Whether a write took place; `None` for a read.
    pub applied: Option<Applied>,
    /// The write's position, or what a read has seen at least.
    pub position: Option<Position>,
    /// Position of the entry.
    pub etag: Option<Position>,
    /// Milliseconds until the entry expires.
    pub ttl_ms: Option<u64>,
    /// The value, or a counter's new value as decimal text.
    pub value: Option<Bytes>,
    /// Why it was refused. Boxed: most are not, and every result would be larger for it.
    pub error: Option<Box<OpError>>,
    /// Address of the node to ask instead.
    pub target: Option<Box<str>>,
}

/// Why an op was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpError {
    /// The code.
    pub code: ErrorCode,
    /// For a person.
    pub message: String,
}

impl OpResult {
    /// A refusal; `applied` is `None` for reads.
    pub fn refused(code: ErrorCode, message: impl Into<String>, applied: Option<Applied>) -> Self {
        Self {
            status: code.status(),
            applied,
            error: Some(Box::new(OpError {
                code,
                message: message.into(),
            })),
            ..Self::default()
        }
    }

    /// The code of its error.
    pub fn error_code(&self) -> Option<ErrorCode> {
        self.error.as_ref().map(|error| error.code)
    }

    /// About how many bytes it takes in an answer.
    pub fn weight_bytes(&self) -> usize {
        let message = self.error.as_ref().map_or(0, |error| error.message.len());
        64 + self.value.as_ref().map_or(0, Bytes::len) + message
    }

    /// The result's bytes without their length; also what the log remembers under a request id.
    pub fn encode(&self, out: &mut Vec<u8>) {
        use result_field as field;
        let mut fields = 0;
        for (is_there, bit) in [
            (self.position.is_some(), field::POSITION),
            (self.etag.is_some(), field::ETAG),
            (self.ttl_ms.is_some(), field::TTL),
            (self.value.is_some(), field::VALUE),
            (self.error.is_some(), field::ERROR),
            (self.target.is_some(), field::TARGET),
        ] {
            if is_there {
                fields |= bit;
            }
        }
        let applied = match self.applied {
            None => 0,
            Some(Applied::Yes) => 1,
            Some(Applied::No) => 2,
            Some(Applied::Unknown) => 3,
        };
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&[applied, fields]);
        self.position
            .iter()
            .for_each(|position| put_position(out, *position));
        self.etag.iter().for_each(|etag| put_position(out, *etag));
        self.ttl_ms
            .iter()
            .for_each(|ttl| out.extend_from_slice(&ttl.to_le_bytes()));
        self.value.iter().for_each(|value| put_sized(out, value));
        if let Some(error) = &self.error {
            put_sized(out, error.code.as_str().as_bytes());
            put_sized(out, error.message.as_bytes());
        }
        self.target
            .iter()
            .for_each(|target| put_sized(out, target.as_bytes()));
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it is something else.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        use result_field as field;
        let status = reader.u16("status")?;
        let applied = match reader.u8("applied")? {
            0 => None,
            1 => Some(Applied::Yes),
            2 => Some(Applied::No),
            3 => Some(Applied::Unknown),
            other => return Err(reader.error(format!("applied {other} is unknown"))),
        };
        let fields = reader.u8("fields")?;
        if fields & !field::ALL != 0 {
            return Err(reader.error(format!("unknown fields {fields:#04x}")));
        }
        let has = |bit: u8| fields & bit != 0;
        let text = |reader: &mut Reader, name: &str| {
            let bytes = reader.sized(name)?;
            String::from_utf8(bytes.to_vec())
                .map_err(|_| reader.error(format!("{name} is not UTF-8")))
        };
        let mut result = Self {
            status,
            applied,
            ..Self::default()
        };
        if has(field::POSITION) {
            result.position = Some(reader.position("position")?);
        }
        if has(field::ETAG) {
            result.etag = Some(reader.position("etag")?);
        }
        if has(field::TTL) {
            result.ttl_ms = Some(reader.u64("ttl")?);
        }
        if has(field::VALUE) {
            result.value = Some(reader.sized("value")?);
        }
        if has(field::ERROR) {
            let code = ErrorCode::from_text(&text(reader, "error code")?);
            let message = text(reader, "error message")?;
            result.error = Some(Box::new(OpError { code, message }));
        }
        if has(field::TARGET) {
            result.target = Some(text(reader, "target")?.into());
        }
        reader.end()?;
        Ok(result)
    }
}
