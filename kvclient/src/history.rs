//! What became of each attempt of an op: which node, why that one, how long, how it ended.
//!
//! Written by `execute` for clients that ask for it, see `Client::with_history`; read by people who wonder why a
//! request went where it went.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{key::Key, shard_map::Address};

/// Attempts kept; later ones are only counted. What a person reads, and no leak if a history is left on.
const MOST_ATTEMPTS: usize = 1_000;

/// The attempts of the ops of one client, in the order in which they ended. Clones share it.
///
/// ```no_run
/// # async fn why(kv: kvclient::Client) -> kvclient::Result<()> {
/// let history = kvclient::CallHistory::new();
/// kv.with_history(&history).get("user:1").await?;
/// println!("{history}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct CallHistory {
    /// Std lock: never held over an await.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    attempts: Vec<Attempt>,
    /// Attempts that found no place.
    dropped: u64,
    began: Option<Instant>,
}

/// One attempt.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::time::Duration;
/// use kvclient::CallHistory;
///
/// let history = CallHistory::new();
/// kv.with_history(&history).get("user:1").await?;
/// if let Some(slowest) = history.attempts().iter().max_by_key(|attempt| attempt.took) {
///     println!("{} of {} took {:?}: {}", slowest.op, slowest.node, slowest.took, slowest.end);
/// }
/// let paused: Duration = history.attempts().iter().map(|attempt| attempt.paused).sum();
/// println!("and {paused:?} went by in pauses");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The op: `get`, `put`, ...
    pub op: &'static str,
    /// Its key; of an atomic batch the first.
    pub key: Key,
    /// Name of the shard that was asked.
    pub shard: String,
    /// The node that was asked.
    pub node: Address,
    /// Why it was asked.
    pub why: Why,
    /// When it left, counted from the first attempt in this history.
    pub after: Duration,
    /// How long the op paused before it.
    pub paused: Duration,
    /// How long it took, the wait in this client's queue included.
    pub took: Duration,
    /// What it came to, for a person: `200`, or what went wrong.
    pub end: String,
}

/// Why a node was asked.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use kvclient::{CallHistory, Why};
///
/// let history = CallHistory::new();
/// kv.with_history(&history).get_many(["user:1", "user:2"]).await?;
/// let attempts = history.attempts();
/// let hedges = attempts.iter().filter(|attempt| attempt.why == Why::Hedge).count();
/// println!("{} attempts, {hedges} of them since another one took long", attempts.len());
/// history.clear(); // for the next ops
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The first choice of the plan: the primary for a write, what the policy chose for a read.
    Chosen,
    /// The same; the node was ejected before, and this op finds out whether it is back.
    Probe,
    /// The node before it brought no answer that could be used.
    NextNode,
    /// All nodes were asked; after a pause the plan began anew.
    AfterPause,
    /// Another node said so.
    Redirected,
    /// A copy of a read that took long elsewhere.
    Hedge,
    /// Again, alone: the answer was too large to come with others.
    Alone,
    /// Again, without the position of the session that is lost.
    PositionForgotten,
}

impl CallHistory {
    /// A history with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The attempts so far, at most the first 1,000.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().attempts.clone()
    }

    /// Forgets all.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// Adds an attempt that left at `began`.
    pub(crate) fn push(&self, began: Instant, attempt: impl FnOnce(Duration) -> Attempt) {
        let mut state = self.lock();
        let first = *state.began.get_or_insert(began);
        // They are added as they end: of two copies of a read, the second may come first.
        if began < first {
            let earlier = first - began;
            state.began = Some(began);
            let known = state.attempts.iter_mut();
            known.for_each(|attempt| attempt.after += earlier);
        }
        match state.attempts.len() < MOST_ATTEMPTS {
            true => state.attempts.push(attempt(began - first)),
            false => state.dropped += 1,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line for each attempt.
impl fmt::Display for CallHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        for (number, attempt) in state.attempts.iter().enumerate() {
            let newline = if number == 0 { "" } else { "\n" };
            write!(f, "{newline}{attempt}")?;
        }
        match state.dropped {
            0 => Ok(()),
            dropped => write!(f, "\nand {dropped} more attempts"),
        }
    }
}

impl fmt::Debug for CallHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.lock().attempts).finish()
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "+{:.1?} {} \"{}\" -> {} ({}), {}: {} in {:.1?}",
            self.after, self.op, self.key, self.node, self.shard, self.why, self.end, self.took
        )?;
        match self.paused {
            Duration::ZERO => Ok(()),
            paused => write!(f, ", after a pause of {paused:.1?}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chosen => "chosen",
            Self::Probe => "probe of an ejected node",
            Self::NextNode => "next node",
            Self::AfterPause => "again after a pause",
            Self::Redirected => "redirected",
            Self::Hedge => "hedge",
            Self::Alone => "again, alone",
            Self::PositionForgotten => "again, position forgotten",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(after: Duration) -> Attempt {
        Attempt {
            op: "get",
            key: Key::new("user:1").expect("short"),
            shard: "shard1".into(),
            node: "h:1".parse().expect("address"),
            why: Why::NextNode,
            after,
            paused: Duration::from_millis(20),
            took: Duration::from_millis(3),
            end: "200".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_reads_well() {
        let history = CallHistory::new();
        assert_eq!(history.to_string(), "");
        let began = Instant::now();
        history.push(began, attempt);
        history
            .clone()
            .push(began + Duration::from_millis(2), attempt);
        assert_eq!(
            history.to_string(),
            "+0.0ns get \"user:1\" -> h:1 (shard1), next node: 200 in 3.0ms, after a pause of 20.0ms\n\
             +2.0ms get \"user:1\" -> h:1 (shard1), next node: 200 in 3.0ms, after a pause of 20.0ms"
        );
        history.clear();
        assert_eq!(history.attempts(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn all_is_counted_from_the_attempt_that_left_first() {
        let history = CallHistory::new();
        let began = Instant::now();
        for ms in [5, 0, 7] {
            history.push(began + Duration::from_millis(ms), attempt);
        }
        let attempts = history.attempts();
        let after: Vec<u128> = attempts.iter().map(|one| one.after.as_millis()).collect();
        assert_eq!(after, [5, 0, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_that_is_left_on_does_not_grow_without_end() {
        let history = CallHistory::new();
        for _ in 0..MOST_ATTEMPTS + 7 {
            history.push(Instant::now(), attempt);
        }
        assert_eq!(history.attempts().len(), MOST_ATTEMPTS);
        assert!(history.to_string().ends_with("\nand 7 more attempts"));
    }
}
