//! B11 and B12: how far behind a replica says it is, while it or its primary stands still, and after a silence.
//!
//! The primary's key `clock` counts up, and it is known when each value was acknowledged. So whoever reads an older one
//! knows for how long it was outdated at least, and a replica that says less than that lies.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kvclient::{Client, ClientBuilder, Consistency, GetOptions, shard_map::toml};

use super::level;
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    eventually,
    http::Ask,
    link::Way,
    millis,
    report::{self, Row},
};

/// What readers bear.
const BOUND: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn b11_lag_is_told_honestly_while_nodes_stand_still() {
    let mut row = Row::begin("B11");
    let still = Duration::from_secs(if bar() { 60 } else { 2 });
    let cluster = linked_pair().await;
    let clock = Clock::default();
    let (seen, ()) = tokio::join!(
        async {
            let seen = stand_still(&cluster, &clock, still).await;
            clock.is_over.store(true, Ordering::Relaxed);
            seen
        },
        clock.tick(cluster.primary(0))
    );
    assert_eq!(seen.lies, 0, "{seen:?}");
    assert_eq!(seen.beyond_bound, 0, "{seen:?}");
    assert!(seen.refused > 0 && seen.by_client > 0, "{seen:?}");
    row.rounds = 3;
    row.writes.acked = clock.acked.lock().expect("no panic").len();
    row.figures = format!(
        "primary paused, replica paused, link silent, {} s each: {} reads of the replica, 0 more outdated than its \
         Kv-Lag-Ms said, which was at most {} ms too high; {} with Kv-Max-Lag-Ms refused, {} by a client with MaxLag, \
         0 older than its bound",
        still.as_secs(),
        seen.reads,
        seen.too_high_ms,
        seen.refused,
        seen.by_client
    );
    row.save();
}

/// Readers without a bound get what is outdated for longer.
#[tokio::test(flavor = "multi_thread")]
async fn b11_control_without_a_bound_old_values_are_read() {
    let cluster = linked_pair().await;
    let (clock, replica) = (Clock::default(), cluster.replica(0, 0));
    let (old, ()) = tokio::join!(
        async {
            cluster.link(0, 0).black_hole(&[Way::ToAsker]);
            let began = Instant::now();
            let mut old = 0;
            while began.elapsed() < BOUND * 3 {
                let sent = Instant::now();
                let answer = replica.ask("GET", "/kv/clock").await;
                old += usize::from(clock.outdated(&answer.text(), sent) > BOUND);
            }
            clock.is_over.store(true, Ordering::Relaxed);
            old
        },
        clock.tick(cluster.primary(0))
    );
    assert!(old > 0);
    let found = format!("{old} reads outdated for more than 500 ms");
    report::save_control("B11", "readers set no bound (Kv-Max-Lag-Ms)", &found);
}

async fn linked_pair() -> Cluster {
    let cluster = Cluster::start(Shape {
        linked: true,
        ..Shape::pair()
    })
    .await;
    cluster.primary(0).put("clock", "0").await;
    level(cluster.primary(0), cluster.replica(0, 0)).await;
    cluster
}

/// When each value of the key `clock` was acknowledged.
#[derive(Debug, Default)]
struct Clock {
    acked: Mutex<BTreeMap<u64, Instant>>,
    is_over: AtomicBool,
}

