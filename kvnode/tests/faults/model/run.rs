//! A shard beside its model: every step is done to both, and both are compared after it.

use std::{collections::BTreeSet, path::PathBuf};

use kvclient::position::Position;
use proptest::{prop_assert_eq, test_runner::TestCaseError};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    node::{Node, failed},
    plain::Plain,
    steps::Step,
};

/// How a step ended.
pub(super) type Outcome = Result<(), TestCaseError>;

/// Shard time at the beginning.
const START_MS: u64 = 1_000_000_000_000;

/// A shard beside its model.
pub(super) struct Run {
    dir: TempDir,
    generations: usize,
    pub(super) runtime: Runtime,
    pub(super) model: Plain,
    /// Taken out for a moment while it is opened anew.
    pub(super) primary: Option<Node>,
    pub(super) replica: Option<Node>,
    /// Positions that were told.
    pub(super) told: BTreeSet<Position>,
    pub(super) requests: u64,
}

impl Run {
    pub(super) fn begin() -> Result<Self, TestCaseError> {
        // In memory, where there is such a directory: this is not about syncs.
        let memory = PathBuf::from("/dev/shm");
        let dir = match memory.is_dir() {
            true => TempDir::new_in(memory),
            false => TempDir::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let mut run = Self {
            dir: dir.map_err(failed)?,
            generations: 0,
            runtime: runtime.map_err(failed)?,
            model: Plain::default(),
            primary: None,
            replica: None,
            told: BTreeSet::new(),
            requests: 0,
        };
        run.model.now_ms = START_MS;
        let primary = Node::create(run.new_dir(), START_MS)?;
        run.take_over(primary)?;
        Ok(run)
    }

    pub(super) fn new_dir(&mut self) -> PathBuf {
        self.generations += 1;
        self.dir.path().join(self.generations.to_string())
    }

    pub(super) fn primary(&self) -> &Node {
        self.primary.as_ref().expect("it is open")
    }

    /// A node begins to take writes.
    pub(super) fn take_over(&mut self, node: Node) -> Outcome {
        self.model.now_ms = node.clock.now_ms();
        self.model.reign();
        node.reign(&self.runtime, self.model.end.epoch)?;
        self.told.insert(self.model.end);
        self.primary = Some(node);
        Ok(())
    }

    /// One step, and a comparison.
    pub(super) fn step(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Writes(asked) => self.write(asked)?,
            Step::Atomic(asked) => self.atomic(asked)?,
            Step::Twice(asked) => self.twice(asked)?,
            Step::Again(nth) => self.again(*nth)?,
            Step::Reused(nth) => self.reused(*nth)?,
            Step::Wait(ms) => self.wait(*ms),
            Step::Sweep(asked) => self.sweep(asked)?,
            Step::Flush => self.flush()?,
            Step::Restart(who) => self.restart(*who)?,
            Step::RestartInThePast => self.restart_in_the_past()?,
            Step::Crash(who) => self.crash(*who)?,
            Step::Torn(asked, tear) => self.torn(asked, *tear)?,
            Step::Pull => self.pull()?,
            Step::Snapshot(asked) => self.snapshot(asked)?,
            Step::Promote => self.promote()?,
        }
        prop_assert_eq!(self.primary().clock.now_ms(), self.model.now_ms);
        self.compare(self.primary())
    }

    /// What can only be compared once all is in LMDB, and once the replica is level.
    pub(super) fn end(mut self) -> Outcome {
        self.flush()?;
        self.compare(self.primary())?;
        let entries = self.primary().storage.store.stats().entries;
        prop_assert_eq!(entries, self.model.entries.len() as u64);
        if self.replica.is_some() {
            self.pull()?;
        }
        let nodes = [self.primary.take(), self.replica.take()];
        nodes
            .into_iter()
            .flatten()
            .try_for_each(|node| node.close().map(drop))
    }
}
