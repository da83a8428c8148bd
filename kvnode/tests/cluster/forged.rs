//! Pulls that no replica sends, or that one could send: made up from what anyone may read of a primary.

use kvclient::{
    position::Reign,
    wire::{log::Frame, pull::PullRequest},
};

use crate::support::{cluster::Node, http::Ask};

/// A pull to be sent; by itself it is that of a replica which has the whole log.
#[derive(Debug, Clone)]
pub(crate) struct Puller(PullRequest);

impl Puller {
    /// One that has everything the primary has now.
    pub(crate) async fn of(primary: &Node) -> Self {
        let (durable, status) = (primary.at("durable").await, primary.status().await);
        let last = last_frame(primary).await;
        assert_eq!(
            last.header.last_seq(),
            durable.seq,
            "nobody writes meanwhile"
        );
        let first = Ask::new("GET", "/log?after=0&max_bytes=1&wait_ms=0")
            .header("kv-node-id", "00000000000000ff")
            .header("kv-node-address", "127.0.0.1:9")
            .header("kv-lineage", "")
            .header("kv-last-crc", "00000000");
        let answer = primary.send(first).await;
        let lineage = answer.header("kv-lineage").expect("a lineage");
        let history = status["history"].as_str().expect("a history");
        Self(PullRequest {
            after: durable.seq,
            max_bytes: 1 << 20,
            wait_ms: 0,
            node_id: 0,
            node_address: primary.to_address(),
            history: u128::from_str_radix(history, 16).ok(),
            lineage: kvclient::wire::log::lineage_from_text(lineage).expect("a lineage"),
            last_crc: last.header.crc,
            map_version: None,
        })
    }

    /// As the node of this id at this address.
    pub(crate) fn named(mut self, node_id: u64, address: &str) -> Self {
        self.0.node_id = node_id;
        self.0.node_address = address.parse().expect("an address");
        self
    }

    /// Claims to have more than there is.
    pub(crate) fn ahead(mut self, by: u64) -> Self {
        self.0.after += by;
        self
    }

    /// Of another history.
    pub(crate) fn history(mut self, history: u128) -> Self {
        self.0.history = Some(history);
        self
    }

    /// Of no history, though it claims to have something.
    pub(crate) fn without_history(mut self) -> Self {
        self.0.history = None;
        self
    }

    /// Has nothing yet.
    pub(crate) fn empty(mut self) -> Self {
        self.0.after = 0;
        self
    }

    /// With another last frame.
    pub(crate) fn crc(mut self, crc: u32) -> Self {
        self.0.last_crc = crc;
        self
    }

    /// Knows a reign that the primary does not.
    pub(crate) fn newer_reign(mut self) -> Self {
        self.0.after += 1;
        let reign = Reign {
            epoch: self.0.lineage.epoch() + 1,
            first_seq: self.0.after,
            reign_id: 7,
        };
        self.0.lineage.push(reign).expect("in order");
        self
    }

    /// Sends it; what becomes of it is the primary's.
    pub(crate) async fn pull(&self, primary: &Node) {
        let ask = Ask::new("GET", self.0.to_uri());
        let headers = self.0.to_headers().into_iter();
        let ask = headers.fold(ask, |ask, (name, value)| ask.header(name, value));
        primary.send(ask).await;
    }
}

async fn last_frame(primary: &Node) -> Frame {
    let mut bytes = bytes::Bytes::from(primary.log_bytes(0).await);
    let mut last = None;
    while !bytes.is_empty() {
        last = Some(Frame::split_from(&mut bytes).expect("a frame"));
    }
    last.expect("a frame")
}
