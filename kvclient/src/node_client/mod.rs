//! One node over HTTP: no routing, no retry, no state but idle connections.
//!
//! The only folder that knows HTTP libraries and sockets. Everything it does is one exchange with one address, with a
//! time limit and a limit on the answer's size, and ends in an answer or an [`AttemptError`](crate::attempt::AttemptError) that says how far it got.
//! Used by the routing half of this crate, and by nodes to copy each other.
//!
//! Ops travel over connections of our own ([`connection`]), driven in the caller's future: with reqwest, hyper's task
//! and hyper-util's pool stood between, which cost two hops between tasks and about 20 us of CPU an exchange. All else
//! (maps, pulls, streams) is rare or long and goes through reqwest ([`library`]). hyper's own connection without that pool
//! was not taken: it is made to be driven by a task, and of HTTP there is little to do here, which `httparse` does too.
//! With TLS ([`secured`]) both trust the same authorities and are the same client.
//!
//! What is switched off, and why: proxies (nodes are near, and `HTTP_PROXY` would swallow `localhost`), redirects
//! (they lead only to nodes of the map, which is not known here), retries (a write may not be sent twice), HTTP/2
//! (one connection per node would be one core per node).

mod answer;
mod chunked;
mod client;
mod connection;
mod documents;
mod exchange;
mod head;
mod headers;
mod library;
mod options;
mod pool;
#[cfg(feature = "tls")]
mod secured;
mod streams;
mod transport;
#[cfg(not(feature = "tls"))]
mod unsecured;

#[cfg(not(feature = "tls"))]
use self::unsecured as secured;
pub use self::{
    client::{BatchAnswer, NodeClient},
    options::NodeClientOptions,
    streams::{SnapshotBody, SnapshotRequest, StreamBody},
};
