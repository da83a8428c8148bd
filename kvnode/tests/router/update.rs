//! Changes that depend on what is there, made by many at once.

use futures_util::{TryStreamExt, future::join_all};
use kvclient::{Consistency, Entry, GetOptions};

use crate::{
    client,
    support::cluster::{Cluster, Shape},
};

fn number(entry: Option<&Entry>) -> u64 {
    entry.map_or(0, |entry| {
        let text = std::str::from_utf8(&entry.value).expect("text");
        text.parse().expect("a number")
    })
}

#[tokio::test]
async fn no_update_is_lost_among_many() {
    let cluster = Cluster::start(Shape::pair()).await;
    let add_ten = async || {
        // Each with its own connections, as programs on different machines.
        let kv = client(&cluster);
        for _ in 0..10 {
            let added = kv.update("sum", |old| Some((number(old) + 1).to_string()));
            assert!(added.await.expect("in time").is_some());
        }
    };
    join_all((0..4).map(|_| add_ten())).await;
    // A client that has seen nothing may be shown what a replica has.
    let newest = GetOptions::new().consistency(Consistency::Primary);
    let sum = client(&cluster)
        .get_with("sum", newest)
        .await
        .expect("a read");
    assert_eq!(number(sum.as_ref()), 40);
}

#[tokio::test]
async fn a_prefix_is_removed_from_all_shards_and_nothing_else() {
    let shape = Shape {
        shards: 3,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let kv = client(&cluster);
    let items = (0..2_500).map(|n| (format!("tmp:{n}"), "v"));
    kv.put_many(items).await.expect("stored");
    kv.put_many([("tmp", "v"), ("tmp;", "v"), ("other", "v")])
        .await
        .expect("stored");
    assert_eq!(kv.delete_prefix("tmp:").await.expect("removed"), 2_500);
    assert_eq!(kv.delete_prefix("tmp:").await.expect("removed"), 0);
    let left: Vec<_> = kv.scan("").keys_only().try_collect().await.expect("a scan");
    let left: Vec<_> = left.iter().map(|entry| entry.key.as_bytes()).collect();
    assert_eq!(left, [&b"other"[..], b"tmp", b"tmp;"]);
}
