//! Runs that are recorded: a node from its first start on, and a replica that catches up.

use std::{path::PathBuf, time::Duration};

use futures_util::future::join_all;
use kvclient::shard_map::Role;

use super::{
    image::{Owner, Truth},
    trace::{Event, Recorder},
};
use crate::support::{
    cluster::{Cluster, Node, Shape},
    http::Ask,
    seeded,
};

/// Writers at once.
const WRITERS: usize = 3;

/// Keys of each.
const KEYS: usize = 8;

/// What a node did, and what was written in truth.
pub(super) struct Recorded {
    pub(super) owner: Owner,
    pub(super) root: PathBuf,
    pub(super) events: Vec<Event>,
    pub(super) truth: Truth,
}

/// A node from its first start on: load, kill, restart, load, clean stop.
pub(super) async fn record_primary(
    recorder: &Recorder,
    rounds: usize,
    faults: &'static str,
) -> Recorded {
    let shape = Shape {
        faults,
        ..Shape::default()
    };
    let cluster = Cluster::prepare(shape);
    let node = cluster.primary(0);
    node.set_faults(faults);
    recorder.watch(node);
    node.start().await;
    write(node, rounds).await;
    tokio::join!(write(node, 1), async {
        // In the midst of it.
        tokio::time::sleep(Duration::from_millis(2)).await;
        node.kill();
    });
    node.start().await;
    write(node, rounds).await;
    let truth = Truth::read(node.log_bytes(0).await);
    node.stop().await;
    Recorded {
        owner: Owner::new(Role::Primary),
        root: node.data.clone(),
        events: recorder.events(),
        truth,
    }
}

/// A replica that falls behind and catches up, again and again.
pub(super) async fn record_replica(recorder: &Recorder) -> Recorded {
    let cluster = Cluster::prepare(Shape::pair());
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    recorder.watch(replica);
    cluster.start_all().await;
    for _ in 0..8 {
        replica.pause();
        write(primary, 3).await;
        replica.resume();
        let at = primary.at("durable").await;
        replica.wait_visible(at, "the replica catches up").await;
    }
    replica.stop().await;
    Recorded {
        owner: Owner::new(Role::Replica),
        root: replica.data.clone(),
        events: recorder.events(),
        truth: Truth::read(primary.log_bytes(0).await),
    }
}

/// Some rounds of writes by several writers at once, small and large ones. What fails is of no interest here.
async fn write(node: &Node, rounds: usize) {
    let mut rng = seeded();
    let sizes: Vec<usize> = (0..rounds * WRITERS)
        .map(|nth| match nth % 4 {
            3 => rng.usize(80_000..140_000),
            _ => rng.usize(1..3_000),
        })
        .collect();
    join_all((0..WRITERS).map(|writer| {
        let sizes: Vec<usize> = sizes
            .iter()
            .skip(writer)
            .step_by(WRITERS)
            .copied()
            .collect();
        async move {
            for (round, size) in sizes.into_iter().enumerate() {
                let uri = format!("/kv/w{writer}k{}", round % KEYS);
                let letter = b'a' + u8::try_from((round + writer) % 26).expect("below 26");
                let ask = match round % 7 {
                    6 => Ask::new("DELETE", uri),
                    _ => Ask::new("PUT", uri).body(vec![letter; size]),
                };
                let _ = node.try_send(ask).await;
            }
        }
    }))
    .await;
}
