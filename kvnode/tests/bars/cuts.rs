//! Bar: connections are cut between request and answer, and the primary is killed meanwhile; every write is done once,
//! or not at all if its caller was told so.
//!
//! Patient tasks count on a few counters, with a time limit that outlasts every outage: each gets the value that its
//! step made, so all values together must be 1, 2, 3 ... with none missing and none twice. Impatient ones have a few
//! milliseconds for each write, so that many fail; each of their writes is a counter of its own, which shows afterwards
//! whether it was done, and how often.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvclient::{
    Client, Key, Outcome,
    wire::batch::{Action, Op},
};
use tokio::task::JoinSet;

use crate::{
    common::{addresses, builder},
    support::{
        bar,
        cluster::{Cluster, Node, Shape},
        eventually,
        link::Link,
        oracle::Verdict,
        report::{self, Row},
        seeded,
    },
};

const COUNTERS: usize = 8;
const PATIENT: usize = 24;
const PATIENCE: Duration = Duration::from_secs(60);

/// Time limits of the impatient tasks.
const LIMITS_MS: [u64; 4] = [3, 10, 50, 300];
const IMPATIENT_EACH: usize = 4;

/// Exchanges that are cut, in a thousand.
const CUT_PERMILLE: usize = 150;

/// What the patient tasks were told, by counter.
#[derive(Default)]
struct Counted {
    values: BTreeMap<usize, Vec<i64>>,
    failures: Vec<String>,
}

/// What the impatient tasks were told, by key; `None`: it is done.
type Told = BTreeMap<String, Option<Outcome>>;

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_write_whose_answer_is_cut_off_is_done_once() {
    let mut row = Row::begin("D1");
    let (cuts, kills) = if bar() { (1_000, 10) } else { (60, 2) };
    let mut rng = seeded();
    let cluster = Cluster::start(Shape::pair()).await;
    let primary = cluster.primary(0);
    let (link, through_link) = link_to_primary(&cluster);

    let began = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut patient, mut impatient) = (JoinSet::new(), JoinSet::new());
    let client = builder(&cluster, &through_link).timeout(PATIENCE).build();
    let client = client.expect("a client");
    for _ in 0..PATIENT {
        patient.spawn(count(client.clone(), rng.fork(), Arc::clone(&stop)));
    }
    let direct = addresses(&cluster);
    for (number, limit_ms) in LIMITS_MS.into_iter().enumerate() {
        // By turns through the link, where an outage is a broken connection, and straight, where it is none at all.
        let addresses = [&through_link, &direct][number % 2];
        let impatient_client =
            builder(&cluster, addresses).timeout(Duration::from_millis(limit_ms));
        let impatient_client = impatient_client.build().expect("a client");
        for task in 0..IMPATIENT_EACH {
            let name = format!("once:{limit_ms}:{task}");
            impatient.spawn(write_once(
                impatient_client.clone(),
                name,
                Arc::clone(&stop),
            ));
        }
    }

    link.cut_answers(CUT_PERMILLE);
    for kill in 1..=kills {
        wait_cuts(&link, kill * cuts / (kills + 1)).await;
        primary.kill();
        primary.start().await;
    }
    wait_cuts(&link, cuts).await;
    let cuts = link.cuts();
    link.heal();
    stop.store(true, Ordering::Relaxed);
    let mut counted = Counted::default();
    while let Some(ended) = patient.join_next().await {
        counted.merge(ended.expect("no panic"));
    }
    let mut told = Told::new();
    while let Some(ended) = impatient.join_next().await {
        told.extend(ended.expect("no panic"));
    }
    let took = began.elapsed();

    assert!(counted.failures.is_empty(), "{:#?}", counted.failures);
    let mut steps = 0;
    for (&counter, values) in &mut counted.values {
        values.sort_unstable();
        let count = i64::try_from(values.len()).expect("few");
        assert!(
            values.iter().copied().eq(1..=count),
            "{counter}: {values:?}"
        );
        let found = primary.get(&counter_key(counter)).await;
        assert_eq!(found, Some(count.to_string().into()), "counter {counter}");
        steps += values.len();
    }
    let (wrong, unknown_applied) = wrongs(primary, &told).await;
    assert!(wrong.is_empty(), "{wrong:#?}");

    let tally = |wanted| told.values().filter(|&&outcome| outcome == wanted).count();
    let (not_applied, unknown) = (
        tally(Some(Outcome::NotApplied)),
        tally(Some(Outcome::Unknown)),
    );
    row.figures = format!(
        "{cuts} connections cut, {kills} kills, {took:.1?}: {steps} steps on {COUNTERS} counters, all exact, {} retries; \
         {} writes in a hurry: {} done, {not_applied} not applied, {unknown} unknown, 0 of them otherwise",
        client.stats().retries,
        told.len(),
        tally(None),
    );
    eprintln!("bar 3: {}", row.figures);
    row.rounds = cuts;
    row.writes = Verdict {
        acked: steps + tally(None),
        unknown,
        unknown_applied,
        ..Verdict::default()
    };
    row.save();
    // Else nothing was shown.
    assert!(steps > 100 && not_applied > 0 && unknown > 0);
}

