//! Whether every side syncs what it acknowledges, as the system calls show it.
//!
//! With 64 tasks at most 64 SETs wait for one sync. A side that answers before it would have more of them to a sync.
//! `strace` makes all sides slow, so nothing but the counts means anything here.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Context;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::sleep;

use crate::{
    arena::Arena,
    bench::Bench,
    contender::Side,
    load::{Load, Work},
    outcome::{Figure, Line, Outcome, short},
    peers::redis::Sync,
    process::Process,
};

const TASKS: usize = 64;

const A_SYNC: &str = "SETs a sync";

/// Time for `strace` to get hold of every thread.
const ATTACH: Duration = Duration::from_millis(500);

pub(super) fn run<'a>(
    bench: &'a Bench,
    arena: &'a Arena,
) -> BoxFuture<'a, anyhow::Result<Outcome>> {
    count_all(bench, arena).boxed()
}

async fn count_all(bench: &Bench, arena: &Arena) -> anyhow::Result<Outcome> {
    let Some(strace) = &bench.programs.strace else {
        return Ok(Outcome::not_installed("strace"));
    };
    arena.set_sync(Sync::Always).await?;
    let mut lines = Vec::new();
    for side in &arena.sides {
        lines.push(count(bench, strace, side).await?);
    }
    Ok(verdict(lines, arena.missing.clone()))
}

fn verdict(lines: Vec<Line>, notes: Vec<String>) -> Outcome {
    let of = |line: &Line| line.median(A_SYNC).unwrap_or(f64::NAN);
    let peers = lines[1..]
        .iter()
        .map(|line| format!("{} ({})", short(of(line)), line.name));
    Outcome {
        ours: format!("{} {A_SYNC}", short(of(&lines[0]))),
        against: peers.collect::<Vec<_>>().join(", "),
        ratio: None,
        reached: Some(lines.iter().all(|line| of(line) <= TASKS as f64)),
        lines,
        notes,
    }
}

/// One side under load, with its calls counted meanwhile.
async fn count(bench: &Bench, strace: &Path, side: &Side) -> anyhow::Result<Line> {
    let load = Load {
        warm_up: Duration::ZERO,
        ..Load::of(bench, Work::Set, TASKS, bench.keys())
    };
    let dir = bench.directory()?;
    let counts = dir.path().join("counts");
    let mut command = Command::new(strace);
    command
        .args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-o"])
        .arg(&counts);
    command.args(side.servers.iter().map(|id| format!("-p{id}")));
    let mut tracer = Process::start("strace", command, dir.path().join("strace.log"))?;
    sleep(ATTACH).await;
    tracer.check()?;
    let measured = side.measure(&load).await?;
    tracer.stop().await?;
    let syncs = calls(&fs::read_to_string(&counts)?).context("counts of strace")?;
    let sets = measured.ops_per_second * load.lasts.as_secs_f64();
    Ok(Line {
        name: side.name.clone(),
        figures: vec![
            Figure::new(A_SYNC, [sets / syncs as f64]),
            Figure::new("syncs", [syncs as f64]),
        ],
    })
}

/// All calls in the table that `strace -c` prints: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn calls(table: &str) -> Option<u64> {
    let lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let counted = lines.filter(|fields| matches!(fields.last(), Some(&("fsync" | "fdatasync"))));
    counted
        .map(|fields| fields.get(3)?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_added_up() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n \
                     99.00    0.030000          10      3000           fdatasync\n  \
                     1.00    0.000300          10        30         1 fsync\n\
                     100.00    0.030300                  3030         1 total\n";
        assert_eq!(calls(table), Some(3_030));
    }
}
