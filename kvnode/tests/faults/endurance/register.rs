//! What was promised of one key with one writer, deletes included.
//!
//! Every value is written once. Right is the newest acknowledged effect, at its position, or one of unknown outcome
//! behind it: a write whose outcome was not told may take place late, but not before one that was acknowledged.

use bytes::Bytes;
use kvclient::position::Position;

use crate::support::oracle::Verdict;

/// The memory of one key.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// The newest acknowledged value and where it is; `None`: absent.
    acked: Option<(Position, Bytes)>,
    /// Every effect whose outcome was not told; `None`: a delete.
    unknown: Vec<Option<Bytes>>,
}

/// What is to be said of an entry that was found, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// As acknowledged.
    Acked,
    /// As a write of unknown outcome left it.
    UnknownApplied,
    /// The newest acknowledged value, at another position.
    Twice,
    Lost,
}

impl Register {
    pub(super) fn put(&mut self, position: Position, value: Bytes) {
        self.acked = Some((position, value));
    }

    pub(super) fn deleted(&mut self) {
        self.acked = None;
    }

    /// A put, or a delete, of unknown outcome.
    pub(super) fn unknown(&mut self, effect: Option<Bytes>) {
        self.unknown.push(effect);
    }

    /// Where the newest acknowledged value is, if nothing else can have happened to the key.
    pub(super) fn certain_position(&self) -> Option<Position> {
        let (position, _) = self.acked.as_ref()?;
        self.unknown.is_empty().then_some(*position)
    }

    /// Whether the key is there, if that is certain.
    pub(super) fn certainly_there(&self) -> Option<bool> {
        self.unknown.is_empty().then_some(self.acked.is_some())
    }

    pub(super) fn judge(&self, found: Option<(Position, &Bytes)>) -> Judgement {
        match (&self.acked, found) {
            (None, None) => Judgement::Acked,
            (Some((position, value)), Some((at, found))) if value == found => {
                match *position == at {
                    true => Judgement::Acked,
                    false => Judgement::Twice,
                }
            }
            (acked, Some((at, found))) => {
                let after = acked.as_ref().map_or(Position::ZERO, |(at, _)| *at);
                let is_known = self.unknown.iter().flatten().any(|value| value == found);
                match at > after && is_known {
                    true => Judgement::UnknownApplied,
                    false => Judgement::Lost,
                }
            }
            (Some(_), None) => match self.unknown.contains(&None) {
                true => Judgement::UnknownApplied,
                false => Judgement::Lost,
            },
        }
    }

    /// What was acknowledged, in short.
    pub(super) fn describe(&self) -> String {
        let shown = self.acked.as_ref().map(|(at, value)| (at, short(value)));
        format!("acknowledged {shown:?}, {} unknown", self.unknown.len())
    }
}

impl Judgement {
    /// Counts it.
    pub(super) fn add_to(self, verdict: &mut Verdict) {
        match self {
            Self::Acked => {}
            Self::UnknownApplied => verdict.unknown_applied += 1,
            Self::Twice => verdict.duplicated += 1,
            Self::Lost => verdict.lost += 1,
        }
    }

    pub(super) fn is_right(self) -> bool {
        matches!(self, Self::Acked | Self::UnknownApplied)
    }
}

/// The beginning of a value.
pub(super) fn short(value: &Bytes) -> String {
    let end = value.len().min(40);
    value.slice(..end).escape_ascii().to_string()
}

/// The proof that it can fail.
#[test]
fn a_register_notices_every_kind_of_loss() {
    let (first, second, third) = (
        Position::new(1, 5),
        Position::new(1, 9),
        Position::new(2, 12),
    );
    let [a, b, c, x] = ["a", "b", "c", "x"].map(Bytes::from);
    let mut register = Register::default();
    register.put(first, a.clone());
    register.put(second, b.clone());
    assert_eq!(register.judge(None), Judgement::Lost);
    register.unknown(Some(c.clone()));
    for (at, value, expected) in [
        (second, &b, Judgement::Acked),
        (third, &b, Judgement::Twice),
        (first, &a, Judgement::Lost),
        (third, &c, Judgement::UnknownApplied),
        (first, &c, Judgement::Lost),
        (third, &x, Judgement::Lost),
    ] {
        assert_eq!(register.judge(Some((at, value))), expected, "{value:?}");
    }
    assert_eq!(register.judge(None), Judgement::Lost);
    register.unknown(None);
    assert_eq!(register.judge(None), Judgement::UnknownApplied);
    register.deleted();
    assert_eq!(register.judge(None), Judgement::Acked);
    assert_eq!(register.judge(Some((second, &b))), Judgement::Lost);
}
