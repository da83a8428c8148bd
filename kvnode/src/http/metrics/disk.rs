//! Room on the disk of the data directory.

use prometheus_client::{metrics::gauge::ConstGauge, registry::Registry};

use crate::{machine, service::Service};

/// Adds it, if the system tells.
pub(super) fn disk(registry: &mut Registry, service: &Service) {
    let Some(disk) = machine::disk_of(&service.config.data) else {
        return;
    };
    let help = "Room for the node on the disk of its data directory";
    registry.register(
        "data_disk_free_bytes",
        help,
        ConstGauge::new(disk.free_bytes),
    );
    let help = "Size of the disk of the data directory";
    registry.register(
        "data_disk_size_bytes",
        help,
        ConstGauge::new(disk.size_bytes),
    );
}
