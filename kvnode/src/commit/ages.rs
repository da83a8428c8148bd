//! Remembered requests of all clients by age: which one is the oldest. Pure.
//!
//! Records come one after the other and requests are forgotten nearly in that order, so it is a queue. One that goes
//! leaves a gap, which goes when it comes to the front. A request that stays while those behind it go would have gaps
//! pile up, so it moves aside, to a tree; there is also what comes out of order, when a reign begins.
//!
//! Invariant: the queue is in order, a request is at its front, and at most about half of it is gaps.

use std::collections::{BTreeMap, VecDeque};

use kvclient::position::Seq;

/// So many gaps are none too many.
const FEW_GAPS: usize = 1_024;

/// A client and an n of it.
type RequestId = (u128, u64);

/// Requests by the seq of their records, each of which made one at most.
#[derive(Debug, Default)]
pub(super) struct Ages {
    queue: VecDeque<Place>,
    gaps: usize,
    aside: BTreeMap<Seq, RequestId>,
}

#[derive(Debug)]
struct Place {
    client: u128,
    n: u64,
    seq: Seq,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Kept,
    Gap,
}

impl Ages {
    /// Adds a request.
    pub(super) fn add(&mut self, seq: Seq, (client, n): RequestId) {
        if self.queue.back().is_some_and(|last| seq <= last.seq) {
            self.aside.insert(seq, (client, n));
            return;
        }
        self.queue.push_back(Place {
            client,
            n,
            seq,
            state: State::Kept,
        });
    }

    /// Removes the request of a record.
    pub(super) fn remove(&mut self, seq: Seq) {
        match self.find(seq).map(|at| &mut self.queue[at].state) {
            Some(state @ State::Kept) => {
                *state = State::Gap;
                self.gaps += 1;
                self.tidy();
            }
            Some(State::Gap) | None => {
                self.aside.remove(&seq);
            }
        }
    }

    /// The one with the oldest record.
    pub(super) fn oldest(&self) -> Option<RequestId> {
        let queued = self.queue.front();
        let queued = queued.map(|place| (place.seq, (place.client, place.n)));
        let aside = self.aside.first_key_value().map(|(seq, id)| (*seq, *id));
        let oldest = queued.into_iter().chain(aside).min_by_key(|(seq, _)| *seq);
        oldest.map(|(_, id)| id)
    }

    fn find(&self, seq: Seq) -> Option<usize> {
        let behind_first = seq.checked_sub(self.queue.front()?.seq)?;
        // Where it is if every record made a request.
        let likely = usize::try_from(behind_first).ok()?;
        match self.queue.get(likely) {
            Some(place) if place.seq == seq => Some(likely),
            _ => self
                .queue
                .binary_search_by_key(&seq, |place| place.seq)
                .ok(),
        }
    }

    /// Restores the invariant.
    fn tidy(&mut self) {
        while let Some(front) = self.queue.front() {
            match front.state {
                State::Kept if 2 * self.gaps <= self.queue.len() + FEW_GAPS => break,
                State::Kept => {
                    self.aside.insert(front.seq, (front.client, front.n));
                }
                State::Gap => self.gaps -= 1,
            }
            self.queue.pop_front();
        }
        let capacity = self.queue.capacity();
        if self.queue.len() < capacity / 4 && capacity > FEW_GAPS {
            self.queue.shrink_to(capacity / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Ages {
        /// How many there are.
        pub(in super::super) fn len(&self) -> usize {
            self.queue.len() - self.gaps + self.aside.len()
        }
    }

    #[test]
    fn one_that_stays_does_not_hold_those_behind_it() {
        let mut ages = Ages::default();
        for seq in 1..=100_000 {
            ages.add(seq, (1, seq));
            if seq > 10 {
                ages.remove(seq - 9);
            }
        }
        assert_eq!((ages.len(), ages.oldest()), (10, Some((1, 1))));
        assert!(ages.queue.len() <= 2 * FEW_GAPS);
        assert!(ages.queue.capacity() <= 8 * FEW_GAPS);
    }

    proptest! {
        /// Against an ordered map, whatever the order in which they come and go.
        #[test]
        fn the_oldest_is_the_oldest(
            changes in prop::collection::vec((any::<bool>(), 1..5_000_u64), 1..3_000),
        ) {
            let (mut ages, mut all) = (Ages::default(), BTreeMap::new());
            for (at, (adds, seq)) in (0_u64..).zip(changes) {
                // Most come in order and go from the front.
                let seq = if at % 4 > 0 { 5_000 + at } else { seq };
                if adds {
                    all.entry(seq).or_insert_with(|| {
                        ages.add(seq, (7, seq));
                        (7, seq)
                    });
                } else {
                    let gone = all.range(seq % 300..).next().map_or(seq, |(seq, _)| *seq);
                    ages.remove(gone);
                    all.remove(&gone);
                }
                prop_assert_eq!(ages.oldest(), all.values().next().copied());
                prop_assert_eq!(ages.len(), all.len());
                prop_assert!(2 * ages.gaps <= ages.queue.len() + FEW_GAPS);
            }
        }
    }
}
