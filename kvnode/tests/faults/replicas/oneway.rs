//! Part of B5: packets between primary and replica get lost, a tenth of them or all of them one way, between real
//! processes in network namespaces.

use super::{assert_equal, netns::Netns};
use crate::support::{
    cluster::{Cluster, Shape},
    eventually,
    oracle::{Oracle, Verdict},
    writers::{Load, Writers},
};

const LOAD: Load = Load {
    writers: 2,
    batch: 4,
    keys: 100,
    value_bytes: 200,
    run: 0,
};

/// What the lossy network did.
pub(super) struct Lossy {
    pub(super) writes: Verdict,
    pub(super) one_way: usize,
    /// Packets dropped one way, and of a tenth.
    pub(super) dropped_one_way: usize,
    pub(super) dropped_tenth: usize,
}

/// Cuts one way by turns, then loses a tenth of all packets, while writes go on; both nodes hold the same afterwards.
///
/// # Errors
/// Why this machine cannot.
pub(super) async fn lose_packets(cuts: usize, under_loss: usize) -> Result<Lossy, String> {
    // Dropped last: the nodes run inside.
    let net = Netns::make(2)?;
    let shape = Shape {
        flags: &["--insecure-no-auth"],
        ..Shape::pair()
    };
    let cluster = Cluster::prepare_at(shape, &net.hosts);
    for (n, node) in cluster.nodes().iter().enumerate() {
        node.set_wrapper(&net.wrapper(n));
    }
    cluster.start_all().await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let writers = Writers::start(&cluster, LOAD);
    let (mut dropped_one_way, mut oracles) = (0, [Oracle::default()]);
    for cut in 0..cuts {
        let (from, to) = [(0, 1), (1, 0)][cut % 2];
        net.drop_one_way(from, to);
        eventually("packets are dropped", async || {
            (net.dropped(to) > 3).then_some(())
        })
        .await;
        let at = writers.acked();
        writers.wait_acked(at + 100).await;
        dropped_one_way += net.dropped(to);
        net.heal();
        let end = primary.at("durable").await;
        replica
            .wait_visible(end, "the replica goes on by itself")
            .await;
    }
    for n in 0..2 {
        net.lose(n, 0.1);
    }
    // Writers are outside the namespaces and lose packets too.
    let at = writers.acked();
    writers.wait_acked(at + under_loss).await;
    let end = primary.at("durable").await;
    replica
        .wait_visible(end, "the replica follows while a tenth is lost")
        .await;
    let dropped_tenth = net.dropped(0) + net.dropped(1);
    net.heal();
    writers.stop(&mut oracles).await;
    assert_equal(primary, replica).await;
    Ok(Lossy {
        writes: oracles[0].verdict(replica).await,
        one_way: cuts,
        dropped_one_way,
        dropped_tenth,
    })
}
