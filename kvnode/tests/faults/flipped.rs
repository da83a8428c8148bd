//! A12: one flipped bit on the disk of a stopped node, in its log or in LMDB's file.
//!
//! A value that is not what was written never comes with a 200, and nothing acknowledged is missing from a node that
//! calls itself ready. Each flip is found: at the start, by `kvnode check`, or by a 500 where it matters. One that is not
//! found had no effect: all entries read right, also after so many writes that LMDB has taken its free pages into use,
//! and `kvnode check` finds the result sound. (Such bits lie in free pages, behind the chain, or in paddings.)
//!
//! One exception is counted apart: the last frame after a kill looks torn, whether a crash or the disk broke it.

mod sample;

use futures_util::future::join_all;

use self::sample::{Flip, Reading, Sample};
use crate::support::{
    bar,
    cluster::{Node, map_text},
    eventually,
    http::Ask,
    ports::Port,
    report::{self, Row},
    seeded,
};

/// Nodes that are tried at once.
const LANES: usize = 3;

/// What flips came to, in numbers.
#[derive(Debug, Default)]
struct Found {
    flips: usize,
    reads: usize,
    refused: usize,
    by_check_alone: usize,
    damaged_answers: usize,
    without_effect: usize,
    last_frame: usize,
    /// Processes that died of a signal, at start or in `kvnode check`.
    crashed: usize,
    wrong: usize,
    /// What must not be, told one by one.
    bad: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_a_flipped_bit_is_never_answered_with_a_wrong_value() {
    let mut row = Row::begin("A12");
    let found = flip(if bar() { 1_000 } else { 24 }, "").await;
    row.rounds = found.flips;
    row.writes.lost = found.bad.len();
    row.figures = found.told();
    assert!(
        found.bad.is_empty(),
        "{}\n{}",
        row.figures,
        found.bad.join("\n")
    );
    row.save();
}

/// Without checksums wrong values are answered as right ones.
#[tokio::test(flavor = "multi_thread")]
async fn a12_control_without_checksums_wrong_values_are_answered() {
    let found = flip(120, "off=frame_checksums,off=entry_checksums").await;
    assert!(found.wrong > 0, "{found:?}");
    let told = format!(
        "{} wrong values answered with 200, in {} flips",
        found.wrong, found.flips
    );
    report::save_control("A12", "checksums of frames and entries are compared", &told);
}

/// A log whose last frame the disk had lost was whole in itself, so the check had nothing against it.
#[tokio::test]
async fn check_called_sound_what_the_next_start_refused() {
    let sample = Sample::make(sample::End::Stop).await;
    let copy = sample.copy();
    Flip::in_last_frame(&copy).apply(&copy);
    let (code, said) = check(&copy);
    assert!(
        code == 3 && said.contains("was durable up to"),
        "{code} {said}"
    );
    let node = Lane::new(&copy);
    node.0.spawn(&[]);
    assert_eq!(node.0.ended().await, 3, "{}", node.0.said());
}

/// Flips so many bits, one on each copy, of data that was closed cleanly and of data that was not.
async fn flip(count: usize, faults: &'static str) -> Found {
    let samples = [
        Sample::make(sample::End::Stop).await,
        Sample::make(sample::End::Kill).await,
    ];
    let mut rng = seeded();
    let lanes = (0..LANES).map(|lane| {
        let (samples, mut rng) = (&samples, rng.fork());
        async move {
            let mut found = Found::default();
            for nth in (lane..count).step_by(LANES) {
                let sample = &samples[nth % 2];
                found.strike(sample, nth, faults, &mut rng).await;
                // A control has shown what it is to show.
                if !faults.is_empty() && found.wrong > 0 {
                    break;
                }
            }
            found
        }
    });
    let mut all = Found::default();
    for found in join_all(lanes).await {
        all.add(found);
    }
    all
}

impl Found {
    /// One flip: the check, a start, all reads, more writes, all reads again, and the check again.
    async fn strike(
        &mut self,
        sample: &Sample,
        nth: usize,
        faults: &'static str,
        rng: &mut fastrand::Rng,
    ) {
        let copy = sample.copy();
        let flip = Flip::choose(&copy, (nth / 2).is_multiple_of(2), rng);
        flip.apply(&copy);
        let what = format!("{flip:?} after {:?}", sample.end);
        self.flips += 1;
        let (code, said) = check(&copy);
        let lane = Lane::new(&copy);
        lane.0.set_faults(faults);
        let Some(reading) = self.start(sample, &lane).await else {
            return;
        };
        if code < 0 {
            self.crashed += 1;
        }
        self.wrong += reading.wrong;
        self.damaged_answers += usize::from(reading.damaged > 0);
        if reading.wrong > 0 || reading.missing > 0 {
            return match reading.only_last && said.contains("torn") {
                true => self.last_frame += 1,
                false => self
                    .bad
                    .push(format!("{what}: {reading:?}; check said {code}: {said}")),
            };
        }
        match code {
            0 if reading.damaged == 0 => self.judge_unseen(sample, &lane, &copy, &what).await,
            0 => {}
            _ => self.by_check_alone += 1,
        }
    }

