//! In which order the nodes of a shard are asked: (op, shard, consistency) -> [`Plan`]. Pure.
//!
//! A plan hands out targets one at a time, since most ops need only the first and loads change meanwhile. Writes
//! know one target, the primary. Reads start at any node; after a failure the other replicas follow, and the
//! primary comes last: it can always answer, and a slow replica must not send it all the reads. Only replicas that
//! have been silent lately come after it.

use crate::{
    policy::{
        Consistency, OpKind,
        read::{self, Load},
    },
    shard_map::{Address, Shard},
};

/// Nodes of one shard that a plan can tell apart. Nobody keeps as many copies; further ones are not asked.
const MAX_NODES: usize = 64;

/// Targets of one op, each handed out once. A target is a place in [`Shard::nodes`]; 0 is the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    candidates: Candidates,
    /// Bit set of the places handed out.
    asked: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidates {
    /// One certain node.
    Only(usize),
    /// All of so many nodes.
    Any(usize),
}

impl Plan {
    /// Plans an op on a shard.
    pub(crate) fn new(op: OpKind, consistency: Consistency, shard: &Shard) -> Self {
        let nodes = (1 + shard.replicas.len()).min(MAX_NODES);
        let candidates = match (op, consistency) {
            (OpKind::Write, _) | (OpKind::Read, Consistency::Primary) => Candidates::Only(0),
            (OpKind::Read, _) => Candidates::Any(nodes),
        };
        Self {
            candidates,
            asked: 0,
        }
    }

    /// Plans to ask one node only; `None` if it is not of this shard.
    pub(crate) fn only(shard: &Shard, address: &Address) -> Option<Self> {
        let place = shard.nodes().position(|node| node.address == *address)?;
        Some(Self {
            candidates: Candidates::Only(place),
            asked: 0,
        })
    }

    /// The next target; `None` when all were handed out. `load` tells what speaks against a target.
    pub(crate) fn next(
        &mut self,
        load: impl Fn(usize) -> Load,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let target = match self.candidates {
            Candidates::Only(_) if self.asked != 0 => None,
            Candidates::Only(place) => Some(place),
            Candidates::Any(nodes) if self.asked == 0 => read::choose(nodes, load, rng),
            Candidates::Any(nodes) => self.next_replica(nodes, load, rng),
        }?;
        self.asked |= 1 << target;
        Some(target)
    }

    fn next_replica(
        &self,
        nodes: usize,
        load: impl Fn(usize) -> Load,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let is_free = |place: &usize| self.asked & (1 << place) == 0;
        let is_suspect = |place: usize| load(place).is_suspect;
        let primary = Some(0).filter(is_free);
        let mut replicas: Vec<usize> = (1..nodes).filter(is_free).collect();
        if replicas.iter().any(|&place| !is_suspect(place)) {
            replicas.retain(|&place| !is_suspect(place));
        } else if primary.is_some_and(|place| !is_suspect(place)) {
            return primary;
        }
        let chosen = read::choose(replicas.len(), |at| load(replicas[at]), rng);
        chosen.map(|at| replicas[at]).or(primary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard_map::{NodeEntry, even_slots};

    fn shard(replicas: usize) -> Shard {
        let node = |port: usize| NodeEntry {
            address: format!("h:{port}").parse().expect("address"),
            zone: None,
        };
        Shard {
            name: "s".into(),
            idx: 0,
            slots: vec![even_slots(0, 1)],
            primary: node(1),
            replicas: (0..replicas).map(|at| node(2 + at)).collect(),
        }
    }

    fn targets(plan: Plan, seed: u64) -> Vec<usize> {
        targets_beside(plan, &[], seed)
    }

    /// The order of targets while some of them are silent.
    fn targets_beside(mut plan: Plan, silent: &[usize], seed: u64) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let load = |place| Load {
            is_suspect: silent.contains(&place),
            in_flight: 0,
        };
        std::iter::from_fn(|| plan.next(load, &mut rng)).collect()
    }

    #[test]
    fn writes_and_strict_reads_know_only_the_primary() {
        let shard = shard(2);
        let write = Plan::new(OpKind::Write, Consistency::Eventual, &shard);
        let read = Plan::new(OpKind::Read, Consistency::Primary, &shard);
        assert_eq!(targets(write, 1), [0]);
        assert_eq!(targets(read, 1), [0]);
    }

    #[test]
    fn reads_reach_every_node_once_and_fall_back_to_the_primary() {
        let shard = shard(3);
        let mut first = [0; 4];
        for seed in 0..200 {
            let order = targets(Plan::new(OpKind::Read, Consistency::Eventual, &shard), seed);
            first[order[0]] += 1;
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            assert!(
                order[0] == 0 || order[3] == 0,
                "the primary is first or last: {order:?}"
            );
        }
        assert!(first.iter().all(|&count| count > 20), "{first:?}");
    }

    #[test]
    fn silent_nodes_come_after_the_primary_and_are_not_left_out() {
        let shard = shard(3);
        let plan = || Plan::new(OpKind::Read, Consistency::Eventual, &shard);
        for seed in 0..200 {
            let mut order = targets_beside(plan(), &[2], seed);
            assert_eq!(order.pop(), Some(2), "seed {seed}");
            let order = targets_beside(plan(), &[0, 1, 2, 3], seed);
            assert_eq!(order.len(), 4, "seed {seed}: {order:?}");
        }
    }

    #[test]
    fn one_node_on_request() {
        let shard = shard(2);
        let address = "h:3".parse().expect("address");
        assert_eq!(
            targets(Plan::only(&shard, &address).expect("known"), 1),
            [2]
        );
        assert_eq!(Plan::only(&shard, &"h:9".parse().expect("address")), None);
    }
}
