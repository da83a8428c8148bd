//! The faults: one after the other in an order of chance, each healed before the next, each told with its time.
//!
//! All kinds come once before any comes again. Once a part of the run is over, faults that end a process leave the
//! last shard alone, so that its nodes grow old enough to show what they leak.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    arena::{Arena, PER_SHARD, REPLICAS, SHARDS},
    watch::Watch,
};
use crate::support::{cluster::Node, eventually, http::Ask, millis};

/// Every kind of fault.
const KINDS: &[Kind] = &[
    Kind::KillPrimary,
    Kind::KillReplica,
    Kind::KillShard,
    Kind::Terminate,
    Kind::ReplicaAway,
    Kind::StopPrimary,
    Kind::StopReplica,
    Kind::CutLink,
    Kind::CutDoor,
    Kind::CutAnswers,
    Kind::FillDisk,
    Kind::Reload,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// kill -9 and a restart some time later.
    KillPrimary,
    KillReplica,
    /// kill -9 of all nodes of a shard.
    KillShard,
    /// SIGTERM and a restart at once.
    Terminate,
    /// SIGTERM and a restart a long time later.
    ReplicaAway,
    /// SIGSTOP for some time.
    StopPrimary,
    StopReplica,
    /// A replica's way to its primary is cut.
    CutLink,
    /// The clients' way to a node is cut.
    CutDoor,
    /// Connections of clients break between request and answer, one in five.
    CutAnswers,
    /// The disk is full for some time.
    FillDisk,
    /// All nodes read a newer map.
    Reload,
}

/// Exchanges that [`Kind::CutAnswers`] breaks, in a thousand.
const CUT_PERMILLE: usize = 200;

/// How often somebody looks whether a full disk was noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Kind {
    fn ends_processes(self) -> bool {
        matches!(
            self,
            Self::KillPrimary
                | Self::KillReplica
                | Self::KillShard
                | Self::Terminate
                | Self::ReplicaAway
        )
    }
}

/// How long all of it takes, and how fast faults come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) length: Duration,
    /// From one fault to the next.
    pub(super) every: Duration,
    /// From here on the last shard's processes live.
    pub(super) spared_from: Duration,
}

/// Whoever strikes.
pub(super) struct Strikes<'a> {
    arena: &'a Arena,
    watch: &'a Watch,
    rng: &'a mut fastrand::Rng,
    pace: Pace,
    began: Instant,
    deck: Vec<Kind>,
    /// How often each kind struck.
    told: BTreeMap<Kind, usize>,
}

