//! Bar: of two nodes that answer a shard's reads, one answers late now and then; a second copy of a read that takes
//! long hides that, for a few more requests.
//!
//! Each task has a client of its own, so that every read is an exchange of its own: tasks that share one would wait
//! together, and so would all that were read in one answer. And the nodes are chosen evenly, since the usual choice
//! avoids a node that has something under way, which hides most of the delays whether reads are hedged or not.

use std::{sync::Arc, time::Duration};

use kvclient::{
    Client,
    policy::{Candidates, ReadPolicy, ReadRequest},
};

use crate::{
    common::{addresses, builder},
    readers::{Readers, Times, store_keys},
    support::{
        bar,
        cluster::{Cluster, Shape},
        link::Link,
        seeded,
    },
};

const KEYS: usize = 1_000;
const TASKS: usize = 8;

/// So many in a thousand of the replica's answers are late, by so much.
const LATE_PERMILLE: usize = 30;
const LATE: Duration = Duration::from_millis(50);

/// Most windows of each kind.
const MOST_PAIRS: usize = 20;

/// Of the 99th percentile without hedging, the share that is left with it.
const MOST_P99: f64 = 1.0 / 3.0;
/// Requests beyond those that the reads need.
const MOST_EXTRA: f64 = 0.05;

/// Every node as often as any other.
#[derive(Debug)]
struct Evenly;

impl ReadPolicy for Evenly {
    fn choose(&self, _read: &ReadRequest<'_>, candidates: &Candidates<'_>) -> usize {
        fastrand::usize(..candidates.len())
    }
}

/// Clients of one kind, one for each task, and what their reads took.
struct Side {
    name: &'static str,
    clients: Vec<Client>,
    times: Times,
    failures: Vec<String>,
}

/// What the clients of one side have counted.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    ops: u64,
    /// Ops that nodes were asked to do.
    asked: u64,
    hedges: u64,
    won: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn hedging_hides_answers_that_are_late() {
    let (pairs, window) = match bar() {
        true => (10, Duration::from_secs(3)),
        false => (2, Duration::from_millis(700)),
    };
    let mut rng = seeded();
    let cluster = Cluster::start(Shape::pair()).await;
    let link = Link::to(cluster.replica(0, 0).address.parse().expect("an address"));
    let mut addresses = addresses(&cluster);
    addresses[1] = link.address().to_string();
    let side = |name, is_hedged: bool| {
        let client = || {
            let builder = builder(&cluster, &addresses).read_policy(Evenly);
            let builder = match is_hedged {
                true => builder,
                false => builder.without_hedging(),
            };
            builder.build().expect("a client")
        };
        Side {
            name,
            clients: (0..TASKS).map(|_| client()).collect(),
            times: Times::default(),
            failures: Vec::new(),
        }
    };
    let (mut on, mut off) = (side("with hedging", true), side("without hedging", false));
    let keys = store_keys(&on.clients[0], KEYS).await;
    let end = cluster.primary(0).at("durable").await;
    cluster
        .replica(0, 0)
        .wait_visible(end, "it has all keys")
        .await;

    link.delay_some(LATE_PERMILLE, LATE);
    let mut warm_up = side("warming up", false);
    warm_up.read(&keys, window, &mut rng).await;
    for pair in 0..MOST_PAIRS {
        // On a busy machine many a read takes as long as a late one, and it is some time until a second copy wins.
        if pair >= pairs && on.counts().won > 0 {
            break;
        }
        off.read(&keys, window, &mut rng).await;
        on.read(&keys, window, &mut rng).await;
    }
    let (p99_off, _) = off.report();
    let (p99_on, counts) = on.report();
    let ratio = p99_on.as_secs_f64() / p99_off.as_secs_f64();
    let extra = counts.extra();
    eprintln!(
        "bar 4: p99 with hedging is {ratio:.2} of that without, for {:.1} % more requests",
        extra * 100.0
    );
    for side in [&on, &off] {
        assert!(side.failures.is_empty(), "{:#?}", side.failures);
    }
    assert_eq!(off.counts().hedges, 0);
    assert!(counts.hedges > 0 && counts.won > 0, "{counts:?}");
    assert!(extra <= MOST_EXTRA, "{counts:?}");
    assert!(!bar() || ratio <= MOST_P99, "{ratio:.2}");
}

impl Side {
    async fn read(&mut self, keys: &Arc<[String]>, window: Duration, rng: &mut fastrand::Rng) {
        let readers = Readers::start(self.clients.iter().cloned(), keys, rng);
        let reads = readers.stop_after(window).await;
        self.times.merge(reads.times());
        self.failures.extend(reads.failures);
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for client in &self.clients {
            let stats = client.stats();
            counts.ops += stats.ops;
            counts.asked += stats.nodes.iter().map(|node| node.ops).sum::<u64>();
            counts.hedges += stats.hedges;
            counts.won += stats.hedges_won;
        }
        counts
    }

    /// Prints the figures; the 99th percentile and the counts.
    fn report(&mut self) -> (Duration, Counts) {
        let counts = self.counts();
        let [p50, p95, p99] = [50, 95, 99].map(|percent| self.times.percentile(percent));
        eprintln!(
            "bar 4: {}: {} reads of {TASKS} tasks, p50 {p50:.1?}, p95 {p95:.1?}, p99 {p99:.1?}, slowest {:.1?}; {} \
             hedges, {} of them won",
            self.name,
            self.times.count(),
            self.times.slowest(),
            counts.hedges,
            counts.won
        );
        (p99, counts)
    }
}

impl Counts {
    /// Requests beyond one for each op.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    fn extra(self) -> f64 {
        (self.asked as f64 - self.ops as f64) / self.ops as f64
    }
}
