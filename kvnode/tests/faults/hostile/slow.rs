//! E3: clients that send their heads and bodies too slowly, and such that ask for much and read nothing. They are cut
//! at their deadlines, the node's memory stays flat, and everyone else is served meanwhile.

use std::{
    io::Write,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::process::{anonymous_bytes, raise_descriptors, sockets};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    eventually,
    http::{Ask, head},
    millis,
    report::{self, Row},
};

/// The longest deadline of a slow client: that of one who does not read.
const LAST_DEADLINE: Duration = Duration::from_secs(20);

/// Time after a deadline in which the slow ones must be gone.
const SLACK: Duration = Duration::from_secs(15);

/// Sockets that come and go beside: of ordinary clients, of the node's own.
const OTHERS: usize = 2;

const VALUES: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn e3_slow_clients_are_cut_and_hinder_nobody() {
    raise_descriptors();
    let mut row = Row::begin("E3");
    let cluster = stored("").await;
    let node = cluster.primary(0);
    let idle = p99(latencies(node, Duration::from_secs(2)).await);
    // The first wave fills the pools of the allocator too, which it keeps; what a wave costs shows in the next.
    let (waves, count) = if bar() { (2, 1_000) } else { (1, 60) };
    let mut grown = Vec::new();
    for _ in 0..waves {
        let wave = Wave::strike(node, count).await;
        row.rounds += wave.struck;
        grown.push(wave.grown_bytes >> 20);
        row.figures = format!(
            "{count} slow connections at once, the last gone after {} ms; ordinary requests p99 {} us, {} us without slow \
             ones (ratio {:.1}), 0 failed; memory by wave, in MiB: {grown:?}",
            millis(wave.gone),
            wave.busy.as_micros(),
            idle.as_micros(),
            wave.busy.as_secs_f64() / idle.as_secs_f64().max(1e-6)
        );
    }
    assert!(grown[waves - 1] < 64 && grown[0] < 128, "{}", row.figures);
    row.save();
}

/// Slow clients all at once, until they are gone.
struct Wave {
    struck: usize,
    gone: Duration,
    grown_bytes: usize,
    /// p99 of ordinary requests meanwhile.
    busy: Duration,
}

impl Wave {
    async fn strike(node: &Node, count: usize) -> Self {
        let (memory, before) = (anonymous_bytes(node), sockets(node));
        let began = Instant::now();
        let _slow: Vec<TcpStream> = (0..count).map(|at| slow_client(node, at)).collect();
        let struck = eventually("the slow connections are open", async || {
            let struck = sockets(node).saturating_sub(before);
            (struck > count * 9 / 10).then_some(struck)
        })
        .await;
        let stop = AtomicBool::new(false);
        let mut most = 0;
        let watched = async {
            while sockets(node) > before + OTHERS {
                let (open, time) = (sockets(node) - before, began.elapsed());
                assert!(
                    time < LAST_DEADLINE + SLACK,
                    "{open} are open after {time:?}"
                );
                most = most.max(anonymous_bytes(node));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop.store(true, Ordering::Relaxed);
            began.elapsed()
        };
        let (busy, gone) = tokio::join!(latencies_until(node, &stop), watched);
        Self {
            struck,
            gone,
            grown_bytes: most.saturating_sub(memory),
            busy: p99(busy),
        }
    }
}

/// Without deadlines they stay.
#[tokio::test(flavor = "multi_thread")]
async fn e3_control_without_deadlines_they_stay() {
    let cluster = stored("off=bounds").await;
    let node = cluster.primary(0);
    let before = sockets(node);
    let slow: Vec<TcpStream> = (0..20).map(|at| slow_client(node, at)).collect();
    // Longer than the deadlines of heads (5 s) and bodies (10 s).
    tokio::time::sleep(Duration::from_secs(13)).await;
    let left = sockets(node).saturating_sub(before);
    assert!(left >= 19, "{left} are left");
    let found = format!(
        "{left} of {} slow connections still open after 13 s",
        slow.len()
    );
    report::save_control(
        "E3",
        "deadlines of heads, bodies and unread answers",
        &found,
    );
}

async fn stored(faults: &'static str) -> Cluster {
    let cluster = Cluster::start(Shape {
        faults,
        ..Shape::default()
    })
    .await;
    for n in 0..VALUES {
        cluster
            .primary(0)
            .put(&format!("v{n}"), vec![b'x'; 30_000])
            .await;
    }
    cluster
}

/// One slow client: of twenty, nine are slow with the head, ten with the body, one reads nothing of a large answer.
fn slow_client(node: &Node, at: usize) -> TcpStream {
    let mut stream = TcpStream::connect(&node.address).expect("a connection");
    let sent = match at % 20 {
        0..9 => "GET /kv/v1 HTTP/1.1\r\nHost: loc".to_owned(),
        19 => {
            // So that what is not read stays with the node.
            set_socket_recv_buffer_size(&stream, 4_096).expect("a size");
            match at / 20 % 3 {
                0 => head("GET", "/kv?limit=100000", &[]),
                1 => head("GET", "/kv/v1", &[]).repeat(300),
                _ => head("GET", "/watch?after=1.1", &[]),
            }
        }
        _ => {
            head(
                "PUT",
                &format!("/kv/slow{at}"),
                &[("Content-Length", "20000")],
            ) + &"x".repeat(5_000)
        }
    };
    stream.write_all(sent.as_bytes()).expect("it is taken");
    stream
}

async fn latencies(node: &Node, time: Duration) -> Vec<Duration> {
    let stop = AtomicBool::new(false);
    let timer = async {
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(latencies_until(node, &stop), timer).0
}

/// How long ordinary requests take, one after the other; each must succeed.
async fn latencies_until(node: &Node, stop: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let (ask, status) = match times.len() % 2 {
            0 => (Ask::new("GET", "/kv/v1"), 200),
            _ => (Ask::new("PUT", "/kv/ordinary").body("v"), 204),
        };
        assert_eq!(node.send(ask).await.status, status);
        times.push(began.elapsed());
    }
    times
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}
