//! Puts changes into a write transaction: entries with their expiry rows and sums, and remembered requests.
//!
//! Used by the flush and by the staging of copies. The rule of seqs is kept here once more: what is stored already and
//! not older stays.

use std::ops::Bound;

use heed::RwTxn;
use kvclient::{key::MAX_KEY_BYTES, position::Position};

use super::{
    effect::Slot,
    env::Env,
    error::StoreError,
    memtable::Content,
    requests::{Request, encode_request, kept_from, request_key},
    sums::Sums,
    tables::{EntryRef, StoredEntry, encode_entry, entry_hash, expiry_key},
};

/// A write transaction with what changes along with its entries.
pub(super) struct Writer<'a, 'e> {
    env: &'a Env,
    txn: &'a mut RwTxn<'e>,
    sums: &'a mut Sums,
    row: Vec<u8>,
}

/// What is left of an entry once the transaction moves on.
struct Old {
    position: Position,
    expires_at_ms: Option<u64>,
    hash: u64,
}

impl<'a, 'e> Writer<'a, 'e> {
    pub(super) fn new(env: &'a Env, txn: &'a mut RwTxn<'e>, sums: &'a mut Sums) -> Self {
        Self {
            env,
            txn,
            sums,
            row: Vec::new(),
        }
    }

    /// Writes all that a memtable holds, in key order, so that neighbours share pages.
    pub(super) fn write(&mut self, content: &Content) -> Result<(), StoreError> {
        for (key, row) in content.rows_in((Bound::Unbounded, Bound::Unbounded)) {
            self.set(key, row.slot())?;
        }
        for request in content.requests_after(Bound::Unbounded) {
            self.remember(request)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], slot: Slot) -> Result<(), StoreError> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(StoreError::Fatal(format!(
                "a key of {} bytes got past all checks",
                key.len()
            )));
        }
        let old = self.old(key)?;
        if old
            .as_ref()
            .is_some_and(|old| old.position.seq >= slot.seq())
        {
            return Ok(());
        }
        if let Some(old) = &old {
            self.forget(key, old)?;
        }
        match slot {
            Slot::Live(entry) => self.put(key, entry),
            Slot::Tombstone(_) if old.is_some() => {
                self.env.data.delete(self.txn, key)?;
                Ok(())
            }
            Slot::Tombstone(_) => Ok(()),
        }
    }

    /// What is stored now. A damaged entry is taken as it stands: it must be possible to overwrite it, and the sums
    /// then show that something was wrong.
    fn old(&self, key: &[u8]) -> Result<Option<Old>, StoreError> {
        let Some(row) = self.env.data.get(self.txn, key)? else {
            return Ok(None);
        };
        Ok(Some(match StoredEntry::parse(row) {
            Ok(entry) => Old {
                position: entry.position,
                expires_at_ms: entry.expires_at_ms,
                hash: entry.hash(key),
            },
            Err(_) => Old {
                position: Position::ZERO,
                expires_at_ms: None,
                hash: 0,
            },
        }))
    }

    fn forget(&mut self, key: &[u8], old: &Old) -> Result<(), StoreError> {
        self.sums.remove(key, old.hash);
        if let Some(at) = old.expires_at_ms {
            let row = expiry_key(at, old.position.seq);
            self.env.expiry.delete(self.txn, &row)?;
        }
        Ok(())
    }

    fn put(&mut self, key: &[u8], entry: EntryRef) -> Result<(), StoreError> {
        encode_entry(key, entry, &mut self.row);
        self.env.data.put(self.txn, key, &self.row)?;
        if let Some(at) = entry.expires_at_ms {
            let row = expiry_key(at, entry.position.seq);
            self.env.expiry.put(self.txn, &row, key)?;
        }
        let hash = entry_hash(key, entry.position, entry.expires_at_ms, entry.value);
        self.sums.add(key, hash);
        Ok(())
    }

    /// Adds a request and drops those that its client no longer waits for.
    fn remember(&mut self, request: &Request) -> Result<(), StoreError> {
        let mark = &request.mark;
        let row = encode_request(request);
        let key = request_key(mark.client, mark.n);
        self.env.requests.put(self.txn, &key, &row)?;
        let kept_from = kept_from(mark.n, mark.floor);
        let forgotten = request_key(mark.client, 0)..request_key(mark.client, kept_from);
        let forgotten = (
            Bound::Included(&forgotten.start[..]),
            Bound::Excluded(&forgotten.end[..]),
        );
        self.env.requests.delete_range(self.txn, &forgotten)?;
        Ok(())
    }
}
