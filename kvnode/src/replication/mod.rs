//! Replication: a replica pulls its primary's log, byte for byte.
//!
//! ```text
//! primary                                        replica
//! commit -> log -> visible                       Puller: GET /log?after=<its durable>
//!            |                                          |
//!            +---- source: handshake, frames ---------->+ check chain, append the same bytes, sync
//!            |                                          | publish, ask again (= acknowledge)
//!            +---- snapshot_source ---- GET /snapshot ->+ snapshot_sink: new generation, then change over
//! ```
//!
//! Positions and their order: `truncated <= applied <= visible <= durable` on a node, and
//! `replica.durable <= primary.durable` across nodes, since only durable frames leave a primary. A replica's log is
//! a prefix of its primary's, byte for byte; what is not is never truncated but set aside for a person.

pub mod acks;
pub mod diverged;
pub mod handshake;
pub mod progress;
pub mod puller;
pub mod reign;
pub mod snapshot_sink;
pub mod snapshot_source;
pub mod source;

pub use progress::Progress;
