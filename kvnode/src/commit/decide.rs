//! What an op does to an entry: the effect to log, and the answer. Pure.
//!
//! The commit thread calls it for each op in turn, with the entry as the ops before left it, and gives the answer
//! only after the effect is synced. An expired entry is an absent one.

use bytes::Bytes;
use kvclient::{
    position::Position,
    wire::{
        batch::{Action, Condition, Op, OpResult},
        error::{Applied, ErrorCode},
        log::Effect,
    },
};

use crate::store::Entry;

/// An answer, and what must be durable before it is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// What to log; `None` if the op changes nothing.
    pub(super) effect: Option<Effect>,
    /// What to answer, once the effect is durable.
    pub(super) result: OpResult,
}

/// Whether the decision depends on the current entry: a plain put does not.
pub(super) fn needs_current(op: &Op) -> bool {
    op.terms.condition.is_some() || !matches!(op.action, Action::Put { .. })
}

/// The answer to a read that found this entry, expired or not, when it was shard time `now_ms` and the node had come
/// to `position`.
pub fn read_result(op: &Op, entry: Option<Entry>, now_ms: u64, position: Position) -> OpResult {
    let Some(entry) = entry.filter(|entry| !entry.is_expired(now_ms)) else {
        let mut absent = OpResult::refused(ErrorCode::NotFound, "there is no such key", None);
        absent.position = Some(position);
        return absent;
    };
    let mut result = OpResult {
        status: 200,
        position: Some(position),
        etag: Some(entry.position),
        ttl_ms: entry.expires_at_ms.map(|at| at.saturating_sub(now_ms)),
        ..OpResult::default()
    };
    match op.terms.condition {
        Some(Condition::Differs(known)) if known == entry.position => result.status = 304,
        _ => result.value = Some(entry.value),
    }
    result
}

/// Decides one write.
///
/// `current` is the live entry (`None` if absent, or not needed), `next` the position that the effect will get.
pub(super) fn decide(
    action: Action,
    condition: Option<Condition>,
    current: Option<&Entry>,
    now_ms: u64,
    next: Position,
) -> Decision {
    if let Some(refusal) = condition.and_then(|condition| check(condition, current)) {
        return refusal;
    }
    match (action, current) {
        (Action::Get, _) => refuse(ErrorCode::BadRequest, "a read does not belong here"),
        (Action::Put { value, ttl_ms }, _) => {
            let expires_at_ms = ttl_ms.map(|ttl| now_ms.saturating_add(ttl));
            apply(
                Effect::Put {
                    value,
                    expires_at_ms,
                },
                next,
                ttl_ms,
            )
        }
        (Action::Incr { delta }, current) => incr(delta, current, now_ms, next),
        (Action::Delete | Action::Expire { .. } | Action::Persist, None) => {
            refuse(ErrorCode::NotFound, "there is no such key")
        }
        (Action::Delete, Some(_)) => {
            let mut decision = apply(Effect::Delete { by_expiry: false }, next, None);
            decision.result.etag = None;
            decision
        }
        (Action::Expire { ttl_ms }, Some(_)) => apply(
            Effect::Expire {
                expires_at_ms: Some(now_ms.saturating_add(ttl_ms)),
            },
            next,
            Some(ttl_ms),
        ),
        (Action::Persist, Some(_)) => apply(
            Effect::Expire {
                expires_at_ms: None,
            },
            next,
            None,
        ),
    }
}

fn check(condition: Condition, current: Option<&Entry>) -> Option<Decision> {
    let position = current.map(|entry| entry.position);
    let (holds, wanted) = match condition {
        Condition::Absent => (position.is_none(), "that there is no such key".to_owned()),
        Condition::Exists => (position.is_some(), "that the key exists".to_owned()),
        Condition::Is(wanted) => (position == Some(wanted), format!("the entry of {wanted}")),
        Condition::Differs(other) => (
            position != Some(other),
            format!("another entry than that of {other}"),
        ),
    };
    if holds {
        return None;
    }
    let found = position.map_or("there is none".to_owned(), |position| {
        format!("it is that of {position}")
    });
    let mut decision = refuse(
        ErrorCode::PreconditionFailed,
        format!("the request wants {wanted}; {found}"),
    );
    decision.result.etag = position;
    Some(decision)
}

fn incr(delta: i64, current: Option<&Entry>, now_ms: u64, next: Position) -> Decision {
    let old = match current.map(|entry| parse_counter(&entry.value)) {
        None => 0,
        Some(Some(number)) => number,
        Some(None) => {
            return refuse(
                ErrorCode::NotANumber,
                "the value is not a decimal 64-bit integer",
            );
        }
    };
    let Some(new) = old.checked_add(delta) else {
        return refuse(
            ErrorCode::Overflow,
            format!("{old} + {delta} does not fit 64 bits; nothing changed"),
        );
    };
    let value = Bytes::from(new.to_string());
    let expires_at_ms = current.and_then(|entry| entry.expires_at_ms);
    let ttl_ms = expires_at_ms.map(|at| at.saturating_sub(now_ms));
    let mut decision = apply(
        Effect::Put {
            value: value.clone(),
            expires_at_ms,
        },
        next,
        ttl_ms,
    );
    decision.result.status = 200;
    decision.result.value = Some(value);
    decision
}

