//! Links that are slow, swallow everything or break, and other programs where the map has a node.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use kvclient::{ErrorKind, Outcome};

use crate::{
    clients::{TIMEOUT, Tally, by_own_map, in_time, reads, with_map},
    support::{
        cluster::{Cluster, Shape, map_text},
        link::Link,
        ports::Port,
    },
};

/// Longer than any op here waits.
const FOR_EVER: Duration = Duration::from_secs(30);

fn two_pairs() -> Shape {
    Shape {
        shards: 2,
        replicas: 1,
        ..Shape::default()
    }
}

/// A link to every node of a cluster, and a client that knows only these.
fn through_links(cluster: &Cluster) -> (Vec<Link>, kvclient::Client) {
    let nodes = cluster.nodes().iter();
    let links: Vec<Link> = nodes
        .map(|node| Link::to(node.address.parse().expect("an address")))
        .collect();
    let addresses: Vec<String> = links
        .iter()
        .map(|link| link.address().to_string())
        .collect();
    let kv = by_own_map(&addresses, 1 + cluster.shape.replicas);
    (links, kv)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_behind_a_black_hole_stops_only_its_own_writes() {
    let cluster = Cluster::start(two_pairs()).await;
    let (links, kv) = through_links(&cluster);
    let (lost, other) = (cluster.key_in(0, "k"), cluster.key_in(1, "k"));
    for key in [&lost, &other] {
        let written = kv.put(key, "v").await.unwrap();
        let shard = usize::from(*key == other);
        let replica = cluster.replica(shard, 0);
        replica
            .wait_visible(written.position, "the replica has it")
            .await;
    }
    links[0].delay(FOR_EVER);
    let (write, ()) = tokio::join!(in_time(TIMEOUT, kv.put(&lost, "w")), async {
        for _ in 0..30 {
            kv.put(&other, "v").await.unwrap();
            reads(&kv, &other, "v", 1).await;
        }
    });
    let error = write.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, Outcome::Unknown),
        "{error}"
    );
    // Requests do arrive, only answers are lost: it took place, and readers see one or the other.
    let stored = cluster.primary(0).get(&lost).await;
    assert_eq!(stored.as_deref(), Some(&b"w"[..]));
    for _ in 0..30 {
        let read = in_time(TIMEOUT, kv.get(&lost)).await.unwrap();
        let value = read.expect("it is there");
        assert!(value == "v" || value == "w", "{value:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_links_slow_ops_down_and_nothing_else() {
    let cluster = Cluster::start(two_pairs()).await;
    let (links, kv) = through_links(&cluster);
    for link in &links {
        link.delay(Duration::from_millis(30));
    }
    let keys: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
    let items = keys.iter().map(|key| (key, "v"));
    in_time(TIMEOUT, kv.put_many(items)).await.unwrap();
    for _ in 0..5 {
        let values = in_time(TIMEOUT, kv.get_many(&keys)).await.unwrap();
        assert!(values.iter().all(|value| value.as_deref() == Some(b"v")));
    }
    let stats = kv.stats();
    assert!(
        stats.nodes.iter().all(|node| node.ejections == 0),
        "{stats:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_counts_once_over_a_link_that_breaks_within_answers() {
    let cluster = Cluster::start(Shape::default()).await;
    let (links, kv) = through_links(&cluster);
    let mut tally = Tally::default();
    for round in 0..40 {
        // Somewhere in an answer of some 150 bytes, or before it.
        links[0].drop_after(round * 5);
        tally.note(&in_time(TIMEOUT, kv.incr("n", 1)).await);
    }
    assert!(links[0].breaks() >= 20, "{} breaks", links[0].breaks());
    assert_eq!((tally.acked, tally.unknown), (40, 0));
    tally.check(cluster.primary(0).get("n").await.as_ref());
}

/// Another program, which says the same to everybody.
struct Impostor {
    address: String,
    connections: Arc<AtomicUsize>,
}

impl Impostor {
    fn saying(answer: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        // Ends with the process.
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, SeqCst);
                let answer = answer.clone();
                thread::spawn(move || {
                    let mut bytes = [0; 16 << 10];
                    while let Ok(1..) = stream.read(&mut bytes) {
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            address,
            connections,
        }
    }
}

fn http(status: u16, header: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 {status} Scripted\r\n{header}content-length: {len}\r\n\r\n{body}")
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_in_place_of_a_replica_are_not_noticed() {
    let cluster = Cluster::start(Shape::default()).await;
    let stranger = Impostor::saying(http(200, "", "welcome"));
    let elsewhere = format!("location: http://{}/kv/k\r\n", stranger.address);
    for (what, answer) in [
        ("fails", http(500, "", "oops")),
        ("answers rubbish", http(200, "", "rubbish")),
        ("speaks another protocol", "220 ready\r\n".to_owned()),
        ("redirects to a stranger", http(307, &elsewhere, "")),
        (
            "sends everybody away",
            http(302, "location: /login\r\n", ""),
        ),
        ("is silent", String::new()),
    ] {
        let impostor = Impostor::saying(answer);
        let addresses = [cluster.primary(0).address.clone(), impostor.address.clone()];
        let kv = by_own_map(&addresses, 2);
        in_time(TIMEOUT, kv.put("k", "v")).await.unwrap();
        reads(&kv, "k", "v", 25).await;
        assert!(
            impostor.connections.load(SeqCst) > 0,
            "nobody asked the one that {what}"
        );
    }
    assert_eq!(stranger.connections.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_is_wrong_but_for_one_node_is_enough() {
    let cluster = Cluster::start(two_pairs()).await;
    let gone: Vec<Port> = (0..3).map(|_| Port::take()).collect();
    let gone = gone.iter().map(|port| format!("127.0.0.1:{}", port.number));
    // Of all nodes only the second shard's replica is where the file has it.
    let seed = cluster.replica(1, 0).address.clone();
    let addresses: Vec<String> = gone.chain([seed]).collect();
    let builder = with_map(&map_text(1, &addresses, 2));
    let kv = builder.timeout(Duration::from_secs(5)).build().unwrap();
    for shard in [0, 1] {
        let key = cluster.key_in(shard, "k");
        kv.put(&key, "v").await.unwrap();
        reads(&kv, &key, "v", 10).await;
    }
    let primaries: Vec<String> = kv
        .map()
        .shards()
        .iter()
        .map(|shard| shard.primary.address.to_string())
        .collect();
    assert_eq!(
        primaries,
        [0, 1].map(|shard| cluster.primary(shard).address.clone())
    );
}
