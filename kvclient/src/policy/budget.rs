//! Bounds on what a client may ask beyond what its callers asked for.
//!
//! A token bucket: each op pays in a share of a token, each extra attempt takes a whole one. So extras stay a share
//! of the ops whatever happens, and a quiet time saves up for a burst, but not for more than the bucket holds. Retry
//! storms are what makes a small outage a large one (M. Brooker, "Fixing retries with token buckets and circuit
//! breakers", 2022).

use std::sync::atomic::{AtomicI64, Ordering};

const TOKEN: i64 = 1_000;

/// Tokens of one kind of extra attempt.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Thousandths of a token.
    tokens: AtomicI64,
    /// What an op pays in, in thousandths.
    share: i64,
    most: i64,
}

impl Budget {
    /// Extras of `share_permille` of the ops; at most `most` at once, of which `at_start` are there already.
    pub(crate) fn new(share_permille: u16, most: u32, at_start: u32) -> Self {
        Self {
            tokens: AtomicI64::new(i64::from(at_start) * TOKEN),
            share: share_permille.into(),
            most: i64::from(most) * TOKEN,
        }
    }

    /// An op is under way.
    pub(crate) fn pay_in(&self) {
        // Mostly full: then nothing is written, and the line stays in every core's cache.
        if self.tokens.load(Ordering::Relaxed) < self.most {
            self.tokens.fetch_add(self.share, Ordering::Relaxed);
        }
    }

    /// Takes the token of an extra attempt; `false` if there is none.
    pub(crate) fn take(&self) -> bool {
        let less = |tokens: i64| (tokens >= TOKEN).then_some(tokens - TOKEN);
        let taken = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extras_are_a_share_of_the_ops() {
        let budget = Budget::new(50, 100, 0);
        let extras = (0..10_000).filter(|_| {
            budget.pay_in();
            budget.take()
        });
        assert_eq!(extras.count(), 500);
    }

    #[test]
    fn quiet_times_save_up_for_one_burst() {
        let budget = Budget::new(200, 3, 2);
        let burst = || std::iter::from_fn(|| budget.take().then_some(())).count();
        assert_eq!(burst(), 2);
        assert_eq!(burst(), 0);
        (0..1_000).for_each(|_| budget.pay_in());
        assert_eq!(burst(), 3);
    }
}
