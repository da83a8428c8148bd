//! The keys: how they are named, which come next, and which have been added.
//!
//! Key number n is `bench:` and 16 hex digits that are scattered, so that neighbours by number are none by name: as in
//! YCSB, whose inserts are "hashed". Zipfian draws ranks of 1e10 items and scatters them over the keys, as YCSB's
//! `ScrambledZipfianGenerator` does: the hottest key gets 3.8 % of all ops, however many keys there are. Zipfian and
//! uniform draw from the keys that were there at the start; latest also from those that were added, the newest first.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use fastrand::Rng;

use super::{workload::Distribution, zipf::Zipfian};

/// What all keys begin with; there is no option for it, since all of them are removed by `--clean-up`.
pub(crate) const PREFIX: &str = "bench:";

/// Ranks that are scattered over the keys: as many as YCSB's.
const SCATTERED_RANKS: u64 = 10_000_000_000;

/// The name of a key.
pub(crate) fn key(number: u64) -> String {
    format!("{PREFIX}{:016x}", scattered(number))
}

/// One number for each number, in no order: the end of splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
fn scattered(number: u64) -> u64 {
    let x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Draws numbers of keys; one for each task.
#[derive(Debug, Clone)]
pub(crate) struct Chooser {
    distribution: Distribution,
    loaded: u64,
    ranks: Zipfian,
}

impl Chooser {
    /// Over so many keys that are there at the start, at least 1.
    pub(crate) fn new(distribution: Distribution, loaded: u64) -> Self {
        let ranks = match distribution {
            Distribution::Latest => loaded,
            Distribution::Zipfian | Distribution::Uniform => SCATTERED_RANKS,
        };
        Self {
            distribution,
            loaded,
            ranks: Zipfian::new(ranks),
        }
    }

    /// The next one, while so many keys are there.
    pub(crate) fn choose(&mut self, there: u64, rng: &mut Rng) -> u64 {
        match self.distribution {
            Distribution::Uniform => rng.u64(..self.loaded),
            Distribution::Zipfian => scattered(self.ranks.draw(rng)) % self.loaded,
            Distribution::Latest => {
                self.ranks.grow(there);
                // Another task may have seen more keys; this one's ranks never shrink.
                (there - 1).saturating_sub(self.ranks.draw(rng))
            }
        }
    }
}

/// How many keys there are while tasks add some.
#[derive(Debug)]
pub(crate) struct Added {
    next: AtomicU64,
    there: AtomicU64,
    /// Numbers that are settled while a smaller one is not. Std mutex: never held over an await.
    ahead: Mutex<BTreeSet<u64>>,
}

impl Added {
    pub(crate) fn new(loaded: u64) -> Self {
        Self {
            next: AtomicU64::new(loaded),
            there: AtomicU64::new(loaded),
            ahead: Mutex::default(),
        }
    }

    /// The number of a key that nobody else adds.
    pub(crate) fn claim(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Its insert has ended. One that failed counts too: reads of it may find nothing, which is counted.
    pub(crate) fn settle(&self, number: u64) {
        let mut ahead = self.ahead.lock().expect("no holder panics");
        ahead.insert(number);
        let mut there = self.there.load(Ordering::Relaxed);
        while ahead.remove(&there) {
            there += 1;
        }
        self.there.store(there, Ordering::Relaxed);
    }

    /// All keys below this number have been there.
    pub(crate) fn there(&self) -> u64 {
        self.there.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const DRAWS: u64 = 300_000;

    fn counts(distribution: Distribution, loaded: u64, there: u64) -> HashMap<u64, u64> {
        let mut rng = Rng::with_seed(11);
        let mut chooser = Chooser::new(distribution, loaded);
        let mut counts = HashMap::new();
        for _ in 0..DRAWS {
            *counts.entry(chooser.choose(there, &mut rng)).or_default() += 1;
        }
        counts
    }

    #[test]
    fn names_are_all_different_and_in_no_order() {
        let names: Vec<String> = (0..10_000).map(key).collect();
        let different: BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert!(!names.is_sorted());
        assert!(names.iter().all(|name| name.len() == PREFIX.len() + 16));
    }

    #[test]
    fn the_hottest_of_the_zipfian_keys_gets_its_share() {
        for keys in [1_000, 100_000] {
            let counts = counts(Distribution::Zipfian, keys, keys);
            assert!(counts.keys().all(|number| *number < keys));
            let hottest = *counts.values().max().unwrap() as f64 / DRAWS as f64;
            // 1 / 26.469, and what other ranks add to the same key.
            assert!((0.036..0.042).contains(&hottest), "{keys}: {hottest}");
        }
    }

    #[test]
    fn uniform_favours_none() {
        let counts = counts(Distribution::Uniform, 100, 200);
        assert_eq!(counts.len(), 100);
        // 3,000 each; five standard deviations are 274.
        assert!(counts.values().all(|count| count.abs_diff(3_000) < 274));
    }

    #[test]
    fn latest_favours_the_newest() {
        let there = 20_000;
        let counts = counts(Distribution::Latest, 10_000, there);
        let of = |numbers: std::ops::Range<u64>| -> u64 {
            numbers.filter_map(|number| counts.get(&number)).sum()
        };
        assert!(of(there - 1..there) > of(there - 2..there - 1));
        assert!(of(there - 100..there) > DRAWS * 2 / 5);
        assert!(of(10_000..there) > of(0..10_000) * 5);
        assert_eq!(of(0..there), DRAWS);
    }

    #[test]
    fn a_key_is_there_once_all_before_it_are() {
        let added = Added::new(10);
        assert_eq!([added.claim(), added.claim(), added.claim()], [10, 11, 12]);
        added.settle(12);
        added.settle(11);
        assert_eq!(added.there(), 10);
        added.settle(10);
        assert_eq!(added.there(), 13);
    }
}
