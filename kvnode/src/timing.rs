//! Where the time of one op went, for whoever asks: `Kv-Timing: 1` is answered with `Server-Timing`.
//!
//! Each part is written down by whoever does it, on whatever thread; a part that did not take place is left out. While
//! nobody asks there is no such thing, and nobody looks at a clock for it.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A part of an op's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Until its body was there.
    Body,
    /// A write's, until the commit thread took it.
    Queue,
    /// The append to the log with its sync, of the whole group.
    Sync,
    /// The lookup of a read: in memory, then in LMDB.
    Lmdb,
    /// A write's, until replicas had it.
    Replicas,
}

/// Names as they are told, in the order of [`Part`].
const NAMES: [&str; 5] = ["body", "queue", "sync", "lmdb", "replicas"];

/// The times of one op.
#[derive(Debug)]
pub struct Timing {
    began: Instant,
    /// Microseconds and one; 0: did not take place.
    parts: [AtomicU64; NAMES.len()],
}

/// A write that is timed, from when it was queued.
#[derive(Debug)]
pub struct Queued {
    timing: Arc<Timing>,
    at: Instant,
}

impl Timing {
    /// Begins now.
    pub fn begin() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            parts: Default::default(),
        })
    }

    /// How long it has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Writes a part down.
    pub fn took(&self, part: Part, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX - 1);
        self.parts[part as usize].store(us + 1, Ordering::Release);
    }

    /// The value of `Server-Timing`: parts in milliseconds, and the total until now.
    pub fn to_header(&self) -> String {
        let mut text = String::new();
        for (name, part) in NAMES.iter().zip(&self.parts) {
            if let Some(us) = part.load(Ordering::Acquire).checked_sub(1) {
                // Writing to a string does not fail.
                let _ = write!(text, "{name};dur={}, ", millis(Duration::from_micros(us)));
            }
        }
        text + &format!("total;dur={}", millis(self.elapsed()))
    }
}

impl Queued {
    /// It is queued now.
    pub fn now(timing: &Arc<Timing>) -> Self {
        Self {
            timing: Arc::clone(timing),
            at: Instant::now(),
        }
    }

    /// Somebody has begun with it.
    pub fn taken(&self) {
        self.timing.took(Part::Queue, self.at.elapsed());
    }

    /// Its group was synced; `None`: nothing had to be.
    pub fn synced(&self, took: Option<Duration>) {
        if let Some(took) = took {
            self.timing.took(Part::Sync, took);
        }
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_took_place_are_told_in_order() {
        let timing = Timing::begin();
        assert!(timing.to_header().starts_with("total;dur="));
        timing.took(Part::Sync, Duration::from_micros(1_234));
        timing.took(Part::Body, Duration::ZERO);
        let text = timing.to_header();
        assert!(
            text.starts_with("body;dur=0, sync;dur=1.234, total;dur="),
            "{text}"
        );
        timing.took(Part::Sync, Duration::MAX);
        assert!(timing.to_header().contains("sync;dur="));
    }
}
