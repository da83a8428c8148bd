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
        let open = "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";
        let asked = shard.client.get(shard.url(node, "/metrics"));
        let answer = asked
            .header("accept", open)
            .send()
            .await
            .expect("an answer");
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

/// The sample of an op's times that counts them.
fn count_of(op: &str, outcome: &str) -> String {
    format!("kv_op_seconds_count{{op=\"{op}\",outcome=\"{outcome}\"}}")
}

#[tokio::test]
async fn ops_are_counted_by_kind_outcome_and_reason() {
    let shard = Shard::start(1, &[]).await;
    shard.put(b"here", "", "1").await;
    shard
        .batch(vec![put("a", "v", None), put("b", "v", None)])
        .await;
    for uri in ["/kv/here", "/kv/absent", "/get?key=here"] {
        shard.get(0, uri).await;
    }
    let put = |uri| shard.client.put(shard.url(0, uri)).body("v");
    let taken = put("/kv/here").header("if-none-match", "*");
    assert_eq!(taken.send().await.expect("an answer").status(), 412);
    let malformed = put("/kv/here?ttl=soon");
    assert_eq!(malformed.send().await.expect("an answer").status(), 400);

    let scrape = Scrape::of(&shard, 0).await;
    for (op, outcome, count) in [
        ("put", "ok", 3.0),
        ("put", "conflict", 1.0),
        ("get", "ok", 2.0),
        ("get", "not_found", 1.0),
    ] {
        assert_eq!(
            scrape.value(&count_of(op, outcome)),
            count,
            "{op} {outcome}"
        );
        let sum = count_of(op, outcome).replace("_count", "_sum");
        let last = format!("kv_op_seconds_bucket{{le=\"+Inf\",op=\"{op}\",outcome=\"{outcome}\"}}");
        assert!(scrape.value(&sum) > 0.0, "{sum}");
        assert_eq!(scrape.value(&last), count, "{last}");
    }
    let nothing = count_of("delete", "ok");
    assert!(
        !scrape.samples.contains_key(&nothing),
        "what is none takes no room"
    );
    for (reason, count) in [
        ("precondition_failed", 1.0),
        ("bad_parameter", 1.0),
        ("no_space", 0.0),
    ] {
        let sample = format!("kv_refusals_total{{reason=\"{reason}\"}}");
        assert_eq!(scrape.value(&sample), count, "{sample}");
    }
    let absent = "kv_refusals_total{reason=\"not_found\"}";
    assert!(
        !scrape.samples.contains_key(absent),
        "an absent key is no refusal"
    );
    assert_eq!(scrape.types["kv_op_seconds"], "histogram");
    // Three writes came in two groups, and the reign in one before them.
    assert_eq!(scrape.value("kv_commit_group_records_count"), 3.0);
    assert_eq!(scrape.value("kv_commit_group_records_sum"), 4.0);
    assert_eq!(scrape.value("kv_flush_seconds_count"), 0.0);
    assert!(scrape.value("kv_connections") >= 1.0);
    assert!(scrape.value("kv_lmdb_readers") >= 1.0);
}

/// A rate begins with the second value of a series: of faults whose first value was not 0 it did not see the first ones.
#[tokio::test]
async fn series_of_faults_began_with_the_first_fault() {
    let shard = Shard::start(1, &[]).await;
    let scrape = Scrape::of(&shard, 0).await;
    for op in ["get", "put", "delete", "incr", "expire", "persist"] {
        assert_eq!(scrape.value(&count_of(op, "failed")), 0.0);
        let unknown = count_of(op, "unknown");
        assert_eq!(scrape.samples.contains_key(&unknown), op != "get", "{op}");
    }
}

