//! Many ops in one request: encoder and decoder of both directions, side by side.
//!
//! ```text
//! request   magic "KVB1" | count u32 | ops
//! op        length u32 (of what follows) | code u8 | 0 u8 | fields u16 | key_len u16 | key | the fields flagged,
//!           in the order of their bits
//!
//! code      1 get, 2 put, 3 delete, 4 incr, 5 expire, 6 persist
//! fields    0x0001 value         u32 length + bytes (put)
//!           0x0002 delta         i64 (incr)
//!           0x0004 ttl           u64 ms, > 0 (put, expire)
//!           0x0008 condition     kind u8: 1 absent, 2 exists, 3 is, 4 differs; then for 3 and 4 a position
//!           0x0010 request id    client u128, n u64, floor u64 (0: not said)
//!           0x0020 ack           u8: 1..=253 replicas, 254 majority, 255 all
//!           0x0040 min position  epoch u32, seq u64
//!           0x0080 max lag       u64 ms
//!           0x0100 wait          u32 ms
//!           0x0200 time left     u32 ms
//!
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
//! Little-endian. A decoder refuses unknown codes and fields: a batch is understood whole or not at all.

use bytes::Bytes;

use super::{
    MAX_BATCH_OPS,
    bytes::{DecodeError, Reader, put_len, put_position, put_sized},
    error::{Applied, ErrorCode},
};
use crate::{key::Key, position::Position};

const REQUEST_MAGIC: &[u8; 4] = b"KVB1";
const ANSWER_MAGIC: &[u8; 4] = b"KVR1";

mod op_field {
    pub(super) const VALUE: u16 = 0x0001;
    pub(super) const DELTA: u16 = 0x0002;
    pub(super) const TTL: u16 = 0x0004;
    pub(super) const CONDITION: u16 = 0x0008;
    pub(super) const REQUEST_ID: u16 = 0x0010;
    pub(super) const ACK: u16 = 0x0020;
    pub(super) const MIN_POSITION: u16 = 0x0040;
    pub(super) const MAX_LAG: u16 = 0x0080;
    pub(super) const WAIT: u16 = 0x0100;
    pub(super) const TIME_LEFT: u16 = 0x0200;
    pub(super) const ALL: u16 = 0x03ff;
}

mod result_field {
    pub(super) const POSITION: u8 = 0x01;
    pub(super) const ETAG: u8 = 0x02;
    pub(super) const TTL: u8 = 0x04;
    pub(super) const VALUE: u8 = 0x08;
    pub(super) const ERROR: u8 = 0x10;
    pub(super) const TARGET: u8 = 0x20;
    pub(super) const ALL: u8 = 0x3f;
}

/// One op on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// The key.
    pub key: Key,
    /// What to do with it.
    pub action: Action,
    /// Under which terms.
    pub terms: Terms,
}

/// What an op does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Reads the entry.
    Get,
    /// Stores a value.
    Put {
        /// The whole value.
        value: Bytes,
        /// Milliseconds until it expires, > 0; `None`: never.
        ttl_ms: Option<u64>,
    },
    /// Removes the entry.
    Delete,
    /// Adds to a decimal i64; an absent key counts as 0; the expiry is kept.
    Incr {
        /// What to add.
        delta: i64,
    },
    /// Sets the expiry, the value unchanged.
    Expire {
        /// Milliseconds until it expires, > 0.
        ttl_ms: u64,
    },
    /// Removes the expiry, the value unchanged.
    Persist,
}

impl Action {
    /// Whether it may change something.
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Get)
    }
}

/// Conditions, promises asked for, and time limits of an op. The default asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// What must hold for the op to be done.
    pub condition: Option<Condition>,
    /// Identity of a write, so that a repeat is answered and not done again.
    pub request_id: Option<RequestId>,
    /// Who must have synced a write before it is answered; `None`: the primary.
    pub ack: Option<Ack>,
    /// Position the node must hold before it answers a read.
    pub min_position: Option<Position>,
    /// Largest lag accepted for a read, in milliseconds.
    pub max_lag_ms: Option<u64>,
    /// How long the node may wait to reach `min_position`, in milliseconds.
    pub wait_ms: Option<u32>,
    /// How long the caller still waits, in milliseconds.
    pub time_left_ms: Option<u32>,
}

/// What must hold of the current entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// There is none (`If-None-Match: *`).
    Absent,
    /// There is one (`If-Match: *`).
    Exists,
    /// It was written exactly here (`If-Match: "e.s"`).
    Is(Position),
    /// It was not written here (`If-None-Match: "e.s"`; a read answers 304 otherwise).
    Differs(Position),
}

