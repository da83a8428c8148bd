//! D2 and D3: redirects. A client whose map is old is put right by one redirect; one that is sent round in a circle, to
//! a dead node or to a stranger is told so at once, and never asks anybody whom its map does not name.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kvclient::{CallHistory, Client, ErrorKind, Outcome, Why, shard_map::toml};
use reqwest::redirect::Policy;

use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape, map_text},
    key_in,
    library::library,
    ports::Port,
    report::{self, Row},
};

const SHARDS: usize = 3;
const PER_SHARD: usize = 2;
const KEYS: usize = 300;

/// Versions of the nodes' maps, of one from before, and of one that a client never gives up.
const CURRENT: usize = 5;
const OLD: usize = 1;
const KEPT: usize = 1_000;

/// What an op that strays may take, and what a busy machine may add.
const TIMEOUT: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(3);

/// Redirects that an op follows at most.
const MOST_HOPS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_map_with_all_nodes_swapped_costs_one_redirect_a_key_at_most() {
    let mut row = Row::begin("D2");
    row.rounds = if bar() { 20 } else { 2 };
    let cluster = current_cluster().await;
    let (mut redirects, mut ops) = (0, 0);
    for round in 0..row.rounds {
        let client = client_of(&swapped(&cluster, OLD, 1 + round % (SHARDS - 1)));
        let first = pass(&client, round).await;
        assert!(first.most_hops <= 1, "{first:?}");
        assert!(first.redirected > 0, "nobody was led astray");
        let second = pass(&client, round).await;
        assert_eq!(second.redirected, 0, "{second:?}");
        assert_eq!(client.map().version(), CURRENT as u64);
        redirects += first.redirected;
        ops += first.ops;
    }
    row.writes.acked = ops;
    row.figures = format!(
        "{ops} ops of {} clients with all nodes of {SHARDS} shards swapped: {redirects} redirected, none twice; of as many \
         afterwards none",
        row.rounds
    );
    row.save();
}

/// A client that never takes over the nodes' map is redirected for ever.
#[tokio::test(flavor = "multi_thread")]
async fn d2_control_without_a_refresh_every_op_is_redirected() {
    let cluster = current_cluster().await;
    let client = client_of(&swapped(&cluster, KEPT, 1));
    let first = pass(&client, 0).await;
    let second = pass(&client, 0).await;
    assert_eq!(second.redirected, second.ops, "{second:?}");
    let found = format!(
        "{} of {} ops redirected, and of as many afterwards {}",
        first.redirected, first.ops, second.redirected
    );
    report::save_control("D2", "the client takes over the nodes' newer map", &found);
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_whoever_is_sent_astray_is_told_in_time() {
    let mut row = Row::begin("D3");
    row.rounds = if bar() { 300 } else { 10 };
    let strays = Strays::start().await;
    let mut told = Vec::new();
    for (what, kind, (client, key)) in [
        ("circle", ErrorKind::Misrouted, strays.in_a_circle()),
        ("dead node", ErrorKind::Unavailable, strays.to_a_dead_node()),
        ("stranger", ErrorKind::Misrouted, strays.to_a_stranger()),
    ] {
        let (mut most_hops, mut slowest) = (0, Duration::ZERO);
        let rounds = if what == "dead node" {
            row.rounds.div_ceil(20)
        } else {
            row.rounds
        };
        for round in 0..rounds {
            let history = CallHistory::new();
            let client = client.with_history(&history);
            let began = Instant::now();
            let error = match round % 2 {
                0 => client.put(&key, "v").await.expect_err(what),
                _ => client.get(&key).await.expect_err(what),
            };
            let took = began.elapsed();
            assert_eq!(
                (error.kind(), error.outcome()),
                (kind, Outcome::NotApplied),
                "{error}"
            );
            assert!(took < TIMEOUT + SLACK, "{what}: {took:?}");
            slowest = slowest.max(took);
            most_hops = most_hops.max(longest_way(&history));
        }
        assert!(most_hops <= MOST_HOPS, "{what}: {most_hops} hops");
        told.push(format!(
            "{what}: {rounds} ops, {most_hops} hops at most, slowest {slowest:.1?} of {TIMEOUT:?}"
        ));
    }
    assert_eq!(strays.asked(), 0, "the stranger was asked");
    row.figures = told.join("; ") + "; the stranger was never asked";
    row.save();
}

/// An HTTP client that follows whatever it is told.
#[tokio::test(flavor = "multi_thread")]
async fn d3_control_who_follows_everything_goes_round_and_asks_strangers() {
    const FOLLOWED: usize = 50;
    let strays = Strays::start().await;
    let hops = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hops);
    let policy = Policy::custom(move |attempt| {
        counted.fetch_max(attempt.previous().len(), Ordering::SeqCst);
        match attempt.previous().len() < FOLLOWED {
            true => attempt.follow(),
            false => attempt.stop(),
        }
    });
    let client = library().redirect(policy).timeout(TIMEOUT);
    let client = client.build().expect("an HTTP client");
    let key = key_in(1, 2, "k");
    for node in [&strays.circle[0], &strays.lost[1]] {
        // How it ends is not the question.
        let _ = client
            .get(format!("http://{}/kv/{key}", node.address))
            .send()
            .await;
    }
    let (hops, asked) = (hops.load(Ordering::SeqCst), strays.asked());
    assert!(
        hops > MOST_HOPS && asked > 0,
        "{hops} hops, {asked} connections"
    );
    let found = format!("{hops} hops in the circle; the stranger was asked {asked} times");
    report::save_control(
        "D3",
        "the bound on hops, and that only nodes of the map are asked",
        &found,
    );
}

