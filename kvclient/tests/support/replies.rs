//! What scripted nodes answer, and the store in memory that they are without a script.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use kvclient::{
    Key, Position,
    shard_map::Address,
    wire::{
        batch::{Action, OpResult},
        error::{Applied, ErrorCode},
    },
};

use super::fake_node::{Reply, Script};

/// An entry.
pub(crate) fn found(value: &str, seq: u64) -> Reply {
    Reply::Answer(OpResult {
        status: 200,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        etag: Some(Position::new(1, seq)),
        position: Some(Position::new(1, seq + 100)),
        ..OpResult::default()
    })
}

/// No entry, seen up to a position.
pub(crate) fn missing(seq: u64) -> Reply {
    let mut result = OpResult::refused(ErrorCode::NotFound, "no such key", None);
    result.position = Some(Position::new(1, seq));
    Reply::Answer(result)
}

/// A write that took place.
pub(crate) fn stored(seq: u64) -> Reply {
    Reply::Answer(OpResult {
        status: 204,
        applied: Some(Applied::Yes),
        position: Some(Position::new(1, seq)),
        etag: Some(Position::new(1, seq)),
        ..OpResult::default()
    })
}

pub(crate) fn refused(code: ErrorCode, applied: Option<Applied>) -> Reply {
    Reply::Answer(OpResult::refused(code, "as the script says", applied))
}

/// The redirect of a misrouted op.
pub(crate) fn redirect(target: &Address) -> Reply {
    Reply::Answer(OpResult {
        status: 307,
        target: Some(target.to_string().into()),
        ..OpResult::default()
    })
}

/// Values with the seq of their last write.
type Entries = HashMap<Key, (Bytes, u64)>;

/// A store in memory: puts, gets, deletes and counters, without conditions.
pub(super) fn memory() -> Script {
    let entries: Mutex<(u64, Entries)> = Mutex::default();
    Arc::new(move |op| {
        let (seq, entries) = &mut *entries.lock().unwrap();
        match &op.action {
            Action::Get => match entries.get(&op.key) {
                Some((value, at)) => found(std::str::from_utf8(value).unwrap(), *at),
                None => missing(*seq),
            },
            Action::Put { value, .. } => {
                *seq += 1;
                entries.insert(op.key.clone(), (value.clone(), *seq));
                stored(*seq)
            }
            Action::Delete => match entries.remove(&op.key) {
                Some(_) => {
                    *seq += 1;
                    stored(*seq)
                }
                None => missing(*seq),
            },
            Action::Incr { delta } => {
                *seq += 1;
                let old = entries
                    .get(&op.key)
                    .map_or("0", |(value, _)| std::str::from_utf8(value).unwrap());
                let new = (old.parse::<i64>().unwrap() + delta).to_string();
                entries.insert(op.key.clone(), (new.clone().into(), *seq));
                let Reply::Answer(mut result) = stored(*seq) else {
                    unreachable!("stored is an answer")
                };
                result.status = 200;
                result.value = Some(new.into());
                Reply::Answer(result)
            }
            Action::Expire { .. } | Action::Persist => match entries.contains_key(&op.key) {
                true => stored(*seq),
                false => missing(*seq),
            },
        }
    })
}
