//! This store beside Redis and Valkey: the same load on each of them by turns, and who is ahead.
//!
//! Each round gives every side its turn, and begins with another side than the round before, so that whatever the
//! machine does meanwhile meets all of them alike. What counts is the median of the rounds.

use crate::{
    arena::{Arena, MOST_CONNECTIONS},
    bench::Bench,
    contender::Measured,
    load::{Load, Work},
    outcome::{Line, Outcome},
    peers::redis::Sync,
};

use super::judge::{Judge, MEDIAN, RATE, SLOWEST, STORE_CPU};

/// One load, and what is asked of this store under it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contest {
    pub(super) work: Work,
    pub(super) tasks: usize,
    /// When the peers answer writes. This store answers after its sync, always.
    pub(super) sync: Sync,
    pub(super) judge: Judge,
}

impl Contest {
    /// What is fastest for the peers; tried with 1, 3 and 6. More than one make reads of both clients slower, by a third
    /// and by half, and synced writes of 64 and 512 tasks no faster; 256 tasks get up to a tenth more out of three.
    fn connections(&self) -> usize {
        match (self.work, self.sync, self.tasks) {
            (Work::Set, Sync::Always, 256) => MOST_CONNECTIONS,
            _ => 1,
        }
    }

    /// All rounds, and the verdict.
    pub(crate) async fn run(&self, bench: &Bench, arena: &Arena) -> anyhow::Result<Outcome> {
        let load = Load {
            connections: self.connections(),
            ..Load::of(bench, self.work, self.tasks, bench.keys())
        };
        arena.set_sync(self.sync).await?;
        let lines = turns(bench.rounds, arena, &load).await?;
        Ok(self.judge.verdict(lines, arena.missing.clone()))
    }
}

/// All rounds of one load: a line for each side, in their order.
pub(super) async fn turns(rounds: usize, arena: &Arena, load: &Load) -> anyhow::Result<Vec<Line>> {
    let sides = arena.sides.len();
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); sides];
    for turn in 0..rounds * sides {
        let at = (turn + turn / sides) % sides;
        arena.settle().await?;
        measured[at].push(arena.sides[at].measure(load).await?);
    }
    let names = arena.sides.iter().map(|side| side.name.as_str());
    let lines = names
        .zip(&measured)
        .map(|(name, rounds)| line(name, rounds));
    Ok(lines.collect())
}

fn line(name: &str, rounds: &[Measured]) -> Line {
    Line::of(
        name,
        rounds,
        &[
            (RATE, |one| one.ops_per_second),
            (MEDIAN, |one| one.p50_us),
            (SLOWEST, |one| one.p99_us),
            (STORE_CPU, |one| one.server_cpu_us),
            ("CPU us/op, client", |one| one.client_cpu_us),
        ],
    )
}
