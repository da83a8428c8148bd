//! The client against real nodes in trouble: killed, held still, behind a bad link, replaced by something else.
//!
//! Every test asks for the same: an op ends within its time, what others can do they do, and nothing is called "not
//! applied" that was.

mod clients;
mod killed;
mod links;
mod paused;
#[path = "../cluster/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the cluster")]
mod support;
