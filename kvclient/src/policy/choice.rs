//! Which node of a shard answers a read, among those that may.
//!
//! The plan leaves out what must not be asked (nodes that are ejected, behind, or far away, while others are not);
//! what is left are the [`Candidates`], and a [`ReadPolicy`] takes one of them. [`LeastBusy`] is the default,
//! [`StickyByKey`] keeps each key with one node. A program can bring its own, see [`ReadPolicy`].

use std::{fmt, time::Duration};

use xxhash_rust::xxh3::Xxh3;

use crate::{
    key::Key,
    shard_map::{Address, Role},
};

/// What is known of a read when its node is chosen.
///
/// ```
/// use kvclient::policy::{Candidates, LeastBusy, ReadPolicy, ReadRequest, StickyByKey};
///
/// /// First attempts go where their key always goes; once that was of no use, to whoever has the least to do.
/// #[derive(Debug)]
/// struct StickyAtFirst;
///
/// impl ReadPolicy for StickyAtFirst {
///     fn choose(&self, read: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
///         match (read.key, read.asked) {
///             (Some(_), 0) => StickyByKey.choose(read, candidates),
///             _ => LeastBusy.choose(read, candidates), // a scan, a watch, or a second attempt
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ReadRequest<'a> {
    /// The key; `None` for a scan or a watch, which read many.
    pub key: Option<&'a Key>,
    /// Nodes asked for this op before: 0 for its first attempt.
    pub asked: u32,
}

/// A node that may answer a read.
///
/// ```
/// use kvclient::{policy::Candidate, shard_map::Role};
///
/// /// How unattractive a node is: for a policy that wants primaries left to their writes.
/// fn cost(node: &Candidate<'_>) -> usize {
///     let queue = node.in_flight * 2;
///     match node.role {
///         Role::Primary => queue + 10,
///         Role::Replica => queue,
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// Where it is.
    pub address: &'a Address,
    /// What it is to its shard.
    pub role: Role,
    /// Its zone, if the map names one.
    pub zone: Option<&'a str>,
    /// Ops of this client that it has not answered yet.
    pub in_flight: usize,
    /// Median time of its answers to this client in the last seconds; `None`: fewer than 20, too few to tell.
    pub latency: Option<Duration>,
}

/// Decides which candidate is asked. One for all ops of a client, at the same time: it must be quick and never block.
///
/// ```
/// use kvclient::policy::{Candidates, ReadPolicy, ReadRequest};
///
/// /// Always the node that answered fastest of late; one not tried yet is tried.
/// #[derive(Debug)]
/// struct Fastest;
///
/// impl ReadPolicy for Fastest {
///     fn choose(&self, _read: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
///         let fastest = candidates.iter().enumerate().min_by_key(|(_, node)| node.latency);
///         fastest.map_or(0, |(place, _)| place)
///     }
/// }
/// ```
pub trait ReadPolicy: fmt::Debug + Send + Sync {
    /// The place of the node to ask, below `candidates.len()`; of anything else the first candidate is taken. There
    /// are at least two candidates: nobody is asked about one.
    fn choose(&self, read: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize;
}

/// The nodes that may answer a read, by place.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
/// use kvclient::policy::{Candidates, ReadPolicy, ReadRequest};
///
/// /// Every node in turn.
/// #[derive(Debug, Default)]
/// struct InTurn(AtomicUsize);
///
/// impl ReadPolicy for InTurn {
///     fn choose(&self, _read: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
///         self.0.fetch_add(1, Relaxed) % candidates.len()
///     }
/// }
/// ```
pub struct Candidates<'a> {
    /// Bit set of places in the shard.
    places: u64,
    node: &'a dyn Fn(usize) -> Candidate<'a>,
}

impl<'a> Candidates<'a> {
    /// Those nodes of a shard whose bit is set.
    pub(crate) fn new(places: u64, node: &'a dyn Fn(usize) -> Candidate<'a>) -> Self {
        Self { places, node }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.places.count_ones() as usize
    }

    /// The candidate at a place.
    ///
    /// # Panics
    /// If `place` is not below [`Self::len`].
    pub fn get(&self, place: usize) -> Candidate<'a> {
        (self.node)(self.in_shard(place).expect("a place below len"))
    }

    /// All of them, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = Candidate<'a>> + '_ {
        (0..self.len()).map(|place| self.get(place))
    }

    /// The place in the shard of the candidate at a place.
    pub(crate) fn in_shard(&self, place: usize) -> Option<usize> {
        (0..64).filter(|bit| self.places >> bit & 1 == 1).nth(place)
    }
}

