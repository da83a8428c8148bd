//! Real `kvnode` processes on this machine, used and broken the way users and machines do.
//!
//! One binary, a file per topic. Every test starts its own nodes on free ports of 127.0.0.1 with data in a temporary
//! directory, waits on conditions, and leaves no process behind. `KV_SLOW=1` runs the long forms too; `KV_SEED`
//! repeats the random choices of a run.

mod ack;
mod atomic;
mod changes;
mod compact;
mod crash;
mod forged;
mod keys;
mod limits;
mod lines;
mod openapi;
mod put_get;
mod redirect;
mod replication;
mod requests;
mod start;
#[allow(dead_code, reason = "shared with the fault tests, which use the rest")]
mod support;
mod timing;
mod tls;
mod tokens;
mod tool;
