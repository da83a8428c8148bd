//! What the tests of the client share: scripted nodes, and maps that name them.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses its own part of it"
)]
#![allow(clippy::unwrap_used, reason = "only tests come here")]

#[cfg(feature = "tls")]
pub(crate) mod certificates;
pub(crate) mod fake_log;
pub(crate) mod fake_node;
pub(crate) mod fake_scan;
pub(crate) mod replies;
pub(crate) mod silent;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(feature = "cli")]
pub(crate) mod tool;

use std::time::Duration;

use kvclient::{
    Client, ClientBuilder, Key,
    shard_map::{Address, NodeEntry, Shard, ShardMap, even_slots},
    slot::Slot,
};

pub(crate) use fake_log::FakeLog;
pub(crate) use fake_node::{FakeNode, Part, Reply, StreamReply, Then};
pub(crate) use fake_scan::FakeShard;
pub(crate) use replies::{found, missing, redirect, refused, stored};
pub(crate) use silent::Silent;

/// Nodes of a cluster by shard: the primary first.
pub(crate) struct Cluster {
    pub(crate) shards: Vec<Vec<FakeNode>>,
}

impl Cluster {
    /// So many shards with so many replicas each, all with empty stores.
    pub(crate) async fn start(shards: usize, replicas: usize) -> Self {
        let mut cluster = Self { shards: Vec::new() };
        for _ in 0..shards {
            let mut nodes = Vec::new();
            for _ in 0..=replicas {
                nodes.push(FakeNode::start().await);
            }
            cluster.shards.push(nodes);
        }
        cluster
    }

    pub(crate) fn primary(&self, shard: usize) -> &FakeNode {
        &self.shards[shard][0]
    }

    pub(crate) fn replica(&self, shard: usize, replica: usize) -> &FakeNode {
        &self.shards[shard][1 + replica]
    }

    pub(crate) fn map(&self, version: u64) -> ShardMap {
        let shards: Vec<Vec<Address>> = self
            .shards
            .iter()
            .map(|nodes| nodes.iter().map(|node| node.address.clone()).collect())
            .collect();
        map(version, &shards)
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(self.map(1))
            .pauses(Duration::from_millis(5), Duration::from_millis(20))
            .refresh_interval(Duration::from_millis(20))
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }
}

/// A map of shards with even slots.
pub(crate) fn map(version: u64, shards: &[Vec<Address>]) -> ShardMap {
    let node = |address: &Address| NodeEntry {
        address: address.clone(),
        zone: None,
    };
    let count = u16::try_from(shards.len()).unwrap();
    let shards = shards.iter().zip(0_u16..).map(|(nodes, idx)| Shard {
        name: format!("shard{idx}"),
        idx,
        slots: vec![even_slots(idx, count)],
        primary: node(&nodes[0]),
        replicas: nodes[1..].iter().map(node).collect(),
    });
    ShardMap::new(version, shards.collect()).unwrap()
}

/// Keys that a map gives to a shard, as many as wanted.
pub(crate) fn keys_of(map: &ShardMap, shard: usize) -> impl Iterator<Item = String> + use<'_> {
    let of_shard = move |key: &String| {
        let key = Key::copy_from(key.as_bytes()).unwrap();
        map.shard_number(Slot::of(&key)) == shard
    };
    (0..).map(|n| format!("key{n}")).filter(of_shard)
}

/// A key that a map gives to a shard.
pub(crate) fn key_of(map: &ShardMap, shard: usize) -> String {
    keys_of(map, shard).next().unwrap()
}

/// Waits until something holds; panics with the reason after 5 s.
pub(crate) async fn wait_until(reason: &str, holds: impl Fn() -> bool) {
    for _ in 0..5_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("did not come true in 5 s: {reason}");
}
