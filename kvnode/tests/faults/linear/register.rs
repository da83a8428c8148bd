//! What one key does if it is asked one op after the other: the rule that histories are checked against. Pure.
//!
//! An entry is a number with the position that it was written at. Every write that is acknowledged has a later
//! position than all before it, and an entry is only ever read at one position; so the rule is stricter than that of
//! a plain register, and the checker sooner at its end. A write whose outcome or position was not told leaves an
//! entry of unknown position; whoever sees the entry next tells it.

use kvclient::position::Position;
use todc_utils::Specification;

/// What was asked of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Get,
    Put { value: i64, only_if: OnlyIf },
    Delete { only_if: OnlyIf },
    Incr,
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnlyIf {
    Always,
    Absent,
    /// The caller has seen this value at this position.
    Is {
        value: i64,
        at: Position,
    },
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Found {
        value: i64,
        at: Position,
    },
    Absent,
    /// The write is done; the client's counters do not say where.
    Done {
        at: Option<Position>,
    },
    Counted {
        value: i64,
        at: Option<Position>,
    },
    /// The condition did not hold: of which entry, if there is one.
    Refused {
        found: Option<Position>,
    },
    /// Nothing: it was done, or not, or will yet be.
    Unknown,
}

/// An op with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) asked: Asked,
    pub(super) told: Told,
}

/// The key between two ops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct State {
    entry: Option<Entry>,
    /// The latest position that anybody was told.
    last: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Entry {
    value: i64,
    /// `None`: nobody was told yet.
    at: Option<Position>,
}

/// The rule, as the checker wants it.
pub(super) struct Register;

impl Specification for Register {
    type State = State;
    type Operation = Step;

    fn init() -> State {
        State::default()
    }

    fn apply(step: &Step, state: &State) -> (bool, State) {
        let next = state.after(step);
        (next.is_some(), next.unwrap_or(*state))
    }
}

impl State {
    /// The key after a step; `None` if it cannot have been answered so.
    fn after(&self, step: &Step) -> Option<Self> {
        match (step.asked, step.told) {
            (asked, Told::Unknown) => Some(self.after_unknown(asked)),
            (Asked::Get, Told::Found { value, at }) => self.seen(at).filter(|seen| {
                let entry = seen.entry.map(|entry| entry.value);
                entry == Some(value)
            }),
            (
                Asked::Get
                | Asked::Delete {
                    only_if: OnlyIf::Always,
                },
                Told::Absent,
            ) => self.entry.is_none().then_some(*self),
            (Asked::Put { value, only_if }, Told::Done { at }) => {
                self.meets(only_if)?.written(Some(value), at)
            }
            (Asked::Delete { only_if }, Told::Done { at }) => {
                let met = self.meets(only_if)?;
                met.entry?;
                met.written(None, at)
            }
            (Asked::Incr, Told::Counted { value, at }) => {
                let next = self.entry.map_or(0, |entry| entry.value) + 1;
                let written = self.written(Some(value), at);
                written.filter(|_| next == value)
            }
            (Asked::Put { only_if, .. } | Asked::Delete { only_if }, Told::Refused { found }) => {
                self.refused(only_if, found)
            }
            _ => None,
        }
    }

    /// A write that nobody heard of again, done here, or refused here by its condition. That it was never done is
    /// the same as done at the end.
    fn after_unknown(&self, asked: Asked) -> Self {
        let write = |only_if, value| {
            let met = self.meets(only_if);
            met.and_then(|met| met.written(value, None))
        };
        let next = match asked {
            Asked::Get => None,
            Asked::Put { value, only_if } => write(only_if, Some(value)),
            Asked::Delete { only_if } => write(only_if, None),
            Asked::Incr => write(
                OnlyIf::Always,
                Some(self.entry.map_or(0, |entry| entry.value) + 1),
            ),
        };
        next.unwrap_or(*self)
    }

    /// Somebody was told that there is an entry of this position.
    fn seen(&self, at: Position) -> Option<Self> {
        let entry = self.entry?;
        match entry.at {
            Some(known) => (known == at).then_some(*self),
            None => self.written(Some(entry.value), Some(at)),
        }
    }

    fn written(&self, value: Option<i64>, at: Option<Position>) -> Option<Self> {
        let last = match at {
            Some(at) => Some(at).filter(|at| *at > self.last)?,
            None => self.last,
        };
        let entry = value.map(|value| Entry { value, at });
        Some(Self { entry, last })
    }

    fn meets(&self, only_if: OnlyIf) -> Option<Self> {
        match only_if {
            OnlyIf::Always => Some(*self),
            OnlyIf::Absent => self.entry.is_none().then_some(*self),
            OnlyIf::Is { value, at } => {
                let seen = self.seen(at)?;
                let entry = seen.entry.map(|entry| entry.value);
                (entry == Some(value)).then_some(seen)
            }
        }
    }

    /// Somebody was told that the condition does not hold, since this is there.
    fn refused(&self, only_if: OnlyIf, found: Option<Position>) -> Option<Self> {
        let there = match found {
            Some(at) => self.seen(at)?,
            None => self.entry.is_none().then_some(*self)?,
        };
        match (only_if, found) {
            (OnlyIf::Absent, Some(_)) | (OnlyIf::Is { .. }, None) => Some(there),
            (OnlyIf::Is { at, .. }, Some(found)) if found != at => Some(there),
            _ => None,
        }
    }
}
