//! What the node is to its shard, and how far its replicas are.

use std::time::{Duration, Instant};

use kvclient::shard_map::Role;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use super::sample::{Label, gauge, seconds_since_epoch};
use crate::{ownership::own_shard, service::Service};

/// Version, role, and whether it serves.
pub(super) fn node(registry: &mut Registry, service: &Service) {
    let version = vec![("version", env!("CARGO_PKG_VERSION"))];
    registry.register("build", "Version of kvnode", Info::new(version));
    let is_primary = u64::from(service.role() == Role::Primary);
    gauge(
        registry,
        "primary",
        "1 on the primary of a shard, 0 on a replica",
        is_primary,
    );
    let ready = u64::from(service.ready().is_ok());
    gauge(registry, "ready", "Whether the node serves", ready);
    if let Some(tls) = &service.config.tls {
        gauge(
            registry,
            "tls_certificate_expiry_timestamp_seconds",
            "When the node's certificate ends, or the first one of its chain",
            seconds_since_epoch(tls.expires()),
        );
    }
}

/// Lag, of this node or of its replicas.
pub(super) fn replication(registry: &mut Registry, service: &Service) {
    if let Some(lag_ms) = service.lag_ms() {
        let help = "How far this node's visible is behind its primary; 0 on a primary, absent before the first pull";
        gauge(
            registry,
            "lag_seconds",
            help,
            Duration::from_millis(lag_ms).as_secs_f64(),
        );
    }
    let (visible, durable) = match &*service.storage.load() {
        Some(storage) => (storage.store.visible(), storage.log.durable()),
        None => Default::default(),
    };
    let lag_records = match service.role() {
        Role::Primary => Some(0),
        Role::Replica => service.progress.lag_records(visible),
    };
    if let Some(records) = lag_records {
        gauge(
            registry,
            "lag_records",
            "How far behind in records, as of the last pull",
            records,
        );
    }
    let map = service.map.load();
    gauge(
        registry,
        "replicas",
        "Replicas that the map names for this node's shard",
        own_shard(&map, service.place()).replicas.len(),
    );
    let now = Instant::now();
    let mut replicas = service.progress.replicas();
    replicas.retain(|(_, replica)| replica.is_connected(now));
    gauge(
        registry,
        "replicas_connected",
        "Replicas that pulled within 5 s",
        replicas.len(),
    );
    let lags = Family::<Label, Gauge>::default();
    for (_, replica) in replicas {
        let behind = durable.seq.saturating_sub(replica.durable.seq);
        lags.get_or_create(&[("replica", replica.address.to_string())])
            .set(i64::try_from(behind).unwrap_or(i64::MAX));
    }
    let help = "Records that a connected replica has not synced yet";
    registry.register("replica_lag_records", help, lags);
}