/// Without request ids nobody can repeat a step and be sure that it is done once.
#[tokio::test(flavor = "multi_thread")]
async fn d1_control_without_request_ids_repeated_steps_are_done_twice() {
    let cuts = if bar() { 200 } else { 60 };
    let mut rng = seeded();
    let cluster = Cluster::start(Shape::pair()).await;
    let (link, through_link) = link_to_primary(&cluster);
    let client = builder(&cluster, &through_link).without_request_ids();
    let client = client.timeout(PATIENCE).build().expect("a client");
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for _ in 0..PATIENT {
        tasks.spawn(count(client.clone(), rng.fork(), Arc::clone(&stop)));
    }
    link.cut_answers(CUT_PERMILLE);
    wait_cuts(&link, cuts).await;
    link.heal();
    stop.store(true, Ordering::Relaxed);
    let mut counted = Counted::default();
    for told in tasks.join_all().await {
        counted.merge(told);
    }
    let (mut steps, mut found) = (0, 0);
    for (&counter, values) in &counted.values {
        steps += values.len();
        let value = primary_value(cluster.primary(0), counter).await;
        found += usize::try_from(value).expect("counted up");
    }
    // Whoever was not told counts the step again, as these tasks do with their next one.
    assert!(found > steps, "{found} of {steps}");
    let found = format!(
        "{steps} steps acknowledged, {} not, and the counters stand at {found}: {} of the steps that were taken again \
         had been done",
        counted.failures.len(),
        found - steps
    );
    report::save_control(
        "D1",
        "request ids; the caller takes a step again by itself",
        &found,
    );
}

/// A link before the primary, and all addresses with it in the primary's place.
fn link_to_primary(cluster: &Cluster) -> (Link, Vec<String>) {
    let link = Link::to(cluster.primary(0).address.parse().expect("an address"));
    let mut through_link = addresses(cluster);
    through_link[0] = link.address().to_string();
    (link, through_link)
}

async fn primary_value(primary: &Node, counter: usize) -> i64 {
    let value = primary.get(&counter_key(counter)).await.expect("a counter");
    let text = std::str::from_utf8(&value).expect("digits");
    text.parse().expect("a number")
}

async fn wait_cuts(link: &Link, cuts: usize) {
    eventually(&format!("{cuts} connections are cut"), async || {
        (link.cuts() >= cuts).then_some(())
    })
    .await;
}

fn counter_key(counter: usize) -> String {
    format!("counter:{counter}")
}

async fn count(client: Client, mut rng: fastrand::Rng, stop: Arc<AtomicBool>) -> Counted {
    let mut counted = Counted::default();
    while !stop.load(Ordering::Relaxed) {
        let counter = rng.usize(..COUNTERS);
        match client.incr(counter_key(counter), 1).await {
            Ok(value) => counted.values.entry(counter).or_default().push(value),
            Err(error) => counted.failures.push(format!("{error:?}")),
        }
    }
    counted
}

impl Counted {
    fn merge(&mut self, other: Self) {
        for (counter, values) in other.values {
            self.values.entry(counter).or_default().extend(values);
        }
        self.failures.extend(other.failures);
    }
}

async fn write_once(client: Client, name: String, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::new();
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{name}:{}", told.len());
        let outcome = client
            .incr(&key, 1)
            .await
            .err()
            .map(|error| error.outcome());
        told.insert(key, outcome);
        // A pause, so that an outage does not leave a million keys behind.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    told
}

/// The writes that are not as their callers were told, a line each; and how many unknown ones were done.
async fn wrongs(primary: &Node, told: &Told) -> (Vec<String>, usize) {
    let told: Vec<_> = told.iter().collect();
    let (mut wrongs, mut unknown_applied) = (Vec::new(), 0);
    for page in told.chunks(500) {
        let get = |(key, _): &(&String, _)| {
            let key = Key::new(key.to_string()).expect("short");
            Op::new(key, Action::Get)
        };
        let ops: Vec<Op> = page.iter().map(get).collect();
        let results = primary.batch(&ops).await;
        for ((key, outcome), found) in page.iter().zip(results) {
            let is_right = match (outcome, found.value.as_deref()) {
                (None | Some(Outcome::Unknown), Some(b"1")) => true,
                (Some(Outcome::NotApplied | Outcome::Unknown), None) => found.status == 404,
                _ => false,
            };
            let is_unknown = **outcome == Some(Outcome::Unknown);
            unknown_applied += usize::from(is_unknown && found.value.is_some());
            if !is_right {
                let value = found.value.unwrap_or(Bytes::new());
                wrongs.push(format!(
                    "{key}: told {outcome:?}, {} {value:?}",
                    found.status
                ));
            }
        }
    }
    (wrongs, unknown_applied)
}
