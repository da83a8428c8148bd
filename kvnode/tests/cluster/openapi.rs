//! What `/openapi.json` says of paths, methods and statuses is what a node does.

use serde_json::{Map, Value};

use crate::support::{
    cluster::{Cluster, Shape},
    eventually,
    http::Ask,
};

const METHODS: &[&str] = &[
    "GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE",
];

/// A request for a path: it names a key where that makes it another path, and has a parameter that no path knows, so
/// that nothing is stored and no stream begins.
fn uri(path: &str, method: &str) -> String {
    let takes_key = path == "/kv" && !matches!(method, "GET" | "HEAD");
    let key = if takes_key { "key=a&" } else { "" };
    let path = path.replace("{key}", "a").replace("{file}", "main.js");
    format!("{path}?{key}nobody_knows_me")
}

fn methods(path: &Map<String, Value>) -> Vec<String> {
    path.keys().map(|method| method.to_uppercase()).collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_and_method_is_answered_as_described() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let answer = node.send(Ask::new("GET", "/openapi.json")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let description = answer.json();
    let paths = description["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        let operations = operations.as_object().expect("operations");
        let known = methods(operations);
        for &method in METHODS {
            let uri = uri(path, method);
            let answer = node.send(Ask::new(method, &uri)).await;
            let status = answer.status.to_string();
            match operations.get(&method.to_lowercase()) {
                Some(operation) => {
                    // Neither "not with this method" nor "no such path", since no entry is asked for.
                    assert!(!["404", "405"].contains(&&*status), "{method} {uri}");
                    assert!(
                        operation["responses"].get(&status).is_some(),
                        "{method} {uri}: {status}"
                    );
                }
                None => {
                    assert_eq!(answer.status, 405, "{method} {uri}");
                    let allowed = answer.header("allow").expect("Allow");
                    let allowed = allowed.split(", ").map(str::to_owned).collect();
                    assert_eq!(sorted(allowed), sorted(known.clone()), "{method} {uri}");
                }
            }
        }
    }
}

/// Without a key it is a scan, which is for reading.
#[tokio::test(flavor = "multi_thread")]
async fn kv_without_a_key_takes_reads_only() {
    let cluster = Cluster::start(Shape::default()).await;
    for method in ["PUT", "DELETE", "POST", "PATCH"] {
        let answer = cluster.primary(0).send(Ask::new(method, "/kv")).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_a_status_is_described() {
    let shape = Shape {
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let node = cluster.primary(0);
    let description = node.send(Ask::new("GET", "/openapi.json")).await.json();
    let schemas = &description["components"]["schemas"];
    let status = node.send(Ask::new("GET", "/status")).await.json();
    let sample = eventually("a sample is taken", async || {
        let history = node.send(Ask::new("GET", "/status/history")).await.json();
        history["samples"].get(0).cloned()
    });
    let sample = sample.await;
    for (schema, object) in [
        ("Sample", &sample),
        ("NodeStatus", &status),
        ("ReplicaStatus", &status["replicas"][0]),
        ("MachineStatus", &status["machine"]),
        ("SettingsStatus", &status["settings"]),
    ] {
        let fields = object.as_object().expect("an object");
        for field in fields.keys() {
            let is_described = schemas[schema]["properties"].get(field).is_some();
            assert!(is_described, "{schema}: {field}");
        }
    }
}
