//! What a node says of itself: `/status`, read by people, by `/cluster/status`, and by a primary that starts.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use kvclient::{position::Position, wire::route};
use serde::{Deserialize, Serialize};

use crate::{
    machine::{MachineStatus, SettingsStatus},
    ownership::own_shard,
    replication::acks,
    service::Service,
    storage::Storage,
};

/// How long another node has to tell its state.
const ASK_FOR: Duration = Duration::from_millis(500);

/// State of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Address in the map.
    pub address: String,
    /// Random id of the data directory, 16 hex digits.
    pub node_id: String,
    /// Name of the shard.
    pub shard: String,
    /// Its slots.
    pub slots: String,
    /// `primary` or `replica`.
    pub role: String,
    /// Whether it serves: `ready`, or why not.
    pub state: String,
    /// Whether its data is there but not open yet: what it says of positions is not known.
    #[serde(default)]
    pub recovering: bool,
    /// Why the last pull of this replica did not advance; absent if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_trouble: Option<String>,
    /// Identity of the map in force.
    pub map_version: String,
    /// History of the log, 32 hex digits; absent while it holds none.
    pub history: Option<String>,
    /// Newest reign in the log.
    pub epoch: u32,
    /// Newest reign heard of, also from other nodes.
    pub largest_epoch: u32,
    /// Last position synced.
    pub durable: String,
    /// Last position that readers see.
    pub visible: String,
    /// Last position in LMDB.
    pub applied: String,
    /// Last seq no longer in the log.
    pub truncated: u64,
    /// How far behind the primary in records; absent on a replica that never pulled.
    pub lag_records: Option<u64>,
    /// How far behind the primary in milliseconds; absent on a replica that never pulled.
    pub lag_ms: Option<u64>,
    /// Entries in LMDB.
    pub entries: u64,
    /// Bytes of LMDB in use.
    pub lmdb_bytes: u64,
    /// Bytes of log kept.
    pub log_bytes: u64,
    /// Stored entries found damaged since start.
    pub damaged: u64,
    /// Replicas of the map that pulled from this primary since it started.
    pub replicas: Vec<ReplicaStatus>,
    /// Seconds since start.
    pub uptime_seconds: u64,
    /// Version of kvnode.
    pub version: String,
    /// How many tokens it knows; absent if it asks nobody who he is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Why the tokens in force are not those of the file; absent if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_trouble: Option<String>,
    /// What a person should do about its certificates: they have ended, soon will, or are not those of the files; absent
    /// if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_trouble: Option<String>,
    /// Whether it listens beyond loopback without credentials.
    pub insecure_no_auth: bool,
    /// Its machine.
    #[serde(default)]
    pub machine: MachineStatus,
    /// What it was set to.
    #[serde(default)]
    pub settings: SettingsStatus,
}

/// A replica as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Address in the map.
    pub address: String,
    /// Random id of its data directory.
    pub node_id: String,
    /// What it has synced, as it said with its last pull.
    pub durable: String,
    /// Milliseconds since its last pull.
    pub last_pull_ms: u64,
    /// Whether that is lately enough for a write to wait for it.
    #[serde(default)]
    pub connected: bool,
}

/// What the storage in force says; nothing if there is none.
#[derive(Default)]
struct StorageStatus {
    history: Option<String>,
    epoch: u32,
    durable: Position,
    visible: Position,
    applied: Position,
    truncated: u64,
    entries: u64,
    lmdb_bytes: u64,
    log_bytes: u64,
    damaged: u64,
}

impl StorageStatus {
    fn of(storage: &Storage) -> Self {
        let (store, log) = (storage.store.stats(), storage.log.stats());
        // In the order in which they can only fall behind each other: truncated <= applied <= visible <= durable.
        let truncated = storage.log.truncated();
        let applied = storage.store.applied().position;
        let visible = storage.store.visible();
        Self {
            history: Some(format!("{:032x}", storage.history)),
            epoch: storage.store.lineage().epoch(),
            durable: storage.log.durable(),
            visible,
            applied,
            truncated,
            entries: store.entries,
            lmdb_bytes: store.used_bytes,
            log_bytes: log.bytes,
            damaged: store.damaged_reads,
        }
    }
}

impl Service {
    /// This node's state.
    pub fn status(&self) -> NodeStatus {
        let map = self.map.load();
        let shard = own_shard(&map, self.place());
        let storage = self.storage.load();
        let stored = storage
            .as_deref()
            .map(StorageStatus::of)
            .unwrap_or_default();
        let now = Instant::now();
        let replicas = self
            .progress
            .replicas()
            .into_iter()
            .filter(|(_, replica)| acks::is_replica(shard, &replica.address))
            .map(|(node_id, replica)| ReplicaStatus {
                address: replica.address.to_string(),
                node_id: format!("{node_id:016x}"),
                durable: replica.durable.to_string(),
                last_pull_ms: u64::try_from(replica.seen.elapsed().as_millis()).unwrap_or(u64::MAX),
                connected: replica.is_connected(now),
            });
        let is_primary = self.role() == kvclient::shard_map::Role::Primary;
        NodeStatus {
            address: self.config.address.to_string(),
            node_id: format!("{:016x}", self.node_id),
            shard: shard.name.clone(),
            slots: shard.slots_text(),
            role: self.role().to_string(),
            state: self.ready().err().unwrap_or_else(|| "ready".to_owned()),
            recovering: self.recovering.load(Ordering::Acquire),
            pull_trouble: self.progress.trouble(),
            map_version: map.identity().to_owned(),
            history: stored.history,
            epoch: stored.epoch,
            largest_epoch: self.progress.largest_epoch().max(stored.epoch),
            durable: stored.durable.to_string(),
            visible: stored.visible.to_string(),
            applied: stored.applied.to_string(),
            truncated: stored.truncated,
            lag_records: if is_primary {
                Some(0)
            } else {
                self.progress.lag_records(stored.visible)
            },
            lag_ms: self.lag_ms(),
            entries: stored.entries,
            lmdb_bytes: stored.lmdb_bytes,
            log_bytes: stored.log_bytes,
            damaged: stored.damaged,
            replicas: replicas.collect(),
            uptime_seconds: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tokens: self.admission.tokens().map(|tokens| tokens.len()),
            tokens_trouble: self.admission.trouble(),
            certificates_trouble: self.config.tls.as_ref().and_then(|tls| tls.trouble()),
            insecure_no_auth: self.config.insecure_no_auth,
            machine: MachineStatus::look(&self.config.data),
            settings: SettingsStatus::of(&self.config),
        }
    }

    /// Every node's state as JSON: a list in the order of the map; a node that does not answer is named with the
    /// reason.
    pub async fn gather_status(&self) -> String {
        let map = self.map.load_full();
        let asked = map.nodes().map(async |node| {
            if node.address == self.config.address {
                return serde_json::to_value(self.status()).unwrap_or_default();
            }
            match self
                .asker
                .client()
                .get_json(&node.address, route::STATUS, ASK_FOR)
                .await
            {
                Ok(status) => status,
                Err(error) => {
                    let state = format!("no answer: {error}");
                    serde_json::json!({ "address": node.address.to_string(), "state": state })
                }
            }
        });
        let nodes = join_all(asked).await;
        serde_json::json!({ "map_version": map.identity(), "nodes": nodes }).to_string()
    }
}
