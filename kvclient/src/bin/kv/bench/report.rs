//! What was measured, in the form in which it is told: the fields of `--json`, from which the text is made as well.
//!
//! Scripts read it, so names and units are fixed; `kv bench --help` lists them.

use hdrhistogram::Histogram;
use kvclient::{Ack, Consistency};
use serde::Serialize;

use super::{
    load::Loaded,
    record::{Failures, OfKind, Reason},
    run::{Measured, Plan},
    workload::{Distribution, Kind},
};

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) workload: &'static str,
    pub(crate) settings: Settings,
    pub(crate) loaded: LoadedKeys,
    pub(crate) interrupted: bool,
    pub(crate) seconds: f64,
    pub(crate) ops: u64,
    pub(crate) ops_per_second: f64,
    pub(crate) failed: u64,
    pub(crate) unknown_outcome: u64,
    pub(crate) absent: u64,
    pub(crate) never_begun: u64,
    pub(crate) kinds: Vec<KindReport>,
    pub(crate) failures: Vec<FailureReport>,
}

/// What it was made under.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) distribution: Distribution,
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    pub(crate) tasks: usize,
    pub(crate) warm_up_seconds: f64,
    pub(crate) duration_seconds: f64,
    pub(crate) ops: Option<u64>,
    pub(crate) rate_per_second: Option<u32>,
    #[serde(rename = "loop")]
    pub(crate) of_loop: &'static str,
    pub(crate) consistency: String,
    pub(crate) ack: String,
    pub(crate) seed: u64,
}

/// What was done before, so that the keys are there.
#[derive(Debug, Serialize)]
pub(crate) struct LoadedKeys {
    pub(crate) stored_keys: u64,
    pub(crate) removed_keys: u64,
}

/// Ops of one kind that were answered.
#[derive(Debug, Serialize)]
pub(crate) struct KindReport {
    pub(crate) kind: Kind,
    pub(crate) ops: u64,
    pub(crate) absent: u64,
    pub(crate) service_time: Latency,
    pub(crate) response_time: Option<Latency>,
}

/// Times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean_us: f64,
    pub(crate) p50_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p99_9_us: u64,
    pub(crate) max_us: u64,
}

/// Ops that failed alike.
#[derive(Debug, Serialize)]
pub(crate) struct FailureReport {
    pub(crate) kind: Kind,
    pub(crate) error: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) count: u64,
    pub(crate) first: String,
}

/// The terms of its ops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) consistency: Consistency,
    pub(crate) ack: Option<Ack>,
}

impl Report {
    pub(crate) fn new(plan: &Plan, terms: Terms, loaded: Loaded, measured: &Measured) -> Self {
        let tally = &measured.tally;
        let unknown = tally.failures().filter(|(reason, _)| reason.is_unknown);
        let seconds = measured.elapsed.as_secs_f64();
        Self {
            workload: plan.workload.name(),
            settings: Settings::new(plan, terms),
            loaded: LoadedKeys {
                stored_keys: loaded.stored,
                removed_keys: loaded.removed,
            },
            interrupted: measured.was_interrupted,
            seconds: rounded(seconds),
            ops: tally.answered(),
            ops_per_second: match seconds > 0.0 {
                true => rounded(tally.answered() as f64 / seconds),
                false => 0.0,
            },
            failed: tally.failed(),
            unknown_outcome: unknown.map(|(_, failures)| failures.count).sum(),
            absent: tally.kinds().map(|(_, of_kind)| of_kind.absent).sum(),
            never_begun: measured.never_begun,
            kinds: tally.kinds().map(KindReport::new).collect(),
            failures: tally.failures().map(FailureReport::new).collect(),
        }
    }
}

impl Settings {
    fn new(plan: &Plan, terms: Terms) -> Self {
        let limits = &plan.limits;
        Self {
            distribution: plan.distribution,
            keys: plan.keys,
            value_bytes: plan.value.len(),
            tasks: plan.tasks,
            warm_up_seconds: limits.warm_up.as_secs_f64(),
            duration_seconds: limits.duration.as_secs_f64(),
            ops: limits.ops,
            rate_per_second: limits.rate,
            of_loop: match limits.rate {
                Some(_) => "open",
                None => "closed",
            },
            consistency: consistency_text(terms.consistency),
            ack: terms.ack.map_or("primary".to_owned(), Ack::to_text),
            seed: plan.seed,
        }
    }
}

/// As it is typed.
fn consistency_text(consistency: Consistency) -> String {
    match consistency {
        Consistency::Primary => "primary".to_owned(),
        Consistency::ReadYourWrites => "read-your-writes".to_owned(),
        Consistency::Eventual => "eventual".to_owned(),
        Consistency::MaxLag(lag) => format!("max-lag={}ms", lag.as_millis()),
        other => format!("{other:?}"),
    }
}

impl KindReport {
    fn new((kind, of_kind): (Kind, &OfKind)) -> Self {
        Self {
            kind,
            ops: of_kind.service.len(),
            absent: of_kind.absent,
            service_time: Latency::of(&of_kind.service),
            response_time: (!of_kind.response.is_empty()).then(|| Latency::of(&of_kind.response)),
        }
    }
}