    /// Starts a node on the copy and reads everything, if it starts.
    async fn start(&mut self, sample: &Sample, lane: &Lane) -> Option<Reading> {
        lane.0.spawn(&[]);
        let ready = eventually("the node is ready, or has ended", async || {
            if !lane.0.is_running() {
                return Some(false);
            }
            let answer = lane.0.try_send(Ask::new("GET", "/readyz")).await.ok()?;
            (answer.status == 200).then_some(true)
        })
        .await;
        if !ready {
            let code = lane.0.ended().await;
            self.refused += usize::from(code == 3);
            self.crashed += usize::from(code < 0);
            if code != 3 && code >= 0 {
                self.bad.push(format!("exit {code}: {}", lane.0.said()));
            }
            return None;
        }
        let reading = sample.read(&lane.0).await;
        if reading.is_none() {
            self.crashed += 1;
        }
        self.reads += sample.keys();
        reading
    }

    /// Nothing was found: then nothing must be wrong, now and after more writes.
    async fn judge_unseen(
        &mut self,
        sample: &Sample,
        lane: &Lane,
        copy: &sample::Copy,
        what: &str,
    ) {
        sample::write_more(&lane.0).await;
        let reading = sample.read(&lane.0).await;
        lane.0.signal(rustix::process::Signal::TERM);
        let ended = lane.0.ended().await;
        let (code, said) = check(copy);
        match (reading, ended, code) {
            (Some(reading), 0, 0) if reading.is_right() => self.without_effect += 1,
            (reading, ..) => self.bad.push(format!(
                "{what}: not found, but later: {reading:?}, exit {ended}, check {code}: {said}"
            )),
        }
        self.reads += sample.keys();
    }

    fn add(&mut self, other: Self) {
        self.flips += other.flips;
        self.reads += other.reads;
        self.refused += other.refused;
        self.by_check_alone += other.by_check_alone;
        self.damaged_answers += other.damaged_answers;
        self.without_effect += other.without_effect;
        self.last_frame += other.last_frame;
        self.crashed += other.crashed;
        self.wrong += other.wrong;
        self.bad.extend(other.bad);
    }

    fn told(&self) -> String {
        format!(
            "{} wrong values in {} reads; of {} flips {} were refused at start, {} found by check alone, {} answered \
             500, {} crashed a process, {} cut the last frame after a kill, {} were without effect",
            self.wrong,
            self.reads,
            self.flips,
            self.refused,
            self.by_check_alone,
            self.damaged_answers,
            self.crashed,
            self.last_frame,
            self.without_effect
        )
    }
}

/// A node for one copy.
struct Lane(Node);

impl Lane {
    fn new(copy: &sample::Copy) -> Self {
        let port = Port::take();
        let map = map_text(1, &[format!("127.0.0.1:{}", port.number)], 1);
        let mut node = Node::new(copy.dir.path(), "node", port, &map);
        node.data = copy.data();
        Self(node)
    }
}

fn check(copy: &sample::Copy) -> (i32, String) {
    let data = copy.data();
    Node::run(&["check", "--data", data.to_str().expect("UTF-8")])
}
