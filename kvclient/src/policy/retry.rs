//! Whether a failed op is tried again, and how long to wait before that.
//!
//! The one table. "Next" is another node that may answer, at once; when all were asked, a pause, then all again.
//! "Again" is the same after a pause. Everything ends with the op's deadline.
//!
//! | The attempt                                        | read   | write              |
//! |----------------------------------------------------|--------|--------------------|
//! | never left: no connection, no turn in the queue    | next   | again              |
//! | broke or timed out after it may have been sent     | next   | stop, unknown      |
//! | refused: behind, not ready, diverged, failing, 5xx | next   | again, if the node says "not applied"; else stop, unknown |
//! | refused: too busy, too few replicas                | again  | the same           |
//! | redirected, or refused by a replica                | follow, at most 3 hops, within the map | the same |
//! | answer too large                                   | again, alone | stop, unknown |
//! | position lost                                      | stop, told once | -         |
//! | refused: condition, rights, limits, no room, malformed, deadline | stop | stop |
//!
//! A write of unknown outcome is never repeated here: without an identity that the shard remembers, a repeat
//! could apply it twice, or undo a later write.

use std::time::Duration;

use super::OpKind;
use crate::{
    attempt::{AttemptError, Outcome},
    error::{Advice, ErrorKind, classify},
};

/// Most redirects followed for one op. Two maps that change at once need two; more is a circle.
pub const MAX_HOPS: u32 = 3;

/// What to do about a failed attempt of an op of this kind, and the kind of error if it ends here.
pub(crate) fn advise(op: OpKind, error: &AttemptError) -> (ErrorKind, Advice) {
    let (kind, advice) = classify(error);
    match op {
        OpKind::Write if error.outcome() == Outcome::Unknown => (kind, Advice::Stop),
        OpKind::Read | OpKind::Write => (kind, advice),
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
        use Advice::{NextTarget, Replan, Stop};
        let broken = AttemptError::Broken(String::new());
        let away = AttemptError::NotConnected(String::new());
        let redirected = AttemptError::Redirected { target: None };
        for (error, read, write) in [
            (away, NextTarget, NextTarget),
            (AttemptError::NotSent, NextTarget, NextTarget),
            (AttemptError::TimedOut, NextTarget, Stop),
            (broken, NextTarget, Stop),
            (redirected, Replan, Replan),
            (
                refused(ErrorCode::NotReady, Some(Applied::No)),
                NextTarget,
                NextTarget,
            ),
            (refused(ErrorCode::NotReady, None), NextTarget, Stop),
            (
                refused(ErrorCode::StorageFailed, Some(Applied::Unknown)),
                NextTarget,
                Stop,
            ),
            (refused(ErrorCode::ReadOnlyReplica, None), Replan, Replan),
            (
                refused(ErrorCode::PreconditionFailed, Some(Applied::No)),
                Stop,
                Stop,
            ),
            (
                refused(ErrorCode::AckTimeout, Some(Applied::Unknown)),
                Stop,
                Stop,
            ),
            (
                AttemptError::AnswerTooLarge { limit_bytes: 1 },
                NextTarget,
                Stop,
            ),
        ] {
            assert_eq!(advise(OpKind::Read, &error).1, read, "read: {error}");
            assert_eq!(advise(OpKind::Write, &error).1, write, "write: {error}");
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
