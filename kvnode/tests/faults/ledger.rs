//! A ledger over rounds of a fault, and what else rows share: nodes that come up again or not, figures of a node.

use std::time::{Duration, Instant};

use crate::support::{
    cluster::Node,
    eventually,
    http::Ask,
    oracle::{Oracle, Verdict},
    writers::Writers,
};

/// What was acknowledged in all rounds so far, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    oracles: [Oracle; 1],
    pub(crate) writes: Verdict,
    pub(crate) longest_gap_ms: u64,
}

impl Ledger {
    /// Ends writers and enters what they were told.
    pub(crate) async fn close(&mut self, writers: Writers) {
        self.longest_gap_ms = self.longest_gap_ms.max(writers.longest_gap_ms());
        writers.stop(&mut self.oracles).await;
    }

    /// What was told so far.
    pub(crate) fn oracle(&self) -> &Oracle {
        &self.oracles[0]
    }

    /// Compares everything with what a node answers. A key lost in a round stays lost.
    pub(crate) async fn judge(&mut self, node: &Node) {
        let (lost, twice) = (self.writes.lost, self.writes.duplicated);
        self.writes = self.oracles[0].verdict(node).await;
        self.writes.lost += lost;
        self.writes.duplicated += twice;
    }
}

/// Starts the node as itself, with nothing switched off; how long it took until it was ready.
pub(crate) async fn restart(node: &Node) -> Duration {
    let began = Instant::now();
    node.set_faults("");
    node.set_wrapper(&[]);
    node.start().await;
    began.elapsed()
}

/// Waits until a node is ready, or has ended with this code.
pub(crate) async fn ready_or_ended(node: &Node) -> Option<i32> {
    let reason = format!("{} is ready or ends", node.address);
    let ready = eventually(&reason, async || {
        if !node.is_running() {
            return Some(false);
        }
        let answer = node.try_send(Ask::new("GET", "/readyz")).await.ok()?;
        (answer.status == 200).then_some(true)
    })
    .await;
    match ready {
        true => None,
        false => Some(node.ended().await),
    }
}

/// A figure of `/metrics`.
pub(crate) async fn metric(node: &Node, name: &str) -> f64 {
    let text = node.ask("GET", "/metrics").await.text();
    let sample = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    sample
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}
