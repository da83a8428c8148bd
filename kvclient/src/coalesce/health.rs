//! Whether a node is worth asking: ejected while it fails, probed now and then, asked again once it answers.
//!
//! ```text
//! sound     --- no connection, or no answer in an attempt's whole time -----------------> ejected
//!           --- [`STRIKES`] other failures in a row (broken, 5xx, garbage, outrun) -----> ejected
//!               after each of them others are preferred for a moment
//! ejected   --- its time is over: one op goes there, the probe -------------------------> half open
//! half open --- any answer -> sound;  a failure -> ejected, twice as long as before (up to 8 s)
//! ```
//!
//! A node that is gone without a word costs whoever asks it a whole attempt. So reads prefer other nodes while it is
//! ejected, though it stays the last resort; and of all ops of a client only one at a time finds out whether it is
//! back. An ejected primary still gets what only it can do.
//!
//! Apart from that, a replica that said it does not hold what a read wants is left alone by such reads for
//! [`BEHIND_FOR`]: it needs that time rather than more questions.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    attempt::AttemptError,
    error::{Advice, ErrorKind, classify},
    wire::error::ErrorCode,
};

/// Failures in a row, other than silence, that eject a node. A restarting node breaks a connection or two and is back.
const STRIKES: u32 = 3;

/// Failures closer to each other than this count once: all ops of a batch fail together.
const STRIKE_APART: Duration = Duration::from_millis(10);

/// How long others are preferred after a strike. Some strikes' distance: a node that hangs is asked for proof now and
/// then, and not by every op in the meantime.
const SHAKY_FOR: Duration = Duration::from_millis(20);

/// A time-out after less than this is a sign of an impatient caller rather than of a silent node: it is one strike.
const PATIENT: Duration = Duration::from_millis(100);

/// First and longest time for which a node is ejected. A second is what a restart takes; after eight, a node that is
/// back has its share of the reads soon enough.
const EJECT_FIRST: Duration = Duration::from_secs(1);
const EJECT_LONGEST: Duration = Duration::from_secs(8);

/// How long the probe may take before the next op may be one.
const PROBE: Duration = Duration::from_secs(1);

/// How long a replica is left alone by reads that it was behind for. Some round trips of a replica's pull.
const BEHIND_FOR: Duration = Duration::from_millis(25);

/// How a node has done lately. Every field is written only when something changes: the line stays in every core's
/// cache while all is well.
#[derive(Debug)]
pub(crate) struct Health {
    began: Instant,
    /// Milliseconds after `began`; 0: it is sound.
    ejected_until_ms: AtomicU64,
    /// Ejections since it last answered.
    level: AtomicU32,
    strikes: AtomicU32,
    last_strike_ms: AtomicU64,
    behind_until_ms: AtomicU64,
    ejections: AtomicU64,
}

/// Why an op goes to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// It is sound, or there is no better one.
    Usual,
    /// To see whether it is back.
    Probe,
}

/// What an attempt says about its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It answers, be it with a refusal.
    Answers,
    /// It said nothing for this long.
    Silent(Duration),
    /// It could not be connected to.
    Gone,
    /// It broke off, answered nonsense, or said that it cannot serve.
    Fails,
    /// Another node answered a copy of the read sooner.
    Outrun,
    /// Its caller went away after this long.
    Dropped(Duration),
    /// It answers, and does not hold yet what was wanted.
    Behind,
    /// Nothing: the op never left.
    Nothing,
}