/// Who must have synced a write, beyond the primary's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// So many replicas, 1 to 253.
    Replicas(u8),
    /// More than half of the shard's nodes by the map, the primary counted.
    Majority,
    /// All of the shard's nodes.
    All,
}

/// Identity of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// The client's random id.
    pub client: u128,
    /// Counts up per client.
    pub n: u64,
    /// The lowest `n` the client still waits for; 0: it does not say.
    pub floor: u64,
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
    /// Why it was refused.
    pub error: Option<OpError>,
    /// Address of the node to ask instead.
    pub target: Option<String>,
}

/// Why an op was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpError {
    /// The code.
    pub code: ErrorCode,
    /// For a person.
    pub message: String,
}

impl Op {
    /// An op without terms.
    pub fn new(key: Key, action: Action) -> Self {
        Self {
            key,
            action,
            terms: Terms::default(),
        }
    }

    /// About how many bytes it takes in a batch.
    pub fn weight_bytes(&self) -> usize {
        let value = if let Action::Put { value, .. } = &self.action {
            value.len()
        } else {
            0
        };
        64 + self.key.as_bytes().len() + value
    }

    /// The op's bytes without their length; also what a request id's digest covers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        use op_field as field;
        let terms = &self.terms;
        let (code, mut fields) = match &self.action {
            Action::Get => (1, 0),
            Action::Put { ttl_ms: None, .. } => (2, field::VALUE),
            Action::Put {
                ttl_ms: Some(_), ..
            } => (2, field::VALUE | field::TTL),
            Action::Delete => (3, 0),
            Action::Incr { .. } => (4, field::DELTA),
            Action::Expire { .. } => (5, field::TTL),
            Action::Persist => (6, 0),
        };
        for (is_there, bit) in [
            (terms.condition.is_some(), field::CONDITION),
            (terms.request_id.is_some(), field::REQUEST_ID),
            (terms.ack.is_some(), field::ACK),
            (terms.min_position.is_some(), field::MIN_POSITION),
            (terms.max_lag_ms.is_some(), field::MAX_LAG),
            (terms.wait_ms.is_some(), field::WAIT),
            (terms.time_left_ms.is_some(), field::TIME_LEFT),
        ] {
            if is_there {
                fields |= bit;
            }
        }
        let key = self.key.as_bytes();
        out.extend_from_slice(&[code, 0]);
        out.extend_from_slice(&fields.to_le_bytes());
        out.extend_from_slice(
            &u16::try_from(key.len())
                .expect("a key has at most 511 bytes")
                .to_le_bytes(),
        );
        out.extend_from_slice(key);
        match &self.action {
            Action::Put { value, ttl_ms } => {
                put_sized(out, value);
                ttl_ms
                    .iter()
                    .for_each(|ttl| out.extend_from_slice(&ttl.to_le_bytes()));
            }
            Action::Incr { delta } => out.extend_from_slice(&delta.to_le_bytes()),
            Action::Expire { ttl_ms } => out.extend_from_slice(&ttl_ms.to_le_bytes()),
            Action::Get | Action::Delete | Action::Persist => {}
        }
        terms.encode(out);
    }

    fn decode(mut reader: Reader) -> Result<Self, DecodeError> {
        use op_field as field;
        let code = reader.u8("code")?;
        let reserved = reader.u8("reserved byte")?;
        let fields = reader.u16("fields")?;
        if reserved != 0 || fields & !field::ALL != 0 {
            return Err(reader.error(format!(
                "unknown fields {fields:#06x} (reserved {reserved})"
            )));
        }
        let key_len = usize::from(reader.u16("key length")?);
        let key = Key::new(reader.bytes(key_len, "key")?)
            .map_err(|error| reader.error(error.to_string()))?;
        let has = |bit: u16| fields & bit != 0;
        let value = if has(field::VALUE) {
            Some(reader.sized("value")?)
        } else {
            None
        };
        let delta = if has(field::DELTA) {
            Some(reader.i64("delta")?)
        } else {
            None
        };
        let ttl_ms = if has(field::TTL) {
            Some(reader.u64("ttl")?)
        } else {
            None
        };
        if ttl_ms == Some(0) {
            return Err(reader.error("a ttl of 0"));
        }
        let action = match (code, value, delta, ttl_ms) {
            (1, None, None, None) => Action::Get,
            (2, Some(value), None, ttl_ms) => Action::Put { value, ttl_ms },
            (3, None, None, None) => Action::Delete,
            (4, None, Some(delta), None) => Action::Incr { delta },
            (5, None, None, Some(ttl_ms)) => Action::Expire { ttl_ms },
            (6, None, None, None) => Action::Persist,
            _ => return Err(reader.error(format!("code {code} with fields {fields:#06x}"))),
        };
        let terms = Terms::decode(&mut reader, fields)?;
        reader.end()?;
        Ok(Self { key, action, terms })
    }
}

