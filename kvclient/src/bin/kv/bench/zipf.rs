//! Zipf's law: of `items`, the one of rank r comes with a probability of `1 / (r + 1)^0.99`, over the sum of all of them.
//!
//! The draw is that of Gray et al., "Quickly Generating Billion-Record Synthetic Databases", SIGMOD 1994, and 0.99 the
//! constant of YCSB (`ZipfianGenerator.java` in <https://github.com/brianfrankcooper/YCSB>). Unlike there the sum is not added
//! up item by item but, behind the first thousand, taken from its integral, so that the number of items may change with
//! every draw. The error is below 1e-7.

use fastrand::Rng;

const THETA: f64 = 0.99;

/// Terms of the sum that are added up.
const EXACT_TERMS: u64 = 1_000;

/// Draws ranks, 0 the most frequent.
#[derive(Debug, Clone)]
pub(crate) struct Zipfian {
    items: u64,
    /// The sum over all items.
    zeta: f64,
    eta: f64,
    /// The sum over the first terms.
    exact: f64,
}

impl Zipfian {
    /// Ranks of so many items, at least 1.
    pub(crate) fn new(items: u64) -> Self {
        let exact = (1..=items.min(EXACT_TERMS)).map(term).sum();
        let mut made = Self {
            items: 0,
            zeta: 0.0,
            eta: 0.0,
            exact,
        };
        made.grow(items);
        made
    }

    /// Counts with more items from now on.
    pub(crate) fn grow(&mut self, items: u64) {
        if items <= self.items {
            return;
        }
        // Only while there are few of them does this add anything.
        let added = self.items.min(EXACT_TERMS)..items.min(EXACT_TERMS);
        if self.items > 0 {
            self.exact += added.map(|rank| term(rank + 1)).sum::<f64>();
        }
        self.items = items;
        self.zeta = self.exact + tail(items);
        let two = term(1) + term(2);
        self.eta = (1.0 - (2.0 / items as f64).powf(1.0 - THETA)) / (1.0 - two / self.zeta);
    }

    /// The next rank, below the number of items.
    pub(crate) fn draw(&self, rng: &mut Rng) -> u64 {
        let u = rng.f64();
        let share = u * self.zeta;
        if share < term(1) {
            return 0;
        }
        if share < term(1) + term(2) {
            return 1;
        }
        let at = (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the whole part is wanted, of a number between 0 and items"
        )]
        let rank = (self.items as f64 * at) as u64;
        rank.min(self.items - 1)
    }

    /// How often a rank comes, as a part of 1.
    #[cfg(test)]
    pub(crate) fn share(&self, rank: u64) -> f64 {
        term(rank + 1) / self.zeta
    }
}

fn term(number: u64) -> f64 {
    (number as f64).powf(-THETA)
}

/// The sum of the terms behind the exact ones, by the integral.
fn tail(items: u64) -> f64 {
    let power = |x: f64| x.powf(1.0 - THETA);
    match items > EXACT_TERMS {
        true => (power(items as f64 + 0.5) - power(EXACT_TERMS as f64 + 0.5)) / (1.0 - THETA),
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_all_terms() {
        for items in [1, 2, 999, 1_000, 1_001, 5_000, 300_000] {
            let whole: f64 = (1..=items).map(term).sum();
            let off = (Zipfian::new(items).zeta - whole).abs();
            assert!(off < 1e-7, "{items}: {off}");
        }
        // As YCSB has it, for its scrambled ranks.
        let many = Zipfian::new(10_000_000_000).zeta;
        assert!((many - 26.469_028_201_783_02).abs() < 1e-6, "{many}");
    }

    #[test]
    fn growing_is_the_same_as_being_made_so() {
        let mut grown = Zipfian::new(1);
        for items in [2, 3, 900, 1_100, 50_000] {
            grown.grow(items);
            let made = Zipfian::new(items);
            assert!((grown.zeta - made.zeta).abs() < 1e-9, "{items}");
            assert!((grown.eta - made.eta).abs() < 1e-9 || items == 2, "{items}");
        }
    }

    #[test]
    fn the_hottest_come_as_often_as_they_should() {
        const DRAWS: u32 = 500_000;
        for items in [3, 1_000, 1_000_000] {
            let zipfian = Zipfian::new(items);
            let mut rng = Rng::with_seed(3);
            let ranks: Vec<u64> = (0..DRAWS).map(|_| zipfian.draw(&mut rng)).collect();
            assert!(ranks.iter().all(|rank| *rank < items));
            for rank in [0, 1] {
                let count = ranks.iter().filter(|other| **other == rank).count();
                let share = count as f64 / f64::from(DRAWS);
                let off = (share - zipfian.share(rank)).abs();
                assert!(off < 0.004, "rank {rank} of {items}: {share}");
            }
            // The first tenth gets more than half.
            let first = ranks.iter().filter(|rank| **rank <= items / 10).count();
            assert!(first as f64 > 0.5 * f64::from(DRAWS), "{items}: {first}");
        }
    }
}
