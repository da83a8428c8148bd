//! Entries that are durable in the log but not in LMDB yet.
//!
//! A hash table of rows beside the ordered set of their keys: to read a key or to overwrite it is one lookup, and only
//! a new key is put in order. Measured (release build, one of 2 cores, 33,000 entries of 116 bytes, frames of 100): a
//! read takes 0.10 to 0.17 us, an overwrite 0.28 to 0.41, a new key 0.61; an ordered map of slots alone took 0.19 to
//! 0.23, 0.46 to 0.51 and 0.72.
//!
//! Filled by one thread, frame by frame: all of a frame goes in under one write lock, so readers see it as a whole.
//! Frozen memtables are only read. A deletion is kept as a tombstone, since LMDB below may still have the key.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    ops::{Bound, RangeBounds},
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use hashbrown::{HashTable, hash_table};
use kvclient::{
    position::{Position, Reign, Seq},
    wire::log::{Effect, Link, Record},
};

use super::{
    effect::{self, Slot},
    requests::{ClientRequests, Request},
    row::Row,
    tables::{Entry, EntryRef, own_pages_bytes},
};
use crate::hashing::Seeded;

/// What an entry costs beside its key, twice, and its value: its places in a table and a tree that are not full, and two
/// allocations. Measured: 460,000 entries of 16 and 100 bytes, of which the table had just doubled, took 139 MB, which is
/// 171 bytes more each; 400,000 took 112 MB, 147 more each.
const ENTRY_OVERHEAD_BYTES: usize = 180;

/// Bytes of records for each byte of memory that a memtable may hold. One key written again and again takes no more
/// memory, but the log cannot be given free, nor recovery read less of it, before the memtable is flushed.
const RECORD_BYTES_PER_BYTE: usize = 4;

/// So many keys are looked up in one go: then they wait for memory together. Measured (three nodes and 512 tasks on 2
/// cores, 33,000 entries of 116 bytes each): a read takes a node 0.93 us of processor time, and 1.41 one by one.
pub const TOGETHER: usize = 16;

/// A memtable is full with this part of its limit in values that LMDB keeps on pages of their own. Little is won by
/// flushing more of them at once, while the pages that two flushes write and free stay in LMDB's file beside what is
/// live: readers may still look at what the last one freed. With a quarter writes of 4 KiB were no faster.
const PAGED_PART: usize = 8;

/// An ordered set of changes that end at one frame's end.
#[derive(Debug, Default)]
pub(super) struct Memtable {
    /// Std lock: held for one lookup or one frame, never over an await or a read of LMDB.
    content: RwLock<Content>,
}

/// What is in a memtable.
#[derive(Debug, Default)]
pub(super) struct Content {
    rows: HashTable<Place>,
    hashing: Seeded,
    /// The keys of all rows.
    keys: BTreeSet<Arc<[u8]>>,
    /// The live entries that expire, by time.
    expiry: BTreeMap<(u64, Seq), Row>,
    requests: BTreeMap<u128, ClientRequests>,
    request_count: usize,
    reigns: Vec<Reign>,
    /// Where the newest frame in it ends, and that frame's time.
    end: Option<(Link, u64)>,
    bytes: usize,
    /// What its values on pages of their own will take in LMDB, in bytes.
    paged_bytes: usize,
    /// Bytes of all records it has taken, also of those that later ones replaced.
    taken_bytes: usize,
}

/// A row in the table.
#[derive(Debug)]
struct Place {
    /// That of the key, so that a table that grows looks at no row.
    hash: u64,
    row: Row,
}

impl Memtable {
    /// Its content, to be read; the lock is released with the guard.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().expect("no writer panics")
    }

    /// Its content, to be changed as a whole.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().expect("no writer panics")
    }
}