/// Of two random candidates the one with fewer ops in flight.
///
/// Two choices avoid what one choice and the global best do wrong: a random node may be the busy one, and the
/// least busy one is swamped by all clients at once (M. Mitzenmacher, "The Power of Two Choices in Randomized
/// Load Balancing", IEEE TPDS 12(10), 2001). Ops in flight notice a slow node at once; a latency average notices
/// it later, and a recovered one later still.
///
/// ```no_run
/// # fn main() -> kvclient::Result<()> {
/// use kvclient::{ClientBuilder, policy::LeastBusy};
///
/// let kv = ClientBuilder::from_file("sharding.toml")?.read_policy(LeastBusy).build()?; // as if nothing were said
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastBusy;

impl ReadPolicy for LeastBusy {
    fn choose(&self, _read: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
        let count = candidates.len();
        let one = fastrand::usize(..count);
        // Any of the others: the second draw is never the first again.
        let other = (one + fastrand::usize(1..count)) % count;
        match candidates.get(other).in_flight < candidates.get(one).in_flight {
            true => other,
            false => one,
        }
    }
}

/// Each key at one node, as long as that may be asked: what that node has in its page cache stays useful, and a
/// reader of one key sees its copies in one order whatever the consistency. Keys are spread evenly, and a node that
/// goes takes only its own keys along (D. Thaler and C. Ravishankar, "Using name-based mappings to increase hit rates",
/// IEEE/ACM ToN 6(1), 1998). A hot key heats one node: that is the price.
///
/// ```no_run
/// # fn main() -> kvclient::Result<()> {
/// use kvclient::{ClientBuilder, Consistency, policy::StickyByKey};
///
/// // Cheap reads that still never go back in time, as long as the key's node answers.
/// let kv = ClientBuilder::from_file("sharding.toml")?
///     .consistency(Consistency::Eventual)
///     .read_policy(StickyByKey)
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct StickyByKey;

impl ReadPolicy for StickyByKey {
    fn choose(&self, read: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
        let weight = |address: &Address| {
            let mut hash = Xxh3::new();
            hash.update(read.key.map_or(&[], Key::as_bytes));
            hash.update(address.host().as_bytes());
            hash.update(&address.port().to_le_bytes());
            hash.digest()
        };
        let heaviest = candidates
            .iter()
            .enumerate()
            .max_by_key(|(_, node)| weight(node.address));
        heaviest.map_or(0, |(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a policy takes each of so many nodes, by place in the shard. `asked_for` gives the key of each read.
    fn shares(
        policy: &dyn ReadPolicy,
        places: u64,
        in_flight: &[usize],
        key_of: impl Fn(usize) -> Key,
    ) -> Vec<usize> {
        let addresses: Vec<Address> = (0..in_flight.len())
            .map(|at| format!("h:{}", at + 1).parse().expect("address"))
            .collect();
        let node = |at: usize| Candidate {
            address: &addresses[at],
            role: Role::Replica,
            zone: None,
            in_flight: in_flight[at],
            latency: None,
        };
        let candidates = Candidates::new(places, &node);
        let mut chosen = vec![0; in_flight.len()];
        for at in 0..3_000 {
            let key = key_of(at);
            let read = ReadRequest {
                key: Some(&key),
                asked: 0,
            };
            let place = policy.choose(&read, &candidates);
            chosen[candidates.in_shard(place).expect("in range")] += 1;
        }
        chosen
    }

    fn numbered(at: usize) -> Key {
        Key::new(format!("key{at}")).expect("short")
    }

    #[test]
    fn equal_nodes_share_the_reads() {
        for policy in [&LeastBusy as &dyn ReadPolicy, &StickyByKey] {
            for share in shares(policy, 0b111, &[4; 3], numbered) {
                assert!((800..1_200).contains(&share), "{policy:?}: {share} of 3000");
            }
        }
    }

    #[test]
    fn the_busiest_node_is_never_asked() {
        assert_eq!(shares(&LeastBusy, 0b111, &[0, 0, 9], numbered)[2], 0);
        assert_eq!(shares(&LeastBusy, 0b11, &[0, 1], numbered), [3_000, 0]);
    }

    #[test]
    fn only_candidates_are_chosen() {
        for policy in [&LeastBusy as &dyn ReadPolicy, &StickyByKey] {
            let shares = shares(policy, 0b1011, &[0; 4], numbered);
            assert_eq!(shares[2], 0, "{policy:?}");
            assert!(shares.iter().filter(|&&share| share > 500).count() == 3);
        }
    }

    #[test]
    fn a_key_stays_with_its_node_and_a_node_that_goes_takes_only_its_own_along() {
        let owner = |places: u64, at: usize| {
            let counts = shares(&StickyByKey, places, &[0; 3], |_| numbered(at));
            let owner = counts.iter().position(|&count| count == 3_000);
            owner.expect("one node has all reads of a key")
        };
        for at in 0..20 {
            let before = owner(0b111, at);
            for gone in 0..3 {
                let after = owner(0b111 & !(1 << gone), at);
                assert_eq!(after == before, gone != before, "key {at} without {gone}");
            }
        }
    }
}
