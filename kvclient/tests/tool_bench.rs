//! `kv bench` as a script sees it, against scripted nodes: what it stores, what it tells, how it ends.

#![allow(clippy::unwrap_used, reason = "only tests come here")]

mod support;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kvclient::wire::{
    batch::{Ack, Action},
    error::{Applied, ErrorCode},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{
    FakeShard, found, missing, refused,
    tool::{Ran, Tool},
    wait_until,
};

const QUICK: [&str; 8] = [
    "--keys",
    "200",
    "--tasks",
    "4",
    "--warm-up",
    "0",
    "--seed",
    "7",
];

/// Runs a workload; what it printed as JSON.
fn run(kv: &Tool, arguments: &[&str]) -> (Ran, Value) {
    let all = [&["bench", "--json"], &QUICK[..], arguments].concat();
    let ran = kv.run(&all);
    let json = serde_json::from_slice(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    (ran, json)
}

fn count(json: &Value, kind: &str) -> u64 {
    let kinds = json["kinds"].as_array().unwrap();
    let of_kind = kinds.iter().find(|one| one["kind"] == kind);
    of_kind.map_or(0, |one| one["ops"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_stored_once_and_every_workload_does_what_it_says() {
    let kv = Tool::start(2, 0).await;
    let (ran, first) = run(&kv, &["a", "--ops", "2000"]);
    assert_eq!((ran.code, ran.said.as_str()), (0, ""), "{ran:?}");
    assert_eq!(first["loaded"]["stored_keys"], 200);
    assert_eq!(first["ops"], 2_000);
    assert_eq!(first["settings"]["consistency"], "primary");
    assert_eq!(first["settings"]["seed"], 7);
    for (workload, one, other) in [
        ("a", "read", "update"),
        ("b", "read", "update"),
        ("c", "read", "read"),
        ("d", "read", "insert"),
        ("f", "read", "read_modify_write"),
    ] {
        let (ran, json) = run(&kv, &[workload, "--ops", "1000"]);
        assert_eq!(ran.code, 0, "{workload}: {ran:?}");
        assert_eq!(json["loaded"]["stored_keys"], 0, "{workload}: {json}");
        assert_eq!(json["absent"], 0, "{workload}: {json}");
        let (one, other) = (count(&json, one), count(&json, other));
        assert!(one > 0 && other > 0, "{workload}: {json}");
        assert!(one == 1_000 || one + other == 1_000, "{workload}: {json}");
        let reads = &json["kinds"][0]["service_time"];
        assert!(reads["p50_us"].as_u64() > Some(0), "{json}");
        assert!(
            reads["max_us"].as_u64() >= reads["p99_us"].as_u64(),
            "{json}"
        );
    }
    // What workload d added does not stay for the next run.
    let (_, json) = run(&kv, &["d", "--ops", "1000"]);
    assert_eq!(json["loaded"]["removed_keys"], 0, "{json}");
    let added = count(&json, "insert");
    let (_, json) = run(&kv, &["c", "--ops", "10"]);
    assert_eq!(json["loaded"]["removed_keys"], added, "{json}");
    // Values of another size are stored anew.
    let (_, json) = run(&kv, &["c", "--ops", "10", "--value-bytes", "7"]);
    assert_eq!(json["loaded"]["stored_keys"], 200, "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_begin_at_a_key_and_end_after_some_entries() {
    let kv = Tool::start(2, 0).await;
    let map = kv.cluster.map(1);
    let entries = (0..300).map(|n| (format!("bench:{n:016x}").into_bytes(), vec![b'v'; 100]));
    let entries: BTreeMap<_, _> = entries.collect();
    let asked = Arc::new(AtomicU64::new(0));
    for shard in 0..2 {
        let scripted = FakeShard::of(&map, shard, &entries);
        let asked = Arc::clone(&asked);
        kv.cluster.primary(shard).script_streams(move |request| {
            let query = request.query();
            assert_eq!(query.bytes("prefix"), Some(&b"bench:"[..]));
            assert!(query.bytes("start").unwrap().starts_with(b"bench:"));
            asked.fetch_add(1, Ordering::Relaxed);
            scripted.answer(request)
        });
    }
    let (ran, json) = run(&kv, &["e", "--ops", "200"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let (scans, inserts) = (count(&json, "scan"), count(&json, "insert"));
    assert_eq!(scans + inserts, 200, "{json}");
    assert!(scans > 150, "{json}");
    assert!(asked.load(Ordering::Relaxed) >= 2 * scans);
}

#[tokio::test(flavor = "multi_thread")]
async fn ops_that_fail_are_counted_by_reason_and_the_worst_is_the_exit_code() {
    let kv = Tool::start(1, 0).await;
    run(&kv, &["c", "--ops", "1"]);
    let node = kv.cluster.primary(0);
    let ops = node.ops().into_iter().filter(|op| op.action.is_write());
    let loaded: HashSet<_> = ops.map(|op| op.key).collect();
    assert_eq!(loaded.len(), 200);
    // By key, since a write of unknown outcome is sent again.
    node.script(move |op| match op.action {
        Action::Put { .. } if op.key.as_bytes().last().is_some_and(u8::is_ascii_digit) => {
            refused(ErrorCode::AckTimeout, Some(Applied::Unknown))
        }
        Action::Put { .. } => refused(ErrorCode::NoSpace, Some(Applied::No)),
        _ if loaded.contains(&op.key) => found(&"v".repeat(100), 7),
        _ => missing(7),
    });
    let (ran, json) = run(&kv, &["a", "--ops", "60", "--timeout", "300ms"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    let failed = json["failed"].as_u64().unwrap();
    assert_eq!(count(&json, "read") + failed, 60, "{json}");
    assert_eq!(count(&json, "update"), 0, "{json}");
    let of = |error: &str, outcome: &str| {
        let failures = json["failures"].as_array().unwrap();
        let one = failures.iter().find(|one| one["error"] == error);
        let one = one.unwrap_or_else(|| panic!("{error}: {json}"));
        assert_eq!(
            (&one["kind"], &one["outcome"]),
            (&"update".into(), &outcome.into())
        );
        assert!(
            one["first"]
                .as_str()
                .unwrap()
                .contains("as the script says")
        );
        one["count"].as_u64().unwrap()
    };
    let (full, unknown) = (of("full", "not_applied"), of("unavailable", "unknown"));
    assert_eq!(full + unknown, failed);
    assert_eq!(json["unknown_outcome"], unknown);
    let text = kv.run(
        &[
            &["bench", "a", "--ops", "60", "--timeout", "300ms"],
            &QUICK[..],
        ]
        .concat(),
    );
    assert!(
        text.text()
            .contains(" update failed: full, not applied; the first: put "),
        "{text:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_tells_both_times() {
    let kv = Tool::start(1, 0).await;
    let (ran, json) = run(&kv, &["a", "--rate", "500", "--duration", "1s"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(json["settings"]["loop"], "open");
    let ops = json["ops"].as_u64().unwrap();
    assert!((300..=501).contains(&ops), "{json}");
    for kind in json["kinds"].as_array().unwrap() {
        let (response, service) = (&kind["response_time"], &kind["service_time"]);
        assert!(
            response["p50_us"].as_u64() >= service["p50_us"].as_u64(),
            "{json}"
        );
    }
    let text = kv.run(
        &[
            &["bench", "a", "--rate", "500", "--duration", "300ms"],
            &QUICK[..],
        ]
        .concat(),
    );
    assert!(text.text().contains("open loop, 500 ops/s due"), "{text:?}");
    assert!(text.text().contains("read (service)"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_early_and_shows_what_was_measured() {
    let kv = Tool::start(1, 0).await;
    let all = [&["bench", "c", "--json", "--duration", "1h"], &QUICK[..]].concat();
    let child = kv.command(&all).spawn().unwrap();
    let node = kv.cluster.primary(0);
    wait_until("it is at work", || node.ops().len() > 1_500).await;
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{ran:?}");
    let json: Value = serde_json::from_slice(&ran.out).unwrap();
    assert_eq!(json["interrupted"], true);
    assert!(json["ops"].as_u64() > Some(0), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_terms_are_those_that_were_asked_for() {
    let kv = Tool::start(1, 0).await;
    let node = kv.cluster.primary(0);
    let terms = ["--ack", "majority", "--consistency", "max-lag=200ms"];
    let (ran, json) = run(&kv, &[&["a", "--ops", "50"][..], &terms].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(json["settings"]["ack"], "majority");
    assert_eq!(json["settings"]["consistency"], "max-lag=200ms");
    let ops = node.ops();
    let mut writes = ops.iter().filter(|op| op.action.is_write()).peekable();
    assert!(writes.peek().is_some());
    assert!(writes.all(|op| op.terms.ack == Some(Ack::Majority)));
    assert!(ops.iter().any(|op| op.terms.max_lag_ms == Some(200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_up_needs_no_workload() {
    let kv = Tool::start(1, 0).await;
    let entries = [
        (b"bench:1".to_vec(), b"v".to_vec()),
        (b"other".to_vec(), b"v".to_vec()),
    ];
    let scripted = FakeShard::of(&kv.cluster.map(1), 0, &entries.into_iter().collect());
    let node = kv.cluster.primary(0);
    node.script_streams(move |request| scripted.answer(request));
    for (key, code) in [("bench:1", 0), ("other", 0)] {
        assert_eq!(kv.code(&["put", key, "v"]), code);
    }
    let ran = kv.run(&["bench", "--clean-up"]);
    assert_eq!((ran.code, ran.text()), (0, ""), "{ran:?}");
    assert_eq!(ran.said, "kv: removed 1 keys\n");
    assert_eq!(kv.code(&["get", "bench:1"]), 1);
    assert_eq!(kv.code(&["get", "other"]), 0);
    // Without either there is nothing to do.
    assert_eq!(kv.code(&["bench"]), 2);
    assert_eq!(kv.code(&["bench", "g"]), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cluster_it_says_so_and_measures_nothing() {
    let kv = Tool::start(1, 0).await;
    kv.cluster.primary(0).stop();
    let ran = kv.run(&[&["bench", "a", "--timeout", "300ms"], &QUICK[..]].concat());
    assert_eq!((ran.code, ran.text()), (4, ""), "{ran:?}");
    assert!(ran.said.contains("is the cluster running?"), "{ran:?}");
}
