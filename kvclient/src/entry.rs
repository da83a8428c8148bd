//! What callers give and get: [`Entry`], [`Written`], [`Route`], and the way from and to ops and their results.
//!
//! Whatever an answer lacks that the protocol promises is an error here, so that callers get plain types.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    attempt::{AttemptError, Outcome},
    error::{Error, ErrorKind, Result},
    key::Key,
    options::{DeleteOptions, PutOptions},
    position::Position,
    shard_map::Address,
    slot::Slot,
    wire::{
        batch::{Action, Op, OpResult},
        query::MAX_TTL_MS,
    },
};

/// An entry as a read shows it.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use kvclient::GetOptions;
///
/// if let Some(entry) = kv.get_with("page:home", GetOptions::new()).await? {
///     let etag = entry.position.to_etag(); // names this very version, say to a browser
///     let forever = entry.ttl.is_none();
///     println!("{etag}: {} bytes, for ever: {forever}", entry.value.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Where it was last written: for [`PutOptions::if_match`].
    pub position: Position,
    /// How long it still lives, in whole milliseconds; `None`: for ever.
    pub ttl: Option<Duration>,
}

/// A write that took place and is durable.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// let first = kv.put("status", "busy").await?;
/// let second = kv.put("status", "free").await?;
/// assert!(first.position < second.position); // one key, so one shard, so one log: the order of the writes
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its place in the shard's log.
    pub position: Position,
}

/// Who owns a key.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::Client;
///
/// # let text = "[[shards]]\nname = \"all\"\nidx = 0\naddress = \"localhost:8080\"\n";
/// # let map = kvclient::shard_map::toml::parse(text, "sharding.toml").expect("a map");
///
/// let kv = Client::builder(map).build()?;
/// let (cart, name) = (kv.route("{user:1}:cart")?, kv.route("{user:1}:name")?);
/// assert_eq!(cart.slot, name.slot); // only what stands in the braces is hashed
/// assert!(cart.replicas.is_empty()); // this map has none
/// println!("{} of {}, writes go to {}", cart.slot, cart.shard, cart.primary);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The key's slot.
    pub slot: Slot,
    /// Name of the shard that owns it.
    pub shard: String,
    /// The node that takes its writes.
    pub primary: Address,
    /// The other nodes that answer reads.
    pub replicas: Vec<Address>,
}

/// The bytes as a key.
pub(crate) fn checked(key: &[u8], op: &'static str) -> Result<Key> {
    Key::copy_from(key).map_err(|error| Error::new(ErrorKind::Invalid, op).with_source(error))
}

/// The op of a put.
pub(crate) fn put_op(key: &[u8], value: Bytes, options: &PutOptions) -> Result<Op> {
    let ttl_ms = options.ttl.map(|ttl| ttl_ms("put", ttl)).transpose()?;
    let mut op = Op::new(checked(key, "put")?, Action::Put { value, ttl_ms });
    op.terms.condition = options.condition;
    op.terms.ack = options.ack.flatten();
    Ok(op)
}

/// The op of a delete.
pub(crate) fn delete_op(key: &[u8], options: &DeleteOptions) -> Result<Op> {
    let mut op = Op::new(checked(key, "delete")?, Action::Delete);
    op.terms.condition = options.condition;
    op.terms.ack = options.ack.flatten();
    Ok(op)
}

/// A time to live as it travels.
pub(crate) fn ttl_ms(op: &'static str, ttl: Duration) -> Result<u64> {
    match u64::try_from(ttl.as_millis()) {
        Ok(ms @ 1..=MAX_TTL_MS) => Ok(ms),
        _ => Err(Error::new(ErrorKind::Invalid, op)
            .with_source("a ttl is at least 1 ms and at most 100 years")),
    }
}

/// What a read gives back.
pub(crate) fn entry(result: OpResult) -> Result<Option<Entry>> {
    let Some(value) = result.value else {
        return Ok(None);
    };
    let position = result
        .etag
        .ok_or_else(|| undecodable("get", "an entry without its position"))?;
    Ok(Some(Entry {
        value,
        position,
        ttl: result.ttl_ms.map(Duration::from_millis),
    }))
}

/// What a write gives back.
pub(crate) fn written(result: OpResult) -> Result<Written> {
    let position = result.position.or(result.etag);
    let position = position.ok_or_else(|| unreadable("put", "a write without its position"))?;
    Ok(Written { position })
}

/// What a write gives back that needs an entry.
pub(crate) fn written_if_there(result: OpResult) -> Result<Option<Written>> {
    match result.status {
        404 => Ok(None),
        _ => written(result).map(Some),
    }
}

/// What a counter op gives back.
pub(crate) fn counter(result: &OpResult) -> Result<i64> {
    let value = result.value.as_deref();
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| unreadable("incr", "the new value is not a decimal i64"))
}

/// An answer that the protocol does not allow.
fn undecodable(op: &'static str, problem: &str) -> Error {
    let problem = AttemptError::Undecodable(problem.to_owned());
    Error::new(ErrorKind::Corrupt, op).with_source(problem)
}

/// An answer to a write that the protocol does not allow. It may have been applied all the same.
pub(crate) fn unreadable(op: &'static str, problem: &str) -> Error {
    undecodable(op, problem).with_outcome(Outcome::Unknown)
}
