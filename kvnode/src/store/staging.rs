//! A store being built from a copy: the receiving side of a snapshot.
//!
//! It takes remembered requests, stored entries, then the frames behind the position where the copy began. Entries may
//! be newer than that position, as the source went on while it was read; the frames that made them so come again, and
//! the rule of seqs sorts it out. So unlike `publish` it looks up every key of a frame before it applies it. Entries
//! must not come after frames: a deletion leaves nothing behind that could tell that an entry is too old.
//!
//! What comes in is gathered in memory and written when that is full. Until `finish` there is no `state` row, and
//! [`super::Store::open`] refuses the directory. It starts no thread; calls may wait for the disk.

use std::path::Path;

use bytes::Bytes;
use kvclient::{
    position::{Lineage, Position, Seq},
    wire::log::{Link, Record},
};

use super::{
    core::StoreOptions,
    effect::Slot,
    env::Env,
    error::StoreError,
    memtable::Content,
    meta::{self, Meta},
    requests::Request,
    sums::Sums,
    tables::{Entry, StoredEntry},
    writer::Writer,
};

/// A store that is not finished. Dropped before `finish`, it leaves a directory that nobody takes for a store.
pub struct Staging {
    env: Env,
    pending: Content,
    pending_limit_bytes: usize,
    sums: Sums,
    /// The largest seq of any entry: the copy must reach it to be exact.
    newest_entry: Seq,
    last_frame: Option<Link>,
}

impl Staging {
    /// Begins a store in `dir`, made if missing.
    ///
    /// # Errors
    /// `Refused`: there is one already. `Full`: no room. `Fatal`: give up and remove `dir`.
    pub fn create(dir: &Path, history: u128, options: &StoreOptions) -> Result<Self, StoreError> {
        let env = Env::create(dir, options.map_size_bytes, options.max_readers)?;
        let mut txn = env.write()?;
        meta::write_history(&env, &mut txn, history)?;
        txn.commit()?;
        Ok(Self {
            env,
            pending: Content::default(),
            pending_limit_bytes: options.memtable_bytes,
            sums: Sums::default(),
            newest_entry: 0,
            last_frame: None,
        })
    }

    /// Adds stored entries. Of one that comes twice, the newer stays.
    ///
    /// # Errors
    /// `Refused`: frames were applied already. `Full`: no room. `Fatal`: give up. After any of them the copy is of
    /// no use: remove `dir`.
    pub fn put_entries(&mut self, entries: &[(Bytes, Entry)]) -> Result<(), StoreError> {
        if self.last_frame.is_some() {
            return Err(StoreError::Refused("entries came behind frames".into()));
        }
        for (key, entry) in entries {
            let seq = entry.position.seq;
            self.newest_entry = self.newest_entry.max(seq);
            if self.pending.get(key).is_none_or(|slot| slot.seq() < seq) {
                self.pending.insert(key, Slot::Live(entry.into()));
                self.write_if_full()?;
            }
        }
        Ok(())
    }

    /// Adds remembered requests.
    ///
    /// # Errors
    /// As [`Self::put_entries`].
    pub fn put_requests(&mut self, requests: &[Request]) -> Result<(), StoreError> {
        for request in requests {
            self.pending.remember(request.clone());
        }
        self.write_if_full()
    }

    /// Applies the next frame behind the position where the copy began.
    ///
    /// # Errors
    /// `Refused`: it does not follow the frame before it. `Damaged`: what this wrote does not read back. `Full`: no
    /// room. `Fatal`: give up. After any of them the copy is of no use: remove `dir`.
    pub fn apply_frame(
        &mut self,
        link: Link,
        time_ms: u64,
        records: &[(Position, Record)],
    ) -> Result<(), StoreError> {
        let first = records.first().map_or(0, |(position, _)| position.seq);
        if self
            .last_frame
            .is_some_and(|last| last.position.seq + 1 != first)
        {
            return Err(StoreError::Refused(format!("seq {first} does not follow")));
        }
        let older = records
            .iter()
            .map(|(_, record)| self.stored(&record.key))
            .collect::<Result<Vec<_>, _>>()?;
        self.pending.apply(link, time_ms, records, &older);
        self.last_frame = Some(link);
        self.write_if_full()
    }

    /// Makes it a store that contains the log up to `applied`, the end of the last frame (or, without frames, where
    /// the copy began), whose time is `time_ms`. It is durable on return and can be opened.
    ///
    /// # Errors
    /// `Refused`: the copy does not end there. `Full`: no room. `Fatal`: give up. After any of them remove `dir`.
    pub fn finish(
        mut self,
        applied: Link,
        time_ms: u64,
        lineage: Lineage,
    ) -> Result<(), StoreError> {
        let end = applied.position;
        let ends_there = self.last_frame.is_none_or(|last| last == applied);
        if !ends_there || self.newest_entry > end.seq || !lineage.holds(end, end.seq) {
            return Err(StoreError::Refused(format!(
                "the copy does not end at {end}: its newest entry has seq {}, its last frame is {:?}",
                self.newest_entry, self.last_frame
            )));
        }
        self.write()?;
        let meta = Meta {
            applied,
            time_ms,
            durable_floor: end,
            lineage,
            sums: self.sums,
        };
        let mut txn = self.env.write()?;
        meta.write(&self.env, &mut txn)?;
        txn.commit()?;
        if self.env.close() {
            return Ok(());
        }
        Err(StoreError::Fatal("the copy could not be closed".into()))
    }

    /// What was written for a key, as far as nothing newer is pending.
    fn stored(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        // The record that begins a reign has no key, and LMDB takes none.
        if key.is_empty() || self.pending.get(key).is_some() {
            return Ok(None);
        }
        let txn = self.env.read()?;
        let Some(row) = self.env.data.get(&txn, key)? else {
            return Ok(None);
        };
        let entry = StoredEntry::check(key, row)
            .map_err(|problem| StoreError::damaged_entry(key, problem))?;
        Ok(Some(entry.to_entry()))
    }

    fn write_if_full(&mut self) -> Result<(), StoreError> {
        if self.pending.bytes() < self.pending_limit_bytes {
            return Ok(());
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let mut txn = self.env.write()?;
        Writer::new(&self.env, &mut txn, &mut self.sums).write(&self.pending)?;
        txn.commit()?;
        self.pending = Content::default();
        Ok(())
    }
}
