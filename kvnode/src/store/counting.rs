//! Counts and sums at a seq that somebody names: how two nodes are compared without reading an entry.
//!
//! LMDB's counts are those of the last flush, and primary and replica flush where their memory is full. So whoever
//! compares names a seq to all of them, and each freezes its memtable at the end of the first frame that reaches it: the
//! log is the same on all of them, so that is the same state. A seq that readers see already and that is not the last one
//! is too late; the few newest answers are kept for those who ask again.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use kvclient::position::{Position, Seq};

use super::{meta::Meta, sums::Sums};

/// Seqs waited for at once, and answers kept: a few people who compare at the same time.
const MOST: usize = 8;

/// What is contained at a position.
#[derive(Debug, Clone)]
pub struct Count {
    /// The seq that was asked for.
    asked: Seq,
    meta: Arc<Meta>,
}

/// What there is to say about a seq now.
#[derive(Debug, Clone)]
pub enum CountAt {
    /// This was contained at the end of the first frame that reached it.
    Counted(Count),
    /// Not reached, or not in LMDB yet: ask again after the next flush.
    Waiting,
    /// Readers see this already, and what was contained before is not known.
    Passed(Position),
}

impl Count {
    pub(super) fn new(asked: Seq, meta: &Arc<Meta>) -> Self {
        let meta = Arc::clone(meta);
        Self { asked, meta }
    }

    /// The position.
    pub fn position(&self) -> Position {
        self.meta.applied.position
    }

    /// The 64 counts and sums there.
    pub fn sums(&self) -> &Sums {
        &self.meta.sums
    }
}

/// Seqs that were asked for, and what came of the last ones.
#[derive(Default)]
pub(super) struct Counting {
    wanted: BTreeSet<Seq>,
    /// Those that a frozen memtable has reached: they wait for its flush.
    reached: BTreeSet<Seq>,
    counted: VecDeque<Count>,
}

impl Counting {
    /// Whether the state at the end of a frame that ends at `end` is wanted.
    pub(super) fn wants(&self, end: Seq) -> bool {
        self.wanted.first().is_some_and(|first| *first <= end)
    }

    /// The memtable is frozen at `end`: frames behind it are not wanted for the seqs that it has reached.
    pub(super) fn frozen(&mut self, end: Seq) {
        let later = self.wanted.split_off(&(end + 1));
        let reached = std::mem::replace(&mut self.wanted, later);
        self.reached.extend(reached);
    }

    /// Whether a memtable was frozen for somebody and is not flushed yet.
    pub(super) fn is_busy(&self) -> bool {
        !self.reached.is_empty()
    }

    /// LMDB contains this now.
    pub(super) fn flushed(&mut self, meta: &Arc<Meta>) {
        let end = meta.applied.position.seq;
        let later = self.wanted.split_off(&(end + 1));
        let still_waiting = self.reached.split_off(&(end + 1));
        let mut flushed = std::mem::replace(&mut self.wanted, later);
        flushed.extend(std::mem::replace(&mut self.reached, still_waiting));
        for asked in flushed {
            if self.counted.len() == MOST {
                self.counted.pop_front();
            }
            self.counted.push_back(Count::new(asked, meta));
        }
    }

    /// What is known of a seq already.
    pub(super) fn known(&self, seq: Seq) -> Option<CountAt> {
        let counted = self.counted.iter().find(|count| count.asked == seq);
        match counted {
            Some(count) => Some(CountAt::Counted(count.clone())),
            None => {
                let is_awaited = self.wanted.contains(&seq) || self.reached.contains(&seq);
                is_awaited.then_some(CountAt::Waiting)
            }
        }
    }

    /// Waits for a seq. Of too many the one furthest away is given up.
    pub(super) fn want(&mut self, seq: Seq) {
        self.wanted.insert(seq);
        if self.wanted.len() > MOST {
            self.wanted.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use kvclient::wire::log::Link;

    use super::*;

    fn meta(seq: Seq) -> Arc<Meta> {
        let position = Position::new(1, seq);
        let applied = Link { position, crc: 0 };
        Arc::new(Meta {
            applied,
            ..Meta::default()
        })
    }

    fn counted(counting: &Counting, seq: Seq) -> Option<Seq> {
        match counting.known(seq) {
            Some(CountAt::Counted(count)) => Some(count.position().seq),
            _ => None,
        }
    }

    #[test]
    fn the_first_frame_end_at_or_behind_a_seq_answers_for_it() {
        let mut counting = Counting::default();
        assert!(!counting.wants(100));
        counting.want(5);
        counting.want(9);
        assert!(!counting.wants(4) && counting.wants(5) && counting.wants(7));
        counting.flushed(&meta(4));
        assert!(matches!(counting.known(5), Some(CountAt::Waiting)));
        counting.flushed(&meta(7));
        assert_eq!(counted(&counting, 5), Some(7));
        assert_eq!(counted(&counting, 9), None);
        assert!(!counting.wants(8) && counting.wants(9));
    }

    /// Each frame behind a seq that somebody had asked for froze a memtable, until the first of them was flushed.
    #[test]
    fn frames_behind_a_frozen_memtable_are_not_wanted() {
        let mut counting = Counting::default();
        counting.want(5);
        counting.want(9);
        assert!(!counting.is_busy() && counting.wants(6));
        counting.frozen(6);
        assert!(counting.is_busy() && !counting.wants(8) && counting.wants(9));
        assert!(matches!(counting.known(5), Some(CountAt::Waiting)));
        counting.flushed(&meta(6));
        assert_eq!(counted(&counting, 5), Some(6));
        assert!(!counting.is_busy() && counting.wants(9));
    }

    /// Eight seqs that would never come gave up every other one at once.
    #[test]
    fn who_waits_for_what_is_far_away_gives_way() {
        let mut counting = Counting::default();
        for seq in 1_000..1_020 {
            counting.want(seq);
        }
        counting.want(5);
        assert!(counting.wants(5));
    }

    #[test]
    fn little_is_kept() {
        let mut counting = Counting::default();
        for seq in 1..=20 {
            counting.want(seq);
        }
        assert_eq!(counting.wanted.len(), MOST);
        assert!(counting.known(9).is_none() && counting.known(8).is_some());
        counting.flushed(&meta(20));
        for seq in 21..=25 {
            counting.want(seq);
            counting.flushed(&meta(seq));
        }
        assert_eq!(counting.counted.len(), MOST);
        assert_eq!(counted(&counting, 25), Some(25));
        assert_eq!(counted(&counting, 17), None);
    }
}