/// A decimal i64 in its one spelling: no sign but `-`, no leading zeros, no spaces.
fn parse_counter(value: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}

fn apply(effect: Effect, next: Position, ttl_ms: Option<u64>) -> Decision {
    let result = OpResult {
        status: 204,
        applied: Some(Applied::Yes),
        position: Some(next),
        etag: Some(next),
        ttl_ms,
        ..OpResult::default()
    };
    Decision {
        effect: Some(effect),
        result,
    }
}

fn refuse(code: ErrorCode, message: impl Into<String>) -> Decision {
    Decision {
        effect: None,
        result: OpResult::refused(code, message, Some(Applied::No)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;
    const NEXT: Position = Position::new(2, 50);

    fn entry(value: &'static str, expires_at_ms: Option<u64>) -> Entry {
        Entry {
            position: Position::new(1, 7),
            expires_at_ms,
            value: Bytes::from_static(value.as_bytes()),
        }
    }

    fn run(action: Action, condition: Option<Condition>, current: Option<&Entry>) -> Decision {
        decide(action, condition, current, NOW, NEXT)
    }

    fn put(ttl_ms: Option<u64>) -> Action {
        Action::Put {
            value: Bytes::from_static(b"v"),
            ttl_ms,
        }
    }

    #[test]
    fn conditions() {
        let there = entry("v", None);
        let is = Position::new(1, 7);
        let other = Position::new(1, 8);
        for (condition, current, status) in [
            (Condition::Absent, None, 204),
            (Condition::Absent, Some(&there), 412),
            (Condition::Exists, None, 412),
            (Condition::Exists, Some(&there), 204),
            (Condition::Is(is), Some(&there), 204),
            (Condition::Is(other), Some(&there), 412),
            (Condition::Is(is), None, 412),
            (Condition::Differs(is), Some(&there), 412),
            (Condition::Differs(is), None, 204),
        ] {
            for action in [put(None), Action::Incr { delta: 1 }] {
                let number = entry("1", None);
                let current = current.map(|_| &number);
                let decision = run(action, Some(condition), current);
                let refused = decision.result.status == 412;
                assert_eq!(refused, status == 412, "{condition:?} on {current:?}");
                assert_eq!(decision.effect.is_none(), refused);
                if refused {
                    assert_eq!(decision.result.etag, current.map(|entry| entry.position));
                    assert_eq!(decision.result.applied, Some(Applied::No));
                }
            }
        }
    }

    #[test]
    fn counters() {
        for (value, delta, outcome) in [
            (None, 5, Ok("5")),
            (Some("-3"), 3, Ok("0")),
            (Some("9223372036854775807"), 1, Err(ErrorCode::Overflow)),
            (Some("-9223372036854775808"), -1, Err(ErrorCode::Overflow)),
            (Some(""), 1, Err(ErrorCode::NotANumber)),
            (Some("+1"), 1, Err(ErrorCode::NotANumber)),
            (Some("01"), 1, Err(ErrorCode::NotANumber)),
            (Some("1 "), 1, Err(ErrorCode::NotANumber)),
            (Some("9223372036854775808"), 1, Err(ErrorCode::NotANumber)),
        ] {
            let current = value.map(|value| entry(value, Some(NOW + 9)));
            let decision = run(Action::Incr { delta }, None, current.as_ref());
            match outcome {
                Ok(new) => {
                    assert_eq!(decision.result.value.as_deref(), Some(new.as_bytes()));
                    let kept = current.map(|_| NOW + 9);
                    let effect = Effect::Put {
                        value: Bytes::from_static(new.as_bytes()),
                        expires_at_ms: kept,
                    };
                    assert_eq!(decision.effect, Some(effect), "the expiry is kept");
                }
                Err(code) => assert_eq!(decision.result.error_code(), Some(code), "{value:?}"),
            }
        }
    }

    #[test]
    fn what_is_absent_cannot_be_removed_or_dated() {
        for action in [
            Action::Delete,
            Action::Persist,
            Action::Expire { ttl_ms: 5 },
        ] {
            let decision = run(action.clone(), None, None);
            assert_eq!(
                (decision.result.status, decision.effect),
                (404, None),
                "{action:?}"
            );
            let there = entry("v", None);
            assert_eq!(run(action, None, Some(&there)).result.status, 204);
        }
    }

    #[test]
    fn a_ttl_becomes_a_point_in_time() {
        let decision = run(put(Some(90)), None, None);
        let effect = Effect::Put {
            value: Bytes::from_static(b"v"),
            expires_at_ms: Some(NOW + 90),
        };
        assert_eq!(decision.effect, Some(effect));
        let decision = run(put(Some(u64::MAX)), None, None);
        assert!(matches!(
            decision.effect,
            Some(Effect::Put {
                expires_at_ms: Some(u64::MAX),
                ..
            })
        ));
    }
}