impl Finding {
    /// What a judged attempt that took this long says.
    pub(crate) fn of<T>(answer: &Result<T, AttemptError>, took: Duration) -> Self {
        let Err(error) = answer else {
            return Self::Answers;
        };
        match error {
            AttemptError::NotSent => Self::Nothing,
            AttemptError::NotConnected(_) => Self::Gone,
            AttemptError::TimedOut => Self::Silent(took),
            AttemptError::Broken(_) | AttemptError::Undecodable(_) => Self::Fails,
            AttemptError::Redirected { .. }
            | AttemptError::OtherShard { .. }
            | AttemptError::AnswerTooLarge { .. } => Self::Answers,
            AttemptError::Refused(refusal) if refusal.code == ErrorCode::Behind => Self::Behind,
            AttemptError::Refused(_) => match classify(error) {
                (ErrorKind::Unavailable, Advice::NextTarget) => Self::Fails,
                _ => Self::Answers,
            },
        }
    }
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            ejected_until_ms: AtomicU64::new(0),
            level: AtomicU32::new(0),
            strikes: AtomicU32::new(0),
            last_strike_ms: AtomicU64::new(0),
            behind_until_ms: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
        }
    }

    /// Whether another node should be preferred. Not once its probe is due.
    pub(crate) fn is_ejected(&self) -> bool {
        self.is_before(&self.ejected_until_ms)
    }

    /// Whether reads that want it level should rather go elsewhere.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_before(&self.behind_until_ms)
    }

    /// Whether it has failed a moment ago, and not answered since: others are asked until that is clearer.
    pub(crate) fn is_shaky(&self) -> bool {
        self.strikes.load(Relaxed) != 0
            && self.now_ms() < self.last_strike_ms.load(Relaxed) + millis(SHAKY_FOR)
    }

    /// Times it was ejected.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// Notes that an op goes there. Of all that do when the probe is due, one is the probe.
    pub(crate) fn choose(&self) -> Chosen {
        let until = self.ejected_until_ms.load(Relaxed);
        if until == 0 || self.now_ms() < until {
            return Chosen::Usual;
        }
        let next = self.now_ms() + millis(PROBE);
        let claimed = self
            .ejected_until_ms
            .compare_exchange(until, next, Relaxed, Relaxed);
        match claimed {
            Ok(_) => Chosen::Probe,
            Err(_) => Chosen::Usual,
        }
    }

    /// Takes note of what an attempt says.
    pub(crate) fn note(&self, finding: Finding, chosen: Chosen) {
        match finding {
            Finding::Answers => self.clear(),
            Finding::Behind => {
                self.clear();
                let until = self.now_ms() + millis(BEHIND_FOR);
                self.behind_until_ms.store(until, Relaxed);
            }
            Finding::Nothing => {}
            Finding::Dropped(waited) if waited < PATIENT => {}
            Finding::Dropped(_) => self.strike(chosen),
            Finding::Silent(waited) if waited < PATIENT => self.strike(chosen),
            Finding::Silent(_) | Finding::Gone => self.eject(chosen),
            Finding::Fails | Finding::Outrun => self.strike(chosen),
        }
    }

    fn clear(&self) {
        for field in [&self.strikes, &self.level] {
            if field.load(Relaxed) != 0 {
                field.store(0, Relaxed);
            }
        }
        if self.ejected_until_ms.load(Relaxed) != 0 {
            self.ejected_until_ms.store(0, Relaxed);
        }
    }

    fn strike(&self, chosen: Chosen) {
        if chosen == Chosen::Probe {
            return self.eject(chosen);
        }
        // From 1, so that the first one counts however early it comes.
        let now = self.now_ms() + 1;
        let last = self.last_strike_ms.load(Relaxed);
        if last != 0 && now < last + millis(STRIKE_APART) && self.strikes.load(Relaxed) != 0 {
            return;
        }
        self.last_strike_ms.store(now, Relaxed);
        if self.strikes.fetch_add(1, Relaxed) + 1 >= STRIKES {
            self.eject(chosen);
        }
    }

    /// Only the probe says something new about a node that is ejected: the others were under way before.
    fn eject(&self, chosen: Chosen) {
        if chosen == Chosen::Usual && self.is_ejected() {
            return;
        }
        let level = self.level.fetch_add(1, Relaxed).min(8);
        self.strikes.store(0, Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        let pause = (EJECT_FIRST * (1 << level)).min(EJECT_LONGEST);
        // Jitter, so that not all clients probe at once.
        let pause = pause.mul_f64(1.0 - fastrand::f64() / 4.0);
        let until = self.now_ms() + millis(pause);
        self.ejected_until_ms.store(until, Relaxed);
    }

    fn is_before(&self, until_ms: &AtomicU64) -> bool {
        match until_ms.load(Relaxed) {
            0 => false,
            until_ms => self.now_ms() < until_ms,
        }
    }

    fn now_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Scheme;

    const SILENT: Finding = Finding::Silent(Duration::from_millis(500));

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_is_probed_by_one_op_at_a_time_and_ever_more_seldom() {
        let health = Health::new();
        assert!(!health.is_ejected());
        health.note(SILENT, Chosen::Usual);
        for seconds in [1, 2, 4, 8, 8] {
            assert!(health.is_ejected());
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert!(!health.is_ejected(), "after {seconds} s one may try");
            assert_eq!(health.choose(), Chosen::Probe);
            assert!(health.is_ejected(), "and the others wait for what it finds");
            assert_eq!(health.choose(), Chosen::Usual);
            health.note(SILENT, Chosen::Usual);
            health.note(SILENT, Chosen::Probe);
        }
        assert_eq!(health.ejections(), 6);
        health.note(Finding::Answers, Chosen::Usual);
        assert!(!health.is_ejected());
        assert_eq!(health.choose(), Chosen::Usual);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_makes_room_for_the_next() {
        let health = Health::new();
        health.note(Finding::Gone, Chosen::Usual);
        tokio::time::advance(EJECT_FIRST).await;
        assert_eq!(health.choose(), Chosen::Probe);
        tokio::time::advance(PROBE).await;
        assert_eq!(health.choose(), Chosen::Probe);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_eject_in_a_row_and_not_in_a_heap() {
        for finding in [
            Finding::Fails,
            Finding::Outrun,
            Finding::Silent(Duration::from_millis(5)),
        ] {
            let health = Health::new();
            for _ in 0..100 {
                health.note(finding, Chosen::Usual);
            }
            assert!(!health.is_ejected(), "{finding:?}: one batch");
            for _ in 1..STRIKES {
                assert!(!health.is_ejected());
                tokio::time::advance(STRIKE_APART).await;
                health.note(finding, Chosen::Usual);
            }
            assert!(health.is_ejected(), "{finding:?}: one after the other");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_between_failures_forgives_them() {
        let health = Health::new();
        for _ in 0..20 {
            tokio::time::advance(STRIKE_APART).await;
            health.note(Finding::Fails, Chosen::Usual);
            health.note(Finding::Answers, Chosen::Usual);
        }
        assert!(!health.is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_behind_gets_a_moment() {
        let health = Health::new();
        assert!(!health.is_behind());
        health.note(Finding::Behind, Chosen::Usual);
        assert!(health.is_behind() && !health.is_ejected());
        tokio::time::advance(BEHIND_FOR).await;
        assert!(!health.is_behind());
    }

    #[test]
    fn findings() {
        let took = Duration::from_secs(1);
        let of = |error| Finding::of(&Err::<(), _>(error), took);
        let refused = |status: u16, code: &str| {
            let body = format!(r#"{{"error":"{code}","message":"m"}}"#);
            of(AttemptError::from_http(
                Scheme::Http,
                status,
                body.as_bytes(),
                |_| None,
            ))
        };
        assert_eq!(Finding::of(&Ok(()), took), Finding::Answers);
        assert_eq!(of(AttemptError::NotSent), Finding::Nothing);
        assert_eq!(of(AttemptError::TimedOut), Finding::Silent(took));
        assert_eq!(of(AttemptError::NotConnected(String::new())), Finding::Gone);
        assert_eq!(of(AttemptError::Broken(String::new())), Finding::Fails);
        assert_eq!(of(AttemptError::Undecodable(String::new())), Finding::Fails);
        let redirected = AttemptError::Redirected { target: None };
        assert_eq!(of(redirected), Finding::Answers);
        assert_eq!(refused(503, "not_ready"), Finding::Fails);
        assert_eq!(refused(500, "nonsense"), Finding::Fails);
        assert_eq!(refused(503, "behind"), Finding::Behind);
        assert_eq!(refused(503, "overloaded"), Finding::Answers);
        assert_eq!(refused(412, "precondition_failed"), Finding::Answers);
    }
}