impl Terms {
    fn encode(&self, out: &mut Vec<u8>) {
        match self.condition {
            None => {}
            Some(Condition::Absent) => out.push(1),
            Some(Condition::Exists) => out.push(2),
            Some(Condition::Is(position)) => {
                out.push(3);
                put_position(out, position);
            }
            Some(Condition::Differs(position)) => {
                out.push(4);
                put_position(out, position);
            }
        }
        if let Some(id) = self.request_id {
            out.extend_from_slice(&id.client.to_le_bytes());
            out.extend_from_slice(&id.n.to_le_bytes());
            out.extend_from_slice(&id.floor.to_le_bytes());
        }
        match self.ack {
            None => {}
            Some(Ack::Replicas(count)) => out.push(count),
            Some(Ack::Majority) => out.push(254),
            Some(Ack::All) => out.push(255),
        }
        self.min_position
            .iter()
            .for_each(|position| put_position(out, *position));
        self.max_lag_ms
            .iter()
            .for_each(|lag| out.extend_from_slice(&lag.to_le_bytes()));
        self.wait_ms
            .iter()
            .for_each(|wait| out.extend_from_slice(&wait.to_le_bytes()));
        self.time_left_ms
            .iter()
            .for_each(|left| out.extend_from_slice(&left.to_le_bytes()));
    }

    fn decode(reader: &mut Reader, fields: u16) -> Result<Self, DecodeError> {
        use op_field as field;
        let has = |bit: u16| fields & bit != 0;
        let mut terms = Self::default();
        if has(field::CONDITION) {
            terms.condition = Some(match reader.u8("condition")? {
                1 => Condition::Absent,
                2 => Condition::Exists,
                3 => Condition::Is(reader.position("condition")?),
                4 => Condition::Differs(reader.position("condition")?),
                other => return Err(reader.error(format!("condition {other} is unknown"))),
            });
        }
        if has(field::REQUEST_ID) {
            let (client, n) = (reader.u128("client")?, reader.u64("request number")?);
            terms.request_id = Some(RequestId {
                client,
                n,
                floor: reader.u64("floor")?,
            });
        }
        if has(field::ACK) {
            terms.ack = Some(match reader.u8("ack")? {
                0 => return Err(reader.error("an ack of 0 replicas; leave the field out")),
                254 => Ack::Majority,
                255 => Ack::All,
                count => Ack::Replicas(count),
            });
        }
        if has(field::MIN_POSITION) {
            terms.min_position = Some(reader.position("min position")?);
        }
        if has(field::MAX_LAG) {
            terms.max_lag_ms = Some(reader.u64("max lag")?);
        }
        if has(field::WAIT) {
            terms.wait_ms = Some(reader.u32("wait")?);
        }
        if has(field::TIME_LEFT) {
            terms.time_left_ms = Some(reader.u32("time left")?);
        }
        Ok(terms)
    }
}

impl OpResult {
    /// A refusal; `applied` is `None` for reads.
    pub fn refused(code: ErrorCode, message: impl Into<String>, applied: Option<Applied>) -> Self {
        Self {
            status: code.status(),
            applied,
            error: Some(OpError {
                code,
                message: message.into(),
            }),
            ..Self::default()
        }
    }

    /// The code of its error.
    pub fn error_code(&self) -> Option<ErrorCode> {
        self.error.as_ref().map(|error| error.code)
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
    pub fn decode(mut reader: Reader) -> Result<Self, DecodeError> {
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
            let code = ErrorCode::from_text(&text(&mut reader, "error code")?);
            result.error = Some(OpError {
                code,
                message: text(&mut reader, "error message")?,
            });
        }
        if has(field::TARGET) {
            result.target = Some(text(&mut reader, "target")?);
        }
        reader.end()?;
        Ok(result)
    }
}

/// The body of a batch request.
pub fn encode_ops<'a>(ops: impl ExactSizeIterator<Item = &'a Op>) -> Vec<u8> {
    encode_list(REQUEST_MAGIC, ops, Op::encode)
}

