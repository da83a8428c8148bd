//! Which node of a shard answers a read: of two random candidates the one with fewer ops in flight.
//!
//! Two choices avoid what one choice and the global best do wrong: a random node may be the busy one, and the
//! least busy one is swamped by all clients at once (M. Mitzenmacher, "The Power of Two Choices in Randomized
//! Load Balancing", IEEE TPDS 12(10), 2001). Ops in flight notice a slow node at once; a latency average notices
//! it later, and a recovered one later still.

/// Chooses one of `count` candidates by two random draws; `in_flight` tells the load of a candidate.
/// `None` if there is no candidate.
pub(crate) fn choose(
    count: usize,
    in_flight: impl Fn(usize) -> usize,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    match count {
        0 => None,
        1 => Some(0),
        _ => {
            let one = rng.usize(..count);
            // Any of the others: the second draw is never the first again.
            let other = (one + rng.usize(1..count)) % count;
            Some(if in_flight(other) < in_flight(one) {
                other
            } else {
                one
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(loads: &[usize]) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut chosen = vec![0; loads.len()];
        for _ in 0..3_000 {
            chosen[choose(loads.len(), |at| loads[at], &mut rng).expect("candidates")] += 1;
        }
        chosen
    }

    #[test]
    fn equal_nodes_share_the_reads() {
        for share in shares(&[4, 4, 4]) {
            assert!((800..1_200).contains(&share), "{share} of 3000");
        }
    }

    #[test]
    fn the_busiest_node_is_never_asked() {
        assert_eq!(shares(&[0, 0, 9])[2], 0);
        assert_eq!(shares(&[0, 1]), [3_000, 0]);
    }

    #[test]
    fn few_candidates() {
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!(choose(0, |_| 0, &mut rng), None);
        assert_eq!(choose(1, |_| 0, &mut rng), Some(0));
    }
}
