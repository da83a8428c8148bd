//! One shard's part of a scan: pages, read as they come, from whichever node of the shard can give them.
//!
//! Goes on behind the last entry it has read, so a page that breaks off, is followed by another, or comes from
//! another node leaves no gap and repeats nothing. A page that ends without its end line has broken off.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    attempt::AttemptError,
    error::Error,
    key::Key,
    shard_reader::ShardReader,
    wire::scan::{
        MAX_SCAN_LIMIT, ScanDecoder, ScanEnd, ScanEntry, ScanItem, ScanRequest, after_key,
        parse_after,
    },
};

/// A shard while it is scanned.
pub(super) struct ShardScan {
    reader: ShardReader,
    /// The page to ask for next.
    request: ScanRequest,
    decoder: ScanDecoder,
    /// Read and not taken yet: what one piece of the body held.
    ready: VecDeque<ScanEntry>,
    /// Go on behind it.
    last: Option<Key>,
    /// How many more entries are wanted of this shard.
    left: usize,
    shards: usize,
    is_done: bool,
}

impl ShardScan {
    /// Nothing is asked before the first [`Self::fetch`]. `limit` is for all pages together.
    pub(super) fn new(
        reader: ShardReader,
        request: ScanRequest,
        limit: usize,
        shards: usize,
    ) -> Self {
        Self {
            reader,
            request,
            decoder: ScanDecoder::new(),
            ready: VecDeque::new(),
            last: None,
            left: limit,
            shards,
            is_done: limit == 0,
        }
    }

    /// The next entry, if it has been read.
    pub(super) fn pop(&mut self) -> Option<ScanEntry> {
        self.ready.pop_front()
    }

    /// Whether there is nothing left to fetch.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Reads on until an entry is there or the end.
    pub(super) async fn fetch(mut self: Box<Self>) -> Result<Box<Self>, Error> {
        self.reader.begin();
        while self.ready.is_empty() && !self.is_done {
            if let Err(error) = self.read().await {
                self.reader.recover(error).await?;
            }
        }
        Ok(self)
    }

    async fn read(&mut self) -> Result<(), AttemptError> {
        if self.left == 0 {
            self.is_done = true;
            return Ok(());
        }
        if !self.reader.is_open() {
            self.request.limit = self.left.min(MAX_SCAN_LIMIT);
            if let Some(last) = &self.last {
                self.request.after = Some(after_key(last.as_bytes()));
            }
            self.decoder = ScanDecoder::new();
            self.reader.open(&self.request.to_uri(), None).await?;
        }
        match self.reader.chunk().await? {
            Some(piece) => self.take(&piece).await,
            None => Err(AttemptError::Broken(
                "the answer has no end line".to_owned(),
            )),
        }
    }

    /// Takes all entries that are whole.
    async fn take(&mut self, piece: &Bytes) -> Result<(), AttemptError> {
        self.decoder.push(piece);
        let mut newest = None;
        let end = loop {
            let item = self.decoder.next_item();
            match item.map_err(|error| AttemptError::Undecodable(error.to_string()))? {
                Some(ScanItem::Entry(entry)) => {
                    self.check(&entry)?;
                    self.reader.progress();
                    newest = newest.max(Some(entry.position));
                    // At once: what comes behind it may end this attempt.
                    self.last = Some(entry.key.clone());
                    self.ready.push_back(entry);
                }
                Some(ScanItem::End(end)) => break Some(end),
                None => break None,
            }
        };
        if let Some(newest) = newest {
            self.reader.saw(newest);
        }
        match end {
            Some(end) => self.end(end).await,
            None => Ok(()),
        }
    }

    /// Whatever is wrong with an entry here would be a gap or a repeat in the merged order.
    fn check(&mut self, entry: &ScanEntry) -> Result<(), AttemptError> {
        let is_in_order = match &self.last {
            Some(before) if self.request.reverse => entry.key < *before,
            Some(before) => entry.key > *before,
            None => true,
        };
        if !is_in_order || self.left == 0 {
            let problem = format!("the entry {} is not in its place", entry.key);
            return Err(AttemptError::Undecodable(problem));
        }
        self.left -= 1;
        Ok(())
    }

    async fn end(&mut self, end: ScanEnd) -> Result<(), AttemptError> {
        if end.shard != **self.reader.shard() || end.shards as usize != self.shards {
            let shard = format!("{} of {}", end.shard, end.shards);
            return Err(AttemptError::OtherShard { shard });
        }
        self.reader.saw(end.position);
        self.is_done = end.next.is_none();
        if let Some(next) = end.next {
            // It may lie behind the last entry: expired ones are looked at and left out.
            let undecodable =
                || AttemptError::Undecodable(format!("{next:?} is not where to go on"));
            self.last = Some(parse_after(&next).ok_or_else(undecodable)?);
            self.reader.progress();
        }
        // The connection can be used again once its body was read to the end; what that holds, nobody needs.
        let _ = self.reader.chunk().await;
        self.reader.close();
        Ok(())
    }
}