/// Reads a batch request whole.
///
/// # Errors
/// [`DecodeError`] names what is malformed; nothing may be done then.
pub fn decode_ops(body: Bytes) -> Result<Vec<Op>, DecodeError> {
    decode_list("batch op", REQUEST_MAGIC, body, Op::decode)
}

/// The body of a batch's answer.
pub fn encode_results<'a>(results: impl ExactSizeIterator<Item = &'a OpResult>) -> Vec<u8> {
    encode_list(ANSWER_MAGIC, results, OpResult::encode)
}

/// Reads a batch's answer whole.
///
/// # Errors
/// [`DecodeError`] names what is malformed; none of it may be trusted then.
pub fn decode_results(body: Bytes) -> Result<Vec<OpResult>, DecodeError> {
    decode_list("batch result", ANSWER_MAGIC, body, OpResult::decode)
}

fn encode_list<'a, T: 'a>(
    magic: &[u8; 4],
    items: impl ExactSizeIterator<Item = &'a T>,
    encode: impl Fn(&'a T, &mut Vec<u8>),
) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + items.len() * 64);
    out.extend_from_slice(magic);
    put_len(&mut out, items.len());
    for item in items {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        encode(item, &mut out);
        let len = u32::try_from(out.len() - start - 4).expect("an op is limited far below 4 GiB");
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }
    out
}

