//! Bar: sessions read from replicas that are 20 ms behind and die now and then, and never see less than they wrote or
//! read before; with reads of the weakest kind, the same work does.
//!
//! Every key has one writer, which writes 1, 2, 3 ... to it. So what a session may see of a key at least is a number:
//! the last one that it wrote, or the largest that it read, whichever read is over before this one begins.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kvclient::{Client, Consistency, Session, shard_map::Role};
use tokio::task::JoinSet;

use crate::{
    common::{addresses, builder},
    support::{
        bar,
        cluster::{Cluster, Shape},
        eventually,
        report::{self, Row},
        seeded,
    },
};

const SHAPE: Shape = Shape {
    shards: 2,
    replicas: 2,
    linked: true,
    flags: &[],
    faults: "",
};

/// How long each piece of a primary's answer is held on its way to the replica.
const DELAY: Duration = Duration::from_millis(20);

const SESSIONS: usize = 32;
/// Tasks of a session; each writes keys of its own and reads those of all.
const TASKS: usize = 2;
const KEYS_PER_TASK: usize = 2;
/// One op in so many is a write, while there are any.
const WRITE_EVERY: usize = 20;
/// Writes come for so long, again and again in [`ROUND`]. Were there always some, a session that reads a thousand
/// times a second would always have seen one that is on no replica yet, and would read from primaries alone.
const WRITE_FOR: Duration = Duration::from_millis(100);
const ROUND: Duration = Duration::from_millis(300);

/// How long all nodes run between two kills.
const BETWEEN_KILLS: Duration = Duration::from_millis(300);

/// Least share of the reads that replicas must answer, in a hundred. Below it, little would be shown.
const LEAST_FROM_REPLICAS: u64 = 5;

/// What all tasks of a run share.
struct Run {
    began: Instant,
    stop: AtomicBool,
    reads: AtomicUsize,
    writes: AtomicUsize,
    /// Reads that showed less than their session had written.
    unwritten: AtomicUsize,
    /// Reads that showed less than their session had read.
    backwards: AtomicUsize,
}

/// What a run came to.
struct Worked {
    run: Arc<Run>,
    /// Replicas that were killed.
    kills: usize,
    figures: String,
}

/// What a session has seen at least, by key.
struct Seen {
    wrote: Vec<AtomicU64>,
    read: Vec<AtomicU64>,
}

/// One task of a session.
struct Worker {
    run: Arc<Run>,
    seen: Arc<Seen>,
    client: Client,
    rng: fastrand::Rng,
    keys: Arc<[String]>,
    /// The keys that it writes: the first of them, by place.
    own: usize,
    written: [u64; KEYS_PER_TASK],
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_a_session_never_sees_less_than_before() {
    let mut row = Row::begin("B10");
    let reads = if bar() { 1_000_000 } else { 20_000 };
    let worked = sessions_at_work(Consistency::ReadYourWrites, reads).await;
    assert_eq!(
        worked.run.unwritten.load(Ordering::Relaxed),
        0,
        "own writes"
    );
    assert_eq!(
        worked.run.backwards.load(Ordering::Relaxed),
        0,
        "monotonic reads"
    );
    row.rounds = worked.kills;
    row.writes.acked = worked.run.writes.load(Ordering::Relaxed);
    row.figures = worked.figures;
    row.save();
}

/// The proof that the other test can fail.
#[tokio::test(flavor = "multi_thread")]
async fn b10_control_without_a_session_s_guarantees_the_same_work_sees_less() {
    let reads = if bar() { 100_000 } else { 5_000 };
    let worked = sessions_at_work(Consistency::Eventual, reads).await;
    assert!(
        worked.run.unwritten.load(Ordering::Relaxed) > 0,
        "own writes"
    );
    assert!(
        worked.run.backwards.load(Ordering::Relaxed) > 0,
        "monotonic reads"
    );
    report::save_control(
        "B10",
        "the session's guarantees, by Eventual",
        &worked.figures,
    );
}

/// Lets all sessions work until so many reads are done, while replicas are killed and started again.
async fn sessions_at_work(consistency: Consistency, reads: usize) -> Worked {
    let mut rng = seeded();
    let cluster = Cluster::start(SHAPE).await;
    for shard in 0..SHAPE.shards {
        for replica in 0..SHAPE.replicas {
            cluster.link(shard, replica).delay(DELAY);
        }
    }
    let client = builder(&cluster, &addresses(&cluster)).consistency(consistency);
    let client = client.build().expect("a client");
    let count = SESSIONS * TASKS * KEYS_PER_TASK;
    let keys: Arc<[String]> = (0..count).map(|n| format!("number:{n}")).collect();
    let (run, mut tasks) = (Arc::new(Run::new()), JoinSet::new());
    for session in 0..SESSIONS {
        let client = client.with_session(Session::new());
        let numbers = || (0..count).map(|_| AtomicU64::new(0)).collect();
        let seen = Arc::new(Seen {
            wrote: numbers(),
            read: numbers(),
        });
        for task in 0..TASKS {
            let worker = Worker {
                run: Arc::clone(&run),
                seen: Arc::clone(&seen),
                client: client.clone(),
                rng: rng.fork(),
                keys: Arc::clone(&keys),
                own: (session * TASKS + task) * KEYS_PER_TASK,
                written: [0; KEYS_PER_TASK],
            };
            tasks.spawn(worker.work());
        }
    }
    let kills = kill_replicas(&cluster, &run, reads, &mut rng).await;
    run.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no op fails");
    }
    Worked {
        figures: figures(&client, consistency, &run, kills),
        run,
        kills,
    }
}

