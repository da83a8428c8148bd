//! What is promised under faults, and the proof that these tests would notice if it did not hold.
//!
//! A file per kind of fault, a row of the table in `RELIABILITY.md` per fault. Each row is two tests: one that strikes
//! real nodes and finds nothing lost, and its control, which switches off (`KV_FAULTS`, see `kvclient::faults`) what keeps
//! the promise and must find loss. A ledger outside the nodes says what was acknowledged (`support/oracle.rs`,
//! `support/writers.rs`): a write that failed is unknown, never absent.
//!
//! Every row has a short form, which runs with all other tests. With `KV_BAR=1` it is the full one, as
//! `./test.sh --bar` runs it against the release build of the node (`KV_NODE_BINARY`); nodes with something switched off
//! are always this build. Rows and controls are saved where `KV_REPORT_DIR` says (`support/report.rs`), and
//! `table.rs` makes the table. What cannot run here (no root, no strace) saves why, and `./test.sh` says so.
//!
//! Nodes are stopped by process id; traffic stays on 127.0.0.1 or in network namespaces made here; seeds are printed,
//! `KV_SEED` repeats a run.

mod any_keys;
mod curl_bodies;
mod decoders;
mod dropped;
mod endurance;
mod exhausted;
mod flipped;
mod hostile;
mod io_errors;
mod killed;
mod ledger;
mod linear;
mod loop_disk;
mod lost_disk;
mod model;
mod points;
mod power;
mod readers;
mod refused;
mod replicas;
mod slow;
mod small_disk;
mod states;
mod stopped;
mod strayed;
#[allow(
    dead_code,
    reason = "shared with the cluster tests, which use the rest"
)]
#[path = "../cluster/support/mod.rs"]
mod support;
mod table;