fn decode_list<T>(
    what: &'static str,
    magic: &[u8; 4],
    body: Bytes,
    decode: impl Fn(Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut reader = Reader::new(what, body);
    if reader.bytes(4, "magic")? != magic[..] {
        return Err(reader.error("the body does not start with the batch format's stamp"));
    }
    let count = reader.u32("count")? as usize;
    if count > MAX_BATCH_OPS {
        return Err(reader.error(format!("{count} ops; a batch has at most {MAX_BATCH_OPS}")));
    }
    let mut items = Vec::with_capacity(count);
    for at in 0..count {
        let item = reader
            .sized("length")
            .and_then(|bytes| decode(Reader::new(what, bytes)));
        items.push(item.map_err(|error| reader.error(format!("number {at}: {}", error.problem)))?);
    }
    reader.end()?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn full_op() -> Op {
        Op {
            key: Key::new("k").expect("short"),
            action: Action::Put {
                value: Bytes::from_static(b"v"),
                ttl_ms: Some(90_000),
            },
            terms: Terms {
                condition: Some(Condition::Is(Position::new(1, 2))),
                request_id: Some(RequestId {
                    client: 3,
                    n: 4,
                    floor: 5,
                }),
                ack: Some(Ack::Majority),
                min_position: Some(Position::new(6, 7)),
                max_lag_ms: Some(8),
                wait_ms: Some(9),
                time_left_ms: Some(10),
            },
        }
    }

    /// Frozen: clients of other versions send and read these bytes.
    #[test]
    fn golden_bytes() {
        let ops = [
            full_op(),
            Op::new(Key::new("k").expect("short"), Action::Get),
        ];
        assert_eq!(hex(&encode_ops(ops.iter())), GOLDEN_OPS);
        let results = [
            OpResult {
                status: 200,
                position: Some(Position::new(1, 2)),
                etag: Some(Position::new(1, 1)),
                ttl_ms: Some(3),
                value: Some(Bytes::from_static(b"v")),
                target: Some("h:1".into()),
                ..OpResult::default()
            },
            OpResult::refused(ErrorCode::KeyEmpty, "m", Some(Applied::No)),
        ];
        assert_eq!(hex(&encode_results(results.iter())), GOLDEN_RESULTS);
    }

    const GOLDEN_OPS: &str = concat!(
        "4b564231020000005e0000000200fd0301006b0100000076905f010000000000030100000002000000000000",
        "000300000000000000000000000000000004000000000000000500000000000000fe06000000070000000000",
        "00000800000000000000090000000a000000070000000100000001006b",
    );
    const GOLDEN_RESULTS: &str = concat!(
        "4b5652310200000030000000c800002f01000000020000000000000001000000010000000000000003000000",
        "00000000010000007603000000683a311600000090010210090000006b65795f656d707479010000006d",
    );

    #[test]
    fn a_batch_is_understood_whole_or_not_at_all() {
        let good = encode_ops([full_op()].iter());
        for len in 0..good.len() {
            assert!(
                decode_ops(Bytes::copy_from_slice(&good[..len])).is_err(),
                "cut to {len}"
            );
        }
        assert!(
            decode_ops([&good[..], &[0]].concat().into()).is_err(),
            "one byte too many"
        );
        let unknown_field = {
            let mut bytes = good.clone();
            bytes[15] |= 0x80;
            bytes
        };
        assert!(decode_ops(unknown_field.into()).is_err());
        let mut many = b"KVB1".to_vec();
        many.extend_from_slice(&1_001_u32.to_le_bytes());
        assert!(
            decode_ops(many.into())
                .expect_err("too many")
                .problem
                .contains("at most 1000")
        );
    }

    fn any_position() -> impl Strategy<Value = Position> {
        (any::<u32>(), any::<u64>()).prop_map(|(epoch, seq)| Position { epoch, seq })
    }

    fn any_bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from)
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let action = prop_oneof![
            Just(Action::Get),
            (any_bytes(), proptest::option::of(1..u64::MAX))
                .prop_map(|(value, ttl_ms)| Action::Put { value, ttl_ms }),
            Just(Action::Delete),
            any::<i64>().prop_map(|delta| Action::Incr { delta }),
            (1..u64::MAX).prop_map(|ttl_ms| Action::Expire { ttl_ms }),
            Just(Action::Persist),
        ];
        let condition = prop_oneof![
            Just(Condition::Absent),
            Just(Condition::Exists),
            any_position().prop_map(Condition::Is),
            any_position().prop_map(Condition::Differs),
        ];
        let request_id = (any::<u128>(), any::<u64>(), any::<u64>())
            .prop_map(|(client, n, floor)| RequestId { client, n, floor });
        let ack = prop_oneof![
            (1..254_u8).prop_map(Ack::Replicas),
            Just(Ack::Majority),
            Just(Ack::All)
        ];
        let option = proptest::option::of::<BoxedStrategy<u32>>;
        let terms = (
            proptest::option::of(condition),
            proptest::option::of(request_id),
            proptest::option::of(ack),
            proptest::option::of(any_position()),
            proptest::option::of(any::<u64>()),
            option(any::<u32>().boxed()),
            option(any::<u32>().boxed()),
        )
            .prop_map(
                |(condition, request_id, ack, min_position, max_lag_ms, wait_ms, time_left_ms)| {
                    Terms {
                        condition,
                        request_id,
                        ack,
                        min_position,
                        max_lag_ms,
                        wait_ms,
                        time_left_ms,
                    }
                },
            );
        let key = proptest::collection::vec(any::<u8>(), 1..=511)
            .prop_map(|key| Key::new(key).expect("1 to 511"));
        (key, action, terms).prop_map(|(key, action, terms)| Op { key, action, terms })
    }

    fn any_result() -> impl Strategy<Value = OpResult> {
        let applied = prop_oneof![
            Just(Applied::Yes),
            Just(Applied::No),
            Just(Applied::Unknown)
        ];
        let error = ".{0,9}".prop_map(|message| OpError {
            code: ErrorCode::Behind,
            message,
        });
        (
            any::<u16>(),
            proptest::option::of(applied),
            proptest::option::of(any_position()),
            proptest::option::of(any_position()),
            proptest::option::of(any::<u64>()),
            proptest::option::of(any_bytes()),
            proptest::option::of(error),
            proptest::option::of("[a-z]{1,9}:[0-9]"),
        )
            .prop_map(
                |(status, applied, position, etag, ttl_ms, value, error, target)| OpResult {
                    status,
                    applied,
                    position,
                    etag,
                    ttl_ms,
                    value,
                    error,
                    target,
                },
            )
    }

    proptest! {
        #[test]
        fn ops_come_back(ops in proptest::collection::vec(any_op(), 0..6)) {
            prop_assert_eq!(decode_ops(encode_ops(ops.iter()).into()), Ok(ops));
        }

        #[test]
        fn results_come_back(results in proptest::collection::vec(any_result(), 0..6)) {
            prop_assert_eq!(decode_results(encode_results(results.iter()).into()), Ok(results));
        }

        #[test]
        fn rubbish_is_an_error_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_ops(Bytes::copy_from_slice(&bytes));
            if bytes.len() > 8 {
                bytes[..8].copy_from_slice(b"KVB1\x01\0\0\0");
                let _ = decode_ops(Bytes::copy_from_slice(&bytes));
                bytes[..4].copy_from_slice(b"KVR1");
                let _ = decode_results(bytes.into());
            }
        }
    }
}