async fn current_cluster() -> Cluster {
    let cluster = Cluster::prepare(Shape {
        shards: SHARDS,
        replicas: PER_SHARD - 1,
        ..Shape::default()
    });
    let map = swapped(&cluster, CURRENT, 0);
    cluster.nodes().iter().for_each(|node| node.write_map(&map));
    cluster.start_all().await;
    cluster
}

/// A map in which each shard has the nodes of the shard so many places further.
fn swapped(cluster: &Cluster, version: usize, places: usize) -> String {
    let nodes = cluster.nodes().iter();
    let mut addresses: Vec<String> = nodes.map(|node| node.address.clone()).collect();
    addresses.rotate_left(places * PER_SHARD);
    map_text(version, &addresses, PER_SHARD)
}

fn client_of(map: &str) -> Client {
    let map = toml::parse(map, "a map of the test").expect("a map");
    Client::builder(map)
        .timeout(TIMEOUT)
        .build()
        .expect("a client")
}

/// What a number of ops came to.
#[derive(Debug)]
struct Pass {
    ops: usize,
    /// Ops that were redirected.
    redirected: usize,
    /// Most redirects of one op.
    most_hops: usize,
}

/// Puts and reads every key.
async fn pass(client: &Client, round: usize) -> Pass {
    let mut pass = Pass {
        ops: 0,
        redirected: 0,
        most_hops: 0,
    };
    for n in 0..KEYS {
        let (key, value) = (format!("k{n}"), format!("{round}"));
        let history = CallHistory::new();
        let client = client.with_history(&history);
        client
            .put(&key, value.clone())
            .await
            .expect("it finds its node");
        pass.count(&history);
        history.clear();
        let found = client.get(&key).await.expect("it finds its node");
        assert_eq!(found, Some(value.into()), "{key}");
        pass.count(&history);
    }
    pass
}

impl Pass {
    fn count(&mut self, history: &CallHistory) {
        let hops = longest_way(history);
        self.ops += 1;
        self.redirected += usize::from(hops > 0);
        self.most_hops = self.most_hops.max(hops);
    }
}

/// The most redirects that were followed one after the other.
fn longest_way(history: &CallHistory) -> usize {
    let (mut way, mut longest) = (0, 0);
    for attempt in history.attempts() {
        way = match attempt.why {
            Why::Redirected => way + 1,
            _ => 0,
        };
        longest = longest.max(way);
    }
    longest
}

/// Nodes whose maps send astray whoever asks for the second shard of two.
struct Strays {
    /// Each says that the other one has it.
    circle: Vec<Node>,
    /// One says that a dead node has it, one that a stranger does.
    lost: Vec<Node>,
    dead: Port,
    stranger: String,
    asked: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Strays {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (stranger, asked) = listen();
        let dead = Port::take();
        let dead_address = format!("127.0.0.1:{}", dead.number);
        let ports = [Port::take(), Port::take()];
        let addresses = ports
            .each_ref()
            .map(|port| format!("127.0.0.1:{}", port.number));
        let mut circle = Vec::new();
        for (at, port) in ports.into_iter().enumerate() {
            let map = map_text(
                CURRENT,
                &[addresses[at].clone(), addresses[1 - at].clone()],
                1,
            );
            circle.push(Node::new(dir.path(), &format!("circle{at}"), port, &map));
        }
        let mut lost = Vec::new();
        for (name, there) in [("dead", &dead_address), ("stranger", &stranger)] {
            let port = Port::take();
            let map = map_text(
                CURRENT,
                &[format!("127.0.0.1:{}", port.number), there.clone()],
                1,
            );
            lost.push(Node::new(dir.path(), name, port, &map));
        }
        for node in circle.iter().chain(&lost) {
            node.start().await;
        }
        Self {
            circle,
            lost,
            dead,
            stranger,
            asked,
            _dir: dir,
        }
    }

    /// A client of these nodes, by shard, and a key of the second.
    fn client(first: &str, second: &Node) -> (Client, String) {
        let map = map_text(KEPT, &[first.to_owned(), second.address.clone()], 1);
        (client_of(&map), key_in(1, 2, "k"))
    }

    fn in_a_circle(&self) -> (Client, String) {
        Self::client(&self.circle[0].address, &self.circle[1])
    }

    fn to_a_dead_node(&self) -> (Client, String) {
        let dead = format!("127.0.0.1:{}", self.dead.number);
        Self::client(&dead, &self.lost[0])
    }

    /// Its map does not name the stranger.
    fn to_a_stranger(&self) -> (Client, String) {
        let dead = format!("127.0.0.1:{}", self.dead.number);
        assert_ne!(dead, self.stranger);
        Self::client(&dead, &self.lost[1])
    }

    /// How often somebody came to the stranger.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A listener that counts who comes, and says nothing. Ends with the process.
fn listen() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let asked = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&asked);
    thread::spawn(move || {
        for _ in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, asked)
}
