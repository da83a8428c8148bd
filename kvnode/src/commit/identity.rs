//! Identity of a write: its request id with a digest of what is asked for, to notice another op under a known id.
//!
//! The digest is made by the handler's thread, so that large values do not keep the commit thread.

use std::cell::Cell;

use kvclient::wire::batch::{Op, RequestId, Terms, encode_ops};
use xxhash_rust::xxh3::xxh3_64;

/// Most memory that a thread keeps to encode ops in.
const ROOM_BYTES: usize = 64 << 10;

thread_local! {
    /// Where ops are encoded, kept so that it is not allocated for each.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A request id and what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: RequestId,
    /// xxh3-64 of the encoded op, or of the encoded batch.
    pub(super) digest: u64,
}

impl Identity {
    /// That of an op, if it has a request id.
    pub(super) fn of_op(op: &Op) -> Option<Self> {
        let id = op.terms.request_id?;
        let mut bytes = ROOM.take();
        bytes.clear();
        op.encode_under(&essential(&op.terms), &mut bytes);
        let digest = xxh3_64(&bytes);
        if bytes.capacity() <= ROOM_BYTES {
            ROOM.set(bytes);
        }
        Some(Self { id, digest })
    }

    /// That of an atomic batch. Its bytes begin with the stamp of batches, so it is never that of an op.
    pub(super) fn of_batch(id: RequestId, ops: &[Op]) -> Self {
        let ops: Vec<Op> = ops.iter().map(essence).collect();
        Self {
            id,
            digest: xxh3_64(&encode_ops(ops.iter())),
        }
    }
}

/// The op without what may differ between a write and its repeat: floor, time left, how long to wait and for whom.
fn essence(op: &Op) -> Op {
    Op {
        key: op.key.clone(),
        action: op.action.clone(),
        terms: essential(&op.terms),
    }
}

fn essential(terms: &Terms) -> Terms {
    Terms {
        condition: terms.condition,
        ..Terms::default()
    }
}

#[cfg(test)]
mod tests {
    use kvclient::{
        key::Key,
        wire::batch::{Ack, Action, Condition},
    };

    use super::*;

    fn digest(change: impl FnOnce(&mut Op)) -> u64 {
        let action = Action::Put {
            value: "v".into(),
            ttl_ms: None,
        };
        let mut op = Op::new(Key::new("k").unwrap(), action);
        op.terms.request_id = Some(RequestId {
            client: 1,
            n: 2,
            floor: 1,
        });
        change(&mut op);
        Identity::of_op(&op).unwrap().digest
    }

    /// Frozen: digests are in logs, and a repeat may come after an upgrade.
    #[test]
    fn golden_digest() {
        assert_eq!(digest(|_| ()), 2_012_831_084_548_900_080);
    }

    #[test]
    fn a_repeat_may_wait_otherwise_but_not_ask_otherwise() {
        let first = digest(|_| ());
        let same = digest(|op| {
            op.terms.time_left_ms = Some(5);
            op.terms.wait_ms = Some(6);
            op.terms.ack = Some(Ack::All);
            op.terms.request_id = Some(RequestId {
                client: 1,
                n: 2,
                floor: 2,
            });
        });
        assert_eq!(first, same);
        let put = |value: &'static str, ttl_ms| {
            digest(|op| {
                op.action = Action::Put {
                    value: value.into(),
                    ttl_ms,
                }
            })
        };
        let others = [
            digest(|op| op.key = Key::new("l").unwrap()),
            digest(|op| op.terms.condition = Some(Condition::Absent)),
            digest(|op| op.action = Action::Delete),
            put("w", None),
            put("v", Some(5)),
        ];
        assert!(others.iter().all(|other| *other != first), "{others:?}");
        let op = Op::new(Key::new("k").unwrap(), Action::Delete);
        let id = RequestId {
            client: 1,
            n: 2,
            floor: 0,
        };
        let batch = Identity::of_batch(id, std::slice::from_ref(&op));
        let mut alone = op;
        alone.terms.request_id = Some(id);
        assert_ne!(Some(batch), Identity::of_op(&alone));
    }
}
