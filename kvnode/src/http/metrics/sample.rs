//! One metric with its value, as it is at a scrape.

use std::{
    fmt::Debug,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{EncodeCounterValue, EncodeGaugeValue},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// Labels of one dimension.
pub(super) type Label = [(&'static str, String); 1];

/// What only grows while the node runs.
pub(super) fn counter<N>(registry: &mut Registry, name: &str, help: &str, value: N)
where
    N: EncodeCounterValue + Debug + Send + Sync + 'static,
{
    registry.register(name, help, ConstCounter::new(value));
}

/// What is so now.
pub(super) fn gauge<N>(registry: &mut Registry, name: &str, help: &str, value: N)
where
    N: EncodeGaugeValue + Debug + Send + Sync + 'static,
{
    registry.register(name, help, ConstGauge::new(value));
}

/// A moment as metrics have it.
pub(super) fn seconds_since_epoch(moment: SystemTime) -> f64 {
    let since = moment.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
