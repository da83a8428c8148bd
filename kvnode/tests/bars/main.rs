//! What a client promises when nodes stall, lag and die, measured on real nodes: one bar, one file.
//!
//! Every bar has a short form, which runs with all other tests and asserts what holds on a machine of any speed. With
//! `KV_BAR=1` it is the full form, which also asserts ratios of times and so wants the machine for itself:
//!
//! ```sh
//! KV_BAR=1 cargo test --release -p kvnode --test bars -- --nocapture --test-threads=1
//! ```
//!
//! `./test.sh --bar` runs that. Each prints its figures in lines that begin with `bar`; `KV_SEED` repeats the random
//! choices of a run.

#[expect(
    dead_code,
    reason = "shared with the cluster tests, which use the rest"
)]
#[path = "../cluster/support/mod.rs"]
mod support;

mod common;
mod cuts;
mod hedging;
mod paused;
mod readers;
mod sessions;
