//! Which replicas have synced what, and how many of them a write must reach. Pure.
//!
//! A replica's pull is its acknowledgement. It counts once for its node id and once for its address: a copied
//! directory at another address, or a new directory at the same one, takes the place of what was said before. What it
//! said last counts, also if that is less than before. That it is away now changes nothing of what it has synced; but
//! only replicas that pulled lately are connected.
//!
//! Counted is by the map in force at that moment: what is said at an address that is no replica's any more counts for
//! nothing.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kvclient::{
    faults::{self, Guarantee},
    position::Position,
    shard_map::{Address, Role, Shard},
    wire::batch::Ack,
};

/// A replica counts as connected if its last pull is younger than this.
const CONNECTED: Duration = Duration::from_secs(5);

/// A replica as its primary sees it.
#[derive(Debug, Clone)]
pub struct ReplicaProgress {
    /// Its address in the map.
    pub address: Address,
    /// What it has synced.
    pub durable: Position,
    /// Its last pull.
    pub seen: Instant,
}

impl ReplicaProgress {
    /// Whether it pulled lately, as of `now`.
    pub fn is_connected(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < CONNECTED
    }
}

/// All replicas that ever pulled, by node id; no two of one address.
#[derive(Debug, Default)]
pub(super) struct Replicas(HashMap<u64, ReplicaProgress>);

impl Replicas {
    /// A pull has passed the handshake.
    pub(super) fn saw(&mut self, node_id: u64, replica: ReplicaProgress) {
        self.0
            .retain(|id, known| *id == node_id || known.address != replica.address);
        self.0.insert(node_id, replica);
    }

    /// Each with its node id, in the order of their addresses.
    pub(super) fn list(&self) -> Vec<(u64, ReplicaProgress)> {
        let mut replicas: Vec<_> = self
            .0
            .iter()
            .map(|(id, known)| (*id, known.clone()))
            .collect();
        replicas.sort_by(|(_, a), (_, b)| a.address.cmp(&b.address));
        replicas
    }

    /// What each has synced.
    pub(super) fn acked(&self) -> Acked {
        let mut acked: Vec<_> = self
            .0
            .values()
            .map(|known| (known.durable, known.address.clone()))
            .collect();
        acked.sort_by(|a, b| b.cmp(a));
        Acked(acked)
    }
}

/// What each replica has synced, the furthest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acked(Vec<(Position, Address)>);

impl Acked {
    /// How many of a shard's replicas have synced everything up to `position`.
    pub fn count(&self, shard: &Shard, position: Position) -> usize {
        self.0
            .iter()
            .take_while(|(durable, _)| *durable >= position)
            .filter(|(_, address)| is_replica(shard, address))
            .count()
    }
}

/// Whether an address is a replica's by the map.
pub fn is_replica(shard: &Shard, address: &Address) -> bool {
    shard.role_of(address) == Some(Role::Replica) || faults::is_off(Guarantee::AckCounting)
}

/// How many replicas a write must reach.
pub fn needed(ack: Ack, shard: &Shard) -> usize {
    let replicas = shard.replicas.len();
    match ack {
        Ack::Replicas(count) => count.into(),
        // More than half of all nodes, of which the primary is one.
        Ack::Majority => replicas.div_ceil(2),
        Ack::All => replicas,
    }
}

/// The one of several that asks for most.
pub fn strongest(acks: impl Iterator<Item = Ack>, shard: &Shard) -> Option<Ack> {
    // What goes with the map asks for more than a number that is as large just now.
    let rank = |ack: &Ack| match ack {
        Ack::Replicas(_) => 0,
        Ack::Majority => 1,
        Ack::All => 2,
    };
    acks.max_by_key(|ack| (needed(*ack, shard), rank(ack)))
}

#[cfg(test)]
mod tests {
    use kvclient::shard_map::toml;

    use super::*;

    fn shard(replicas: &[&str]) -> Shard {
        let text = format!(
            "[[shards]]\nname = \"s\"\nidx = 0\naddress = \"h:1\"\nreplicas = {replicas:?}\n"
        );
        toml::parse(&text, "a map").expect("a map").shards()[0].clone()
    }