impl Clock {
    async fn tick(&self, primary: &Node) {
        let mut n = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            n += 1;
            let put = Ask::new("PUT", "/kv/clock").body(n.to_string());
            if primary
                .try_send(put)
                .await
                .is_ok_and(|answer| answer.status == 204)
            {
                self.acked
                    .lock()
                    .expect("no panic")
                    .insert(n, Instant::now());
            }
            // A pause by intent: the clock need not tick faster.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// For how long this value was outdated, at least, when it was asked for at `sent`.
    fn outdated(&self, value: &str, sent: Instant) -> Duration {
        let value: u64 = value.parse().expect("a value of the clock");
        let acked = self.acked.lock().expect("no panic");
        let next = acked.range(value + 1..).next();
        next.map_or(Duration::ZERO, |(_, at)| {
            sent.saturating_duration_since(*at)
        })
    }
}

#[derive(Debug, Default)]
struct Seen {
    reads: usize,
    /// Answers more outdated than they said.
    lies: usize,
    /// By how much the lag that was told exceeds the time since a value was outdated, at most.
    too_high_ms: u64,
    refused: usize,
    by_client: usize,
    /// Answers within a bound that were older than it.
    beyond_bound: usize,
}

async fn stand_still(cluster: &Cluster, clock: &Clock, still: Duration) -> Seen {
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let map = toml::parse(&cluster.map, "the test's map").expect("a map");
    let client = ClientBuilder::new(map).build().expect("a client");
    let mut seen = Seen::default();
    primary.pause();
    let paused = Instant::now();
    while paused.elapsed() < still {
        seen.read(replica, clock, Some(paused)).await;
    }
    primary.resume();
    recover(primary, replica).await;

    cluster.link(0, 0).black_hole(&[Way::ToAsker]);
    let silent = Instant::now();
    while silent.elapsed() < still {
        seen.read(replica, clock, Some(silent)).await;
        seen.read_by(&client, clock).await;
    }
    cluster.link(0, 0).heal();
    recover(primary, replica).await;

    replica.pause();
    let paused = Instant::now();
    while paused.elapsed() < still {
        seen.read_by(&client, clock).await;
    }
    replica.resume();
    // The first answers are those that tell whether it knows that it slept.
    for _ in 0..20 {
        seen.read(replica, clock, None).await;
    }
    recover(primary, replica).await;
    seen
}

async fn recover(primary: &Node, replica: &Node) {
    primary.wait_ready().await;
    eventually("the lag is small again", async || {
        let lag = replica.status().await["lag_ms"].as_u64()?;
        (lag < 400).then_some(())
    })
    .await;
}

impl Seen {
    /// Reads from the replica, without a bound and with one. Nothing new can have come to it since `silent`.
    async fn read(&mut self, replica: &Node, clock: &Clock, silent: Option<Instant>) {
        let sent = Instant::now();
        let answer = replica.ask("GET", "/kv/clock").await;
        let told: u64 = answer
            .header("kv-lag-ms")
            .expect("a lag")
            .parse()
            .expect("a number");
        let since = silent.map_or(Duration::ZERO, |silent| {
            sent.saturating_duration_since(silent)
        });
        let true_ms = millis(since.max(clock.outdated(&answer.text(), sent)));
        self.reads += 1;
        self.lies += usize::from(told < true_ms);
        if silent.is_some() {
            self.too_high_ms = self.too_high_ms.max(told.saturating_sub(true_ms));
        }
        let sent = Instant::now();
        let bounded = Ask::new("GET", "/kv/clock").header("kv-max-lag-ms", BOUND.as_millis());
        let answer = replica.send(bounded).await;
        match answer.status {
            200 => self.judge(clock.outdated(&answer.text(), sent)),
            _ => {
                assert_eq!((answer.status, &*answer.error()), (503, "behind"));
                self.refused += 1;
            }
        }
    }

    /// Reads through a client, which goes where the bound is kept.
    async fn read_by(&mut self, client: &Client, clock: &Clock) {
        let options = GetOptions::new().consistency(Consistency::MaxLag(BOUND));
        let sent = Instant::now();
        if let Ok(Some(value)) = client.get_with("clock", options).await {
            self.by_client += 1;
            self.judge(clock.outdated(&String::from_utf8_lossy(&value.value), sent));
        }
    }

    fn judge(&mut self, outdated: Duration) {
        self.beyond_bound += usize::from(outdated > BOUND + Duration::from_millis(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_one_write_after_a_long_silence_arrives_at_once() {
    let mut row = Row::begin("B12");
    let (rounds, silence) = if bar() { (3, 60) } else { (2, 2) };
    let cluster = Cluster::start(Shape::pair()).await;
    let (mut lag_ms, mut delivered_ms) = (0, 0);
    for round in 0..rounds {
        let (idle, delivery) = silence_and_write(&cluster, silence, round).await;
        lag_ms = lag_ms.max(idle);
        delivered_ms = delivered_ms.max(delivery);
    }
    row.rounds = rounds;
    row.writes.acked = rounds;
    row.figures = format!(
        "{rounds} silences of {silence} s: 0 records of lag throughout, at most {lag_ms} ms; the write after them was \
         read from the replica within {delivered_ms} ms"
    );
    // A loaded machine may be late; an undelivered write waits for seconds.
    assert!(delivered_ms < 1_000, "{}", row.figures);
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_control_a_write_that_is_not_sent_does_not_arrive() {
    let cluster = linked_pair().await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    cluster.link(0, 0).black_hole(&[Way::ToAsker]);
    primary.put("late", "v").await;
    let ask = Ask::new("GET", "/kv/late")
        .header("kv-min-position", primary.at("durable").await)
        .header("kv-wait-ms", 1_000);
    let answer = replica.send(ask).await;
    assert_eq!((answer.status, &*answer.error()), (503, "behind"));
    let lag = replica.status().await["lag_ms"].as_u64().expect("a lag");
    let found = format!("not there after 1000 ms, the replica says it lags {lag} ms");
    report::save_control("B12", "answers to the replica's pulls", &found);
}

/// Watches the lag of an idle pair, then writes once: the largest lag, and how long the write took to be read.
async fn silence_and_write(cluster: &Cluster, seconds: u64, round: usize) -> (u64, u64) {
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let (began, mut lag_ms) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        let status = replica.status().await;
        assert_eq!(status["lag_records"], 0);
        lag_ms = lag_ms.max(status["lag_ms"].as_u64().expect("a lag"));
        // A pause by intent: the pair is to be idle.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let position = primary.put("late", format!("{round}")).await;
    let acked = Instant::now();
    let ask = Ask::new("GET", "/kv/late")
        .header("kv-min-position", position)
        .header("kv-wait-ms", 5_000);
    let answer = replica.send(ask).await;
    assert_eq!(answer.text(), round.to_string());
    (lag_ms, millis(acked.elapsed()))
}
