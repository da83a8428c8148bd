//! What a client has done so far, by node: plain numbers, for a person or for a program's own metrics.

use crate::{
    coalesce::Percentiles,
    shard_map::{Address, Role},
};

/// Counts since the client was made; see `Client::stats`.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// let stats = kv.stats();
/// println!("map {}: {} ops, {} retries, {} redirects", stats.map, stats.ops, stats.retries, stats.redirects);
/// if stats.hedges > 0 {
///     println!("{} % of the second copies were worth it", 100 * stats.hedges_won / stats.hedges);
/// }
/// let ejected = stats.nodes.iter().filter(|node| node.is_ejected);
/// ejected.for_each(|node| println!("{} does not answer", node.address));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Identity of the map in force.
    pub map: String,
    /// Ops that their callers asked for. A batch of many counts each, an atomic batch once.
    pub ops: u64,
    /// Attempts beyond the first of an op, without hedges and redirects.
    pub retries: u64,
    /// Retries that had to pause since too many of the ops were retried; see [`crate::policy::retry`].
    pub retries_held_back: u64,
    /// Redirects followed.
    pub redirects: u64,
    /// Second copies of reads that took long.
    pub hedges: u64,
    /// Those of them that answered first.
    pub hedges_won: u64,
    /// Times nodes were asked for their map.
    pub refreshes: u64,
    /// What reads took in the last seconds, from the first attempt to the answer; `None`: fewer than 20, so
    /// nobody can tell.
    pub read_latency: Option<Percentiles>,
    /// Every node of the map in force.
    pub nodes: Vec<NodeStats>,
}

/// Counts of one node since the client first knew it.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// for node in kv.stats().nodes {
///     let batched = node.ops_per_request().unwrap_or_default();
///     println!("{} ({} of {}): {batched:.1} ops a request", node.address, node.role, node.shard);
///     println!("{} under way, {} of {} failed", node.in_flight, node.errors, node.ops);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStats {
    /// Where it is.
    pub address: Address,
    /// Name of its shard.
    pub shard: String,
    /// What it is to its shard.
    pub role: Role,
    /// Ops it was asked to do, hedges and retries too.
    pub ops: u64,
    /// Those of them that it did not do its part of: no answer, one that cannot be used, or that it cannot serve now. A
    /// condition that does not hold is an answer.
    pub errors: u64,
    /// Requests that carried them. Ops a request: how well they are coalesced.
    pub requests: u64,
    /// Ops that wait for it now.
    pub in_flight: usize,
    /// What its answers took in the last seconds; `None`: fewer than 20, too few to tell.
    pub latency: Option<Percentiles>,
    /// Whether it is ejected now: reads go elsewhere.
    pub is_ejected: bool,
    /// Times it was ejected.
    pub ejections: u64,
    /// Second copies of reads that it was sent.
    pub hedges: u64,
    /// Those of them that it answered first.
    pub hedges_won: u64,
}

impl NodeStats {
    /// Ops in a request on average; `None` before the first.
    pub fn ops_per_request(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = || self.ops as f64 / self.requests as f64;
        (self.requests > 0).then(ratio)
    }
}
