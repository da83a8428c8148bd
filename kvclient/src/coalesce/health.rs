//! What the last exchanges with a node say about it: whether reads should rather go elsewhere for a while.
//!
//! A node that is gone without a word costs whoever asks it a whole attempt, each time. So a failure to connect and
//! a time-out make it a suspect for [`SUSPECT_FOR`]: reads prefer other nodes, though it stays the last resort. When
//! that time is over, the first op that goes there is a probe: it makes the node a suspect for as long again, for
//! all but itself, and any answer clears it. Each client pays for a silent node once per [`SUSPECT_FOR`].
//!
//! A preference and no verdict: an op with little time that gives up too soon makes a suspect of a healthy node, and
//! the next answer clears it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::attempt::AttemptError;

/// How long a silent node is left alone: more than twice an attempt (2 s), so that a probe has ended before the next
/// one; short enough that a node that is back has its share of the reads soon.
const SUSPECT_FOR: Duration = Duration::from_secs(5);

/// Whether a node has failed lately.
#[derive(Debug)]
pub(crate) struct Health {
    began: Instant,
    /// Milliseconds after `began`; 0: nothing is held against it.
    suspect_until_ms: AtomicU64,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            suspect_until_ms: AtomicU64::new(0),
        }
    }

    /// Whether another node should be preferred.
    pub(crate) fn is_suspect(&self) -> bool {
        match self.suspect_until_ms.load(Ordering::Relaxed) {
            0 => false,
            until_ms => self.now_ms() < until_ms,
        }
    }

    /// Notes that an op goes there: the probe, if the node's time as a suspect is over and it has not answered since.
    pub(crate) fn choose(&self) {
        if self.suspect_until_ms.load(Ordering::Relaxed) != 0 && !self.is_suspect() {
            self.suspect();
        }
    }

    /// Notes what came of an attempt.
    pub(crate) fn note<T>(&self, answer: &Result<T, AttemptError>) {
        match answer {
            Err(AttemptError::NotConnected(_) | AttemptError::TimedOut) => self.suspect(),
            // Neither tells whether the node would answer now.
            Err(AttemptError::NotSent | AttemptError::Broken(_)) => {}
            // Any answer, a refusal too. Hardly ever written: the node's line stays in every core's cache.
            Ok(_) | Err(_) => {
                if self.suspect_until_ms.load(Ordering::Relaxed) != 0 {
                    self.suspect_until_ms.store(0, Ordering::Relaxed);
                }
            }
        }
    }

    fn suspect(&self) {
        let until = self.began.elapsed() + SUSPECT_FOR;
        let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.suspect_until_ms.store(until_ms, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Result<(), AttemptError> = Err(AttemptError::TimedOut);

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_is_probed_now_and_then() {
        let health = Health::new();
        assert!(!health.is_suspect());
        health.note(&SILENT);
        for _ in 0..3 {
            assert!(health.is_suspect());
            tokio::time::advance(SUSPECT_FOR).await;
            assert!(!health.is_suspect(), "one may try");
            health.choose();
        }
        assert!(health.is_suspect(), "and the others wait for what it finds");
        health.note(&Ok(()));
        assert!(!health.is_suspect());
        health.choose();
        assert!(!health.is_suspect());
    }

    #[tokio::test(start_paused = true)]
    async fn only_silence_makes_a_suspect() {
        for (error, is_suspect) in [
            (AttemptError::NotConnected(String::new()), true),
            (AttemptError::TimedOut, true),
            (AttemptError::NotSent, false),
            (AttemptError::Broken(String::new()), false),
            (AttemptError::Redirected { target: None }, false),
        ] {
            let health = Health::new();
            let text = error.to_string();
            health.note(&Err::<(), _>(error));
            assert_eq!(health.is_suspect(), is_suspect, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_sent_clears_nobody() {
        let health = Health::new();
        health.note(&SILENT);
        health.note(&Err::<(), _>(AttemptError::NotSent));
        assert!(health.is_suspect());
    }
}
