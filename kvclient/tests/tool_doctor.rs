//! `kv doctor` beside scripted nodes: a sound cluster, and nodes with one trouble each.
#![allow(clippy::unwrap_used, reason = "only tests come here")]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::{FakeNode, tool::Tool};

/// What a node says that is well, with something else in it.
fn says(kv: &Tool, node: &FakeNode, change: impl Fn(&mut Value) + Send + Sync + 'static) {
    let map = kv.cluster.map(1);
    node.set_map(&map);
    let address = node.address.to_string();
    let replicas: Vec<Value> = kv
        .cluster
        .shards
        .iter()
        .flat_map(|nodes| &nodes[1..])
        .map(|node| json!({ "address": node.address.to_string(), "connected": true }))
        .collect();
    node.script_documents(move |uri| {
        assert_eq!(uri, "/status");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut status = json!({
            "address": address, "node_id": address, "state": "ready", "map_version": map.identity(), "version": "1",
            "replicas": replicas, "lag_ms": 0, "insecure_no_auth": false,
            "machine": { "clock_ms": u64::try_from(now.as_millis()).unwrap() },
        });
        change(&mut status);
        Some((200, status.to_string()))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_cluster_and_one_that_is_not() {
    let kv = Tool::start(2, 1).await;
    for node in kv.cluster.shards.iter().flatten() {
        says(&kv, node, |_| {});
    }
    let sound = kv.run(&["doctor"]);
    assert_eq!((sound.code, sound.text()), (0, ""), "{sound:?}");
    assert!(
        sound
            .said
            .contains("4 nodes of 2 shards: 0 errors, 0 warnings. Looked at: "),
        "{sound:?}"
    );

    says(&kv, kv.cluster.primary(0), |status| {
        status["state"] = "not ready: \u{1b}[2Jit waits".into()
    });
    says(&kv, kv.cluster.primary(1), |status| {
        status["machine"]["clock_ms"] = 1_000.into()
    });
    says(&kv, kv.cluster.replica(1, 0), |status| {
        status["map_version"] = "1-other".into()
    });
    kv.cluster.replica(0, 0).stop();
    let ran = kv.run(&["doctor"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let lines: Vec<&str> = ran.text().lines().collect();
    for (severity, part) in [
        ("error    ", "is not ready: not ready: \\x1b[2Jit waits"),
        ("error    ", "does not answer: no connection"),
        ("error    ", "and another content"),
        ("warning  ", "ms behind this machine's"),
    ] {
        let is_told = |line: &&&str| line.starts_with(severity) && line.contains(part);
        assert_eq!(lines.iter().filter(is_told).count(), 1, "{part}: {ran:?}");
    }
    // Of the clocks it is told both how they differ from here and from each other.
    assert_eq!(lines.len(), 5, "{ran:?}");
    let json = kv.run(&["doctor", "--json"]);
    assert_eq!(json.code, 1);
    let first: Value = serde_json::from_str(json.text().lines().next().unwrap()).unwrap();
    assert_eq!(first["severity"], "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_contradicts_the_nodes_is_found() {
    let kv = Tool::start(1, 0).await;
    let node = kv.cluster.primary(0);
    says(&kv, node, |status| status["map_version"] = "2-ab".into());
    node.set_map(&kv.cluster.map(2));
    let ran = kv.run(&["doctor"]);
    assert!(ran.text().contains("warning  sharding.toml: 1-"), "{ran:?}");
    assert!(
        ran.text().contains("is older than the map in force"),
        "{ran:?}"
    );
}
