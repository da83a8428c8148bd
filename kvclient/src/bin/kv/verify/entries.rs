//! One node's entries in key order, as a stream that goes on where it broke off.
//!
//! Of a value only length and hash are kept, so that what is held of a node is a piece of its answer, however large the
//! shard. Which node is asked is fixed: another one would answer for itself.

use std::{collections::VecDeque, time::Duration};

use kvclient::{
    Address, Key, Position,
    attempt::AttemptError,
    node_client::{NodeClient, StreamBody},
    wire::{
        batch::Terms,
        scan::{
            MAX_SCAN_LIMIT, ScanDecoder, ScanEntry, ScanItem, ScanRequest, after_key, parse_after,
        },
    },
};
use xxhash_rust::xxh3::xxh3_64;

/// Failures in a row, with nothing between them that was whole, after which a node is given up.
const ATTEMPTS: u32 = 5;

/// Pause before a node is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Longest silence of a node.
const SILENCE: Duration = Duration::from_secs(5);

/// What a node has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) position: Position,
    pub(crate) value_bytes: usize,
    pub(crate) value_hash: u64,
    pub(crate) expires: bool,
}

impl Held {
    pub(crate) fn new(position: Position, value: &[u8], expires: bool) -> Self {
        Self {
            position,
            value_bytes: value.len(),
            value_hash: xxh3_64(value),
            expires,
        }
    }
}

/// The entries of one node that have not been taken yet.
pub(crate) struct Entries<'a> {
    nodes: &'a NodeClient,
    address: &'a Address,
    body: Option<StreamBody>,
    decoder: ScanDecoder,
    ready: VecDeque<(Key, Held)>,
    last: Option<Key>,
    is_done: bool,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(nodes: &'a NodeClient, address: &'a Address) -> Self {
        Self {
            nodes,
            address,
            body: None,
            decoder: ScanDecoder::new(),
            ready: VecDeque::new(),
            last: None,
            is_done: false,
        }
    }

    /// The next entry; `None` behind the last.
    ///
    /// # Errors
    /// The node does not answer any more, after some attempts.
    pub(crate) async fn next(&mut self) -> Result<Option<(Key, Held)>, AttemptError> {
        let mut failed = 0;
        while self.ready.is_empty() && !self.is_done {
            let before = self.last.clone();
            let Err(error) = self.read().await else {
                continue;
            };
            self.body = None;
            failed = if self.last == before { failed + 1 } else { 1 };
            if failed == ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(self.ready.pop_front())
    }

    async fn read(&mut self) -> Result<(), AttemptError> {
        if self.body.is_none() {
            let request = ScanRequest {
                after: self.last.as_ref().map(|key| after_key(key.as_bytes())),
                limit: MAX_SCAN_LIMIT,
                ..ScanRequest::default()
            };
            self.decoder = ScanDecoder::new();
            let (uri, terms) = (request.to_uri(), Terms::default());
            let opened = self.nodes.stream(self.address, &uri, &terms, SILENCE);
            self.body = Some(opened.await?);
        }
        let Some(body) = &mut self.body else {
            return Ok(());
        };
        let piece = body.chunk(SILENCE).await?;
        let piece =
            piece.ok_or_else(|| AttemptError::Broken("the answer has no end line".to_owned()))?;
        self.decoder.push(&piece);
        self.take()
    }

    /// Takes all that is whole.
    fn take(&mut self) -> Result<(), AttemptError> {
        let undecodable = |problem: String| AttemptError::Undecodable(problem);
        while let Some(item) = self
            .decoder
            .next_item()
            .map_err(|error| undecodable(error.to_string()))?
        {
            match item {
                ScanItem::Entry(entry) => self.add(entry)?,
                ScanItem::End(end) => {
                    self.body = None;
                    let Some(next) = end.next else {
                        self.is_done = true;
                        return Ok(());
                    };
                    let next = parse_after(&next);
                    self.last =
                        Some(next.ok_or_else(|| {
                            undecodable("a scan that goes on nowhere".to_owned())
                        })?);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, entry: ScanEntry) -> Result<(), AttemptError> {
        if self.last.as_ref().is_some_and(|last| *last >= entry.key) {
            let problem = format!("the entry {} is not in its place", entry.key);
            return Err(AttemptError::Undecodable(problem));
        }
        let value = entry.value.unwrap_or_default();
        let held = Held::new(entry.position, &value, entry.ttl_ms.is_some());
        self.last = Some(entry.key.clone());
        self.ready.push_back((entry.key, held));
        Ok(())
    }
}
