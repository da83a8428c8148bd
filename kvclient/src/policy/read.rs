//! Which node of a shard answers a read: of two random candidates the one with fewer ops in flight, and rather one
//! that has answered lately than one that has been silent.
//!
//! Two choices avoid what one choice and the global best do wrong: a random node may be the busy one, and the
//! least busy one is swamped by all clients at once (M. Mitzenmacher, "The Power of Two Choices in Randomized
//! Load Balancing", IEEE TPDS 12(10), 2001). Ops in flight notice a slow node at once; a latency average notices
//! it later, and a recovered one later still.

/// What speaks against asking a node. Ordered: the less, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Load {
    /// It could not be connected to, or did not answer in time, a few seconds ago. Counts more than any queue: at a
    /// node that is gone, nothing is in flight soon.
    pub(crate) is_suspect: bool,
    /// Ops on their way.
    pub(crate) in_flight: usize,
}

impl Load {
    /// Of a node that cannot be asked.
    pub(crate) const WORST: Self = Self {
        is_suspect: true,
        in_flight: usize::MAX,
    };
}

/// Chooses one of `count` candidates by two random draws; `load` tells what speaks against a candidate.
/// `None` if there is no candidate.
pub(crate) fn choose(
    count: usize,
    load: impl Fn(usize) -> Load,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    match count {
        0 => None,
        1 => Some(0),
        _ => {
            let one = rng.usize(..count);
            // Any of the others: the second draw is never the first again.
            let other = (one + rng.usize(1..count)) % count;
            Some(if load(other) < load(one) { other } else { one })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(in_flight: usize) -> Load {
        Load {
            is_suspect: false,
            in_flight,
        }
    }

    fn shares(loads: &[Load]) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut chosen = vec![0; loads.len()];
        for _ in 0..3_000 {
            chosen[choose(loads.len(), |at| loads[at], &mut rng).expect("candidates")] += 1;
        }
        chosen
    }

    #[test]
    fn equal_nodes_share_the_reads() {
        for share in shares(&[busy(4); 3]) {
            assert!((800..1_200).contains(&share), "{share} of 3000");
        }
    }

    #[test]
    fn the_busiest_node_is_never_asked() {
        assert_eq!(shares(&[busy(0), busy(0), busy(9)])[2], 0);
        assert_eq!(shares(&[busy(0), busy(1)]), [3_000, 0]);
    }

    #[test]
    fn a_silent_node_is_only_the_last_resort() {
        let silent = Load {
            is_suspect: true,
            in_flight: 0,
        };
        assert_eq!(shares(&[silent, busy(9)]), [0, 3_000]);
        assert_eq!(shares(&[busy(9), silent, busy(9)])[1], 0);
        assert!(shares(&[silent, silent]).iter().all(|&share| share > 1_000));
    }

    #[test]
    fn few_candidates() {
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!(choose(0, |_| busy(0), &mut rng), None);
        assert_eq!(choose(1, |_| busy(0), &mut rng), Some(0));
    }
}
