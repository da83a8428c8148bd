//! D5: all nodes are slow. Ops end in time all the same, and the client does not make it worse by asking again and again.

use std::time::{Duration, Instant};

use kvclient::{Client, ClientBuilder, GetOptions, shard_map::toml};
use tokio::task::JoinSet;

use crate::support::{
    bar,
    cluster::{Cluster, Shape, map_text},
    link::Link,
    report::{self, Row},
};

/// Every piece of an answer is late by this.
const LATE: Duration = Duration::from_millis(500);

/// What a read has.
const TIMEOUT: Duration = Duration::from_millis(900);

/// How much longer it may take, but for one in a thousand, on a machine that has nothing else to do, and on any.
const LATE_BY: Duration = Duration::from_millis(50);
const LATE_BY_BUSY: Duration = Duration::from_secs(3);

const TASKS: usize = 100;
/// In the full form: many ops, of which a burst of repeats is a small part.
const MANY_TASKS: usize = 300;
const KEYS: usize = 200;

/// What a client may ask beyond its ops: a fifth for repeats and a twentieth for second copies, and a burst of each.
fn most_extra(ops: u64) -> u64 {
    ops / 5 + 1_000 + ops / 20 + 100
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_slow_nodes_are_not_asked_much_more_and_ops_end_in_time() {
    let mut row = Row::begin("D5");
    let (task_count, reads) = if bar() { (MANY_TASKS, 60) } else { (TASKS, 8) };
    row.rounds = reads * task_count;
    let slow = Slow::start().await;
    let client = slow.builder().build().expect("a client");
    let (mut times, mut failed) = (Vec::new(), 0);
    let mut tasks = JoinSet::new();
    for task in 0..task_count {
        tasks.spawn(read(client.clone(), task, reads));
    }
    for (its_times, its_failed) in tasks.join_all().await {
        times.extend(its_times);
        failed += its_failed;
    }
    let stats = client.stats();
    let asked: u64 = stats.nodes.iter().map(|node| node.ops).sum();
    times.sort_unstable();
    let slowest = times[times.len() - 1];
    let most = times[times.len() - 1 - times.len() / 1_000];
    let late_by = most.saturating_sub(TIMEOUT);
    let extra = asked - stats.ops;
    row.figures = format!(
        "{} reads of {TIMEOUT:?} each, every answer {LATE:?} late: {failed} failed, 99.9 % within {most:.1?}, the slowest after {slowest:.1?}; {extra} \
         more asked ({} %): {} repeats, {} held back, {} hedges",
        stats.ops,
        extra * 100 / stats.ops,
        stats.retries,
        stats.retries_held_back,
        stats.hedges
    );
    eprintln!("{}", row.figures);
    assert!(
        late_by < if bar() { LATE_BY } else { LATE_BY_BUSY },
        "{}",
        row.figures
    );
    assert!(extra <= most_extra(stats.ops), "{}", row.figures);
    row.save();
}

/// Callers who ask again by themselves whenever an answer takes long.
#[tokio::test(flavor = "multi_thread")]
async fn d5_control_callers_who_repeat_by_themselves_ask_many_times_as_much() {
    const IMPATIENT: Duration = Duration::from_millis(100);
    let slow = Slow::start().await;
    let client = slow.builder().build().expect("a client");
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let client = client.clone();
        tasks.spawn(async move {
            let (began, key) = (Instant::now(), format!("k{}", task % KEYS));
            while began.elapsed() < TIMEOUT {
                let options = GetOptions::new().timeout(IMPATIENT);
                if client.get_with(&key, options).await.is_ok() {
                    return;
                }
            }
        });
    }
    tasks.join_all().await;
    let asked: u64 = client.stats().nodes.iter().map(|node| node.ops).sum();
    let extra = (asked - TASKS as u64) * 100 / TASKS as u64;
    assert!(extra > 100, "{extra} %");
    let found = format!("{TASKS} reads were asked {asked} times: {extra} % more");
    report::save_control(
        "D5",
        "the bound on repeats; callers repeat what takes 100 ms",
        &found,
    );
}

/// Nodes whose answers to clients are late.
struct Slow {
    cluster: Cluster,
    links: Vec<Link>,
}

impl Slow {
    async fn start() -> Self {
        let cluster = Cluster::start(Shape {
            shards: 3,
            replicas: 1,
            ..Shape::default()
        })
        .await;
        let nodes = cluster.nodes().iter();
        let links = nodes.map(|node| Link::to(node.address.parse().expect("an address")));
        let slow = Self {
            links: links.collect(),
            cluster,
        };
        let client = slow
            .builder()
            .timeout(Duration::from_secs(5))
            .build()
            .expect("a client");
        let items = (0..KEYS).map(|n| (format!("k{n}"), "v"));
        client.put_many(items).await.expect("all are stored");
        slow.links.iter().for_each(|link| link.delay(LATE));
        slow
    }

    fn builder(&self) -> ClientBuilder {
        let links = self.links.iter();
        let addresses: Vec<String> = links.map(|link| link.address().to_string()).collect();
        let map = map_text(1_000, &addresses, 1 + self.cluster.shape.replicas);
        let map = toml::parse(&map, "the map of the links").expect("a map");
        Client::builder(map).timeout(TIMEOUT)
    }
}

/// Reads so many keys: how long each took, and how many failed.
async fn read(client: Client, task: usize, reads: usize) -> (Vec<Duration>, usize) {
    let (mut times, mut failed) = (Vec::new(), 0);
    for n in 0..reads {
        let key = format!("k{}", (task + n * 7) % KEYS);
        let began = Instant::now();
        let result = client.get(&key).await;
        times.push(began.elapsed());
        failed += usize::from(result.is_err());
    }
    (times, failed)
}
