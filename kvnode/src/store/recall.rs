//! Remembered requests, read back page by page: at start, and for copies.
//!
//! Pages are bounded by bytes too: the answer to an atomic batch can be as large as a frame.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    core::Core,
    error::StoreError,
    requests::{Request, RequestId, decode_request, request_key},
};

/// A page has no more requests once their outcomes take so many bytes; so it may exceed it by one of them.
const PAGE_BYTES: usize = 1 << 20;

impl Core {
    /// Up to `max` requests behind `after`, by client and n; none at the end only.
    pub(super) fn requests(
        &self,
        after: Option<RequestId>,
        max: usize,
    ) -> Result<Vec<Request>, StoreError> {
        let mut page = BTreeMap::new();
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        // Before the transaction: what is flushed between the two is then seen twice, not never. Newest first: an id that
        // was forgotten and used again may still have its former row below.
        for memtable in self.view.load().memtables() {
            for request in memtable.read().requests_after(bound).take(max) {
                page.entry(request.id()).or_insert_with(|| request.clone());
            }
        }
        let (stored, end) = self.stored_requests(after, max)?;
        // What is in memory behind rows that were not read has to wait for the next page.
        if let Some(end) = end {
            page.retain(|id, _| *id <= end);
        }
        for request in stored {
            page.entry(request.id()).or_insert(request);
        }
        let mut bytes = 0;
        let fits = |request: &Request| {
            let fits = bytes < PAGE_BYTES;
            bytes += request.mark.outcome.len();
            fits
        };
        Ok(page.into_values().take(max).take_while(fits).collect())
    }

    /// Those in LMDB, and where reading ended if it was for their bytes.
    fn stored_requests(
        &self,
        after: Option<RequestId>,
        max: usize,
    ) -> Result<(Vec<Request>, Option<RequestId>), StoreError> {
        let key = after.map(|(client, n)| request_key(client, n));
        let start = key
            .as_ref()
            .map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let txn = self.env.read()?;
        let rows = self.env.requests.range(&txn, &(start, Bound::Unbounded))?;
        let mut requests = Vec::new();
        let mut bytes = 0;
        for row in rows.take(max) {
            let (key, row) = row?;
            let request = decode_request(key, row)
                .map_err(|problem| StoreError::damaged_row("a remembered request", problem))?;
            bytes += request.mark.outcome.len();
            let id = request.id();
            requests.push(request);
            if bytes >= PAGE_BYTES {
                return Ok((requests, Some(id)));
            }
        }
        Ok((requests, None))
    }
}