impl Content {
    /// What it says about a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Row> {
        let hash = self.hashing.hash(key);
        let place = self.rows.find(hash, |place| place.is(hash, key));
        place.map(|place| &place.row)
    }

    /// What it says about each of some keys, see [`TOGETHER`]. Three rounds, so that what one key has to wait for is on
    /// its way while others are looked at: places, then rows, then keys.
    pub(super) fn get_each<'a, 'k>(
        &'a self,
        keys: impl Iterator<Item = &'k [u8]> + Clone,
        rows: &mut Vec<Option<&'a Row>>,
    ) {
        rows.clear();
        rows.extend(keys.clone().map(|key| self.candidate(key)));
        rows.iter().flatten().for_each(|row| row.fetch());
        for (key, row) in keys.zip(rows) {
            if row.is_some_and(|row| row.key() != key) {
                *row = self.get(key);
            }
        }
    }

    /// A row whose hash is that of a key: most likely the key's, if it has one.
    fn candidate(&self, key: &[u8]) -> Option<&Row> {
        let hash = self.hashing.hash(key);
        let place = self.rows.find(hash, |place| place.hash == hash);
        place.map(|place| &place.row)
    }

    /// Has the processor fetch what is said about the keys of records that are about to be applied.
    pub(super) fn fetch(&self, records: &[(Position, Record)]) {
        let keys = records.iter().map(|(_, record)| &record.key[..]);
        let mut rows = Vec::with_capacity(records.len());
        rows.extend(keys.map(|key| self.candidate(key)));
        rows.iter().flatten().for_each(|row| row.fetch());
    }

    /// Adds a frame. `older[i]` is what lies below this memtable for record `i`; it matters only if the memtable itself
    /// says nothing about the key, and may be `None`, or left out at the end, for a `put` or `delete` known to be newer.
    pub(super) fn apply(
        &mut self,
        end: Link,
        time_ms: u64,
        records: &[(Position, Record)],
        older: &[Option<Entry>],
    ) {
        let older = older.iter().map(Option::as_ref).chain(iter::repeat(None));
        for ((position, record), older) in records.iter().zip(older) {
            self.taken_bytes += record.encoded_bytes();
            self.reigns.extend(record.reign_at(*position));
            if !self.overwrite(*position, record) {
                self.change(&record.key, |current| {
                    let current = current
                        .map(Row::slot)
                        .or_else(|| older.map(|entry| Slot::Live(entry.into())));
                    let slot = effect::apply(*position, &record.effect, current)?;
                    Some(Row::new(&record.key, slot))
                });
            }
            if let Some(mark) = &record.mark {
                self.remember(Request {
                    mark: mark.clone(),
                    position: *position,
                    time_ms,
                });
            }
        }
        self.end = Some((end, time_ms));
    }

    /// Stores a value in the place of one of the same length, if it is a plain put and nothing else has to change:
    /// memory that is taken and given back costs more. Whether it was done.
    fn overwrite(&mut self, position: Position, record: &Record) -> bool {
        let Effect::Put {
            value,
            expires_at_ms: None,
        } = &record.effect
        else {
            return false;
        };
        let hash = self.hashing.hash(&record.key);
        let place = self
            .rows
            .find_mut(hash, |place| place.is(hash, &record.key));
        // What expires is held by the index of expiries too, so it is never overwritten.
        place.is_some_and(|place| {
            place.row.seq() < position.seq
                && place.row.overwrite(Slot::Live(EntryRef {
                    position,
                    expires_at_ms: None,
                    value,
                }))
        })
    }

    /// Sets what is said about a key.
    pub(super) fn insert(&mut self, key: &[u8], slot: Slot) {
        self.change(key, |_| Some(Row::new(key, slot)));
    }

    /// Puts a row in the place of what is said about its key, if `next` makes one of that.
    fn change(&mut self, key: &[u8], next: impl FnOnce(Option<&Row>) -> Option<Row>) {
        let hash = self.hashing.hash(key);
        let place = self
            .rows
            .entry(hash, |place| place.is(hash, key), |place| place.hash);
        let current = match &place {
            hash_table::Entry::Occupied(place) => Some(&place.get().row),
            hash_table::Entry::Vacant(_) => None,
        };
        let Some(row) = next(current) else { return };
        self.bytes += row.content_bytes();
        self.paged_bytes += paged_bytes(&row);
        if let Some(at) = row.expiry() {
            self.expiry.insert(at, row.clone());
        }
        match place {
            hash_table::Entry::Occupied(mut place) => {
                let old = std::mem::replace(&mut place.get_mut().row, row);
                self.bytes -= old.content_bytes();
                self.paged_bytes -= paged_bytes(&old);
                if let Some(at) = old.expiry() {
                    self.expiry.remove(&at);
                }
            }
            hash_table::Entry::Vacant(place) => {
                place.insert(Place { hash, row });
                self.keys.insert(key.into());
                self.bytes += key.len() + ENTRY_OVERHEAD_BYTES;
            }
        }
    }

    /// Adds a remembered request and drops those that its client no longer waits for: of a client that names a floor
    /// with each write only what is under way now is held here, and flushed.
    pub(super) fn remember(&mut self, request: Request) {
        self.bytes += request_bytes(&request);
        self.request_count += 1;
        let client = self.requests.entry(request.mark.client);
        let dropped = client.or_default().add(request);
        for dropped in dropped {
            self.bytes -= request_bytes(&dropped);
            self.request_count -= 1;
        }
    }

    /// Where its newest frame ends and that frame's time; `None`: it has taken none.
    pub(super) fn end(&self) -> Option<(Link, u64)> {
        self.end
    }

    /// Memory it holds, estimated, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What counts against a limit, in bytes: its memory, or its share of the log that it keeps from being given free.
    pub(super) fn weight_bytes(&self) -> usize {
        self.bytes.max(self.taken_bytes / RECORD_BYTES_PER_BYTE)
    }

    /// Whether it should be flushed, if it may weigh so many bytes.
    pub(super) fn is_full(&self, limit_bytes: usize) -> bool {
        self.weight_bytes() >= limit_bytes || self.paged_bytes >= limit_bytes / PAGED_PART
    }

    /// The keys between two bounds, in order.
    pub(super) fn rows_in(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&Arc<[u8]>, &Row)> {
        let keys = self.keys.range::<[u8], _>(bounds);
        keys.map(|key| (key, self.get(key).expect("every key has a row")))
    }

    /// The live entries whose time has come at `now_ms`, oldest first, each with that time.
    pub(super) fn due(&self, now_ms: u64) -> impl Iterator<Item = (u64, &Row)> {
        self.expiry
            .range(..=(now_ms, Seq::MAX))
            .map(|((at_ms, _), row)| (*at_ms, row))
    }

    /// The remembered requests behind `after`, by client and n.
    pub(super) fn requests_after(
        &self,
        after: Bound<(u128, u64)>,
    ) -> impl Iterator<Item = &Request> {
        let first = match after {
            Bound::Included((client, _)) | Bound::Excluded((client, _)) => Bound::Included(client),
            Bound::Unbounded => Bound::Unbounded,
        };
        let clients = self.requests.range((first, Bound::Unbounded));
        clients
            .flat_map(|(_, requests)| requests.iter())
            .skip_while(move |request| !(after, Bound::Unbounded).contains(&request.id()))
    }

    /// How many requests it holds.
    pub(super) fn request_count(&self) -> usize {
        self.request_count
    }

    /// The reigns that began in it.
    pub(super) fn reigns(&self) -> &[Reign] {
        &self.reigns
    }
}

