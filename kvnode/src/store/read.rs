//! Point reads: memtables over LMDB.
//!
//! A reader pins the memtables first and opens its LMDB transaction after that. A frozen memtable is dropped only when
//! its transaction is committed, so a reader that no longer sees the one sees the other. Values are copied out and the
//! transaction is closed before anything is returned.
//!
//! Point reads run inline on the HTTP worker.

use super::{
    core::Core,
    error::StoreError,
    memtable::Slot,
    tables::{Entry, StoredEntry},
};
use kvclient::key::MAX_KEY_BYTES;

impl Core {
    /// The newest that is known about a key.
    pub(super) fn slot(&self, key: &[u8]) -> Result<Option<Slot>, StoreError> {
        let view = self.view.load();
        for memtable in view.memtables() {
            if let Some(slot) = memtable.read().get(key) {
                return Ok(Some(slot.clone()));
            }
        }
        Ok(self.stored(key)?.map(Slot::Live))
    }

    /// What LMDB has for a key.
    fn stored(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Ok(None);
        }
        let txn = self.env.read()?;
        let Some(row) = self.env.data.get(&txn, key)? else {
            return Ok(None);
        };
        self.check(key, row).map(StoredEntry::to_entry).map(Some)
    }
}
