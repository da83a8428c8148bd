//! A14: SIGTERM under load. What runs is finished and answered; what comes later is refused, not cut off.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::ledger::{Ledger, restart};
use crate::support::{
    bar,
    cluster::{Cluster, Shape},
    millis,
    report::{self, Row},
    seeded,
    writers::{Load, Writers},
};

/// In how many of so many rounds requests may be cut off all the same: a client that pauses for longer than the node
/// says farewell, and asks again just as its connection is closed, cannot be answered.
fn unlucky(rounds: usize) -> usize {
    1 + rounds / 25
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_sigterm_under_load_cuts_no_request_off() {
    let mut row = Row::begin("A14");
    row.rounds = if bar() { 50 } else { 4 };
    let ended = terminate("", row.rounds).await;
    ended.ledger.writes.assert_whole("after SIGTERM");
    assert!(
        ended.cut <= unlucky(row.rounds),
        "requests were cut off in {} rounds",
        ended.cut
    );
    row.writes = ended.ledger.writes;
    row.figures = format!(
        "exit code 0 each time, {} ms after the signal at most; requests cut off in {} rounds, all others answered, or \
         refused before anything was done",
        millis(ended.slowest),
        ended.cut
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_control_a_node_that_does_not_drain_cuts_requests_off() {
    let rounds = 4;
    let ended = terminate("off=drain", rounds).await;
    assert!(ended.cut > unlucky(rounds), "only in {} rounds", ended.cut);
    let found = format!(
        "{} writes cut off, of unknown outcome, in {} of {rounds} rounds",
        ended.ledger.writes.unknown, ended.cut
    );
    report::save_control("A14", "running requests are finished", &found);
}

/// What rounds of SIGTERM came to.
struct Ended {
    ledger: Ledger,
    /// Rounds in which a request was cut off.
    cut: usize,
    /// The longest that an end took.
    slowest: Duration,
}

/// Rounds of load, SIGTERM and restart.
async fn terminate(faults: &str, rounds: usize) -> Ended {
    let mut rng = seeded();
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let mut ended = Ended {
        ledger: Ledger::default(),
        cut: 0,
        slowest: Duration::ZERO,
    };
    for run in 0..rounds {
        node.stop().await;
        node.set_faults(faults);
        node.start().await;
        let load = Load {
            writers: 8,
            batch: 1 + rng.usize(..8),
            keys: 20,
            value_bytes: rng.usize(20..2_000),
            run,
        };
        let writers = Writers::start(&cluster, load);
        writers.wait_acked(rng.usize(100..500)).await;
        let began = Instant::now();
        node.signal(Signal::TERM);
        assert_eq!(node.ended().await, 0, "{}", node.said());
        ended.slowest = ended.slowest.max(began.elapsed());
        let unknown = ended.ledger.oracle().unknown;
        ended.ledger.close(writers).await;
        ended.cut += usize::from(ended.ledger.oracle().unknown > unknown);
        restart(node).await;
        ended.ledger.judge(node).await;
    }
    ended
}
