//! `/metrics` is what Prometheus can read, and its numbers move.

use std::collections::HashMap;

use crate::support::{Shard, put};

/// Names with their types, and samples with their values.
struct Scrape {
    types: HashMap<String, String>,
    samples: HashMap<String, f64>,
}

impl Scrape {
    async fn of(shard: &Shard, node: usize) -> Self {
        let answer = shard.get(node, "/metrics").await;
        assert_eq!(answer.status(), 200);
        let content_type = answer.headers()["content-type"].to_str().expect("text");
        assert_eq!(
            content_type,
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        Self::parse(&answer.text().await.expect("text"))
    }

    /// Checks that help and type stand before each sample, and that the end is marked.
    fn parse(text: &str) -> Self {
        let (mut types, mut samples) = (HashMap::new(), HashMap::new());
        let mut helped = String::new();
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("name and help");
                assert!(help.len() > 5, "{line}");
                helped = name.to_owned();
            } else if let Some(of) = line.strip_prefix("# TYPE ") {
                let (name, kind) = of.split_once(' ').expect("name and type");
                assert_eq!(name, helped, "help stands before type");
                assert!(
                    types.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "{line} again"
                );
            } else {
                let (sample, value) = line.rsplit_once(' ').expect("sample and value");
                let name = sample.split('{').next().expect("a name");
                assert!(name.starts_with(&helped), "{line} stands under {helped}");
                let value = value.parse().expect("a number");
                assert!(
                    samples.insert(sample.to_owned(), value).is_none(),
                    "{line} again"
                );
            }
        }
        Self { types, samples }
    }

    fn value(&self, sample: &str) -> f64 {
        *self
            .samples
            .get(sample)
            .unwrap_or_else(|| panic!("{sample} is missing"))
    }
}

#[tokio::test]
async fn every_metric_is_described_and_moves() {
    let shard = Shard::start(2, &[]).await;
    let before = Scrape::of(&shard, 0).await;
    for n in 0..5 {
        shard.put(format!("key{n}").as_bytes(), "", "value").await;
    }
    shard
        .batch(
            (0..7)
                .map(|n| put(format!("batch{n}"), "v", None))
                .collect(),
        )
        .await;
    shard
        .until("the replica has it all", async || {
            shard.status(1).await["visible"] == shard.status(0).await["visible"]
        })
        .await;
    let after = Scrape::of(&shard, 0).await;
    let grew = |sample: &str| after.value(sample) - before.value(sample);

    assert_eq!(grew("kv_durable_seq"), 12.0);
    assert_eq!(grew("kv_visible_seq"), 12.0);
    assert_eq!(grew("kv_commit_records_total"), 12.0);
    assert_eq!(grew("kv_commit_sync_seconds_count"), 6.0);
    assert!(grew("kv_commit_sync_seconds_sum") > 0.0);
    assert_eq!(
        (grew("kv_batches_total"), grew("kv_batch_ops_total")),
        (1.0, 7.0)
    );
    assert!(grew("kv_http_answers_total{status=\"2xx\"}") >= 6.0);
    assert!(after.value("kv_commit_sync_seconds_bucket{le=\"+Inf\"}") >= 6.0);
    assert_eq!(after.value("kv_epoch"), 1.0);
    assert_eq!(after.value("kv_replicas_connected"), 1.0);
    assert_eq!(
        after.value(&format!(
            "kv_build_info{{version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        )),
        1.0
    );
    assert!(after.value("process_resident_memory_bytes") > 1e6);
    assert!(after.value("kv_log_bytes") > 0.0 && after.value("kv_lmdb_map_bytes") > 0.0);
    assert_eq!(after.types["kv_commit_sync_seconds"], "histogram");
    assert_eq!(after.types["kv_damaged_reads"], "counter");
    assert!(
        after.samples.keys().all(|sample| !sample.contains("key0")),
        "keys are no labels"
    );

    let replica = Scrape::of(&shard, 1).await;
    assert!(replica.value("kv_lag_seconds") < 30.0);
    assert_eq!(
        (replica.value("kv_primary"), replica.value("kv_ready")),
        (0.0, 1.0)
    );
}
