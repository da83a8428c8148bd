//! D9: futures dropped in mid-call. Nothing is left of them: no op under way, no descriptor, here or in the nodes; and a
//! write that was dropped is done once or not at all.

use std::{collections::BTreeMap, fs, future::Future, path::Path, time::Duration};

use futures_util::{TryStreamExt, poll};
use kvclient::{
    Client, Key,
    shard_map::toml,
    wire::batch::{Action, Op},
};
use tokio::{task::JoinSet, time::timeout};

use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape, map_text},
    eventually,
    link::Link,
    oracle::Verdict,
    report::{self, Row},
    seeded,
};

const TASKS: usize = 20;

/// How late answers are, and within what time ops are dropped: some before they are sent, most on the way, some after.
const LATE: Duration = Duration::from_millis(2);
const DROPPED_WITHIN_US: u64 = 25_000;

/// Descriptors that may be more than before: connections that are kept for the next op.
const MORE: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn d9_dropped_futures_leave_nothing_behind() {
    let mut row = Row::begin("D9");
    let wanted = if bar() { 10_000 } else { 1_000 };
    let shop = Shop::open().await;
    let mut rng = seeded();
    shop.use_up(TASKS * 5, &mut rng).await;
    let before = shop.descriptors();
    let told = shop.use_up(wanted, &mut rng).await;
    assert_eq!(in_flight(&shop.client), 0);
    let after = eventually("as many descriptors as before", async || {
        let after = shop.descriptors();
        let is_flat = after
            .iter()
            .zip(&before)
            .all(|(after, before)| *after <= before + MORE);
        is_flat.then_some(after)
    })
    .await;
    // What still travels arrives.
    shop.client
        .put("after", "all")
        .await
        .expect("it works as ever");
    row.writes = shop.judge(&told.writes).await;
    row.writes.assert_whole("after all drops");
    row.rounds = told.dropped;
    row.figures = format!(
        "{} calls dropped, {} ended before; 0 under way afterwards; descriptors of this process and the nodes {before:?} \
         before, {after:?} after",
        told.dropped, told.ended
    );
    row.save();
}

/// Futures that are neither dropped nor polled again.
#[tokio::test(flavor = "multi_thread")]
async fn d9_control_forgotten_futures_are_noticed() {
    let shop = Shop::open().await;
    let before = shop.descriptors();
    for n in 0..200 {
        let client = shop.client.clone();
        let mut call = Box::pin(async move { client.incr(format!("forgotten:{n}"), 1).await });
        assert!(poll!(&mut call).is_pending());
        std::mem::forget(call);
    }
    let under_way = in_flight(&shop.client);
    assert!(under_way > 0);
    let found = format!(
        "{under_way} of 200 ops under way for ever; descriptors {before:?} before, {:?} after",
        shop.descriptors()
    );
    report::save_control(
        "D9",
        "futures are dropped; they are forgotten instead",
        &found,
    );
}

/// A pair of nodes behind links that are a little slow, and a client.
struct Shop {
    client: Client,
    _links: Vec<Link>,
    cluster: Cluster,
}

/// What became of calls.
#[derive(Default)]
struct Told {
    dropped: usize,
    ended: usize,
    /// Whether a write was acknowledged; else it was dropped, or its outcome is unknown.
    writes: BTreeMap<String, bool>,
}

impl Shop {
    async fn open() -> Self {
        let cluster = Cluster::start(Shape::pair()).await;
        let nodes = cluster.nodes().iter();
        let links: Vec<Link> = nodes
            .map(|node| Link::to(node.address.parse().expect("an address")))
            .collect();
        links.iter().for_each(|link| link.delay(LATE));
        let addresses: Vec<String> = links
            .iter()
            .map(|link| link.address().to_string())
            .collect();
        let map = map_text(1_000, &addresses, 2);
        let map = toml::parse(&map, "the map of the links").expect("a map");
        let client = Client::builder(map).build().expect("a client");
        Self {
            client,
            _links: links,
            cluster,
        }
    }

    /// Makes calls by many tasks and drops them, until so many were dropped.
    async fn use_up(&self, dropped: usize, rng: &mut fastrand::Rng) -> Told {
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            tasks.spawn(make_and_drop(
                self.client.clone(),
                dropped.div_ceil(TASKS),
                rng.fork(),
            ));
        }
        let mut all = Told::default();
        for told in tasks.join_all().await {
            all.dropped += told.dropped;
            all.ended += told.ended;
            all.writes.extend(told.writes);
        }
        all
    }

    /// Descriptors of this process and of each node, but for segments of logs: these grow by what is written.
    fn descriptors(&self) -> Vec<usize> {
        let nodes = self.cluster.nodes().iter().map(Node::pid);
        let pids = [std::process::id()].into_iter().chain(nodes);
        pids.map(descriptors).collect()
    }

    /// Each write is a counter of its own: once if acknowledged, else once or not at all.
    async fn judge(&self, writes: &BTreeMap<String, bool>) -> Verdict {
        let mut verdict = Verdict::default();
        let writes: Vec<(&String, &bool)> = writes.iter().collect();
        for page in writes.chunks(500) {
            let get = |(key, _): &(&String, &bool)| {
                Op::new(Key::new(key.to_string()).expect("a key"), Action::Get)
            };
            let ops: Vec<Op> = page.iter().map(get).collect();
            let results = self.cluster.primary(0).batch(&ops).await;
            for ((_, is_acked), found) in page.iter().zip(results) {
                let is_once = found.value.as_deref() == Some(b"1");
                verdict.acked += usize::from(**is_acked);
                verdict.unknown += usize::from(!**is_acked);
                verdict.unknown_applied += usize::from(!**is_acked && is_once);
                verdict.lost += usize::from(**is_acked && found.value.is_none());
                verdict.duplicated += usize::from(found.value.is_some() && !is_once);
            }
        }
        verdict
    }
}

fn descriptors(pid: u32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let is_of_log = |target: &Path| target.parent().is_some_and(|dir| dir.ends_with("log"));
    all.flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| !is_of_log(&target)))
        .count()
}

fn in_flight(client: &Client) -> usize {
    client.stats().nodes.iter().map(|node| node.in_flight).sum()
}

async fn make_and_drop(client: Client, dropped: usize, mut rng: fastrand::Rng) -> Told {
    let mut told = Told::default();
    while told.dropped < dropped {
        let within = Duration::from_micros(rng.u64(..DROPPED_WITHIN_US));
        let key = format!("once:{}", rng.u64(..));
        let is_ended = match rng.usize(..6) {
            0 => ends(within, client.get(&key)).await.is_some(),
            1 => ends(within, client.get_many(["a", "b", "c"]))
                .await
                .is_some(),
            2 => ends(within, client.put("large", vec![b'x'; 70 << 10]))
                .await
                .is_some(),
            3 => ends(within, client.scan("once:1").try_collect::<Vec<_>>())
                .await
                .is_some(),
            _ => {
                let ended = ends(within, client.incr(&key, 1)).await;
                told.writes.insert(key, matches!(ended, Some(Ok(1))));
                ended.is_some()
            }
        };
        told.ended += usize::from(is_ended);
        told.dropped += usize::from(!is_ended);
    }
    told
}

/// `None` if it was dropped first.
async fn ends<T>(within: Duration, call: impl Future<Output = T>) -> Option<T> {
    timeout(within, call).await.ok()
}
