//! L1: to whoever asks the primary, each key looks as if one op was done after the other, each between its call and its
//! answer, whatever fault strikes meanwhile.
//!
//! Several callers at once read, put, count and delete a key, with and without conditions, through kvclient and by
//! plain HTTP, while their node is killed and started again, stands still, and loses connections between request and
//! answer. What they were told is one history a key; a checker then looks for an order that explains it. Writes of unknown
//! outcome are open to the end: they may be done at any time, or never.
//!
//! **The checker** is `todc-utils`: the algorithm of Wing, Gong and Lowe, which remembers what it has tried; MIT, three
//! hundred lines, and it depends on nothing. `stateright` has one too, and takes open ops by itself, but tries the same
//! states again and again, copies the history at each step, and brings fourteen more crates, a web server among them.
//! Neither changes much any more, nor has to: an open op is given an end behind all others, and the rule
//! lets it do nothing there.

mod callers;
mod history;
mod register;

use std::time::Duration;

use futures_util::future::join_all;
use kvclient::{Client, Consistency, shard_map::toml};

use self::{
    callers::{Caller, Way, http_client},
    history::{Checked, History, Recorder},
};
use crate::support::{
    bar,
    cluster::{Cluster, Shape, map_text},
    eventually,
    link::Link,
    millis,
    report::{self, Row},
    seeded,
};

/// Keys at once.
const KEYS: usize = 20;

/// Answers in one history.
const OPS: usize = 110;

/// Exchanges that are cut between request and answer, in a thousand.
const CUT_PERMILLE: usize = 10;

/// What an impatient caller waits for an answer, and how long the node stands still: longer.
const IMPATIENT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(700);

/// Higher than any node's, so that clients go through the link whatever the nodes say.
const MAP_VERSION: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn l1_every_key_looks_as_if_one_op_was_done_after_the_other() {
    let mut row = Row::begin("L1");
    let waves = if bar() { 12 } else { 1 };
    let mut rng = seeded();
    let cluster = Cluster::start(Shape::pair()).await;
    let mut struck = Struck::default();
    let mut histories = Vec::new();
    for wave in 0..waves {
        let made = make_under_faults(&cluster, &mut rng, wave, &mut struck).await;
        histories.extend(made);
    }
    let mut verdict = Verdict::default();
    for history in &histories {
        verdict.add(history);
    }
    assert_eq!(verdict.not, 0, "histories that nothing explains");
    assert_eq!(verdict.undecided, 0, "histories that were not decided");
    assert!(struck.cuts > 0, "connections were cut");
    let unknown: Vec<_> = histories.iter().map(History::unknown).collect();
    row.writes.acked = histories.iter().map(History::acknowledged).sum();
    row.writes.unknown = unknown.iter().map(|(open, _)| open).sum();
    row.writes.unknown_applied = unknown.iter().map(|(_, seen)| seen).sum();
    assert!(row.writes.unknown > 0, "some outcomes are unknown");
    row.rounds = struck.kills + struck.pauses + struck.cuts;
    let refused = refuse_stale_reads(&histories);
    row.figures = format!(
        "{} histories, {} answers in all; {} kills, {} pauses, {} connections cut; {}; with one stale read planted, {} of {} refused",
        histories.len(),
        histories.iter().map(History::answered).sum::<usize>(),
        struck.kills,
        struck.pauses,
        struck.cuts,
        verdict.shown(),
        refused,
        refused
    );
    row.save();
}

/// The proof that the checker would see one stale read among a hundred answers: in how many histories it did.
///
/// Those with the fewest open ops: to show that nothing explains a history, the checker has to try each open op in
/// every place, and with a dozen of them it does not come to an end.
fn refuse_stale_reads(histories: &[History]) -> usize {
    let mut easiest: Vec<_> = histories.iter().collect();
    easiest.sort_by_key(|history| history.unknown().0);
    let planted = easiest.into_iter().filter_map(History::with_stale_read);
    let planted: Vec<_> = planted.take(if bar() { 50 } else { 5 }).collect();
    assert!(planted.len() >= 5, "most histories have a place for one");
    for history in &planted {
        let (checked, _) = history.check();
        assert_eq!(checked, Checked::Not, "{}", history.told_at_length());
    }
    planted.len()
}

/// Replicas that lag answer reads with what was.
#[tokio::test(flavor = "multi_thread")]
async fn l1_control_reads_of_replicas_that_lag_are_refused() {
    let mut rng = seeded();
    let cluster = Cluster::start(Shape {
        linked: true,
        ..Shape::pair()
    })
    .await;
    cluster.link(0, 0).delay(Duration::from_millis(50));
    let client = client_of(&cluster.map, Duration::from_secs(5));
    let way = Way::Client(client, Consistency::Eventual);
    let keys: Vec<_> = (0..5).map(|key| format!("lag{key}")).collect();
    let recorders: Vec<_> = keys.iter().map(|_| Recorder::default()).collect();
    let ways = vec![way; 4];
    call(&cluster, &keys, &recorders, &ways, &mut rng).await;
    let mut verdict = Verdict::default();
    for recorder in recorders {
        verdict.judge(&recorder.into_history());
    }
    assert!(verdict.not > 0, "{}", verdict.shown());
    let found = format!("{} of {} histories refused", verdict.not, keys.len());
    report::save_control("L1", "reads ask any node, behind a link of 50 ms", &found);
}

