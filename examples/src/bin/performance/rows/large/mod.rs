//! Rows of large work: loads, scans, replicas, watchers, many keys, large values, memory.
//!
//! This store alone; each goal is a figure of its own. What is counted is checked: entries that are missing fail the row.

mod bulk;
mod draining;
mod filling;
mod keys;
mod memory;
mod paced;
mod replica;
mod scan;
mod values;
mod watch;
mod watchers;
mod watching;

use crate::{
    bench::{Bench, Form},
    outcome::{Line, Outcome},
};

pub(super) use self::{
    bulk::run as bulk,
    keys::run as keys,
    memory::run as memory,
    replica::{catch_up, cost, lag, snapshot},
    scan::run as scan,
    values::{run_1m, run_4k, run_64k},
    watchers::run as watchers,
};

const MIB: u64 = 1 << 20;

/// The number for the table, or a small one that shows that the row works.
fn sized(bench: &Bench, full: usize, short: usize) -> usize {
    match bench.form {
        Form::Full => full,
        Form::Short => short,
    }
}

/// What came of a row in which nobody else runs.
fn outcome(ours: String, reached: bool, lines: Vec<Line>) -> Outcome {
    Outcome {
        ours,
        against: "nobody".to_owned(),
        reached: Some(reached),
        lines,
        ..Outcome::default()
    }
}
