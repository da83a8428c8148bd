//! In which order the nodes of a shard are asked: (op, shard, consistency) -> [`Plan`]. Pure.
//!
//! A plan hands out targets one at a time, since most ops need only the first and loads change meanwhile. Writes
//! know one target, the primary. Reads start at any node; after a failure the other replicas follow, and the
//! primary comes last: it can always answer, and a slow replica must not send it all the reads. It comes earlier if no
//! replica that is left can answer either, being ejected or behind. Nodes that are ejected come after all others; of
//! the rest, those that are behind or in another zone come after those that are not. Among equals the client's policy
//! chooses.

use crate::{
    policy::{Candidate, Candidates, Consistency, OpKind, ReadPolicy, ReadRequest},
    shard_map::{Address, Shard},
};

/// Nodes of one shard that a plan can tell apart. Nobody keeps as many copies; further ones are not asked.
const MAX_NODES: usize = 63;

/// The primary's bit in a set of places.
const PRIMARY: u64 = 1;

/// Targets of one op, each handed out once. A target is a place in [`Shard::nodes`]; 0 is the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    candidates: Wanted,
    /// Bit set of the places handed out; any bit, if there is only one.
    asked: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// One certain node.
    Only(usize),
    /// All of so many nodes.
    Any(usize),
}

/// What speaks for and against asking a node now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// It has failed, and its next probe is not due.
    pub(crate) is_ejected: bool,
    /// It has just said that it does not hold yet what such reads want, or failed one.
    pub(crate) is_behind: bool,
    /// It is in the zone that this client prefers, or the client prefers none.
    pub(crate) is_near: bool,
}

impl Standing {
    /// Of a node that the map no longer names.
    pub(crate) const UNKNOWN: Self = Self {
        is_ejected: true,
        is_behind: true,
        is_near: false,
    };
}

/// What a plan looks at when it hands out a target.
pub(crate) struct View<'a> {
    pub(crate) standing: &'a dyn Fn(usize) -> Standing,
    pub(crate) node: &'a dyn Fn(usize) -> Candidate<'a>,
    pub(crate) policy: &'a dyn ReadPolicy,
    pub(crate) read: ReadRequest<'a>,
}

impl Plan {
    /// Plans an op on a shard.
    pub(crate) fn new(op: OpKind, consistency: Consistency, shard: &Shard) -> Self {
        let nodes = (1 + shard.replicas.len()).min(MAX_NODES);
        let candidates = match (op, consistency) {
            (OpKind::Write | OpKind::RepeatableWrite, _) | (OpKind::Read, Consistency::Primary) => {
                Wanted::Only(0)
            }
            (OpKind::Read, _) => Wanted::Any(nodes),
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
            candidates: Wanted::Only(place),
            asked: 0,
        })
    }

    /// The next target; `None` when all were handed out.
    pub(crate) fn next(&mut self, view: &View<'_>) -> Option<usize> {
        let target = match self.candidates {
            Wanted::Only(_) if self.asked != 0 => None,
            Wanted::Only(place) => {
                self.asked = PRIMARY;
                return Some(place);
            }
            Wanted::Any(nodes) => view.choose(self.left(nodes, view)),
        }?;
        self.asked |= 1_u64.checked_shl(u32::try_from(target).ok()?)?;
        Some(target)
    }

    /// Whether no other target is left.
    pub(crate) fn is_used_up(&self) -> bool {
        match self.candidates {
            Wanted::Only(_) => self.asked != 0,
            Wanted::Any(nodes) => self.asked.count_ones() as usize >= nodes,
        }
    }

    /// The places not handed out yet that may come next.
    fn left(&self, nodes: usize, view: &View<'_>) -> u64 {
        let left = ((1 << nodes) - 1) & !self.asked;
        let replicas = left & !PRIMARY;
        if self.asked == 0 || left == PRIMARY || replicas == left {
            return left;
        }
        let is_sound = |place| !(view.standing)(place).is_ejected;
        let may_answer = |place| is_sound(place) && !(view.standing)(place).is_behind;
        match (view.keep(replicas, may_answer), is_sound(0)) {
            (0, true) => PRIMARY,
            (_, _) => replicas,
        }
    }
}

impl<'a> View<'a> {
    /// The best of a set of places.
    fn choose(&self, places: u64) -> Option<usize> {
        let standing = self.standing;
        let places = self.prefer(places, |place| !standing(place).is_ejected);
        let places = self.prefer(places, |place| !standing(place).is_behind);
        let places = self.prefer(places, |place| standing(place).is_near);
        let candidates = Candidates::new(places, self.node);
        let chosen = match candidates.len() {
            0 => return None,
            1 => 0,
            _ => self.policy.choose(&self.read, &candidates),
        };
        candidates
            .in_shard(chosen)
            .or_else(|| candidates.in_shard(0))
    }

    /// Those of the places that have something for them; all, if none has.
    fn prefer(&self, places: u64, is_better: impl Fn(usize) -> bool) -> u64 {
        match self.keep(places, is_better) {
            0 => places,
            better => better,
        }
    }

