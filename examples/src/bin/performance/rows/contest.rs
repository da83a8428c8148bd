//! This store beside Redis and Valkey: the same load on each of them by turns, and who is ahead.
//!
//! Each round gives every side its turn, and begins with another side than the round before, so that whatever the
//! machine does meanwhile meets all of them alike. What counts is the median of the rounds.

use crate::{
    arena::{Arena, VALUE_BYTES},
    bench::Bench,
    contender::Measured,
    load::{Load, Work},
    outcome::{Figure, Line, Outcome, short},
    peers::redis::Sync,
};

const RATE: &str = "ops/s";
const MEDIAN: &str = "p50 us";
const SLOWEST: &str = "p99 us";

/// One load, and what is asked of this store under it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contest {
    pub(super) work: Work,
    pub(super) tasks: usize,
    /// When the peers answer writes. This store answers after its sync, always.
    pub(super) sync: Sync,
    pub(super) judge: Judge,
}

/// Which figure counts, and how it has to be to that of the best peer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Judge {
    /// Ops a second: at least that many times as many.
    Rate { at_least: f64 },
    /// The time of half of the ops: at most that many times as long.
    Median { at_most: f64 },
    /// The time that 99 of 100 ops keep: at most that many times as long.
    Slowest { at_most: f64 },
}

impl Contest {
    /// All rounds, and the verdict.
    pub(crate) async fn run(&self, bench: &Bench, arena: &Arena) -> anyhow::Result<Outcome> {
        let load = Load {
            work: self.work,
            tasks: self.tasks,
            keys: bench.keys(),
            value_bytes: VALUE_BYTES,
            warm_up: bench.warm_up(),
            lasts: bench.lasts,
        };
        arena.set_sync(self.sync).await?;
        let sides = arena.sides.len();
        let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); sides];
        for turn in 0..bench.rounds * sides {
            let at = (turn + turn / sides) % sides;
            measured[at].push(arena.sides[at].measure(&load).await?);
        }
        let names = arena.sides.iter().map(|side| side.name.as_str());
        let lines = names
            .zip(&measured)
            .map(|(name, rounds)| line(name, rounds));
        Ok(self.judge.verdict(lines.collect(), arena.missing.clone()))
    }
}

impl Judge {
    /// The first line is this store's.
    fn verdict(self, lines: Vec<Line>, notes: Vec<String>) -> Outcome {
        let what = self.what();
        let of = |line: &Line| line.median(what).unwrap_or(f64::NAN);
        let ours = of(&lines[0]);
        let peers = lines[1..].iter();
        let best = peers.min_by(|a, b| self.cost(of(a)).total_cmp(&self.cost(of(b))));
        let ratio = best.map(|best| ours / of(best));
        Outcome {
            ours: format!("{} {what}", short(ours)),
            against: best.map_or_else(
                || "no peer is installed".to_owned(),
                |best| format!("{} {what} ({})", short(of(best)), best.name),
            ),
            ratio,
            reached: ratio.map(|ratio| self.is_reached(ratio)),
            lines,
            notes,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Rate { .. } => RATE,
            Self::Median { .. } => MEDIAN,
            Self::Slowest { .. } => SLOWEST,
        }
    }

    /// What the best peer has least of.
    fn cost(self, value: f64) -> f64 {
        match self {
            Self::Rate { .. } => -value,
            Self::Median { .. } | Self::Slowest { .. } => value,
        }
    }

    fn is_reached(self, ratio: f64) -> bool {
        match self {
            Self::Rate { at_least } => ratio >= at_least,
            Self::Median { at_most } | Self::Slowest { at_most } => ratio <= at_most,
        }
    }
}

fn line(name: &str, rounds: &[Measured]) -> Line {
    let of = |what: &str, get: fn(&Measured) -> f64| Figure::new(what, rounds.iter().map(get));
    Line {
        name: name.to_owned(),
        figures: vec![
            of(RATE, |one| one.ops_per_second),
            of(MEDIAN, |one| one.p50_us),
            of(SLOWEST, |one| one.p99_us),
            of("CPU us/op, store", |one| one.server_cpu_us),
            of("CPU us/op, client", |one| one.client_cpu_us),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, what: &str, values: &[f64]) -> Line {
        Line {
            name: name.to_owned(),
            figures: vec![Figure::new(what, values.iter().copied())],
        }
    }

    #[test]
    fn the_best_peer_is_the_fastest_one() {
        let lines = vec![
            side("kvclient", RATE, &[300.0, 310.0, 290.0]),
            side("a", RATE, &[100.0]),
            side("b", RATE, &[120.0]),
        ];
        let outcome = Judge::Rate { at_least: 2.5 }.verdict(lines, Vec::new());
        assert_eq!(outcome.against, "120 ops/s (b)");
        assert_eq!((outcome.ratio, outcome.reached), (Some(2.5), Some(true)));
    }

    #[test]
    fn the_best_peer_is_the_quickest_one() {
        let lines = vec![
            side("kvclient", MEDIAN, &[130.0]),
            side("a", MEDIAN, &[100.0]),
            side("b", MEDIAN, &[120.0]),
        ];
        let outcome = Judge::Median { at_most: 1.2 }.verdict(lines, Vec::new());
        assert_eq!(outcome.against, "100 p50 us (a)");
        assert_eq!(outcome.reached, Some(false));
    }

    #[test]
    fn without_peers_nothing_is_judged() {
        let lines = vec![side("kvclient", RATE, &[1.0])];
        let missing = vec!["Redis: not installed".to_owned()];
        let outcome = Judge::Rate { at_least: 2.0 }.verdict(lines, missing);
        assert_eq!(outcome.against, "no peer is installed");
        assert_eq!(outcome.reached, None);
    }
}