/// How often a fault struck.
#[derive(Debug, Default)]
struct Struck {
    kills: usize,
    pauses: usize,
    cuts: usize,
}

/// What the checker said of all histories.
#[derive(Debug, Default)]
struct Verdict {
    linearizable: usize,
    not: usize,
    undecided: usize,
    /// What it took for each.
    took: Vec<Duration>,
}

impl Verdict {
    fn judge(&mut self, history: &History) -> Checked {
        let (checked, took) = history.check();
        self.took.push(took);
        match checked {
            Checked::Linearizable => self.linearizable += 1,
            Checked::Not => self.not += 1,
            Checked::Undecided => self.undecided += 1,
        }
        checked
    }

    /// Judges a history that should be good, and shows it if it is not.
    fn add(&mut self, history: &History) {
        if self.judge(history) != Checked::Linearizable {
            eprintln!("--- not explained:\n{}", history.told_at_length());
        }
    }

    fn shown(&self) -> String {
        let mut took = self.took.clone();
        took.sort_unstable();
        format!(
            "{} linearizable, {} not, {} not decided; the checker took {} ms for all, {} ms at most for one",
            self.linearizable,
            self.not,
            self.undecided,
            millis(took.iter().sum()),
            millis(took.last().copied().unwrap_or_default())
        )
    }
}

fn client_of(map: &str, timeout: Duration) -> Client {
    let map = toml::parse(map, "a map of the test").expect("a map");
    let client = Client::builder(map).timeout(timeout).build();
    client.expect("a client")
}

/// One wave of histories, of keys of their own: the node is killed, stands still, is killed again, and some
/// connections break all the time.
async fn make_under_faults(
    cluster: &Cluster,
    rng: &mut fastrand::Rng,
    wave: usize,
    struck: &mut Struck,
) -> Vec<History> {
    let primary = cluster.primary(0);
    let link = Link::to(primary.address.parse().expect("an address"));
    let addresses = [
        link.address().to_string(),
        cluster.replica(0, 0).address.clone(),
    ];
    let map = map_text(MAP_VERSION, &addresses, 2);
    let through = |timeout| Way::Client(client_of(&map, timeout), Consistency::Primary);
    let plain = Way::Http(format!("http://{}", link.address()), http_client(IMPATIENT));
    let ways = [
        through(Duration::from_secs(10)),
        through(IMPATIENT),
        plain.clone(),
        plain,
    ];
    let keys: Vec<_> = (0..KEYS).map(|key| format!("w{wave}k{key}")).collect();
    let recorders: Vec<_> = keys.iter().map(|_| Recorder::default()).collect();
    link.cut_answers(CUT_PERMILLE);
    let calling = call(cluster, &keys, &recorders, &ways, rng);
    tokio::join!(calling, strike(cluster, &recorders, struck));
    struck.cuts += link.cuts();
    recorders.into_iter().map(Recorder::into_history).collect()
}

async fn strike(cluster: &Cluster, recorders: &[Recorder], struck: &mut Struck) {
    let primary = cluster.primary(0);
    let reached = async |percent: usize| {
        let wanted = KEYS * OPS * percent / 100;
        eventually("the histories go on", async || {
            let answered: usize = recorders.iter().map(Recorder::answered).sum();
            (answered >= wanted).then_some(())
        })
        .await;
    };
    for (percent, kills) in [(20, true), (45, false), (70, true)] {
        reached(percent).await;
        match kills {
            true => {
                primary.kill();
                primary.start().await;
                struck.kills += 1;
            }
            false => {
                primary.pause();
                tokio::time::sleep(PAUSE).await;
                primary.resume();
                struck.pauses += 1;
            }
        }
    }
}

/// Has one caller for each way ask each key, until all histories are long enough.
async fn call(
    cluster: &Cluster,
    keys: &[String],
    recorders: &[Recorder],
    ways: &[Way],
    rng: &mut fastrand::Rng,
) {
    let mut callers = Vec::new();
    for (key, recorder) in keys.iter().zip(recorders) {
        for (number, way) in (0..).zip(ways) {
            let caller = Caller {
                node: cluster.primary(0),
                key,
                recorder,
                way: way.clone(),
                rng: rng.fork(),
                next: number,
                callers: i64::try_from(ways.len()).expect("few"),
                known: None,
            };
            callers.push(caller.run(OPS));
        }
    }
    join_all(callers).await;
}
