//! What can be typed behind `kv bench`.

use std::time::Duration;

use clap::{Args, value_parser};

use super::workload::{Distribution, Workload};
use crate::terms::{AckArgs, duration};

/// The names in `--json`, for `--help`.
const JSON_FIELDS: &str = "\
With --json one object: workload, settings {distribution, keys, value_bytes, tasks, warm_up_seconds, duration_seconds,
ops, rate_per_second, loop (closed or open), consistency, ack, seed}, loaded {stored_keys, removed_keys}, interrupted,
seconds (measured), ops (answered), ops_per_second, failed, unknown_outcome, absent, never_begun (open loop: due, and all
tasks busy to the end), kinds [{kind, ops, absent, service_time, response_time}], failures [{kind, error, outcome,
count, first}]. Times are {mean_us, p50_us, p95_us, p99_us, p99_9_us, max_us}, in microseconds; response_time is null in
a closed loop.";

#[derive(Debug, Args)]
#[command(after_long_help = JSON_FIELDS)]
pub(crate) struct BenchArgs {
    /// A core workload of YCSB
    #[arg(value_enum, ignore_case = true, required_unless_present = "clean_up")]
    pub(crate) workload: Option<Workload>,
    /// Which keys are favoured [default: the workload's own]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) distribution: Option<Distribution>,
    /// Keys there are at the start
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) keys: u64,
    /// Bytes of each value; YCSB's own are 1000
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = value_parser!(u32).range(..=16_777_216))]
    pub(crate) value_bytes: u32,
    /// Tasks at work at the same time, each with one op under way
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) tasks: u32,
    /// How long it measures
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// End after so many measured ops, if they come before the time is over
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u64).range(1..))]
    pub(crate) ops: Option<u64>,
    /// How long it runs before it measures; 0: not at all
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration_or_none)]
    pub(crate) warm_up: Duration,
    /// Open loop: begin so many ops a second, whatever the answers do [default: as fast as the tasks are]
    ///
    /// Times are then told from when each op was due, so that one late answer makes all late that were due behind it.
    #[arg(long, value_name = "OPS_PER_SECOND", value_parser = value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    #[command(flatten)]
    pub(crate) ack: AckArgs,
    /// Repeats the draws of an earlier run [default: a random one, which is told]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Show nothing while it runs; without a terminal nothing is shown anyway
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Remove all keys that begin with bench: in the end; without a workload do only that
    #[arg(long)]
    pub(crate) clean_up: bool,
}

fn duration_or_none(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        text => duration(text),
    }
}