impl Place {
    /// Whether it is that of a key; a hash is rarely equal without the key.
    fn is(&self, hash: u64, key: &[u8]) -> bool {
        self.hash == hash && self.row.key() == key
    }
}

/// What a row's value takes in LMDB on pages of its own; 0 if it stands in a leaf page.
fn paged_bytes(row: &Row) -> usize {
    match row.slot() {
        Slot::Live(entry) => own_pages_bytes(row.key().len(), entry.value.len()),
        Slot::Tombstone(_) => 0,
    }
}

fn request_bytes(request: &Request) -> usize {
    request.mark.outcome.len() + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kvclient::wire::log::RequestMark;

    use super::*;

    fn live(seq: Seq, expires_at_ms: Option<u64>, value: &'static [u8]) -> Slot<'static> {
        Slot::Live(EntryRef {
            position: Position::new(1, seq),
            expires_at_ms,
            value,
        })
    }

    #[test]
    fn bytes_and_expiry_index_follow_what_is_in_it() {
        let mut content = Content::default();
        content.insert(b"key", live(1, Some(50), b"123"));
        assert_eq!(content.bytes(), 2 * 3 + 3 + ENTRY_OVERHEAD_BYTES);
        content.insert(b"key", live(2, Some(40), b"12345"));
        assert_eq!(content.bytes(), 2 * 3 + 5 + ENTRY_OVERHEAD_BYTES);
        content.insert(b"other", live(3, Some(45), b""));
        let due = |content: &Content, now_ms| -> Vec<_> {
            let due = content.due(now_ms);
            due.map(|(at, row)| (at, row.seq())).collect()
        };
        assert_eq!(due(&content, 45), [(40, 2), (45, 3)]);
        content.insert(b"key", Slot::Tombstone(Position::new(1, 4)));
        assert_eq!(due(&content, u64::MAX), [(45, 3)]);
    }

    #[test]
    fn nothing_in_it_holds_a_frame() {
        let frame = Bytes::from(vec![b'x'; 1 << 20]);
        let mark = RequestMark {
            client: 1,
            n: 1,
            floor: 0,
            digest: 0,
            outcome: frame.slice(10..80)[..].into(),
        };
        let effect = Effect::Put {
            value: frame.slice(3..9),
            expires_at_ms: Some(5),
        };
        let mut record = Record::new(frame.slice(..3), effect);
        record.mark = Some(mark.clone());
        let (position, end) = (Position::new(1, 1), Link::default());
        let mut content = Content::default();
        content.apply(end, 0, &[(position, record)], &[None]);
        let row = content.get(b"xxx").expect("it was applied");
        assert_eq!(row.slot(), live(1, Some(5), b"xxxxxx"));
        let kept: Vec<_> = content.requests_after(Bound::Unbounded).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].mark, mark);
        drop(mark);
        assert!(frame.is_unique());
    }

    #[test]
    fn of_a_client_with_a_floor_only_what_it_waits_for_is_held() {
        let request = |client, n, floor| Request {
            mark: RequestMark {
                client,
                n,
                floor,
                digest: 0,
                outcome: b"ok"[..].into(),
            },
            position: Position::new(1, n),
            time_ms: 0,
        };
        let mut content = Content::default();
        content.remember(request(1, 1, 0));
        let one = content.bytes();
        for n in 1..=3_000 {
            content.remember(request(2, n, n.saturating_sub(9)));
            content.remember(request(3, n, 0));
        }
        assert_eq!(content.request_count(), 1 + 10 + 1_024);
        assert_eq!(content.bytes(), one * content.request_count());
    }
}
