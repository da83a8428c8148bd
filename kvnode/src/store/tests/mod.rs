//! Tests of the store as a whole, and what they share.

mod basics;
mod branches;
mod copies;
mod large;
mod measure;
mod model;
mod scans;

use std::path::Path;

use bytes::Bytes;
use kvclient::{
    position::{Position, Seq},
    wire::log::{Effect, Link, Record, RequestMark},
};

use super::{Store, StoreOptions, env};

const HISTORY: u128 = 0xfeed;

/// A store with small memtables and a small map.
fn small() -> StoreOptions {
    StoreOptions {
        map_size_bytes: 64 << 20,
        memtable_bytes: 1 << 20,
        checkpoint_every: 1000,
        max_readers: 64,
    }
}

/// Opens a store, made if missing.
fn open(dir: &Path) -> Store {
    open_with(dir, small())
}

fn open_with(dir: &Path, options: StoreOptions) -> Store {
    if !env::exists(dir) {
        Store::create(dir, HISTORY, &options).unwrap();
    }
    Store::open(dir, HISTORY, options).unwrap()
}

fn put(key: &str, value: impl Into<Bytes>, expires_at_ms: Option<u64>) -> Record {
    let effect = Effect::Put {
        value: value.into(),
        expires_at_ms,
    };
    Record::new(Bytes::copy_from_slice(key.as_bytes()), effect)
}

fn delete(key: &str) -> Record {
    let effect = Effect::Delete { by_expiry: false };
    Record::new(Bytes::copy_from_slice(key.as_bytes()), effect)
}

fn expire(key: &str, expires_at_ms: Option<u64>) -> Record {
    let effect = Effect::Expire { expires_at_ms };
    Record::new(Bytes::copy_from_slice(key.as_bytes()), effect)
}

fn marked(record: Record, client: u128, n: u64, floor: u64) -> Record {
    let mark = RequestMark {
        client,
        n,
        floor,
        digest: n,
        outcome: b"ok"[..].into(),
    };
    Record {
        mark: Some(mark),
        ..record
    }
}

/// A frame as the log would give it.
#[derive(Debug, Clone)]
struct TestFrame {
    link: Link,
    records: Vec<(Position, Record)>,
}

/// The frame behind `seq`, in epoch 1. The first record of all is an `epoch_start`.
fn frame_after(seq: Seq, records: Vec<Record>) -> TestFrame {
    let records: Vec<_> = (seq + 1..)
        .map(|seq| Position::new(1, seq))
        .zip(records)
        .collect();
    let (position, _) = records.last().expect("a frame has records");
    let crc = u32::try_from(position.seq).expect("tests are short");
    let link = Link {
        position: *position,
        crc,
    };
    TestFrame { link, records }
}

impl Store {
    /// Publishes the next frame.
    fn add(&self, records: Vec<Record>) -> TestFrame {
        let frame = frame_after(self.visible().seq, records);
        self.add_frame(&frame);
        frame
    }

    fn add_frame(&self, frame: &TestFrame) {
        self.publish(frame.link, frame.link.position.seq, &frame.records)
            .expect("it follows");
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        let entry = self.get(key.as_bytes()).expect("not damaged");
        entry.map(|entry| entry.value)
    }
}
