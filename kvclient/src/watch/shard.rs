//! One shard's feed: followed at one of its nodes, and at another one when that falls silent or ends.
//!
//! Goes on behind the last position it has read, so nothing is missed and nothing comes twice. Nodes say where they
//! are every 5 s, also if nothing happens: a rare prefix does not fall behind the log, and a connection that is silent
//! for longer is dead. One that ends at the end of what there is goes on until a node says that it has told all of it.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use crate::{
    attempt::{AttemptError, Refusal},
    error::Error,
    position::Position,
    shard_map::Address,
    shard_reader::ShardReader,
    wire::{
        error::ErrorCode,
        watch::{WatchDecoder, WatchFrom, WatchItem, uri},
    },
};

/// What to do about a log that no longer reaches back.
const TRUNCATED: &str = "its log no longer has what comes next; start a watch from now, wait until it is ready, scan, \
    then follow that watch";

/// A shard while it is watched.
pub(super) struct ShardWatch {
    reader: ShardReader,
    prefix: Bytes,
    /// Where it begins.
    from: WatchFrom,
    until: Until,
    /// Go on behind it; `None` until a node has said where it began.
    at: Option<Position>,
    decoder: WatchDecoder,
    /// Read and not taken yet: what one piece of the body held.
    ready: VecDeque<WatchItem>,
    /// What came behind `ready`.
    failure: Option<AttemptError>,
    /// Nodes whose log does not reach back to `at`.
    truncated: HashSet<Address>,
}

/// When a watch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// When it is dropped.
    Dropped,
    /// When all that its node has was told.
    Level,
    /// It has ended.
    Over,
}

impl ShardWatch {
    /// Nothing is asked before the first [`Self::fetch`].
    pub(super) fn new(reader: ShardReader, prefix: Bytes, from: WatchFrom, until: Until) -> Self {
        let at = match from {
            WatchFrom::After(position) => Some(position),
            WatchFrom::Now | WatchFrom::Earliest => None,
        };
        Self {
            reader,
            prefix,
            from,
            until,
            at,
            decoder: WatchDecoder::new(),
            ready: VecDeque::new(),
            failure: None,
            truncated: HashSet::new(),
        }
    }

    pub(super) fn reader(&self) -> &ShardReader {
        &self.reader
    }

    /// The next record or position, if it has been read.
    pub(super) fn pop(&mut self) -> Option<WatchItem> {
        self.ready.pop_front()
    }

    /// The next position, if it has been read and nothing stands before it.
    pub(super) fn pop_position(&mut self) -> Option<Position> {
        let Some(WatchItem::Position { at, .. }) = self.ready.front() else {
            return None;
        };
        let at = *at;
        self.ready.pop_front();
        Some(at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.until == Until::Over
    }

    /// Reads on until something is there, or it is over.
    pub(super) async fn fetch(mut self: Box<Self>) -> Result<Box<Self>, Error> {
        if let Some(failure) = self.failure.take() {
            self.recover(failure).await?;
        }
        while self.ready.is_empty() && !self.is_over() {
            match self.read().await {
                Err(failure) if self.ready.is_empty() => self.recover(failure).await?,
                read => self.failure = read.err(),
            }
        }
        Ok(self)
    }

    async fn read(&mut self) -> Result<(), AttemptError> {
        if !self.reader.is_open() {
            self.decoder = WatchDecoder::new();
            let from = self.at.map_or(self.from, WatchFrom::After);
            let uri = uri(&self.prefix, from);
            self.reader.open(&uri, self.at).await?;
        }
        match self.reader.chunk().await? {
            Some(piece) => self.take(&piece),
            None => Err(AttemptError::Broken("the feed ended".to_owned())),
        }
    }

    /// Takes all events that are whole.
    fn take(&mut self, piece: &Bytes) -> Result<(), AttemptError> {
        self.decoder.push(piece);
        let before = self.at;
        let taken = self.take_items();
        if let Some(at) = self.at.filter(|_| self.at > before) {
            self.truncated.clear();
            self.reader.saw(at);
        }
        taken
    }

    fn take_items(&mut self) -> Result<(), AttemptError> {
        loop {
            let item = self.decoder.next_item();
            let item = item.map_err(|error| AttemptError::Undecodable(error.to_string()))?;
            let at = match &item {
                Some(WatchItem::Record { position, .. }) => *position,
                Some(WatchItem::Position { at, .. }) => *at,
                Some(WatchItem::Truncated { position, .. }) => return Err(truncated(*position)),
                None => return Ok(()),
            };
            // What comes again after a new start was told before.
            let is_new = match (&item, self.at) {
                (Some(WatchItem::Record { .. }), Some(before)) => at > before,
                (_, before) => Some(at) >= before,
            };
            self.reader.progress();
            if is_new {
                self.at = Some(at);
                let visible = match &item {
                    Some(WatchItem::Position { visible, .. }) => Some(*visible),
                    _ => None,
                };
                self.ready.extend(item);
                if self.until == Until::Level
                    && let Some(visible) = visible
                    && visible.ok_or_else(knows_no_level)? == at
                {
                    self.until = Until::Over;
                    self.reader.close();
                    return Ok(());
                }
            }
        }
    }

    async fn recover(&mut self, failure: AttemptError) -> Result<(), Error> {
        let is_truncated = matches!(
            &failure,
            AttemptError::Refused(refusal) if refusal.code == ErrorCode::LogTruncated
        );
        if !is_truncated {
            return self.reader.recover(failure).await;
        }
        // The log of another node may reach further back.
        self.reader.begin();
        self.reader.note(&failure);
        self.truncated.extend(self.reader.node().cloned());
        let failure = truncated(self.at.unwrap_or_default());
        match self.truncated.len() < self.reader.candidates() {
            true => self.reader.go_on(failure).await,
            false => Err(self.reader.failed(failure)),
        }
    }
}

/// Of a node that does not say how far it is, nobody knows when all was told.
fn knows_no_level() -> AttemptError {
    let problem = "the node does not say how far it is; it is older than this client";
    AttemptError::Undecodable(problem.to_owned())
}

fn truncated(position: Position) -> AttemptError {
    AttemptError::Refused(Refusal {
        status: ErrorCode::LogTruncated.status(),
        code: ErrorCode::LogTruncated,
        message: format!("behind {position}, {TRUNCATED}"),
        applied: None,
        etag: None,
        position: Some(position),
        target: None,
    })
}
