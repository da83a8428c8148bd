//! Remembered requests, read back page by page: at start, and for copies.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    core::Core,
    error::StoreError,
    requests::{Request, RequestId, decode_request, request_key},
};

impl Core {
    /// Up to `max` requests behind `after`, by client and n.
    pub(super) fn requests(
        &self,
        after: Option<RequestId>,
        max: usize,
    ) -> Result<Vec<Request>, StoreError> {
        let mut page = BTreeMap::new();
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        // Before the transaction: what is flushed between the two is then seen twice, not never.
        for memtable in self.view.load().memtables() {
            for request in memtable.read().requests_after(bound).take(max) {
                page.insert(request.id(), request.clone());
            }
        }
        for request in self.stored_requests(after, max)? {
            page.insert(request.id(), request);
        }
        Ok(page.into_values().take(max).collect())
    }

    fn stored_requests(
        &self,
        after: Option<RequestId>,
        max: usize,
    ) -> Result<Vec<Request>, StoreError> {
        let key = after.map(|(client, n)| request_key(client, n));
        let start = key
            .as_ref()
            .map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let txn = self.env.read()?;
        let rows = self.env.requests.range(&txn, &(start, Bound::Unbounded))?;
        rows.take(max)
            .map(|row| {
                let (key, row) = row?;
                decode_request(key, row)
                    .map_err(|problem| StoreError::damaged_row("a remembered request", problem))
            })
            .collect()
    }
}
