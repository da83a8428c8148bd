//! What a record does to a key: the rule of effects, pure.
//!
//! A record takes effect if its seq is larger than that of what is there. `delete` and `expire` on an absent key do
//! nothing that a reader could see. Whoever applies records, to memtables or to a copy, does it through this.

use bytes::Bytes;
use kvclient::{
    position::{Position, Seq},
    wire::log::{Effect, Record, RequestMark},
};

use super::tables::Entry;

/// What a memtable says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    /// It has this entry.
    Live(Entry),
    /// It was deleted here.
    Tombstone(Position),
}

impl Slot {
    /// Seq of the record behind it; the larger one wins.
    pub(super) fn seq(&self) -> Seq {
        match self {
            Self::Live(entry) => entry.position.seq,
            Self::Tombstone(position) => position.seq,
        }
    }

    /// The entry, unless it is a tombstone.
    pub(super) fn into_entry(self) -> Option<Entry> {
        match self {
            Self::Live(entry) => Some(entry),
            Self::Tombstone(_) => None,
        }
    }

    /// Its row in an index of expiries.
    pub(super) fn expiry(&self) -> Option<(u64, Seq)> {
        match self {
            Self::Live(entry) => Some((entry.expires_at_ms?, entry.position.seq)),
            Self::Tombstone(_) => None,
        }
    }

    /// Length of the value.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Self::Live(entry) => entry.value.len(),
            Self::Tombstone(_) => 0,
        }
    }
}

/// What an effect makes of a key that now has `current`. `None`: nothing.
pub(super) fn apply(position: Position, effect: Effect, current: Option<&Slot>) -> Option<Slot> {
    if current.is_some_and(|slot| slot.seq() >= position.seq) {
        return None;
    }
    let live = |value, expires_at_ms| {
        Some(Slot::Live(Entry {
            position,
            expires_at_ms,
            value,
        }))
    };
    match (effect, current) {
        (
            Effect::Put {
                value,
                expires_at_ms,
            },
            _,
        ) => live(value, expires_at_ms),
        (Effect::Delete { .. }, _) => Some(Slot::Tombstone(position)),
        (Effect::Expire { expires_at_ms }, Some(Slot::Live(entry))) => {
            live(entry.value.clone(), expires_at_ms)
        }
        (Effect::Expire { .. } | Effect::EpochStart { .. }, _) => None,
    }
}

/// Copies records, so that none of them holds the memory of the frame or request it came in: one small entry that
/// stays would keep megabytes of its neighbours.
pub(super) fn detached(records: &[(Position, Record)]) -> Vec<(Position, Record)> {
    let copy = |record: &Record| Record {
        key: Bytes::copy_from_slice(&record.key),
        effect: match &record.effect {
            Effect::Put {
                value,
                expires_at_ms,
            } => Effect::Put {
                value: Bytes::copy_from_slice(value),
                expires_at_ms: *expires_at_ms,
            },
            other => other.clone(),
        },
        mark: record.mark.as_ref().map(|mark| RequestMark {
            outcome: Bytes::copy_from_slice(&mark.outcome),
            ..mark.clone()
        }),
    };
    records
        .iter()
        .map(|(position, record)| (*position, copy(record)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &'static [u8], expires_at_ms: Option<u64>) -> Effect {
        Effect::Put {
            value: Bytes::from_static(value),
            expires_at_ms,
        }
    }

    fn at(seq: Seq) -> Position {
        Position::new(1, seq)
    }

    fn live(seq: Seq, expires_at_ms: Option<u64>, value: &'static [u8]) -> Slot {
        Slot::Live(Entry {
            position: at(seq),
            expires_at_ms,
            value: Bytes::from_static(value),
        })
    }

    #[test]
    fn the_rule_of_effects() {
        let expire = Effect::Expire {
            expires_at_ms: Some(9),
        };
        let delete = Effect::Delete { by_expiry: false };
        let gone = Some(Slot::Tombstone(at(4)));
        let there = Some(live(4, None, b"old"));
        for (effect_of, seq, current, becomes) in [
            (put(b"new", None), 5, None, Some(live(5, None, b"new"))),
            (
                put(b"new", Some(7)),
                5,
                there.clone(),
                Some(live(5, Some(7), b"new")),
            ),
            (put(b"new", None), 4, there.clone(), None),
            (put(b"new", None), 3, gone.clone(), None),
            (
                delete.clone(),
                5,
                there.clone(),
                Some(Slot::Tombstone(at(5))),
            ),
            (delete, 3, there.clone(), None),
            (
                expire.clone(),
                5,
                there.clone(),
                Some(live(5, Some(9), b"old")),
            ),
            (expire.clone(), 3, there, None),
            (expire.clone(), 5, gone, None),
            (expire, 5, None, None),
            (
                Effect::EpochStart {
                    reign_id: 1,
                    node: String::new(),
                },
                5,
                None,
                None,
            ),
        ] {
            let what = format!("{effect_of:?} at {seq}");
            assert_eq!(
                apply(at(seq), effect_of, current.as_ref()),
                becomes,
                "{what}"
            );
        }
    }

    #[test]
    fn what_is_detached_does_not_hold_the_frame() {
        let frame = Bytes::from(vec![b'x'; 1 << 20]);
        let mark = RequestMark {
            client: 1,
            n: 1,
            floor: 0,
            digest: 0,
            outcome: frame.slice(10..12),
        };
        let effect = Effect::Put {
            value: frame.slice(3..9),
            expires_at_ms: Some(5),
        };
        let record = Record {
            mark: Some(mark),
            ..Record::new(frame.slice(..3), effect)
        };
        let copies = detached(&[(at(1), record.clone())]);
        assert_eq!(copies, [(at(1), record)]);
        assert!(frame.is_unique());
    }
}
