//! Whether a failed op is tried again, and how long to wait before that.
//!
//! The one table. "Next" is another node that may answer, at once; when all were asked, a pause, then all again.
//! "Other" is another node that was not asked yet; when all were, the op fails, unless it is a read and one of them was
//! only late or away. "Again" is the same node after a pause. Everything ends with the op's deadline.
//!
//! | The attempt                                         | read  | write              | write under a request id |
//! |-----------------------------------------------------|-------|--------------------|-----------------------|
//! | never left: no connection, no turn in the queue     | next  | again              | again                 |
//! | broke or timed out after it may have been sent      | next  | stop, unknown      | again                 |
//! | refused: behind, not ready, diverged, failing, 5xx  | next  | again, if the node says "not applied"; else stop, unknown | again |
//! | refused: too busy, too few replicas                 | again | again              | again                 |
//! | refused: not on enough replicas in time            | -     | stop, unknown      | again                 |
//! | redirected, or refused by a replica                 | follow, at most 3 hops, within the map; else other | follow; else stop | follow; else stop |
//! | the answer does not decode                          | other | stop, unknown      | stop, unknown         |
//! | the stored entry is damaged                         | other | stop               | stop                  |
//! | the answer is too large                             | again, alone | stop, unknown | stop, unknown       |
//! | position lost                                       | stop, told once | -        | -                     |
//! | refused: condition, rights, limits, no room, malformed, deadline, id used or forgotten | stop | stop | stop |
//!
//! A write of unknown outcome is repeated only under its request id, since the shard then answers the repeat and does
//! not do it again. Without one, a repeat could apply it twice, or undo a later write. And once an attempt of a write
//! may have been applied, no later refusal makes it "not applied": that attempt may still be on its way.
//!
//! Repeats have a budget: a fifth of the ops. Beyond it a repeat waits the longest pause first, so that an outage costs
//! the nodes at most two attempts a second of each op that waits for its end.

use std::time::Duration;

use super::OpKind;
use crate::{
    attempt::{AttemptError, Outcome},
    error::{Advice, ErrorKind, classify},
};

/// Most redirects followed for one op without a pause. Two maps that change at once need two; more is a circle.
pub const MAX_HOPS: u32 = 3;

/// Repeats per thousand ops that need no longer pause.
pub(crate) const SHARE_PERMILLE: u16 = 200;

/// Most such repeats in one burst: all ops under way of a busy client, when a node goes.
pub(crate) const BURST: u32 = 1_000;

/// What to do about a failed attempt of an op of this kind, and the kind of error if it ends here.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn advise(op: OpKind, error: &AttemptError) -> (ErrorKind, Advice) {
    let (kind, advice) = classify(error);
    match (op, error.outcome()) {
        (OpKind::Write, Outcome::Unknown) => (kind, Advice::Stop),
        (OpKind::Write, Outcome::NotApplied)
        | (OpKind::Read | OpKind::RepeatableWrite, Outcome::Unknown | Outcome::NotApplied) => {
            (kind, advice)
        }
    }
}

/// Pauses between attempts: exponential, with full jitter, so that many clients do not come back at once
/// (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    ceiling: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses of up to `first`, then up to twice that, and so on up to `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            ceiling: first.min(longest),
            longest,
        }
    }

    /// The next pause: evenly random between nothing and the ceiling of this round, `at_least` added.
    pub(crate) fn next(&mut self, at_least: Duration, rng: &mut fastrand::Rng) -> Duration {
        let pause = self.ceiling.mul_f64(rng.f64());
        self.ceiling = (self.ceiling * 2).min(self.longest);
        at_least + pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attempt::Refusal,
        error::BUSY,
        wire::error::{Applied, ErrorCode},
    };

    fn refused(code: ErrorCode, applied: Option<Applied>) -> AttemptError {
        AttemptError::Refused(Refusal {
            status: code.status(),
            code,
            message: String::new(),
            applied,
            etag: None,
            position: None,
            target: None,
        })
    }

    #[test]
    fn the_table() {
        use Advice::{NextTarget, OtherTarget, Replan, Stop, Wait};
        let broken = AttemptError::Broken(String::new());
        let away = AttemptError::NotConnected(String::new());
        let garbage = AttemptError::Undecodable(String::new());
        let redirected = AttemptError::Redirected { target: None };
        let unknown = Some(Applied::Unknown);
        let no = Some(Applied::No);
        let busy = Wait(BUSY);
        use ErrorCode as Code;
        for (error, read, write, repeatable) in [
            (away, NextTarget, NextTarget, NextTarget),
            (AttemptError::NotSent, NextTarget, NextTarget, NextTarget),
            (AttemptError::TimedOut, NextTarget, Stop, NextTarget),
            (broken, NextTarget, Stop, NextTarget),
            (refused(Code::Behind, None), NextTarget, Stop, NextTarget),
            (
                refused(Code::NotReady, no),
                NextTarget,
                NextTarget,
                NextTarget,
            ),
            (refused(Code::NotReady, None), NextTarget, Stop, NextTarget),
            (
                refused(Code::StorageFailed, unknown),
                NextTarget,
                Stop,
                NextTarget,
            ),
            (refused(Code::Other, None), NextTarget, Stop, NextTarget),
            (refused(Code::TooManyRequests, no), busy, busy, busy),
            (refused(Code::Overloaded, no), busy, busy, busy),
            (refused(Code::TooFewReplicas, no), busy, busy, busy),
            (redirected, Replan, Replan, Replan),
            (refused(Code::ReadOnlyReplica, None), Replan, Replan, Replan),
            (garbage, OtherTarget, Stop, OtherTarget),
            (refused(Code::Damaged, None), OtherTarget, Stop, OtherTarget),
            (
                refused(Code::Damaged, no),
                OtherTarget,
                OtherTarget,
                OtherTarget,
            ),
            (
                AttemptError::AnswerTooLarge { limit_bytes: 1 },
                OtherTarget,
                Stop,
                OtherTarget,
            ),
            (refused(Code::PositionLost, None), Stop, Stop, Stop),
            (refused(Code::PreconditionFailed, no), Stop, Stop, Stop),
            (refused(Code::Unauthorized, no), Stop, Stop, Stop),
            (refused(Code::TooLarge, no), Stop, Stop, Stop),
            (refused(Code::NoSpace, no), Stop, Stop, Stop),
            (refused(Code::MalformedBatch, no), Stop, Stop, Stop),
            (refused(Code::DeadlineExceeded, no), Stop, Stop, Stop),
            (refused(Code::AckTimeout, unknown), busy, Stop, busy),
            (refused(Code::RequestIdReused, no), Stop, Stop, Stop),
            (refused(Code::RequestIdExpired, unknown), Stop, Stop, Stop),
        ] {
            assert_eq!(advise(OpKind::Read, &error).1, read, "read: {error}");
            assert_eq!(advise(OpKind::Write, &error).1, write, "write: {error}");
            let advice = advise(OpKind::RepeatableWrite, &error).1;
            assert_eq!(advice, repeatable, "write under an id: {error}");
        }
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(40));
        for ceiling_ms in [10, 20, 40, 40] {
            let pause = backoff.next(Duration::ZERO, &mut rng);
            assert!(pause <= Duration::from_millis(ceiling_ms), "{pause:?}");
        }
        let at_least = Duration::from_secs(1);
        assert!(backoff.next(at_least, &mut rng) >= at_least);
    }
}
