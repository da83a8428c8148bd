//! One bad node, bad in every way that was thought of: readers go elsewhere, what only that node can do fails in time
//! and says where, and the rest of the cluster is as quick as ever.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use kvclient::{
    CallHistory, Client, ClientBuilder, Error, ErrorKind, GetOptions, Outcome, PutOptions,
    node_client::NodeClientOptions,
    policy::{Candidates, ReadPolicy, ReadRequest},
    shard_map::{Address, ShardMap},
    wire::{
        batch::OpResult,
        error::{Applied, ErrorCode},
    },
};
use support::{
    Cluster, FakeNode, Reply, Silent, Then, found, key_of, keys_of, map, redirect, refused, stored,
};

use ErrorKind::{Corrupt, Misrouted, Unavailable};
use Outcome::{NotApplied, Unknown};

/// What an attempt and an op may take at most, and what a busy machine may add to that.
const ATTEMPT: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(450);
const SLACK: Duration = Duration::from_secs(3);

/// Most connections that one client holds to one node: two lanes, what is late in each, and large values alone.
const MOST_CONNECTIONS: usize = 2 * (1 + 8) + 4 + 1;

/// A node that is bad in one way.
struct Trouble {
    /// `a node that ...`
    what: &'static str,
    node: Bad,
    /// What becomes of a read and of a write that only it could do.
    read: ErrorKind,
    write: (ErrorKind, Outcome),
}

enum Bad {
    Fake(FakeNode),
    Silent(Silent),
}

impl Trouble {
    fn address(&self) -> &Address {
        match &self.node {
            Bad::Fake(node) => &node.address,
            Bad::Silent(node) => &node.address,
        }
    }

    fn silent(what: &'static str, node: Silent, outcome: Outcome) -> Self {
        Self {
            what,
            node: Bad::Silent(node),
            read: Unavailable,
            write: (Unavailable, outcome),
        }
    }

    fn fake(
        what: &'static str,
        node: FakeNode,
        read: ErrorKind,
        write: (ErrorKind, Outcome),
    ) -> Self {
        Self {
            what,
            node: Bad::Fake(node),
            read,
            write,
        }
    }
}

/// All of them, and a node that no map names.
async fn troubles() -> (Vec<Trouble>, FakeNode) {
    let stranger = FakeNode::start().await;
    let there = stranger.address.clone();
    let mut all = vec![
        Trouble::silent("never connects", Silent::never_connects().await, NotApplied),
        Trouble::silent("never reads", Silent::never_reads(), Unknown),
    ];
    let gone = FakeNode::reserve();
    all.push(Trouble::fake(
        "is not there",
        gone,
        Unavailable,
        (Unavailable, NotApplied),
    ));
    let unknown = (Unavailable, Unknown);
    let raw = |bytes: &'static str, then| Reply::Raw(bytes.as_bytes(), then);
    let http = |status, body: &str| Reply::Http(status, body.to_owned());
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nKVR1";
    let not_ready = |applied| refused(ErrorCode::NotReady, applied);
    for (what, reply, read, write) in [
        ("never answers", Reply::Hang, Unavailable, unknown),
        ("breaks off", Reply::Break, Unavailable, unknown),
        (
            "breaks off within its answer",
            raw(short, Then::Close),
            Unavailable,
            unknown,
        ),
        (
            "stalls within its answer",
            raw(short, Then::Stall),
            Unavailable,
            unknown,
        ),
        (
            "speaks another protocol",
            raw("220 ready\r\n", Then::Close),
            Unavailable,
            unknown,
        ),
        (
            "answers rubbish",
            http(200, "rubbish"),
            Corrupt,
            (Corrupt, Unknown),
        ),
        (
            "answers nothing",
            http(200, ""),
            Corrupt,
            (Corrupt, Unknown),
        ),
        ("fails", http(500, "oops"), Unavailable, unknown),
        (
            "is a proxy without its node",
            http(502, "<html>"),
            Unavailable,
            unknown,
        ),
        (
            "is another program",
            http(404, "no such page"),
            Corrupt,
            (Corrupt, Unknown),
        ),
        (
            "leaves out what matters",
            Reply::Answer(OpResult {
                status: 200,
                ..OpResult::default()
            }),
            Corrupt,
            (Corrupt, Unknown),
        ),
        ("is not ready", not_ready(None), Unavailable, unknown),
        (
            "is not ready and takes no writes",
            not_ready(Some(Applied::No)),
            Unavailable,
            (Unavailable, NotApplied),
        ),
        (
            "redirects to a stranger",
            redirect(&there),
            Misrouted,
            (Misrouted, NotApplied),
        ),
        (
            "moves requests to a stranger",
            Reply::Moved(there.clone()),
            Misrouted,
            (Misrouted, NotApplied),
        ),
        (
            "redirects nowhere",
            http(302, ""),
            Misrouted,
            (Misrouted, NotApplied),
        ),
    ] {
        let node = FakeNode::start().await;
        node.script(move |_| reply.clone());
        all.push(Trouble::fake(what, node, read, write));
    }
    let itself = FakeNode::start().await;
    let here = itself.address.clone();
    itself.script(move |_| redirect(&here));
    all.push(Trouble::fake(
        "redirects to itself",
        itself,
        Misrouted,
        (Misrouted, NotApplied),
    ));
    (all, stranger)
}

