//! Reads of LMDB that last, and for how long they have.
//!
//! While one does, pages freed meanwhile are not used again, so the file grows by all that is overwritten, and it
//! never shrinks. Short reads end before their thread waits for anything and are not counted.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

/// When each read that still lasts began.
#[derive(Debug, Default)]
pub(super) struct LongReads(Mutex<Vec<Weak<Instant>>>);

impl LongReads {
    /// One begins; it lasts for as long as what is returned.
    pub(super) fn begin(&self) -> Arc<Instant> {
        let began = Arc::new(Instant::now());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&began));
        began
    }

    /// How long the oldest has lasted; zero if there is none.
    pub(super) fn oldest(&self) -> Duration {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ages = all
            .iter()
            .filter_map(Weak::upgrade)
            .map(|began| began.elapsed());
        ages.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_lasts_counts() {
        let reads = LongReads::default();
        assert_eq!(reads.oldest(), Duration::ZERO);
        let first = reads.begin();
        let _second = reads.begin();
        let at_least = first.elapsed().saturating_sub(Duration::from_millis(1));
        assert!(reads.oldest() >= at_least);
        let before = reads.oldest();
        drop(first);
        assert!(reads.oldest() > Duration::ZERO);
        assert!(before > Duration::ZERO);
    }
}
