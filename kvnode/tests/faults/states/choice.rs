//! Which parts of what was not synced are tried.
//!
//! Of a few changes every subset; of many every prefix, each left out and each alone, and some at random. On top, the
//! newest writes torn: some sectors there, the others not.

use std::ops::Range;

use super::disk::{Arrived, Change};

/// How far a search goes at each moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Up to so many changes, all subsets.
    pub(super) all_of: usize,
    /// Of each other kind of choice, so many.
    pub(super) of_a_kind: usize,
    /// So many of the newest writes are torn.
    pub(super) torn: usize,
}

/// Every choice for these changes, as far as the effort goes.
pub(super) fn choices(
    pending: &[Change],
    effort: Effort,
    rng: &mut fastrand::Rng,
) -> Vec<Vec<Arrived>> {
    let count = pending.len();
    let mut found = match count <= effort.all_of {
        true => (0..1 << count)
            .map(|mask: usize| subset(count, |nth| mask >> nth & 1 == 1))
            .collect(),
        false => some(count, effort.of_a_kind, rng),
    };
    let newest = (0..count).rev().filter(|&nth| pending[nth].sectors() > 1);
    for nth in newest.take(effort.torn) {
        for sectors in tears(pending[nth].sectors(), effort.of_a_kind, rng) {
            let mut torn = subset(count, |_| true);
            torn[nth] = Arrived::Sectors(sectors);
            found.push(torn);
        }
    }
    found
}

fn subset(count: usize, has: impl Fn(usize) -> bool) -> Vec<Arrived> {
    let arrived = |nth| match has(nth) {
        true => Arrived::Whole,
        false => Arrived::Not,
    };
    (0..count).map(arrived).collect()
}

fn some(count: usize, of_a_kind: usize, rng: &mut fastrand::Rng) -> Vec<Vec<Arrived>> {
    let mut found = vec![subset(count, |_| false), subset(count, |_| true)];
    for one in rng.choose_multiple(0..count, of_a_kind) {
        found.push(subset(count, |nth| nth < one));
        found.push(subset(count, |nth| nth != one));
        found.push(subset(count, |nth| nth == one));
    }
    for _ in 0..of_a_kind {
        let mask: Vec<bool> = (0..count).map(|_| rng.bool()).collect();
        found.push(subset(count, |nth| mask[nth]));
    }
    found
}

/// Runs of sectors that arrive while the rest does not: from the front, from the back, from the middle.
fn tears(sectors: usize, of_a_kind: usize, rng: &mut fastrand::Rng) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for cut in rng.choose_multiple(1..sectors, of_a_kind.div_ceil(2)) {
        found.push(0..cut);
        found.push(cut..sectors);
        found.push(rng.usize(..cut)..cut);
    }
    found
}
