//! What a record does to a key: the rule of effects, pure.
//!
//! A record takes effect if its seq is larger than that of what is there. `delete` and `expire` on an absent key do
//! nothing that a reader could see. Whoever applies records, to memtables or to a copy, does it through this.

use kvclient::{
    position::{Position, Seq},
    wire::log::Effect,
};

use super::tables::EntryRef;

/// What is said about a key, where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot<'a> {
    /// It has this entry.
    Live(EntryRef<'a>),
    /// It was deleted here.
    Tombstone(Position),
}

impl<'a> Slot<'a> {
    /// The value; none for a tombstone.
    pub(super) fn value(&self) -> &'a [u8] {
        match self {
            Self::Live(entry) => entry.value,
            Self::Tombstone(_) => &[],
        }
    }

    /// Position of the record behind it.
    pub(super) fn position(&self) -> Position {
        match self {
            Self::Live(entry) => entry.position,
            Self::Tombstone(position) => *position,
        }
    }

    /// Seq of the record behind it; the larger one wins.
    pub(super) fn seq(&self) -> Seq {
        self.position().seq
    }
}

/// What an effect makes of a key that now has `current`. `None`: nothing.
pub(super) fn apply<'a>(
    position: Position,
    effect: &'a Effect,
    current: Option<Slot<'a>>,
) -> Option<Slot<'a>> {
    if current.is_some_and(|slot| slot.seq() >= position.seq) {
        return None;
    }
    let live = |value, expires_at_ms| {
        Some(Slot::Live(EntryRef {
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
        ) => live(value, *expires_at_ms),
        (Effect::Delete { .. }, _) => Some(Slot::Tombstone(position)),
        (Effect::Expire { expires_at_ms }, Some(Slot::Live(entry))) => {
            live(entry.value, *expires_at_ms)
        }
        (Effect::Expire { .. } | Effect::EpochStart { .. }, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

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

    fn live(seq: Seq, expires_at_ms: Option<u64>, value: &'static [u8]) -> Slot<'static> {
        Slot::Live(EntryRef {
            position: at(seq),
            expires_at_ms,
            value,
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
                there,
                Some(live(5, Some(7), b"new")),
            ),
            (put(b"new", None), 4, there, None),
            (put(b"new", None), 3, gone, None),
            (delete.clone(), 5, there, Some(Slot::Tombstone(at(5)))),
            (delete, 3, there, None),
            (expire.clone(), 5, there, Some(live(5, Some(9), b"old"))),
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
            assert_eq!(
                apply(at(seq), &effect_of, current),
                becomes,
                "{effect_of:?} at {seq}"
            );
        }
    }
}
