//! Whether lookups find what a walk comes by.
//!
//! A walk goes from leaf to leaf and never looks at the keys in the branch pages above them; a lookup does. With one of
//! those keys damaged, entries are there and are not found. So while all rows are walked, the first and the last row of
//! each leaf are looked up. The rows in between take the same way: each key above was on one side of both.

use heed::RoTxn;

use super::{env::Table, error::StoreError};

/// Keys lie in leaves. LMDB's pages may be larger, then some rows in the middle are looked up too.
const PAGE_BYTES: usize = 4096;

/// A walk through a table.
pub(super) struct Leaves<'t> {
    table: Table,
    txn: &'t RoTxn<'t>,
    /// Key and row that came last.
    last: Option<(&'t [u8], &'t [u8])>,
}

impl<'t> Leaves<'t> {
    pub(super) fn new(table: Table, txn: &'t RoTxn<'t>) -> Self {
        Self {
            table,
            txn,
            last: None,
        }
    }

    /// Comes to the next row; gives the keys that lookups do not find, of those that were looked up.
    pub(super) fn pass(
        &mut self,
        key: &'t [u8],
        row: &'t [u8],
    ) -> Result<Vec<&'t [u8]>, StoreError> {
        let before = self.last.replace((key, row));
        if before.is_some_and(|(before, _)| page(before) == page(key)) {
            return Ok(Vec::new());
        }
        self.unfound(before.into_iter().chain([(key, row)]))
    }

    /// Has come to the end; gives the last key if a lookup does not find it.
    pub(super) fn end(&mut self) -> Result<Vec<&'t [u8]>, StoreError> {
        let last = self.last.take();
        self.unfound(last.into_iter())
    }

    fn unfound(
        &self,
        rows: impl Iterator<Item = (&'t [u8], &'t [u8])>,
    ) -> Result<Vec<&'t [u8]>, StoreError> {
        let mut unfound = Vec::new();
        for (key, row) in rows {
            let found = self.table.get(self.txn, key)?;
            if found.map(<[u8]>::as_ptr) != Some(row.as_ptr()) {
                unfound.push(key);
            }
        }
        Ok(unfound)
    }
}

fn page(key: &[u8]) -> usize {
    key.as_ptr().addr() / PAGE_BYTES
}
