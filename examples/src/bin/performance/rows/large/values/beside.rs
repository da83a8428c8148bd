//! Writes and reads of large values by this store and the peers, by turns, as in the contests.

use std::time::Duration;

use super::{
    super::super::{contest, judge::RATE},
    Stock, TASKS,
};
use crate::{
    arena::Arena,
    bench::Bench,
    load::{Load, Work},
    outcome::{Line, Outcome, short},
    peers::redis::Sync,
};

/// Longest turn, and most of them: the peers keep all that is written in their append-only files.
const TURN: Duration = Duration::from_millis(1_500);
const ROUNDS: usize = 3;

/// An outcome without a verdict: the goal is about the file.
pub(super) async fn measure(bench: &Bench, stock: Stock) -> anyhow::Result<Outcome> {
    let load = Load {
        value_bytes: stock.value_bytes,
        ..Load::of(bench, Work::Set, TASKS, stock.keys)
    };
    let arena = Arena::start(bench, &load).await?;
    arena.set_sync(Sync::Always).await?;
    let rounds = bench.rounds.min(ROUNDS);
    let (mut lines, mut ours, mut best) = (Vec::new(), Vec::new(), Vec::new());
    for (name, work) in [("SET", Work::Set), ("GET", Work::Get)] {
        let lasts = bench.lasts.min(TURN);
        let load = Load {
            work,
            lasts,
            ..load
        };
        let mut sides = contest::turns(rounds, &arena, &load).await?;
        ours.push(format!("{name} {}", speed(&sides[0], stock)));
        best.extend(best_of(&sides[1..]).map(|peer| {
            let speed = speed(peer, stock);
            format!("{name} {speed} ({})", peer.name)
        }));
        for side in &mut sides {
            side.name = format!("{name}, {TASKS} tasks: {}", side.name);
        }
        lines.append(&mut sides);
    }
    Ok(Outcome {
        ours: ours.join(", "),
        against: best.join(", "),
        lines,
        notes: arena.missing.clone(),
        ..Outcome::default()
    })
}

fn best_of(peers: &[Line]) -> Option<&Line> {
    peers.iter().max_by(|a, b| rate(a).total_cmp(&rate(b)))
}

fn speed(side: &Line, stock: Stock) -> String {
    format!(
        "{} MB/s",
        short(rate(side) * stock.value_bytes as f64 / 1e6)
    )
}

fn rate(side: &Line) -> f64 {
    side.median(RATE).unwrap_or(f64::NAN)
}