fn builder(map: &ShardMap) -> ClientBuilder {
    let mut nodes = NodeClientOptions::default();
    nodes.connect_timeout = Duration::from_millis(100);
    Client::builder(map.clone())
        .node_client(nodes)
        .timeout(TIMEOUT)
        .attempt_timeout(ATTEMPT)
        .write_attempt_timeout(ATTEMPT)
        .pauses(Duration::from_millis(20), Duration::from_millis(50))
        .refresh_interval(Duration::from_millis(20))
}

#[tokio::test]
async fn readers_do_not_notice_a_bad_replica() {
    let (troubles, stranger) = troubles().await;
    join_all(troubles.iter().map(async |trouble| {
        let good = FakeNode::start().await;
        good.script(|_| found("v", 1));
        let map = map(1, &[vec![good.address.clone(), trouble.address().clone()]]);
        let kv = builder(&map).timeout(SLACK).build().unwrap();
        for round in 0..12 {
            let read = kv.get("k").await;
            let what = trouble.what;
            let value =
                read.unwrap_or_else(|error| panic!("one that {what}, round {round}: {error}"));
            assert!(value.is_some());
        }
    }))
    .await;
    assert_eq!(stranger.connections(), 0);
}

#[tokio::test]
async fn what_only_a_bad_node_can_do_fails_in_time_and_the_rest_is_quick() {
    let (troubles, stranger) = troubles().await;
    join_all(troubles.iter().map(fails_in_time)).await;
    assert_eq!(stranger.connections(), 0);
}

async fn fails_in_time(trouble: &Trouble) {
    let what = trouble.what;
    let other = FakeNode::start().await;
    let there = [trouble.address(), &other.address];
    let map = map(1, &there.map(|address| vec![address.clone()]));
    let history = CallHistory::new();
    let kv = builder(&map).build().unwrap();
    let (key, kv) = (key_of(&map, 0), kv.with_history(&history));
    let began = Instant::now();
    let (read, write, ()) = tokio::join!(kv.get(&key), kv.put(&key, "v"), async {
        for key in keys_of(&map, 1).take(6) {
            let (put, get) = (PutOptions::new(), GetOptions::new());
            kv.put_with(&key, "v", put.timeout(SLACK)).await.unwrap();
            let value = kv.get_with(&key, get.timeout(SLACK)).await;
            assert!(value.unwrap().is_some());
        }
    });
    let took = began.elapsed();
    assert!(took < TIMEOUT + SLACK, "{what}: {took:?}");
    let (read, write) = (read.unwrap_err(), write.unwrap_err());
    for (op, error) in [("get", &read), ("put", &write)] {
        names_what_is_known(error, op, trouble, &key);
    }
    // An attempt that its deadline cuts off may always have arrived, whatever came before it.
    let cut_off = |op| {
        let attempts = history.attempts().into_iter();
        let mut here = attempts.filter(|one| one.op == op && one.shard == "shard0");
        here.any(|attempt| attempt.end == "no answer in time")
    };
    match cut_off("get") {
        true => assert_eq!(read.outcome(), NotApplied, "{what}: {read}"),
        false => assert_eq!(read.kind(), trouble.read, "{what}: {read}"),
    }
    let (kind, outcome) = trouble.write;
    match cut_off("put") {
        true => assert_eq!(write.outcome(), Unknown, "{what}: {write}"),
        false => assert_eq!(
            (write.kind(), write.outcome()),
            (kind, outcome),
            "{what}: {write}"
        ),
    }
    let stats = kv.stats();
    let is_idle = stats.nodes.iter().all(|node| node.in_flight == 0);
    assert!(is_idle, "{what}: {stats:?}");
}

