//! What the doctor looks at: every node's status and map, when they were told, and where addresses lead.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use kvclient::{
    ShardMap,
    attempt::AttemptError,
    shard_map::{Address, NodeEntry, Role, Shard},
    wire::route,
};
use serde_json::Value;

use crate::nodes_say::Asker;

/// A node of the map.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) shard: String,
    pub(crate) address: Address,
    pub(crate) role: Role,
    pub(crate) status: Result<Value, AttemptError>,
    /// How far its clock is ahead of this machine's, in ms, and how wrong that may be: half of the time the answer took.
    pub(crate) ahead_ms: Option<(i64, i64)>,
}

impl Node {
    /// A field of its status, by its path.
    pub(crate) fn field(&self, pointer: &str) -> Option<&Value> {
        let value = self.status.as_ref().ok()?.pointer(pointer);
        value.filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        self.field(pointer)?.as_str()
    }

    pub(crate) fn number(&self, pointer: &str) -> Option<u64> {
        self.field(pointer)?.as_u64()
    }

    /// The seq of a position of its status.
    pub(crate) fn seq(&self, pointer: &str) -> Option<u64> {
        let position: kvclient::Position = self.text(pointer)?.parse().ok()?;
        Some(position.seq)
    }
}

/// Asks all nodes of a map at once.
pub(crate) async fn gather(asker: &Asker, map: &ShardMap) -> Vec<Node> {
    let nodes = map.shards().iter();
    let nodes = nodes.flat_map(|shard| shard.nodes().map(move |node| (shard, node)));
    join_all(nodes.map(|(shard, node)| ask(asker, shard, node))).await
}

async fn ask(asker: &Asker, shard: &Shard, node: &NodeEntry) -> Node {
    // Its first answer pays for the connection, and says little of its clock.
    let first = asker.document(&node.address, route::STATUS).await;
    let before = unix_ms();
    let status = match first {
        Ok(_) => asker.document(&node.address, route::STATUS).await,
        Err(error) => Err(error),
    };
    let after = unix_ms();
    let clock = status
        .as_ref()
        .ok()
        .and_then(|status| status.pointer("/machine/clock_ms")?.as_i64());
    Node {
        shard: shard.name.clone(),
        address: node.address.clone(),
        role: shard.role_of(&node.address).unwrap_or(Role::Primary),
        ahead_ms: clock.map(|clock| (clock - (before + after) / 2, (after - before + 1) / 2)),
        status,
    }
}

/// The hosts of a map, and whether each leads to this machine only; `None`: its name is not known here.
pub(crate) async fn hosts(map: &ShardMap) -> BTreeMap<String, Option<bool>> {
    let hosts: BTreeMap<_, _> = map
        .nodes()
        .map(|node| (node.address.host().to_owned(), &node.address))
        .collect();
    let looked_up = hosts.into_iter().map(async |(host, address)| {
        let found = tokio::net::lookup_host(address.to_string()).await;
        let is_loopback = found
            .ok()
            .map(|mut found| found.all(|at| at.ip().is_loopback()));
        (host, is_loopback)
    });
    join_all(looked_up).await.into_iter().collect()
}

fn unix_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A node with a sound status, and what else it says.
    pub(crate) fn node(port: u16, role: Role, says: &Value) -> Node {
        let address = format!("h:{port}");
        let sound = serde_json::json!({
            "address": address, "node_id": address, "state": "ready", "damaged": 0, "version": "1",
            "durable": "1.5000", "truncated": 0, "history": "a", "lag_ms": 0, "lag_records": 0,
            "replicas": [{ "address": "h:2", "connected": true }],
            "lmdb_bytes": 1 << 20, "insecure_no_auth": false,
            "machine": {
                "disk_free_bytes": 50_u64 << 30, "disk_size_bytes": 100_u64 << 30, "memory_bytes": 8_u64 << 30,
                "open_files_limit": 65_536,
            },
            "settings": {
                "max_value_bytes": 1 << 20, "memtable_bytes": 64 << 20, "lmdb_map_bytes": 64_u64 << 30,
                "log_segment_bytes": 64 << 20, "log_retention_bytes": 1 << 30, "max_connections": 4_096,
            },
        });
        let mut status = sound;
        merge(&mut status, says);
        Node {
            shard: "s".into(),
            address: address.parse().expect("an address"),
            role,
            status: Ok(status),
            ahead_ms: Some((0, 1)),
        }
    }

    fn merge(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (name, value) in from {
                    merge(into.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from.clone(),
        }
    }
}
