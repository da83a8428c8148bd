//! One op of a batch.
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
//! ```
//!
//! Little-endian. A decoder refuses unknown codes and fields.

use bytes::Bytes;

use crate::{
    key::Key,
    position::Position,
    wire::bytes::{DecodeError, Reader, put_position, put_sized},
};

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
    /// How long the node may wait to reach `min_position`, or for replicas to reach a write, in milliseconds.
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

/// Who must have synced a write before it is answered, beyond the primary's log.
///
/// Without one a write is answered when it is on the primary's disk: it outlives every crash of that node, but not the
/// loss of its disk. With one it is on other disks as well, and outlives the loss of the primary if one of those nodes
/// becomes the new one. It costs a round trip to replicas, and is refused while too few of them are there. The write
/// shows up for readers when it is on the primary's disk, whatever else its own caller waits for.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use kvclient::{Ack, ErrorKind, Outcome, PutOptions};
///
/// let order = kv.put_with("order:12", "3 pears", PutOptions::new().ack(Ack::Majority)).await;
/// match order {
///     Ok(_) => println!("ordered; the primary's disk may be lost"),
///     Err(error) if error.outcome() == Outcome::NotApplied => println!("not ordered: {error}"),
///     // It is on the primary's disk most likely, and not known to be on enough others.
///     Err(error) if error.kind() == ErrorKind::Unavailable => println!("look again later: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ack {
    /// So many replicas, 1 to 253: as many disks may be lost, any of them, and a copy is left.
    Replicas(u8),
    /// More than half of the shard's nodes by the map, the primary counted: any other half has a node that has it. Of
    /// two nodes one replica, of three one, of five two; of one none.
    Majority,
    /// All of the shard's nodes: whichever one is left has it. One that is away stops such writes.
    All,
}

impl Ack {
    /// As it is written in headers, lines and on command lines: a number, `majority` or `all`.
    pub fn to_text(self) -> String {
        match self {
            Self::Replicas(count) => count.to_string(),
            Self::Majority => "majority".to_owned(),
            Self::All => "all".to_owned(),
        }
    }

    /// Reads [`Self::to_text`], or `primary`, which is `Some(None)`.
    pub fn from_text(text: &str) -> Option<Option<Self>> {
        match text {
            "primary" => Some(None),
            "majority" => Some(Some(Self::Majority)),
            "all" => Some(Some(Self::All)),
            // What `parse` takes besides, a plus sign, is none.
            count if count.bytes().all(|byte| byte.is_ascii_digit()) => {
                let ack = Self::Replicas(count.parse().ok()?);
                ack.is_sound().then_some(Some(ack))
            }
            _ => None,
        }
    }

    /// Whether there is such a number of replicas in the protocol.
    pub(crate) fn is_sound(self) -> bool {
        !matches!(self, Self::Replicas(0 | 254..))
    }
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

    /// The op's bytes without their length. A request id's digest covers those of an op with the same key, action and
    /// condition and no other terms, since those may differ between a write and its repeat.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_under(&self.terms, out);
    }

    /// As [`Self::encode`], of this op under other terms.
    pub fn encode_under(&self, terms: &Terms, out: &mut Vec<u8>) {
        use op_field as field;
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

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
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
        let terms = Terms::decode(reader, fields)?;
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