    /// What is known after pulls of (node id, address, durable seq).
    fn acked(pulls: &[(u64, &str, u64)]) -> Acked {
        let mut replicas = Replicas::default();
        for &(node_id, address, seq) in pulls {
            let replica = ReplicaProgress {
                address: address.parse().expect("address"),
                durable: Position::new(2, seq),
                seen: Instant::now(),
            };
            replicas.saw(node_id, replica);
        }
        replicas.acked()
    }

    #[test]
    fn how_many_are_needed() {
        for (ack, of_none, of_one, of_two, of_three) in [
            (Ack::Replicas(1), 1, 1, 1, 1),
            (Ack::Replicas(3), 3, 3, 3, 3),
            (Ack::Majority, 0, 1, 1, 2),
            (Ack::All, 0, 1, 2, 3),
        ] {
            for (replicas, expected) in [
                (&[][..], of_none),
                (&["h:2"], of_one),
                (&["h:2", "h:3"], of_two),
                (&["h:2", "h:3", "h:4"], of_three),
            ] {
                assert_eq!(
                    needed(ack, &shard(replicas)),
                    expected,
                    "{ack:?} of {replicas:?}"
                );
            }
        }
    }

    #[test]
    fn the_strongest_asks_for_most() {
        let of = |acks: &[Ack], replicas| strongest(acks.iter().copied(), &shard(replicas));
        let two = &["h:2", "h:3"][..];
        assert_eq!(of(&[], two), None);
        let (one, most) = (Ack::Replicas(1), Ack::Majority);
        assert_eq!(of(&[one, Ack::All, most], two), Some(Ack::All));
        assert_eq!(of(&[most, one], two), Some(most));
        let many = Ack::Replicas(2);
        assert_eq!(of(&[most, many, one], two), Some(many));
        assert_eq!(of(&[Ack::All, many], two), Some(Ack::All));
        assert_eq!(
            of(&[Ack::Replicas(9), Ack::All], two),
            Some(Ack::Replicas(9))
        );
    }

    /// Who counts for seq 10 in a shard with replicas h:2 and h:3.
    #[test]
    fn who_counts() {
        for (pulls, expected, why) in [
            (&[][..], 0, "nobody pulled"),
            (&[(1, "h:2", 9)], 0, "one is not there yet"),
            (&[(1, "h:2", 10)], 1, "one is exactly there"),
            (&[(1, "h:2", 11), (2, "h:3", 10)], 2, "both are there"),
            (&[(1, "h:2", 10), (2, "h:3", 9)], 1, "one of two"),
            (&[(1, "h:2", 10), (1, "h:2", 11)], 1, "one pulls twice"),
            (&[(1, "h:2", 10), (1, "h:3", 10)], 1, "a copied directory"),
            (&[(1, "h:2", 10), (2, "h:2", 10)], 1, "two at one address"),
            (&[(1, "h:2", 10), (2, "h:2", 3)], 0, "a replaced disk"),
            (&[(1, "h:2", 10), (1, "h:2", 7)], 0, "a tail that was lost"),
            (&[(1, "h:4", 10)], 0, "no replica's address"),
            (&[(1, "h:1", 10)], 0, "the primary's own address"),
            (
                &[(1, "h:4", 12), (2, "h:3", 11)],
                1,
                "a stranger before one",
            ),
        ] {
            let count = acked(pulls).count(&shard(&["h:2", "h:3"]), Position::new(2, 10));
            assert_eq!(count, expected, "{why}");
        }
    }

    #[test]
    fn a_replica_that_a_reload_removes_counts_no_more() {
        let acked = acked(&[(1, "h:2", 10), (2, "h:3", 10)]);
        let position = Position::new(2, 10);
        assert_eq!(acked.count(&shard(&["h:2", "h:3"]), position), 2);
        assert_eq!(acked.count(&shard(&["h:2", "h:9"]), position), 1);
        assert_eq!(acked.count(&shard(&[]), position), 0);
    }

    #[test]
    fn connected_is_who_pulled_lately() {
        let replica = ReplicaProgress {
            address: "h:2".parse().expect("address"),
            durable: Position::new(1, 1),
            seen: Instant::now(),
        };
        let after = |ms| replica.seen + Duration::from_millis(ms);
        assert!(replica.is_connected(after(4_999)));
        assert!(!replica.is_connected(after(5_000)));
    }
}