/// What was turned away before its body was looked at was counted in a batch and not alone.
#[tokio::test]
async fn a_lone_write_that_was_turned_away_was_no_op() {
    let shard = Shard::start(2, &[]).await;
    let put = shard.client.put(shard.url(1, "/kv/a")).body("v");
    assert_eq!(put.send().await.expect("an answer").status(), 403);
    let incr = shard.client.post(shard.url(1, "/kv/a?incr=5"));
    assert_eq!(incr.send().await.expect("an answer").status(), 403);
    let scrape = Scrape::of(&shard, 1).await;
    assert_eq!(scrape.value(&count_of("put", "refused")), 1.0);
    assert_eq!(scrape.value(&count_of("incr", "refused")), 1.0);
    let replicas = Scrape::of(&shard, 0).await.value("kv_replicas");
    assert_eq!(replicas, 1.0);
}

/// Of slow ops those were missing that somebody had waited for longest: until he gave up.
#[tokio::test]
async fn an_op_whose_client_hung_up_was_not_counted() {
    let shard = Shard::start(1, &[]).await;
    let waits = shard
        .client
        .get(shard.url(0, "/kv/a"))
        .header("kv-min-position", "1.999")
        .header("kv-wait-ms", "5000")
        .timeout(std::time::Duration::from_millis(200));
    assert!(waits.send().await.expect_err("no answer").is_timeout());
    shard
        .until("it is counted", async || {
            let scrape = Scrape::of(&shard, 0).await;
            let counted = scrape.samples.get(&count_of("get", "abandoned"));
            counted == Some(&1.0)
        })
        .await;
}

#[tokio::test]
async fn the_last_minutes_hold_what_was_done() {
    let shard = Shard::start(1, &[]).await;
    for n in 0..3 {
        shard.put(format!("key{n}").as_bytes(), "", "value").await;
    }
    shard.get(0, "/kv/key0").await;
    let samples = async |after: u64| -> Vec<serde_json::Value> {
        let answer = shard
            .get(0, &format!("/status/history?after={after}"))
            .await;
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.expect("text");
        let history: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(history["every_ms"], 1_000);
        history["samples"].as_array().expect("a list").clone()
    };
    let sum = |samples: &[serde_json::Value], of: &str| -> u64 {
        samples
            .iter()
            .filter_map(|sample| sample[of].as_u64())
            .sum()
    };
    shard
        .until("the second is over", async || {
            let samples = samples(0).await;
            (sum(&samples, "writes"), sum(&samples, "reads")) == (3, 1)
        })
        .await;
    let all = samples(0).await;
    let busy = all
        .iter()
        .find(|sample| sample["writes"] != 0)
        .expect("one");
    assert!(busy["write_p50_us"].as_f64() > Some(0.0), "{busy}");
    assert!(
        busy["write_p99_us"].as_f64() >= busy["write_p50_us"].as_f64(),
        "{busy}"
    );
    assert!(busy["memory_bytes"].as_u64() > Some(100_000), "{busy}");
    assert!(busy["log_bytes"].as_u64() > Some(0), "{busy}");
    assert_eq!((&busy["lag_ms"], &busy["failed"]), (&0.into(), &0.into()));
    let idle = all.iter().find(|sample| sample["writes"] == 0);
    assert!(idle.is_none_or(|idle| idle["write_p50_us"].is_null()));
    let last = all
        .last()
        .and_then(|last| last["at_ms"].as_u64())
        .expect("a time");
    assert!(
        samples(last)
            .await
            .iter()
            .all(|sample| sample["at_ms"].as_u64() > Some(last))
    );
    assert_eq!(shard.get(0, "/status/history?after=x").await.status(), 400);
}

/// Who asks for nothing special gets what every program that reads metrics can read.
#[tokio::test]
async fn without_a_wish_metrics_are_in_the_older_format() {
    let shard = Shard::start(1, &[]).await;
    let answer = shard.get(0, "/metrics").await;
    let content_type = answer.headers()["content-type"].to_str().expect("text");
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.expect("text");
    let mut described = "";
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of.split_once(' ').expect("name and type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            described = name;
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().expect("a name");
            let of_histogram = ["_sum", "_count", "_bucket"].map(|end| format!("{described}{end}"));
            let is_described = name == described || of_histogram.iter().any(|of| of == name);
            assert!(is_described, "{line} stands under {described}");
        }
    }
    assert!(text.contains("\nkv_ready 1\n") && text.contains("# TYPE kv_batches_total counter\n"));
}
