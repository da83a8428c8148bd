//! Times that this node counts by itself, in the text format.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Registry,
};

use crate::metrics::Times;

/// Labels of a histogram.
pub(super) type Labels = Vec<(&'static str, &'static str)>;

/// Histograms of one name.
#[derive(Debug)]
struct Histograms {
    name: &'static str,
    help: &'static str,
    times: Vec<(Labels, OneHistogram)>,
}

#[derive(Debug)]
struct OneHistogram(Times);

/// Adds histograms of one name, each with its labels; one alone may have none.
pub(super) fn histogram(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    times: Vec<(Labels, Times)>,
) {
    let times = times
        .into_iter()
        .map(|(labels, times)| (labels, OneHistogram(times)))
        .collect();
    registry.register_collector(Box::new(Histograms { name, help, times }));
}

impl Collector for Histograms {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut family =
            encoder.encode_descriptor(self.name, self.help, None, MetricType::Histogram)?;
        if let [(labels, times)] = &*self.times
            && labels.is_empty()
        {
            return times.encode(family);
        }
        for (labels, times) in &self.times {
            times.encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

impl EncodeMetric for OneHistogram {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let buckets: Vec<_> = self.0.buckets().collect();
        // Counted from the buckets, so that both always agree.
        let count = self.0.count();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum().as_secs_f64(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
