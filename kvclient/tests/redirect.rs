//! Redirects, and how a client comes to a newer map.

mod support;

use std::time::Duration;

use kvclient::{Client, ErrorKind, GetOptions, Outcome, PutOptions, Scheme};
use support::{
    Cluster, FakeNode, Reply, found, key_of, map, redirect, refused, stored, wait_until,
};

use kvclient::wire::error::ErrorCode;

#[tokio::test]
async fn a_redirect_within_the_map_is_followed() {
    let cluster = Cluster::start(2, 0).await;
    let target = cluster.primary(1).address.clone();
    cluster.primary(0).script(move |_| redirect(&target));
    cluster.primary(1).script(|_| stored(3));
    let key = key_of(&cluster.map(1), 0);
    let written = cluster.client().put(key, "v").await.unwrap();
    assert_eq!(written.position.seq, 3);
}

#[tokio::test]
async fn a_redirect_of_a_whole_request_is_followed() {
    let cluster = Cluster::start(2, 0).await;
    let target = cluster.primary(1).address.clone();
    cluster
        .primary(0)
        .script(move |_| Reply::Moved(target.clone()));
    let key = key_of(&cluster.map(1), 0);
    cluster.client().put(&key, "v").await.unwrap();
    assert_eq!(cluster.primary(1).ops().len(), 1);
    cluster
        .primary(0)
        .script(|_| Reply::Http(307, String::new()));
    let error = cluster.client().put(&key, "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misrouted, "it names no node");
}

#[tokio::test]
async fn a_tool_that_asks_one_node_is_not_sent_to_another() {
    let cluster = Cluster::start(2, 0).await;
    let target = cluster.primary(1).address.clone();
    cluster.primary(0).script(move |_| redirect(&target));
    let key = key_of(&cluster.map(1), 0);
    let here = GetOptions::new().node(cluster.primary(0).address.clone());
    let error = cluster.client().get_with(&key, here).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misrouted);
    assert_eq!(cluster.primary(1).ops().len(), 0);
}

#[tokio::test]
async fn a_circle_ends_after_three_hops() {
    let cluster = Cluster::start(2, 0).await;
    for (here, there) in [(0, 1), (1, 0)] {
        let target = cluster.primary(there).address.clone();
        cluster.primary(here).script(move |_| redirect(&target));
    }
    let key = key_of(&cluster.map(1), 0);
    let error = cluster.client().put(&key, "v").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Misrouted, Outcome::NotApplied)
    );
    assert_eq!(
        (error.op(), error.attempts()),
        ("put", 4),
        "one attempt and three hops"
    );
    assert_eq!(error.node(), Some(&cluster.primary(1).address));
    let ops = cluster.primary(0).ops().len() + cluster.primary(1).ops().len();
    assert_eq!(ops, 4);
}

#[tokio::test]
async fn a_stranger_is_never_contacted() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).set_map(&cluster.map(1));
    let stranger = FakeNode::start().await;
    let target = stranger.address.clone();
    cluster.primary(0).script(move |_| redirect(&target));
    let kv = cluster.client();
    for error in [
        kv.put("k", "v").await.unwrap_err(),
        kv.get("k").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Misrouted);
    }
    assert!(
        cluster.primary(0).map_requests() >= 2,
        "the nodes were asked for a newer map"
    );
    assert_eq!(stranger.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_a_new_node_waits_for_the_newer_map() {
    let old = FakeNode::start().await;
    let new = FakeNode::start().await;
    new.script(|_| stored(9));
    old.set_map(&map(2, &[vec![new.address.clone()]]));
    let target = new.address.clone();
    old.script(move |_| redirect(&target));
    let kv = Client::builder(map(1, &[vec![old.address.clone()]]))
        .build()
        .unwrap();
    kv.put("k", "v").await.unwrap();
    assert_eq!(kv.map().version(), 2);
    kv.put("k", "v").await.unwrap();
    assert_eq!(
        (old.ops().len(), new.ops().len()),
        (1, 2),
        "the second put went there at once"
    );
}

#[tokio::test]
async fn a_write_refused_by_a_replica_goes_to_the_primary() {
    let cluster = Cluster::start(2, 0).await;
    let primary = cluster.primary(1).address.to_string();
    cluster.primary(0).script(move |_| {
        let Reply::Answer(mut result) = refused(ErrorCode::ReadOnlyReplica, None) else {
            unreachable!("a refusal is an answer")
        };
        result.target = Some(primary.clone().into());
        Reply::Answer(result)
    });
    let key = key_of(&cluster.map(1), 0);
    cluster.client().put(&key, "v").await.unwrap();
    assert_eq!(cluster.primary(1).ops().len(), 1);
}

#[tokio::test]
async fn a_newer_version_in_an_answer_is_fetched_behind_the_op() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    let newer = cluster.map(5);
    cluster.primary(0).set_map(&newer);
    kv.put("k", "v").await.unwrap();
    wait_until("the newer map is adopted", || kv.map().version() == 5).await;
    let asked = cluster.primary(0).map_requests();
    for _ in 0..10 {
        kv.put("k", "v").await.unwrap();
    }
    assert_eq!(
        cluster.primary(0).map_requests(),
        asked,
        "nobody asks once it is known"
    );
}

#[tokio::test]
async fn an_older_map_is_never_adopted() {
    let cluster = Cluster::start(1, 0).await;
    let kv = Client::builder(cluster.map(7)).build().unwrap();
    cluster.primary(0).set_map(&cluster.map(6));
    kv.put("k", "v").await.unwrap();
    kv.refresh().await.unwrap();
    assert_eq!(kv.map().version(), 7);
}

