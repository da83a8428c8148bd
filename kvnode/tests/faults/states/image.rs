//! Starts on what a crash may have left, and judges what is there.
//!
//! In this process, by the parts that a node is made of, since a process for each of thousands of states takes too
//! long; every so many states a real node starts on one as well.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use kvclient::{
    position::{Position, Seq},
    shard_map::{Role, Shard, toml},
    wire::log::{Effect, Frame},
};
use kvnode::{
    clock::ShardClock,
    config::Sizes,
    data_dir::DataDir,
    durable::DataError,
    marker::{Order, State},
    offline, storage,
    storage::Storage,
};

use crate::support::cluster::map_text;

/// How often a lock is tried for.
const FORKS: usize = 100;

/// What was written in truth: every record, in order.
pub(super) struct Truth {
    records: Vec<(Position, Bytes, Effect)>,
    keys: Vec<Bytes>,
}

/// Whose data is looked at.
#[derive(Debug)]
pub(super) struct Owner {
    shard: Shard,
    role: Role,
    sizes: Sizes,
}

impl Owner {
    /// A node in this role, with the sizes of the cluster tests.
    pub(super) fn new(role: Role) -> Self {
        let map = map_text(1, &["127.0.0.1:1".to_owned()], 1);
        let map = toml::parse(&map, "a map of the test").expect("a map");
        Self {
            shard: map.shards()[0].clone(),
            role,
            sizes: Sizes {
                log_segment_bytes: 4100 << 10,
                memtable_bytes: 64 << 10,
                map_bytes: 1 << 30,
                ..Sizes::default()
            },
        }
    }

    /// Recovers the data in `data` and judges it: every promised seq is there, the data is what the log says at its
    /// end, and all checks find it sound. Gives the seq up to which it goes.
    pub(super) fn judge(&self, data: &Path, truth: &Truth, promised: Seq) -> Result<Seq, String> {
        self.check(data, "before the start")?;
        let end = self.recover(data, truth)?;
        if end < promised {
            return Err(format!("ends at seq {end}, but {promised} was promised"));
        }
        self.check(data, "after the start")?;
        Ok(end)
    }

    fn recover(&self, data: &Path, truth: &Truth) -> Result<Seq, String> {
        let dir = self.open(data);
        let dir = dir.map_err(|error| format!("refused: {error}"))?;
        if dir.marker().state == State::Creating {
            return Ok(0);
        }
        let path = dir.current().map_err(|error| error.to_string())?;
        let history = dir.history().ok_or("no history")?;
        let clock = Arc::new(ShardClock::start(0));
        let failures = tokio::sync::mpsc::channel(1).0;
        let opened = storage::open(&path, history, &self.sizes, &clock, &failures);
        let (storage, threads) = opened.map_err(|error| format!("refused: {error}"))?;
        let judged = truth.compare(&storage);
        storage.commit.stop();
        drop(storage);
        threads.close().map_err(|error| error.to_string())?;
        judged
    }

    fn open(&self, data: &Path) -> Result<DataDir, DataError> {
        let open = || DataDir::open(data, &self.shard, self.role, Order::None);
        // Whatever another test of this process forks has the lock too, until it has become another program.
        for _ in 0..FORKS {
            match open() {
                Err(DataError::InUse(_)) => std::thread::park_timeout(Duration::from_millis(10)),
                opened => return opened,
            }
        }
        open()
    }

    fn check(&self, data: &Path, when: &str) -> Result<(), String> {
        let mut said = Vec::new();
        // Without a marker there is nothing to look at.
        match offline::check(data, &mut said) {
            Ok(false) => Err(format!("check, {when}: {}", String::from_utf8_lossy(&said))),
            Ok(true) | Err(_) => Ok(()),
        }
    }
}

impl Truth {
    /// Reads it from the bytes of a log, which has every record from the first.
    pub(super) fn read(log: Vec<u8>) -> Self {
        let (mut bytes, mut records) = (Bytes::from(log), Vec::new());
        while !bytes.is_empty() {
            let frame = Frame::split_from(&mut bytes).expect("a frame");
            for (position, record) in frame.records().expect("records") {
                records.push((position, record.key, record.effect));
            }
        }
        let mut keys: Vec<Bytes> = records.iter().map(|(_, key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| !key.is_empty());
        Self { records, keys }
    }

    /// Every key.
    pub(super) fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    /// What a key has after `seq`.
    pub(super) fn at(&self, key: &[u8], seq: Seq) -> Option<(Position, &Bytes)> {
        let mut before = self.records.iter().rev();
        let newest = before.find(|(at, other, _)| at.seq <= seq && other == key)?;
        match newest {
            (at, _, Effect::Put { value, .. }) => Some((*at, value)),
            _ => None,
        }
    }

    fn compare(&self, storage: &Storage) -> Result<Seq, String> {
        let (durable, visible) = (storage.log.durable(), storage.store.visible());
        if durable != visible {
            return Err(format!("durable {durable}, visible {visible}"));
        }
        let seq = durable.seq;
        let known = self.records.iter().any(|(at, _, _)| *at == durable);
        if seq > 0 && !known {
            return Err(format!("ends at {durable}, which was never written"));
        }
        for key in &self.keys {
            let found = storage.store.get(key).map_err(|error| error.to_string())?;
            let found = found.as_ref().map(|entry| (entry.position, &entry.value));
            if found != self.at(key, seq) {
                let key = key.escape_ascii();
                return Err(format!("at {durable}, {key} is not what it was"));
            }
        }
        let verified = storage
            .store
            .verify(|_| {})
            .map_err(|error| error.to_string())?;
        match verified.is_sound() {
            true => Ok(seq),
            false => Err(format!("{:?}", verified.problems)),
        }
    }
}
