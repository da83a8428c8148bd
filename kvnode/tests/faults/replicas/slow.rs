//! B4: a replica that takes its snapshot at 10 kB/s. The primary's writes do not wait for it, and its log is kept for
//! it up to a limit only.

use std::time::{Duration, Instant};

use super::{assert_equal, puts, said, write_beyond_retention};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    http::Ask,
    link::Way,
    millis,
    report::{self, Row},
};

const RETENTION: [&str; 4] = ["--log-retention", "1MiB", "--checkpoint-every", "500"];
const LIMITED: &[&str] = &[
    RETENTION[0],
    RETENTION[1],
    RETENTION[2],
    RETENTION[3],
    "--snapshot-log-limit",
    "9MiB",
];

/// What the log may take under [`LIMITED`]: what is kept, what a snapshot keeps, and segments that are full, begun and
/// spare.
const LOG_BOUND_BYTES: u64 = (10 << 20) + 4 * (4_100 << 10);

#[tokio::test(flavor = "multi_thread")]
async fn b4_a_slow_snapshot_does_not_slow_writes_or_fill_the_disk() {
    let mut row = Row::begin("B4");
    let seconds = if bar() { 60 } else { 3 };
    let slow = slow(LIMITED, Duration::from_secs(seconds)).await;
    assert!(slow.log_bytes <= LOG_BOUND_BYTES, "{}", slow.log_bytes);
    let (primary, replica) = (slow.cluster.primary(0), slow.cluster.replica(0, 0));
    slow.cluster.link(0, 0).heal();
    slow.cluster.link(0, 0).reset_all();
    said(replica, "snapshot is in force", 1).await;
    assert_equal(primary, replica).await;
    row.rounds = 1;
    row.writes.acked = slow.before.len() + slow.during.len();
    row.longest_gap_ms = slow.during.last().map(|took| millis(*took));
    let (before, during) = (p99(&slow.before), p99(&slow.during));
    row.figures = format!(
        "p99 of single writes {:.1} ms before, {:.1} ms during {seconds} s of it ({:.2} times); {} MB written \
         meanwhile, the log took {} MB at most (bound {}); level by itself once the link was fast",
        before * 1e3,
        during * 1e3,
        during / before,
        (slow.during.len() * VALUE_BYTES) >> 20,
        slow.log_bytes >> 20,
        LOG_BOUND_BYTES >> 20
    );
    row.save();
}

/// With the default limit, 8 GiB, the log is kept for as long as the snapshot takes.
#[tokio::test(flavor = "multi_thread")]
async fn b4_control_without_a_limit_the_log_grows() {
    let slow = slow(&RETENTION, Duration::from_secs(3)).await;
    assert!(slow.log_bytes > LOG_BOUND_BYTES, "{}", slow.log_bytes);
    let found = format!(
        "the log took {} MB, beyond {} MB",
        slow.log_bytes >> 20,
        LOG_BOUND_BYTES >> 20
    );
    report::save_control("B4", "--snapshot-log-limit", &found);
}

const VALUE_BYTES: usize = 60_000;

struct Slow {
    cluster: Cluster,
    /// How long single writes took, ascending.
    before: Vec<Duration>,
    during: Vec<Duration>,
    /// The most that the log took meanwhile.
    log_bytes: u64,
}

async fn slow(flags: &'static [&'static str], time: Duration) -> Slow {
    let cluster = Cluster::prepare(Shape {
        linked: true,
        flags,
        ..Shape::pair()
    });
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    primary.start().await;
    // More than sockets hold between both ends.
    for part in puts("load", 400, 60_000).chunks(50) {
        assert!(
            primary
                .batch(part)
                .await
                .iter()
                .all(|result| result.status == 204)
        );
    }
    write_beyond_retention(primary, 1).await;
    let (before, _) = latencies(primary, time / 3).await;
    cluster.link(0, 0).limit(Way::ToAsker, 10_000);
    replica.spawn(&[]);
    said(primary, "snapshot begins", 1).await;
    let (mut during, mut log_bytes) = latencies(primary, time).await;
    // However slow this machine is: more than the limit.
    while during.len() * VALUE_BYTES < 30 << 20 {
        let (more, bytes) = latencies(primary, time / 3).await;
        during.extend(more);
        log_bytes = log_bytes.max(bytes);
    }
    during.sort_unstable();
    Slow {
        cluster,
        before,
        during,
        log_bytes,
    }
}

/// Single writes, one after the other, for a time: how long each took, ascending, and the most that the log took.
async fn latencies(primary: &Node, time: Duration) -> (Vec<Duration>, u64) {
    let value = bytes::Bytes::from(vec![b'v'; VALUE_BYTES]);
    let (began, mut took, mut log_bytes) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < time {
        let put = Ask::new("PUT", format!("/kv/single{}", took.len() % 50)).body(value.clone());
        let sent = Instant::now();
        assert_eq!(primary.send(put).await.status, 204);
        took.push(sent.elapsed());
        if took.len() % 20 == 0 {
            let bytes = primary.status().await["log_bytes"].as_u64();
            log_bytes = log_bytes.max(bytes.expect("bytes"));
        }
    }
    took.sort_unstable();
    (took, log_bytes)
}

/// In seconds.
fn p99(ascending: &[Duration]) -> f64 {
    ascending[ascending.len() * 99 / 100].as_secs_f64()
}