#[tokio::test]
async fn the_nodes_map_replaces_a_seed_of_the_same_version() {
    let node = FakeNode::start().await;
    let gone = FakeNode::reserve();
    let theirs = map(1, &[vec![node.address.clone()]]);
    node.set_map(&theirs);
    let seed = map(1, &[vec![node.address.clone(), gone.address.clone()]]);
    let kv = Client::builder(seed).build().unwrap();
    kv.refresh().await.unwrap();
    assert_eq!(kv.map().identity(), theirs.identity());
    // From here on only a newer one counts.
    node.set_map(&map(1, &[vec![node.address.clone(), gone.address.clone()]]));
    kv.refresh().await.unwrap();
    assert_eq!(kv.map().identity(), theirs.identity());
}

#[tokio::test]
async fn a_node_that_is_gone_makes_the_client_ask_the_others() {
    let cluster = Cluster::start(2, 0).await;
    let kv = cluster.client();
    let spare = FakeNode::start().await;
    let moved = [
        vec![spare.address.clone()],
        vec![cluster.primary(1).address.clone()],
    ];
    cluster.primary(1).set_map(&map(2, &moved));
    cluster.primary(0).stop();
    let key = key_of(&cluster.map(1), 0);
    kv.put(&key, "v").await.unwrap();
    assert_eq!(
        spare.ops().len(),
        1,
        "the put found the shard's new primary by itself"
    );
}

#[tokio::test]
async fn one_refresh_serves_many_who_wait() {
    let old = FakeNode::start().await;
    let new = FakeNode::start().await;
    old.set_map(&map(2, &[vec![new.address.clone()]]));
    let target = new.address.clone();
    old.script(move |_| redirect(&target));
    let kv = Client::builder(map(1, &[vec![old.address.clone()]]))
        .build()
        .unwrap();
    let keys: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
    let values = kv.get_many(&keys).await.unwrap();
    assert!(values.iter().all(Option::is_none));
    assert!(
        old.map_requests() <= 3,
        "{} map requests for 200 ops",
        old.map_requests()
    );
}

#[tokio::test]
async fn no_op_waits_for_a_refresh_that_it_does_not_need() {
    let cluster = Cluster::start(1, 1).await;
    for node in &cluster.shards[0] {
        node.script(|_| found("v", 1));
    }
    // A node that is gone triggers refreshes, and the only other one never says what its map is.
    cluster.replica(0, 0).stop();
    cluster.primary(0).hang_on_map();
    let kv = cluster.client();
    for _ in 0..50 {
        let short = GetOptions::new().timeout(Duration::from_millis(500));
        assert!(kv.get_with("k", short).await.unwrap().is_some());
    }
    assert!(
        cluster.primary(0).map_requests() > 0,
        "a refresh is under way"
    );
}

#[tokio::test]
async fn a_client_can_start_from_any_node() {
    let cluster = Cluster::start(2, 0).await;
    let gone = FakeNode::reserve();
    cluster.primary(1).set_map(&cluster.map(3));
    let seeds = [
        gone.address.to_url(Scheme::Http),
        cluster.primary(1).address.to_string(),
    ];
    let kv = Client::connect(seeds).await.unwrap();
    assert_eq!(kv.map().version(), 3);
    let error = Client::connect([gone.address.to_string()])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        Client::connect(["nonsense"]).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert!(Client::connect::<&str>([]).await.is_err());
}

#[tokio::test]
async fn a_refresh_that_reaches_nobody_says_so() {
    let gone = FakeNode::reserve();
    let kv = Client::builder(map(1, &[vec![gone.address.clone()]]))
        .build()
        .unwrap();
    assert_eq!(
        kv.refresh().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let options = PutOptions::new().timeout(Duration::from_millis(50));
    assert!(kv.put_with("k", "v", options).await.is_err());
    assert_eq!(kv.map().version(), 1);
}

/// Three redirects to a node that is still starting were taken for a circle.
#[tokio::test]
async fn redirects_to_a_node_that_starts_are_no_circle() {
    let cluster = Cluster::start(1, 1).await;
    let next = cluster.replica(0, 0);
    next.stop();
    let target = next.address.clone();
    cluster.primary(0).script(move |_| redirect(&target));
    let kv = cluster.client();
    let starting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        next.listen();
    };
    let (written, ()) = tokio::join!(kv.put("k", "v"), starting);
    written.unwrap();
    assert!(cluster.primary(0).ops().len() > 3);
}

/// A seed that names the nodes in another order: what was seen of one shard was noted under the other, whose nodes could
/// be "behind" that for ever.
#[tokio::test]
async fn positions_are_noted_by_the_nodes_map_and_not_by_a_wrong_seed() {
    let (one, other) = (FakeNode::start().await, FakeNode::start().await);
    let addresses = [vec![one.address.clone()], vec![other.address.clone()]];
    let theirs = map(1, &addresses);
    let seed = map(1, &[addresses[1].clone(), addresses[0].clone()]);
    for node in [&one, &other] {
        node.set_map(&theirs);
    }
    let target = one.address.clone();
    other.script(move |_| redirect(&target));
    one.script(|_| stored(700));
    let kv = Client::builder(seed).build().unwrap();
    kv.put(key_of(&theirs, 0), "v").await.unwrap();
    assert_eq!(kv.session().to_token(), "kv1_0.1.700");
}
