//! A door for the benchmarks in `benches/` to a memtable by itself. Not part of the API: it is there only with the feature
//! `bench`, and may change at any time.

use kvclient::{
    position::Position,
    wire::log::{Link, Record},
};

use super::memtable::{Content, Memtable};

/// A memtable without a store around it.
#[derive(Debug, Default)]
pub struct Alone {
    memtable: Memtable,
}

impl Alone {
    /// Adds a frame, as publishing does.
    pub fn apply(&self, end: Link, records: &[(Position, Record)]) {
        let older = vec![None; records.len()];
        let mut content = self.memtable.write();
        content.apply(end, 0, records, &older);
    }

    /// Whether it says anything about a key.
    pub fn has(&self, key: &[u8]) -> bool {
        Content::get(&self.memtable.read(), key).is_some()
    }
}
