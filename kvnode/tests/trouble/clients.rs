//! Clients with little patience, and what tests ask of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{Client, ClientBuilder, Error, NodeStats, Outcome, shard_map::toml};

use crate::support::cluster::{Cluster, Node, map_text};

/// What an op may take here, unless it says otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// What a busy machine may add to that.
const SLACK: Duration = Duration::from_secs(3);

/// A version above that of any node: the client keeps to such a map, whatever the nodes say.
pub(crate) const OWN: usize = 100;

/// A client that starts from this map.
pub(crate) fn with_map(map: &str) -> ClientBuilder {
    let map = toml::parse(map, "map").expect("a map");
    Client::builder(map)
        .timeout(TIMEOUT)
        .attempt_timeout(Duration::from_millis(300))
        .write_attempt_timeout(Duration::from_millis(600))
}

/// A client of a whole cluster.
pub(crate) fn of(cluster: &Cluster) -> Client {
    with_map(&cluster.map).build().expect("a client")
}

/// A client whose map has these addresses, each shard's primary first, and stays as it is.
pub(crate) fn by_own_map(addresses: &[String], per_shard: usize) -> Client {
    let map = map_text(OWN, addresses, per_shard);
    with_map(&map).build().expect("a client")
}

/// Does something that must end in time, however it ends.
pub(crate) async fn in_time<T>(limit: Duration, op: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let ended = op.await;
    let took = began.elapsed();
    assert!(took < limit + SLACK, "{took:?} for an op of {limit:?}");
    ended
}

/// Reads a key so many times; each read must bring this value.
pub(crate) async fn reads(kv: &Client, key: &str, value: &str, times: usize) {
    for round in 0..times {
        let read = in_time(TIMEOUT, kv.get(key)).await;
        let found = read.unwrap_or_else(|error| panic!("read {round} of {key}: {error}"));
        assert_eq!(found.as_deref(), Some(value.as_bytes()), "read {round}");
    }
}

/// The client's numbers of a node.
pub(crate) fn stats_of(kv: &Client, node: &Node) -> NodeStats {
    let mut nodes = kv.stats().nodes.into_iter();
    let its_own = |stats: &NodeStats| stats.address.to_string() == node.address;
    nodes.find(its_own).expect("a node of the map")
}

/// Increments of one counter, by what became of them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acked: i64,
    pub(crate) unknown: i64,
}

impl Tally {
    pub(crate) fn note(&mut self, result: &Result<i64, Error>) {
        match result {
            Ok(_) => self.acked += 1,
            Err(error) if error.outcome() == Outcome::Unknown => self.unknown += 1,
            Err(_) => {}
        }
    }

    /// Checks a counter against it: each acknowledged increment counts once, each unknown one at most once.
    pub(crate) fn check(&self, counter: Option<&Bytes>) {
        let text = counter.map_or("0", |value| std::str::from_utf8(value).expect("text"));
        let counted: i64 = text.parse().expect("a number");
        let most = self.acked + self.unknown;
        assert!(
            (self.acked..=most).contains(&counted),
            "{counted} of {self:?}"
        );
    }
}
