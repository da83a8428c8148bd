//! Batches as lines of JSON, the way curl sends them.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    cluster::{Cluster, Node, Shape},
    http::{Answer, Ask, curl, has_curl},
};

async fn send(node: &Node, uri: &str, lines: &[Value]) -> Answer {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let ask = Ask::new("POST", uri).header("content-type", "application/x-ndjson");
    node.send(ask.body(body)).await
}

fn results(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let line = |line: &str| serde_json::from_str(line).expect("JSON");
    answer.text().lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_for_each_op_and_one_for_each_result() {
    let shape = Shape {
        shards: 2,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let node = cluster.primary(0);
    let (own, other) = (cluster.key_in(0, "k"), cluster.key_in(1, "k"));
    let id = "00000000-0000-0000-0000-0000000000ff.1";
    let ops = [
        json!({"op": "put", "key": own, "value_b64": "/w==", "ttl": "90s"}),
        json!({"op": "get", "key": own}),
        json!({"op": "put", "key": own, "value": "7", "if_match": "9.9"}),
        json!({"op": "put", "key": own, "value": "7", "if_match": "*"}),
        json!({"op": "incr", "key": own, "delta": 5, "request_id": id}),
        json!({"op": "incr", "key": own, "delta": 5, "request_id": id}),
        json!({"op": "get", "key": other}),
        json!({"op": "delete", "key": own}),
        json!({"op": "get", "key": own}),
        json!({"op": "put", "key": own, "value": "1", "ack": 1}),
    ];
    let results = results(&send(node, "/batch", &ops).await);
    let statuses: Vec<_> = results.iter().map(|result| &result["status"]).collect();
    assert_eq!(statuses, [204, 200, 412, 204, 200, 200, 307, 204, 404, 503]);
    assert_eq!(results[1]["value_b64"], "/w==");
    assert_eq!(results[1]["etag"], results[0]["etag"]);
    assert!(results[1]["ttl_ms"].as_u64().is_some_and(|ms| ms <= 90_000));
    assert_eq!(results[1].get("applied"), None, "a read");
    assert_eq!(results[2]["error"], "precondition_failed");
    assert_eq!(results[2]["applied"], "no");
    assert_eq!(results[2]["etag"], results[0]["etag"]);
    assert_eq!(results[4]["value"], "12");
    assert_eq!(results[5], results[4], "a repeat");
    assert_eq!(results[6]["target"], cluster.primary(1).address);
    assert_eq!(results[7]["applied"], "yes");
    assert_eq!(results[7].get("etag"), None);
    assert!(results.iter().all(|result| {
        result.get("position").is_some()
            || result["status"]
                .as_u64()
                .is_some_and(|status| status >= 300)
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_wrong_is_named_and_nothing_is_done() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let good = json!({"op": "put", "key": "a", "value": "1"});
    for uri in ["/batch", "/batch?atomic"] {
        let bad = json!({"op": "put", "key": "b", "vaule": "1"});
        let refused = send(node, uri, &[good.clone(), bad]).await;
        assert_eq!(
            (refused.status, refused.error().as_str()),
            (400, "malformed_batch")
        );
        assert_eq!(refused.header("kv-applied"), Some("no"));
        for part in ["line 2", "vaule", "nothing was done"] {
            assert!(refused.text().contains(part), "{}", refused.text());
        }
    }
    let ask = Ask::new("POST", "/batch").header("content-type", "application/json");
    let refused = node.send(ask.body(good.to_string())).await;
    assert_eq!(refused.status, 415);
    for form in ["application/x-ndjson", "application/x-kv-frames"] {
        assert!(refused.text().contains(form), "{}", refused.text());
    }
    assert_eq!(node.get("a").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_atomic_batch_of_lines() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let transfer = |from: &str, id: &str| {
        [
            json!({"op": "incr", "key": "{t}from", "delta": -5, "if_match": from, "request_id": id}),
            json!({"op": "incr", "key": "{t}to", "delta": 5}),
            json!({"op": "get", "key": "{t}from"}),
        ]
    };
    let etag = node.put("%7Bt%7Dfrom", "20").await.to_string();
    let id = "00000000-0000-0000-0000-0000000000ff.1";
    let first = send(node, "/batch?atomic", &transfer(&etag, id)).await;
    let done = results(&first);
    let values: Vec<_> = done.iter().map(|result| &result["value"]).collect();
    assert_eq!(values, ["15", "5", "15"]);
    let again = send(node, "/batch?atomic", &transfer(&etag, id)).await;
    assert_eq!(again.text(), first.text(), "a repeat");
    let refused = send(
        node,
        "/batch?atomic",
        &transfer(&etag, &id.replace(".1", ".2")),
    )
    .await;
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (412, "precondition_failed")
    );
    assert_eq!(node.get("%7Bt%7Dto").await.as_deref(), Some(&b"5"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_sends_a_file_of_lines() {
    if !has_curl() {
        return;
    }
    let cluster = Cluster::start(Shape::default()).await;
    let file = cluster.dir().join("ops.ndjson");
    let lines = "{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"}\n{\"op\":\"get\",\"key\":\"a\"}\n";
    fs::write(&file, lines).expect("a file");
    let url = format!("http://{}/batch", cluster.primary(0).address);
    let form = "Content-Type: application/x-ndjson; charset=utf-8";
    let path = file.to_str().expect("UTF-8");
    let answer = curl(&["-H", form, "--data-binary", &format!("@{path}"), &url]);
    assert_eq!(answer.lines().count(), 2, "{answer}");
    assert!(answer.contains(r#""value":"1""#), "{answer}");
    // Without line breaks, as -d sends a file.
    let joined = curl(&["-H", form, "-d", &format!("@{path}"), &url]);
    assert!(joined.contains("--data-binary"), "{joined}");
}