impl Latency {
    fn of(times: &Histogram<u64>) -> Self {
        let at = |quantile| times.value_at_quantile(quantile);
        Self {
            mean_us: rounded(times.mean()),
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: times.max(),
        }
    }
}

impl FailureReport {
    fn new((reason, failures): (Reason, &Failures)) -> Self {
        Self {
            kind: reason.kind,
            error: reason.error,
            outcome: match reason.is_unknown {
                true => "unknown",
                false => "not_applied",
            },
            count: failures.count,
            first: failures.first.clone(),
        }
    }
}

/// To a thousandth: more would say nothing.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;
    use crate::bench::{
        pace::Limits,
        record::{Found, Recorder, Times},
        run::Progress,
        workload::Workload,
    };

    /// A run of two reads and an update that failed.
    pub(crate) async fn sample(rate: Option<u32>) -> Report {
        let plan = Plan {
            workload: Workload::A,
            distribution: Distribution::Uniform,
            keys: 1_000,
            value: Bytes::from_static(b"12345"),
            tasks: 8,
            seed: 7,
            limits: Limits {
                warm_up: Duration::ZERO,
                duration: Duration::from_secs(2),
                ops: None,
                rate,
            },
            progress: Progress::Hidden,
        };
        let due = Instant::now();
        let recorder = Recorder::new(due);
        let late = Duration::from_millis(rate.map_or(0, |_| 3));
        for (ms, found) in [(1, Found::Something), (2, Found::Nothing)] {
            let (begun, ended) = (due + late, due + late + Duration::from_millis(ms));
            let times = Times { due, begun, ended };
            recorder.record(0, Kind::Read, times, Ok(found));
        }
        let error = kvclient::Client::connect(Vec::<String>::new()).await;
        let (begun, ended) = (due, due);
        let times = Times { due, begun, ended };
        recorder.record(0, Kind::Update, times, Err(error.unwrap_err()));
        let measured = Measured {
            tally: recorder.take(),
            elapsed: Duration::from_secs(2),
            never_begun: 4,
            was_interrupted: true,
        };
        let terms = Terms {
            consistency: Consistency::MaxLag(Duration::from_millis(200)),
            ack: Some(Ack::Majority),
        };
        let loaded = Loaded {
            stored: 1_000,
            removed: 3,
        };
        Report::new(&plan, terms, loaded, &measured)
    }

    #[tokio::test]
    async fn names_and_units_are_fixed() {
        let json = serde_json::to_value(sample(Some(50)).await).unwrap();
        let expected = serde_json::json!({
            "workload": "a",
            "settings": {
                "distribution": "uniform", "keys": 1000, "value_bytes": 5, "tasks": 8,
                "warm_up_seconds": 0.0, "duration_seconds": 2.0, "ops": null,
                "rate_per_second": 50, "loop": "open", "consistency": "max-lag=200ms",
                "ack": "majority", "seed": 7
            },
            "loaded": { "stored_keys": 1000, "removed_keys": 3 },
            "interrupted": true, "seconds": 2.0, "ops": 2, "ops_per_second": 1.0,
            "failed": 1, "unknown_outcome": 0, "absent": 1, "never_begun": 4,
            "kinds": [{
                "kind": "read", "ops": 2, "absent": 1,
                "service_time": {
                    "mean_us": 1500.0, "p50_us": 1000, "p95_us": 2000, "p99_us": 2000,
                    "p99_9_us": 2000, "max_us": 2000
                },
                "response_time": {
                    "mean_us": 4501.5, "p50_us": 4001, "p95_us": 5003, "p99_us": 5003,
                    "p99_9_us": 5003, "max_us": 5003
                }
            }],
            "failures": [{
                "kind": "update", "error": "invalid", "outcome": "not_applied", "count": 1,
                "first": json["failures"][0]["first"]
            }]
        });
        assert_eq!(json, expected);
    }

    #[tokio::test]
    async fn in_a_closed_loop_nothing_was_due() {
        let json = serde_json::to_value(sample(None).await).unwrap();
        assert_eq!(json["settings"]["loop"], "closed");
        assert!(json["kinds"][0]["response_time"].is_null());
    }

    /// Each name that scripts can use is in the help.
    #[tokio::test]
    async fn the_help_names_every_field() {
        use clap::CommandFactory;
        let mut command = crate::args::Cli::command();
        let bench = command.find_subcommand_mut("bench").unwrap();
        let help = bench.render_long_help().to_string();
        let json = serde_json::to_value(sample(Some(50)).await).unwrap();
        let mut names = Vec::new();
        collect_names(&json, &mut names);
        for name in names {
            assert!(help.contains(&name), "{name}");
        }
    }

    fn collect_names(json: &serde_json::Value, names: &mut Vec<String>) {
        if let Some(object) = json.as_object() {
            names.extend(object.keys().cloned());
            object
                .values()
                .for_each(|value| collect_names(value, names));
        }
        if let Some(list) = json.as_array() {
            list.iter().for_each(|value| collect_names(value, names));
        }
    }
}