    fn keep(&self, places: u64, keeps: impl Fn(usize) -> bool) -> u64 {
        let mut kept = places;
        let mut rest = places;
        while rest != 0 {
            let place = rest.trailing_zeros();
            rest &= rest - 1;
            if !keeps(place as usize) {
                kept &= !(1 << place);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::LeastBusy,
        shard_map::{NodeEntry, Role, even_slots},
    };

    const SOUND: Standing = Standing {
        is_ejected: false,
        is_behind: false,
        is_near: true,
    };

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

    /// All targets in their order, while the nodes stand as told.
    fn targets(mut plan: Plan, standing: &dyn Fn(usize) -> Standing) -> Vec<usize> {
        let address: Address = "h:1".parse().expect("address");
        let view = View {
            standing,
            node: &|_| Candidate {
                address: &address,
                role: Role::Replica,
                zone: None,
                in_flight: 0,
                latency: None,
            },
            policy: &LeastBusy,
            read: ReadRequest {
                key: None,
                asked: 0,
            },
        };
        std::iter::from_fn(|| plan.next(&view)).collect()
    }

    /// A plan has bits for 63 nodes; one that names its node needs none of them.
    #[test]
    fn a_node_can_be_named_however_many_there_are() {
        let shard = shard(99);
        for place in [0, 1, 63, 64, 99] {
            let address = format!("h:{}", place + 1).parse().expect("address");
            let plan = Plan::only(&shard, &address).expect("it is one of them");
            assert_eq!(targets(plan, &|_| SOUND), [place]);
        }
    }

    #[test]
    fn writes_and_strict_reads_know_only_the_primary() {
        let shard = shard(2);
        for (kind, consistency) in [
            (OpKind::Write, Consistency::Eventual),
            (OpKind::RepeatableWrite, Consistency::Eventual),
            (OpKind::Read, Consistency::Primary),
        ] {
            let plan = Plan::new(kind, consistency, &shard);
            assert_eq!(targets(plan, &|_| SOUND), [0], "{kind:?}");
        }
    }

    #[test]
    fn reads_reach_every_node_once_and_fall_back_to_the_primary() {
        let shard = shard(3);
        let mut first = [0; 4];
        for _ in 0..200 {
            let plan = Plan::new(OpKind::Read, Consistency::Eventual, &shard);
            let order = targets(plan, &|_| SOUND);
            first[order[0]] += 1;
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            assert!(
                order[0] == 0 || order[3] == 0,
                "the primary is first or last: {order:?}"
            );
        }
        assert!(first.iter().all(|&count| count > 15), "{first:?}");
    }

    #[test]
    fn ejected_nodes_come_after_the_primary_and_are_not_left_out() {
        let shard = shard(3);
        let plan = || Plan::new(OpKind::Read, Consistency::Eventual, &shard);
        let ejected = |nodes: &'static [usize]| {
            move |place| Standing {
                is_ejected: nodes.contains(&place),
                ..SOUND
            }
        };
        for _ in 0..200 {
            assert_eq!(targets(plan(), &ejected(&[2])).last(), Some(&2));
            assert_eq!(targets(plan(), &ejected(&[0, 1, 2, 3])).len(), 4);
        }
    }

    #[test]
    fn after_a_failure_the_primary_comes_before_replicas_that_are_behind() {
        let plan = Plan::new(OpKind::Read, Consistency::ReadYourWrites, &shard(3));
        let behind = |place| Standing {
            is_behind: place != 0,
            ..SOUND
        };
        let mut later = plan;
        later.asked = 0b10;
        assert_eq!(targets(later, &behind)[0], 0);
        let one_is_level = |place| Standing {
            is_behind: place == 2,
            ..SOUND
        };
        assert_eq!(targets(later, &one_is_level), [3, 0, 2]);
    }

    #[test]
    fn what_is_near_and_level_comes_first() {
        let shard = shard(3);
        let plan = || Plan::new(OpKind::Read, Consistency::Eventual, &shard);
        for _ in 0..100 {
            let near = |place| Standing {
                is_near: place == 2 || place == 3,
                ..SOUND
            };
            let order = targets(plan(), &near);
            assert!(order[0] >= 2 && order[1] >= 2, "{order:?}");
            let behind = |place| Standing {
                is_behind: place == 2,
                ..near(place)
            };
            assert_eq!(targets(plan(), &behind)[0], 3);
            let nobody_near = |_| Standing {
                is_near: false,
                ..SOUND
            };
            assert_eq!(targets(plan(), &nobody_near).len(), 4);
        }
    }

    #[test]
    fn one_node_on_request() {
        let shard = shard(2);
        let address = "h:3".parse().expect("address");
        let plan = Plan::only(&shard, &address).expect("known");
        assert_eq!(targets(plan, &|_| SOUND), [2]);
        assert_eq!(Plan::only(&shard, &"h:9".parse().expect("address")), None);
    }
}
