//! E4: thousands of connections that then say nothing. No more are taken than may be, everyone else is served, and
//! the node keeps descriptors for itself.

use std::time::{Duration, Instant};

use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::process::{anonymous_bytes, raise_descriptors, sockets};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    eventually,
    http::{self, Ask},
    millis,
    report::{self, Row},
};

/// Connections that the nodes here may have, and sockets that are none: listener, pollers, those just being closed.
const CAP: usize = 64;
const OTHERS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn e4_silent_connections_stop_at_the_cap() {
    let mut row = Row::begin("E4");
    row.rounds = if bar() { 10_000 } else { 500 };
    assert!(
        raise_descriptors() > row.rounds as u64,
        "ulimit -n is too low"
    );
    let cluster = capped("").await;
    let node = cluster.primary(0);
    let memory = anonymous_bytes(node);
    let mut silent = Silent::connect(node, row.rounds).await;
    let mut worst = Duration::ZERO;
    let mut most = sockets(node);
    for n in 0..20 {
        let began = Instant::now();
        // A connection of its own each time: it waits in the same queue as the silent ones.
        let stranger = http::client();
        eventually("others are served", async || {
            let ask = Ask::new("PUT", format!("/kv/k{n}")).body("v");
            let answer = http::send(&stranger, &format!("http://{}", node.address), ask).await;
            answer.ok().filter(|answer| answer.status == 204)
        })
        .await;
        worst = worst.max(began.elapsed());
        most = most.max(sockets(node));
    }
    assert!(most <= CAP + OTHERS, "{most} sockets");
    assert!(
        !node.said().contains("Too many open files"),
        "{}",
        node.said()
    );
    let grown = anonymous_bytes(node).saturating_sub(memory) >> 20;
    assert!(grown < 64, "memory grew by {grown} MiB");
    row.figures = format!(
        "{} of {} connections were set up, {} refused or not answered; at most {most} sockets at once (cap {CAP}); \
         each of 20 other clients served, the slowest after {} ms; memory +{grown} MiB",
        silent.open.len(),
        row.rounds,
        silent.refused,
        millis(worst)
    );
    silent.open.clear();
    assert_eq!(node.get("k19").await.as_deref(), Some(&b"v"[..]));
    row.save();
}

/// Without a cap each of them gets its descriptor.
#[tokio::test(flavor = "multi_thread")]
async fn e4_control_without_the_cap_all_are_taken() {
    raise_descriptors();
    let cluster = capped("off=bounds").await;
    let node = cluster.primary(0);
    let silent = Silent::connect(node, 300).await;
    let taken = eventually("more are taken than may be", async || {
        let taken = sockets(node);
        (taken > CAP + OTHERS + 100).then_some(taken)
    })
    .await;
    let found = format!(
        "{taken} sockets of {} silent connections, cap {CAP}",
        silent.open.len()
    );
    report::save_control("E4", "the cap of connections", &found);
}

async fn capped(faults: &'static str) -> Cluster {
    let shape = Shape {
        flags: &["--max-connections", "64"],
        faults,
        ..Shape::default()
    };
    Cluster::start(shape).await
}

/// Connections that nothing is sent on.
struct Silent {
    open: Vec<TcpStream>,
    refused: usize,
}

impl Silent {
    async fn connect(node: &Node, count: usize) -> Self {
        let (mut open, mut refused) = (Vec::new(), 0);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let address = node.address.clone();
            tasks.spawn(async move {
                let connecting = TcpStream::connect(address);
                timeout(Duration::from_secs(4), connecting).await.ok()?.ok()
            });
        }
        while let Some(connected) = tasks.join_next().await {
            match connected.expect("no panic") {
                Some(stream) => open.push(stream),
                None => refused += 1,
            }
        }
        Self { open, refused }
    }
}
