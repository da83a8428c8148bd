//! The load: tasks of every kind, each with a session of its own, and what the nodes must have in the end.

use std::{sync::Arc, time::Duration};

use kvclient::{
    Client, Key, Session,
    wire::batch::{Action, Op},
};
use tokio::task::JoinSet;

use super::{
    arena::{Arena, SHARDS},
    counters::Counters,
    drafts::Drafts,
    numbers::Numbers,
    registers::Registers,
    watch::Watch,
};
use crate::support::{cluster::Node, oracle::Verdict, shard_of};

const REGISTERS: usize = 6;
const SESSIONS: usize = 6;
const COUNTING: usize = 4;
const DRAFTING: usize = 2;

/// Patience of those who count: longer than any fault here.
const PATIENCE: Duration = Duration::from_secs(90);

/// Most keys read at once.
const PAGE: usize = 200;

/// Tasks at work.
pub(super) struct Load {
    pub(super) watch: Arc<Watch>,
    /// What most tasks use.
    pub(super) client: Client,
    registers: JoinSet<Registers>,
    numbers: JoinSet<Numbers>,
    counters: JoinSet<Counters>,
    drafts: JoinSet<Drafts>,
}

/// What the tasks know once they have ended.
pub(super) struct Ledger {
    pub(super) watch: Arc<Watch>,
    registers: Vec<Registers>,
    numbers: Vec<Numbers>,
    pub(super) counters: Counters,
    drafts: Vec<Drafts>,
}

impl Load {
    pub(super) fn start(arena: &Arena, rng: &mut fastrand::Rng) -> Self {
        let watch = Arc::new(Watch::new());
        let client = arena.builder().build().expect("a client");
        let patient = arena.builder().timeout(PATIENCE).build().expect("a client");
        let session = || client.with_session(Session::new());
        let keys = Numbers::keys(SESSIONS);
        let mut load = Self {
            registers: JoinSet::new(),
            numbers: JoinSet::new(),
            counters: JoinSet::new(),
            drafts: JoinSet::new(),
            watch: Arc::clone(&watch),
            client: client.clone(),
        };
        let watch = || Arc::clone(&watch);
        for n in 0..REGISTERS {
            let task = Registers::new(n, session(), watch(), rng.fork());
            load.registers.spawn(task.work());
        }
        for n in 0..SESSIONS {
            let task = Numbers::new(n, Arc::clone(&keys), session(), watch(), rng.fork());
            load.numbers.spawn(task.work());
        }
        for _ in 0..COUNTING {
            load.counters
                .spawn(Counters::work(patient.clone(), watch(), rng.fork()));
        }
        for n in 0..DRAFTING {
            let task = Drafts::new(n, session(), watch(), rng.fork());
            load.drafts.spawn(task.work());
        }
        load
    }

    /// Ends all tasks after the op that each is at.
    pub(super) async fn stop(self) -> Ledger {
        self.watch.stop();
        let mut counters = Counters::default();
        for told in self.counters.join_all().await {
            counters.merge(told);
        }
        Ledger {
            watch: self.watch,
            registers: self.registers.join_all().await,
            numbers: self.numbers.join_all().await,
            counters,
            drafts: self.drafts.join_all().await,
        }
    }
}

impl Ledger {
    /// Compares everything with what the primaries answer.
    pub(super) async fn judge(&self, arena: &Arena) -> Verdict {
        let mut verdict = Verdict {
            acked: self.watch.acked(),
            unknown: self.watch.unknown(),
            ..Verdict::default()
        };
        for shard in 0..SHARDS {
            self.judge_shard(shard, arena.cluster.primary(shard), &mut verdict)
                .await;
        }
        verdict
    }

    async fn judge_shard(&self, shard: usize, primary: &Node, verdict: &mut Verdict) {
        for registers in &self.registers {
            for (name, found) in read(primary, in_shard(shard, registers.names())).await {
                registers.judge(&name, &found, verdict);
            }
        }
        for numbers in &self.numbers {
            for (name, found) in read(primary, in_shard(shard, numbers.names())).await {
                numbers.judge(&name, &found, verdict);
            }
        }
        for (name, found) in read(primary, in_shard(shard, self.counters.names())).await {
            self.counters.judge(&self.watch, &name, &found, verdict);
        }
    }

    /// Reads in sessions that were compared with what the session had seen.
    pub(super) fn session_reads(&self) -> usize {
        self.numbers.iter().map(Numbers::reads).sum()
    }

    /// Reads of expiring entries that had to find one, and of those that had to find none.
    pub(super) fn draft_reads(&self) -> [usize; 2] {
        let sum = |at: usize| self.drafts.iter().map(|drafts| drafts.sure[at]).sum();
        [sum(0), sum(1)]
    }
}

fn in_shard<'a>(shard: usize, names: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    names
        .filter(|name| shard_of(name.as_bytes(), SHARDS) == shard)
        .collect()
}

/// What a node answers for these keys.
async fn read(node: &Node, names: Vec<&String>) -> Vec<(String, kvclient::wire::batch::OpResult)> {
    let mut all = Vec::with_capacity(names.len());
    for page in names.chunks(PAGE) {
        let get = |name: &&String| Op::new(Key::new(name.to_string()).expect("a key"), Action::Get);
        let ops: Vec<Op> = page.iter().map(get).collect();
        let results = node.batch(&ops).await;
        assert_eq!(results.len(), page.len());
        all.extend(page.iter().map(|name| name.to_string()).zip(results));
    }
    all
}