impl<'a> Strikes<'a> {
    pub(super) fn new(
        arena: &'a Arena,
        watch: &'a Watch,
        rng: &'a mut fastrand::Rng,
        pace: Pace,
    ) -> Self {
        Self {
            arena,
            watch,
            rng,
            pace,
            began: Instant::now(),
            deck: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// Strikes until the time is over; all is whole then.
    pub(super) async fn go_on(mut self) -> BTreeMap<String, usize> {
        let mut ticks = interval(self.pace.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        while self.began.elapsed() < self.pace.length {
            let kind = self.draw();
            self.strike(kind).await;
            *self.told.entry(kind).or_default() += 1;
            ticks.tick().await;
        }
        let told = self.told.into_iter();
        told.map(|(kind, count)| (format!("{kind:?}"), count))
            .collect()
    }

    fn draw(&mut self) -> Kind {
        if self.deck.is_empty() {
            let has_disks = self.arena.disks.is_ok();
            let kinds = KINDS.iter().copied();
            self.deck = kinds
                .filter(|kind| has_disks || *kind != Kind::FillDisk)
                .collect();
            self.rng.shuffle(&mut self.deck);
        }
        self.deck.pop().expect("just filled")
    }

    async fn strike(&mut self, kind: Kind) {
        let is_spared = kind.ends_processes() && self.began.elapsed() >= self.pace.spared_from;
        let shard = self.rng.usize(..SHARDS - usize::from(is_spared));
        let replica = self.rng.usize(..REPLICAS);
        let most_ms = millis(self.pace.every) * 6 / 10;
        let hold = Duration::from_millis(self.rng.u64(most_ms / 6..=most_ms));
        let at = self.began.elapsed();
        let cluster = &self.arena.cluster;
        let is_of_primary = match kind {
            Kind::KillPrimary | Kind::StopPrimary => true,
            Kind::KillReplica | Kind::StopReplica | Kind::ReplicaAway => false,
            _ => self.rng.usize(..PER_SHARD) == 0,
        };
        let place = shard * PER_SHARD + if is_of_primary { 0 } else { 1 + replica };
        let node = &cluster.nodes()[place];
        let door = &self.arena.doors[place];
        match kind {
            Kind::KillPrimary | Kind::KillReplica => {
                node.kill();
                sleep(hold / 3).await;
                node.start().await;
            }
            Kind::KillShard => self.kill_shard(shard, hold / 3).await,
            Kind::Terminate => {
                node.stop().await;
                node.start().await;
            }
            Kind::ReplicaAway => {
                node.stop().await;
                sleep(hold * 2).await;
                node.start().await;
            }
            Kind::StopPrimary | Kind::StopReplica => {
                node.pause();
                sleep(hold).await;
                node.resume();
            }
            Kind::CutLink => {
                let link = cluster.link(shard, replica);
                link.cut();
                sleep(hold).await;
                link.heal();
            }
            Kind::CutDoor => {
                door.cut();
                sleep(hold).await;
                door.heal();
            }
            Kind::CutAnswers => {
                door.cut_answers(CUT_PERMILLE);
                sleep(hold).await;
                door.heal();
            }
            Kind::FillDisk => self.fill_disk(place, hold).await,
            Kind::Reload => self.reload().await,
        }
        eprintln!(
            "bar F1: at {:>6.1} s for {:>4.1} s: {kind:?} at {}",
            at.as_secs_f64(),
            (self.began.elapsed() - at).as_secs_f64(),
            node.address
        );
    }

    async fn kill_shard(&self, shard: usize, hold: Duration) {
        let nodes = &self.arena.cluster.nodes()[shard * PER_SHARD..][..PER_SHARD];
        nodes.iter().for_each(Node::kill);
        sleep(hold).await;
        nodes.iter().for_each(|node| node.spawn(&[]));
        for node in nodes {
            node.wait_ready().await;
        }
    }

    /// From when a write was refused for it, which comes once the segments at hand are full. A node that takes no writes
    /// has its disk full for as long as that may take.
    async fn fill_disk(&self, place: usize, hold: Duration) {
        let disks = self
            .arena
            .disks
            .as_ref()
            .expect("else it is not in the deck");
        let (refused, filled) = (self.watch.full(), Instant::now());
        disks.fill(place);
        while self.watch.full() == refused && filled.elapsed() < self.pace.every * 2 {
            sleep(LOOK_EVERY).await;
        }
        sleep(hold).await;
        disks.free(place);
        self.arena.cluster.nodes()[place].wait_ready().await;
    }

    /// Raises the version of every node's map: by as much for each, since no two are the same.
    async fn reload(&self) {
        for node in self.arena.cluster.nodes() {
            let text = fs::read_to_string(&node.map).expect("a map");
            let (version, rest) = text.split_once('\n').expect("lines");
            let version = version.strip_prefix("version = ").expect("the first line");
            let raised = version.parse::<usize>().expect("a number") + SHARDS * PER_SHARD;
            let before = map_version(node).await;
            node.write_map(&format!("version = {raised}\n{rest}"));
            node.signal(Signal::HUP);
            eventually("the newer map is in force", async || {
                (map_version(node).await? != *before.as_ref()?).then_some(())
            })
            .await;
        }
    }
}

async fn map_version(node: &Node) -> Option<String> {
    let status = node.try_send(Ask::new("GET", "/status")).await.ok()?.json();
    status["map_version"].as_str().map(str::to_owned)
}
