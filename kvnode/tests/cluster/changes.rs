//! Changes of what is in force: a first copy, a lost disk, an order given and taken back.

use std::time::Duration;

use crate::support::{
    cluster::{Cluster, Shape, swapped},
    eventually,
    http::Ask,
};

/// A pair of which both nodes hold `k` = `v`.
async fn pair_with_a_write() -> Cluster {
    let cluster = Cluster::start(Shape::pair()).await;
    let position = cluster.primary(0).put("k", "v").await;
    let replica = cluster.replica(0, 0);
    replica
        .wait_visible(position, "the replica has the write")
        .await;
    cluster
}

/// A replica that makes its first copy from the log said "not found" of keys that it did not have yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_answers_nothing_before_it_is_level() {
    let cluster = Cluster::prepare(Shape {
        linked: true,
        ..Shape::pair()
    });
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    primary.start().await;
    for n in 0..60 {
        primary.put(&format!("k{n}"), vec![b'v'; 64 << 10]).await;
    }
    cluster.link(0, 0).delay(Duration::from_millis(3));
    replica.spawn(&[]);
    let mut refused = 0;
    eventually("the copy is complete", async || {
        let answer = replica.try_send(Ask::new("GET", "/kv/k59")).await.ok()?;
        match answer.status {
            200 => return Some(()),
            503 => refused += 1,
            other => panic!(
                "{other} {}: the key is there, and was all the time",
                answer.text()
            ),
        }
        let ready = replica.ask("GET", "/readyz").await.status == 200;
        assert!(
            !ready || replica.get("k59").await.is_some(),
            "ready, but not level"
        );
        None
    })
    .await;
    assert!(
        refused > 0,
        "the copy was complete before anybody could ask"
    );
    replica.wait_ready().await;
}

/// The primary's disk is new and its replica comes up a moment later: nobody had answered yet, and a new history
/// began beside the data. And what was found out was forgotten at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_primary_waits_for_a_replica_that_starts_with_it_and_remembers() {
    let cluster = pair_with_a_write().await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    primary.kill();
    replica.kill();
    std::fs::remove_dir_all(&primary.data).expect("removed");
    primary.spawn(&[]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    replica.spawn(&[]);
    let why = primary.wait_not_ready("empty").await;
    assert!(why.contains(&replica.address), "{why}");
    replica.wait_ready().await;
    replica.kill();
    primary.stop().await;
    // The replica is away now; what it said is not.
    primary.spawn(&[]);
    let why = primary.wait_not_ready("--promote").await;
    let answer = primary.send(Ask::new("PUT", "/kv/k").body("no")).await;
    assert_eq!(answer.status, 503, "{why}");
}

/// `--rejoin` while the primary is gone for good, then `--promote`: an empty history began although the data was
/// still there.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_rejoin_can_be_taken_back() {
    let cluster = pair_with_a_write().await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    primary.kill();
    replica.stop().await;
    replica.spawn(&["--rejoin"]);
    let why = replica.wait_not_ready("copy").await;
    assert_eq!(replica.ask("GET", "/kv/k").await.status, 503, "{why}");
    replica.stop().await;
    replica.write_map(&swapped(&cluster, 2));
    replica.spawn(&["--promote"]);
    replica.wait_ready().await;
    assert_eq!(replica.get("k").await.as_deref(), Some(&b"v"[..]));
    replica.put("k", "newer").await;
}

/// A primary that was replaced said that it lags 0 ms, so that readers with a bound took its old values for new.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_does_not_reign_does_not_know_its_lag() {
    let cluster = pair_with_a_write().await;
    let primary = cluster.primary(0);
    assert_eq!(primary.status().await["lag_ms"], 0);
    primary.kill();
    std::fs::remove_dir_all(&primary.data).expect("removed");
    primary.spawn(&[]);
    primary.wait_not_ready("empty").await;
    assert_eq!(primary.status().await["lag_ms"], serde_json::Value::Null);
}