/// Kills one replica after the other, each started again before the next goes, until so many reads are done; at least
/// one of each shard. How many were killed.
async fn kill_replicas(
    cluster: &Cluster,
    run: &Run,
    reads: usize,
    rng: &mut fastrand::Rng,
) -> usize {
    let mut kills = 0;
    while kills < SHAPE.shards || run.reads.load(Ordering::Relaxed) < reads {
        let before = run.reads.load(Ordering::Relaxed);
        tokio::time::sleep(BETWEEN_KILLS).await;
        let replica = cluster.replica(kills % SHAPE.shards, rng.usize(..SHAPE.replicas));
        replica.kill();
        eventually("reads go on without it", async || {
            (run.reads.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
        replica.start().await;
        kills += 1;
    }
    kills
}

impl Run {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            backwards: AtomicUsize::new(0),
        }
    }

    /// Whether writes are made now.
    fn is_writing(&self) -> bool {
        self.began.elapsed().as_millis() % ROUND.as_millis() < WRITE_FOR.as_millis()
    }
}

impl Worker {
    async fn work(mut self) {
        while !self.run.stop.load(Ordering::Relaxed) {
            let mut key = self.choose();
            if self.run.is_writing() && self.rng.usize(..WRITE_EVERY) == 0 {
                key = self.own + self.rng.usize(..KEYS_PER_TASK);
                self.write(key).await;
            }
            self.read(key).await;
        }
    }

    /// Any key, as often as not one that this session writes.
    fn choose(&mut self) -> usize {
        let of_session = TASKS * KEYS_PER_TASK;
        match self.rng.bool() {
            true => self.own / of_session * of_session + self.rng.usize(..of_session),
            false => self.rng.usize(..self.keys.len()),
        }
    }

    async fn write(&mut self, key: usize) {
        let number = &mut self.written[key - self.own];
        *number += 1;
        let written = self.client.put(&self.keys[key], number.to_string()).await;
        written.expect("a write");
        self.seen.wrote[key].store(*number, Ordering::SeqCst);
        self.run.writes.fetch_add(1, Ordering::Relaxed);
    }

    async fn read(&self, key: usize) {
        let wrote = self.seen.wrote[key].load(Ordering::SeqCst);
        let read = self.seen.read[key].load(Ordering::SeqCst);
        let found = self.client.get(&self.keys[key]).await.expect("a read");
        let found = found.map_or(0, |value| {
            let text = std::str::from_utf8(&value).expect("digits");
            text.parse().expect("a number")
        });
        let count = |counter: &AtomicUsize, is_one: bool| {
            counter.fetch_add(usize::from(is_one), Ordering::Relaxed);
        };
        count(&self.run.unwritten, found < wrote);
        count(&self.run.backwards, found < read);
        self.seen.read[key].fetch_max(found, Ordering::SeqCst);
        self.run.reads.fetch_add(1, Ordering::Relaxed);
    }
}

fn figures(client: &Client, consistency: Consistency, run: &Run, kills: usize) -> String {
    let took = run.began.elapsed();
    let stats = client.stats();
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let replicas = stats.nodes.iter().filter(|node| node.role == Role::Replica);
    let from_replicas: u64 = replicas.map(|node| node.ops - node.errors).sum();
    let reads = count(&run.reads);
    let share = from_replicas * 100 / reads as u64;
    let figures = format!(
        "{consistency:?}: {reads} reads and {} writes of {SESSIONS} sessions in {took:.1?}, {share} % from \
         replicas {DELAY:?} behind, {kills} of them killed: {} reads showed less than their session had written, {} \
         less than it had read",
        count(&run.writes),
        count(&run.unwritten),
        count(&run.backwards)
    );
    eprintln!("bar 2: {figures}");
    assert!(share >= LEAST_FROM_REPLICAS, "{share} %");
    figures
}
