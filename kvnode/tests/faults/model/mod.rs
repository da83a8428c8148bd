//! M1: whatever sequence of ops, crashes and changes of primary a shard goes through, it is a plain map.
//!
//! Random sequences are done to the storage of a primary and its replica, in this process, and to a `BTreeMap` with a
//! clock. Every answer must be the map's, and after each step so must be every entry, scan and position; what is
//! counted and summed up in LMDB must fit what is there. A sequence that fails is shrunk to the shortest that does.
//!
//! Shard time moves only when a step moves it, so that an entry is looked at in its last millisecond and in the one
//! behind it. What is crashed here is the process: the directory as it stands is opened again, or with the log cut off
//! inside a frame of which nobody was told. Power cuts are the subject of other rows.

mod ask;
mod change;
mod compare;
mod node;
mod plain;
mod run;
mod steps;

use std::{cell::RefCell, collections::BTreeMap, process::Command};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::{
    run::Run,
    steps::{Step, any_steps},
};
use crate::support::{
    bar,
    report::{self, Row},
    seed,
};

/// The test, as the control starts it again.
const NAME: &str = "model::m1_a_shard_is_a_plain_map";

/// What a failure begins with.
const DIFFERS: &str = "a shard is not a plain map";

/// Tries to make a failing sequence shorter, at some milliseconds each.
const SHRINKS: u32 = 1_000;

/// How often each kind of step was done.
type Counts = BTreeMap<&'static str, usize>;

#[test]
fn m1_a_shard_is_a_plain_map() {
    let mut row = Row::begin("M1");
    let cases = if bar() { 5_000 } else { 64 };
    let counts = RefCell::new(Counts::new());
    let ran = runner(cases).run(&any_steps(), |steps| {
        let done = run(&steps)?;
        for (kind, count) in done {
            *counts.borrow_mut().entry(kind).or_default() += count;
        }
        Ok(())
    });
    match ran {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => {
            let count = steps.len();
            // Values are long, and never why.
            let steps: Vec<_> = steps
                .iter()
                .map(|step| format!("{step:?}").chars().take(400).collect::<String>())
                .collect();
            panic!(
                "{DIFFERS}, shrunk to {count} steps: {why}\n{}",
                steps.join("\n")
            )
        }
        Err(error) => panic!("{error}"),
    }
    let counts = counts.into_inner();
    let count = |kind| counts.get(kind).copied().unwrap_or(0);
    row.rounds = count("crash") + count("torn");
    let kinds: Vec<_> = counts
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    row.figures = format!(
        "{cases} sequences, {} steps: {}",
        counts.values().sum::<usize>(),
        kinds.join(", ")
    );
    row.save();
}

/// The same test in a process of its own, where a request is done as often as it comes.
#[test]
fn m1_control_requests_done_twice_are_found() {
    let itself = std::env::current_exe().expect("the test has a file");
    let output = Command::new(itself)
        .args(["--exact", NAME, "--nocapture"])
        .env("KV_FAULTS", "off=deduplication")
        .env_remove("KV_REPORT_DIR")
        .env_remove("KV_BAR")
        .output()
        .expect("it runs again");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "nothing was found: {said}");
    let found = said.lines().find(|line| line.starts_with(DIFFERS));
    let found = found.unwrap_or_else(|| panic!("it failed otherwise: {said}"));
    let (found, _) = found.split_once(':').expect("the reason follows");
    report::save_control("M1", "a request id is done once", found);
}

/// Does the steps; how often each kind was done.
fn run(steps: &[Step]) -> Result<Counts, TestCaseError> {
    let mut counts = Counts::new();
    let mut run = Run::begin()?;
    for step in steps {
        run.step(step)?;
        *counts.entry(step.kind()).or_default() += 1;
    }
    run.end()?;
    Ok(counts)
}

/// A runner whose choices follow from the seed of this process.
fn runner(cases: u32) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: SHRINKS,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(config, rng)
}
