//! B5: the link between primary and replica is cut, reset, half-open and lossy, again and again, under load. No record
//! is missing and none comes twice.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvclient::{position::Seq, wire::log::Frame};

use super::{assert_equal, level, oneway};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    eventually,
    link::{
        Link, Way,
        mutate::{Change, Mutator},
    },
    millis,
    oracle::Oracle,
    report::{self, Row},
    seeded,
    writers::{Load, Writers},
};

const LOAD: Load = Load {
    writers: 3,
    batch: 2,
    keys: 100,
    value_bytes: 200,
    run: 0,
};

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_bad_link_leaves_no_gap_and_repeats_nothing() {
    let mut row = Row::begin("B5");
    let (strikes, one_way, under_loss) = if bar() {
        (100, 10, 3_000)
    } else {
        (12, 2, 200)
    };
    let mut rng = seeded();
    let cluster = linked_pair("").await;
    let (primary, replica, link) = (
        cluster.primary(0),
        cluster.replica(0, 0),
        cluster.link(0, 0),
    );
    let writers = Writers::start(&cluster, LOAD);
    writers.wait_acked(100).await;
    let mut reconnects = Vec::with_capacity(strikes);
    for number in 0..strikes {
        strike(link, Strike::ALL[number % Strike::ALL.len()], &mut rng).await;
        let healed = Instant::now();
        let end = primary.at("durable").await;
        replica
            .wait_visible(end, "the replica goes on by itself")
            .await;
        reconnects.push(healed.elapsed());
    }
    if bar() {
        // For longer than a replica waits for an answer.
        link.black_hole(&[Way::ToNode, Way::ToAsker]);
        tokio::time::sleep(Duration::from_secs(6)).await;
        link.heal();
        level(primary, replica).await;
    }
    row.longest_gap_ms = Some(writers.longest_gap_ms());
    let mut oracles = [Oracle::default()];
    writers.stop(&mut oracles).await;
    let keys = assert_equal(primary, replica).await;
    assert_eq!(repeated(replica).await, 0);
    row.writes = oracles[0].verdict(replica).await;
    let lossy = match oneway::lose_packets(one_way, under_loss).await {
        Ok(lossy) => {
            row.writes.add(lossy.writes);
            row.rounds = lossy.one_way;
            format!(
                "in network namespaces {} one-way cuts ({} packets dropped) and 10 % loss ({} packets)",
                lossy.one_way, lossy.dropped_one_way, lossy.dropped_tenth
            )
        }
        Err(why) => format!("no network namespaces here ({why})"),
    };
    row.writes.assert_whole("on the replica");
    row.rounds += strikes;
    reconnects.sort_unstable();
    row.figures = format!(
        "{strikes} cuts, resets, half-open and slowly closed connections; {lossy}: 0 gaps, 0 repeats, {keys} keys equal; \
         level again after {} ms (median), {} ms (p99)",
        millis(reconnects[strikes / 2]),
        millis(reconnects[strikes * 99 / 100])
    );
    row.save();
}

/// A frame that comes twice is appended twice without the chain.
#[tokio::test(flavor = "multi_thread")]
async fn b5_control_a_frame_that_comes_twice_is_found() {
    let cluster = linked_pair("off=chain").await;
    let (primary, replica, link) = (
        cluster.primary(0),
        cluster.replica(0, 0),
        cluster.link(0, 0),
    );
    link.mutate(Mutator::new(seeded(), &[Change::FrameRepeated], 2, 20));
    let writers = Writers::start(&cluster, LOAD);
    eventually("frames come twice", async || {
        (link.tally().changed >= 20).then_some(())
    })
    .await;
    writers.stop(&mut [Oracle::default()]).await;
    level(primary, replica).await;
    let repeated = repeated(replica).await;
    assert!(repeated > 0);
    let found = format!("{repeated} frames twice in the replica's log");
    report::save_control(
        "B5",
        "a frame continues the chain of the one before",
        &found,
    );
}

async fn linked_pair(faults: &str) -> Cluster {
    let cluster = Cluster::prepare(Shape {
        linked: true,
        ..Shape::pair()
    });
    cluster.replica(0, 0).set_faults(faults);
    cluster.start_all().await;
    cluster
}

/// How many frames of a log begin where another one does.
async fn repeated(node: &Node) -> usize {
    let mut log = Bytes::from(node.log_bytes(0).await);
    let (mut frames, mut begins) = (0, BTreeSet::<Seq>::new());
    while !log.is_empty() {
        let frame = Frame::split_from(&mut log).expect("a frame");
        frames += 1;
        begins.insert(frame.header.first_seq);
    }
    frames - begins.len()
}

/// What a link does.
#[derive(Debug, Clone, Copy)]
enum Strike {
    Cut,
    ResetAtOnce,
    ResetAnswer,
    ResetRequest,
    BreakAnswer,
    /// Half-open: nobody hears the other, or only one side does, and nobody says that it has ended.
    Silent,
    SilentToNode,
    SilentToAsker,
    SlowClose,
    Slow,
}

impl Strike {
    const ALL: &'static [Self] = &[
        Self::Cut,
        Self::ResetAtOnce,
        Self::ResetAnswer,
        Self::ResetRequest,
        Self::BreakAnswer,
        Self::Silent,
        Self::SilentToNode,
        Self::SilentToAsker,
        Self::SlowClose,
        Self::Slow,
    ];
}

/// Strikes once, for a while, and heals.
async fn strike(link: &Link, strike: Strike, rng: &mut fastrand::Rng) {
    let breaks = link.breaks();
    let bytes = rng.usize(..20_000);
    match strike {
        Strike::Cut => link.cut(),
        Strike::ResetAtOnce => link.reset_all(),
        Strike::ResetAnswer => link.reset_after(Way::ToAsker, bytes),
        Strike::ResetRequest => link.reset_after(Way::ToNode, bytes / 20),
        Strike::BreakAnswer => link.drop_after(bytes),
        Strike::Silent => link.black_hole(&[Way::ToNode, Way::ToAsker]),
        Strike::SilentToNode => link.black_hole(&[Way::ToNode]),
        Strike::SilentToAsker => link.black_hole(&[Way::ToAsker]),
        Strike::SlowClose => {
            link.close_slowly(Duration::from_millis(100));
            link.drop_after(bytes);
        }
        Strike::Slow => link.limit(Way::ToAsker, 50_000),
    }
    match strike {
        Strike::ResetAnswer | Strike::ResetRequest | Strike::BreakAnswer | Strike::SlowClose => {
            eventually("the link breaks", async || {
                (link.breaks() > breaks).then_some(())
            })
            .await;
        }
        // A pause by intent: for so long nothing passes.
        _ => tokio::time::sleep(Duration::from_millis(rng.u64(20..300))).await,
    }
    link.heal();
}