fn names_what_is_known(error: &Error, op: &str, trouble: &Trouble, key: &str) {
    let what = trouble.what;
    assert_eq!(error.op(), op, "{what}");
    assert_eq!(error.node(), Some(trouble.address()), "{what}: {error}");
    assert_eq!(error.shard(), Some("shard0"), "{what}: {error}");
    let named = error.key().map(ToString::to_string);
    assert_eq!(named.as_deref(), Some(key), "{what}: {error}");
    assert!(error.attempts() >= 1, "{what}: {error}");
    let text = error.to_string();
    assert!(text.contains(&trouble.address().to_string()), "{text}");
}

#[tokio::test]
async fn many_ops_at_a_bad_node_are_few_connections() {
    let replies = [Reply::Hang, Reply::Break, stored(1).late(20)];
    let began = Instant::now();
    join_all(replies.map(async |reply| {
        let node = FakeNode::start().await;
        let told = reply.clone();
        node.script(move |_| told.clone());
        let map = map(1, &[vec![node.address.clone()]]);
        let kv = builder(&map).build().unwrap();
        let keys = (0..100).map(|n| format!("k{n}"));
        let ops = keys.map(async |key| tokio::join!(kv.put(&key, "v"), kv.get(&key)));
        join_all(ops).await;
        let most = node.most_open();
        assert!(most <= MOST_CONNECTIONS, "{reply:?}: {most} connections");
    }))
    .await;
    assert!(began.elapsed() < TIMEOUT + SLACK, "{:?}", began.elapsed());
}

/// The first of the candidates: here the primary.
#[derive(Debug)]
struct First;

impl ReadPolicy for First {
    fn choose(&self, _: &ReadRequest<'_>, _: &Candidates<'_>) -> usize {
        0
    }
}

#[tokio::test]
async fn a_read_outlasts_a_primary_that_is_late_and_a_replica_that_is_broken() {
    // The primary missed one attempt, its replica then answered rubbish: "damaged data", with all the time left.
    let cluster = Cluster::start(1, 1).await;
    let is_late = AtomicBool::new(true);
    cluster
        .primary(0)
        .script(move |_| match is_late.swap(false, Relaxed) {
            true => Reply::Hang,
            false => found("v", 1),
        });
    let rubbish = Reply::Http(200, "rubbish".to_owned());
    cluster.replica(0, 0).script(move |_| rubbish.clone());
    let kv = builder(&cluster.map(1)).read_policy(First).timeout(SLACK);
    assert!(kv.build().unwrap().get("k").await.unwrap().is_some());
}

#[tokio::test]
async fn a_circle_of_two_ends_for_reads_as_for_writes() {
    let (one, other) = (FakeNode::start().await, FakeNode::start().await);
    for (here, there) in [(&one, &other), (&other, &one)] {
        let there = there.address.clone();
        here.script(move |_| redirect(&there));
    }
    let map = map(1, &[vec![one.address.clone()], vec![other.address.clone()]]);
    let kv = builder(&map).build().unwrap();
    let key = key_of(&map, 0);
    for error in [
        kv.get(&key).await.unwrap_err(),
        kv.put(&key, "v").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Misrouted, "{error}");
        assert_eq!(error.attempts(), 4, "one attempt and three hops");
    }
}

#[tokio::test]
async fn a_map_that_is_wrong_but_for_one_node_is_replaced() {
    // Of a cluster that has moved since, only one node is still where the map has it; what is at the other addresses
    // now is bad in one way or another.
    let (troubles, _stranger) = troubles().await;
    join_all(troubles.iter().map(async |trouble| {
        let (seed, moved) = (FakeNode::start().await, FakeNode::start().await);
        let old = map(
            1,
            &[vec![trouble.address().clone()], vec![seed.address.clone()]],
        );
        let new = map(
            2,
            &[vec![moved.address.clone()], vec![seed.address.clone()]],
        );
        seed.set_map(&new);
        let kv = builder(&old).build().unwrap();
        let key = key_of(&old, 0);
        let what = trouble.what;
        let began = Instant::now();
        // The first ops may fail as those do that reach a bad node; they must not fail for ever.
        loop {
            let (read, write) = tokio::join!(kv.get(&key), kv.put(&key, "v"));
            match (read, write) {
                (Ok(_), Ok(_)) => break,
                failed => assert!(began.elapsed() < SLACK, "one that {what}: {failed:?}"),
            }
        }
        assert_eq!(kv.map().version(), 2, "{what}");
        assert!(!moved.ops().is_empty());
    }))
    .await;
}
