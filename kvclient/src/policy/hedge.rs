//! When a read that takes long is asked a second time, elsewhere: whichever copy answers first counts.
//!
//! The delay comes from what reads took lately: a good deal longer than nearly all of them, so that few reads are
//! doubled and those that hang are (J. Dean and L. Barroso, "The Tail at Scale", CACM 56(2), 2013). Twice the 95th
//! percentile and not that itself: at the percentile, one read in twenty would spend the whole budget on waits that
//! end by themselves a moment later.

use std::time::Duration;

/// Extra attempts per thousand reads.
pub(crate) const SHARE_PERMILLE: u16 = 50;

/// Most second copies in one burst: about what one stuck batch holds.
pub(crate) const BURST: u32 = 100;

/// Shortest delay. Below it, a scheduler's hiccup on either side would be a reason to hedge.
const SHORTEST: Duration = Duration::from_millis(1);

/// Delay while too few reads were seen to tell: longer than a read takes within a data centre.
const UNKNOWN: Duration = Duration::from_millis(50);

/// How long a read is given before its second copy leaves. `p95` is that of the last seconds.
pub(crate) fn delay(p95: Option<Duration>) -> Duration {
    p95.map_or(UNKNOWN, |p95| (p95 * 2).max(SHORTEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_follows_what_reads_take() {
        assert_eq!(delay(None), UNKNOWN);
        assert_eq!(delay(Some(Duration::from_micros(80))), SHORTEST);
        let p95 = Duration::from_millis(7);
        assert_eq!(delay(Some(p95)), p95 * 2);
    }
}
