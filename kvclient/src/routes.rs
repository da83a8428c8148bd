//! The shard map in force, with the way to each of its nodes. Immutable; swapped whole.
//!
//! An op loads it once and plans with it; one that is under way while it is swapped ends on the old one. The way
//! to a node that both maps name is kept, with everything under way on it.

use std::sync::Arc;

use crate::{
    coalesce::{MapHeard, NodeLanes},
    node_client::NodeClient,
    options::LaneOptions,
    plan::Standing,
    policy::Candidate,
    shard_map::{Address, NodeEntry, Role, Shard, ShardMap},
    slot::Slot,
};

/// Where a map comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From the program that made the client: a file, a builder. Only a seed.
    Seed,
    /// From a node.
    Node,
}

/// A map with the way to each of its nodes.
#[derive(Debug)]
pub(crate) struct Routes {
    map: Arc<ShardMap>,
    origin: Origin,
    /// By place of the shard in the map, then by place of the node in the shard: the primary is 0.
    nodes: Vec<Vec<Arc<NodeLanes>>>,
}

/// A shard of the map in force.
pub(crate) struct RoutedShard<'a> {
    pub(crate) shard: &'a Shard,
    /// As in [`Shard::nodes`].
    pub(crate) nodes: &'a [Arc<NodeLanes>],
}

impl RoutedShard<'_> {
    /// What speaks for and against asking a node for a read now. `wants_level`: a replica may be too far behind.
    pub(crate) fn standing(&self, place: usize, zone: Option<&str>, wants_level: bool) -> Standing {
        let Some(lanes) = self.nodes.get(place) else {
            return Standing::UNKNOWN;
        };
        Standing {
            is_ejected: lanes.health().is_ejected(),
            is_behind: lanes.health().is_shaky() || wants_level && lanes.health().is_behind(),
            is_near: zone.is_none_or(|zone| self.entry(place).zone.as_deref() == Some(zone)),
        }
    }

    /// A node as a policy sees it.
    pub(crate) fn candidate(&self, place: usize) -> Candidate<'_> {
        let entry = self.entry(place);
        let lanes = self.nodes.get(place);
        Candidate {
            address: &entry.address,
            role: if place == 0 {
                Role::Primary
            } else {
                Role::Replica
            },
            zone: entry.zone.as_deref(),
            in_flight: lanes.map_or(usize::MAX, |lanes| lanes.in_flight()),
            latency: lanes.and_then(|lanes| lanes.latency().p50()),
        }
    }

    fn entry(&self, place: usize) -> &NodeEntry {
        match place.checked_sub(1) {
            None => &self.shard.primary,
            // The plan may have been made for a map that named more nodes.
            Some(replica) => self
                .shard
                .replicas
                .get(replica)
                .unwrap_or(&self.shard.primary),
        }
    }
}

/// What it takes to reach a node that was not known before.
pub(crate) struct Reach {
    pub(crate) nodes: NodeClient,
    pub(crate) options: LaneOptions,
    pub(crate) map_heard: MapHeard,
}

impl Routes {
    /// Routes of a map; nodes that `before` knows are taken from there.
    pub(crate) fn new(map: ShardMap, origin: Origin, before: Option<&Self>, reach: &Reach) -> Self {
        let way = |address: &Address| {
            let known = before.and_then(|routes| routes.node(address)).cloned();
            known.unwrap_or_else(|| {
                let (nodes, heard) = (reach.nodes.clone(), reach.map_heard.clone());
                NodeLanes::new(address.clone(), nodes, reach.options, heard)
            })
        };
        let ways = |shard: &Shard| shard.nodes().map(|node| way(&node.address)).collect();
        Self {
            nodes: map.shards().iter().map(ways).collect(),
            map: Arc::new(map),
            origin,
        }
    }

    pub(crate) fn map(&self) -> &Arc<ShardMap> {
        &self.map
    }

    /// The shard that owns a slot.
    pub(crate) fn shard(&self, slot: Slot) -> RoutedShard<'_> {
        let place = self.map.shard_number(slot);
        RoutedShard {
            shard: &self.map.shards()[place],
            nodes: &self.nodes[place],
        }
    }

    /// The shard of a number, if the map has it.
    pub(crate) fn shard_of_idx(&self, idx: u16) -> Option<RoutedShard<'_>> {
        let place = self
            .map
            .shards()
            .iter()
            .position(|shard| shard.idx == idx)?;
        Some(RoutedShard {
            shard: &self.map.shards()[place],
            nodes: &self.nodes[place],
        })
    }

    /// The way to a node, if the map knows it.
    pub(crate) fn node(&self, address: &Address) -> Option<&Arc<NodeLanes>> {
        let mut all = self.nodes.iter().flatten();
        all.find(|node| node.address() == address)
    }

    /// Every node with its shard, in the order of the map.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Shard, Role, &Arc<NodeLanes>)> {
        let role = |place| match place {
            0 => Role::Primary,
            _ => Role::Replica,
        };
        let shards = self.map.shards().iter().zip(&self.nodes);
        shards.flat_map(move |(shard, nodes)| {
            let nodes = nodes.iter().enumerate();
            nodes.map(move |(place, lanes)| (shard, role(place), lanes))
        })
    }

    /// Whether a map of this version and identity, told by a node, replaces this one: if it is newer; or, if this
    /// one is only a seed, also if it differs at the same version. Never if it is older.
    pub(crate) fn gives_way_to(&self, version: u64, identity: &str) -> bool {
        let mine = self.map.version();
        match self.origin {
            Origin::Node => version > mine,
            Origin::Seed => version > mine || version == mine && identity != self.map.identity(),
        }
    }
}
