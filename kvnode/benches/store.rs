//! What the store costs: a memtable by itself, and reads of memtables over LMDB.
//!
//! 100,000 entries of 100 bytes lie in LMDB; every tenth of them is newer in the memtable above it. Keys are scattered,
//! so that those asked for one after the other are not neighbours.

#![allow(missing_docs, reason = "criterion's macros make functions without any")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails says where")]

use std::{
    hint::black_box,
    ops::Bound,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kvclient::{
    position::Position,
    wire::log::{Effect, Link, Record},
};
use kvnode::store::{ScanContent, ScanLimits, ScanRange, Store, StoreOptions, bench::Alone};

const ENTRIES: u64 = 100_000;
const FRAME: u64 = 50;
const HISTORY: u128 = 7;

/// A key whose order is unlike that of its number.
fn key(number: u64) -> Bytes {
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into()
}

fn put(number: u64) -> Record {
    let effect = Effect::Put {
        value: Bytes::from_static(&[b'v'; 100]),
        expires_at_ms: None,
    };
    Record::new(key(number), effect)
}

/// The frame behind a seq.
fn frame(after: u64, records: Vec<Record>) -> (Link, Vec<(Position, Record)>) {
    let positions = (after + 1..).map(|seq| Position::new(1, seq));
    let records: Vec<_> = positions.zip(records).collect();
    let position = records.last().unwrap().0;
    (Link { position, crc: 0 }, records)
}

/// Numbers one after the other, over all entries again and again.
fn numbers() -> impl Fn() -> u64 {
    let next = AtomicU64::new(0);
    move || next.fetch_add(1, Ordering::Relaxed) % ENTRIES
}

fn publish(store: &Store, records: Vec<Record>) {
    let (link, records) = frame(store.visible().seq, records);
    store.publish(link, 0, &records).unwrap();
}

fn store(dir: &Path) -> Store {
    let options = StoreOptions::default();
    Store::create(dir, HISTORY, &options).unwrap();
    let store = Store::open(dir, HISTORY, options).unwrap();
    publish(&store, vec![Record::epoch_start(7, "localhost:8080")]);
    let numbers: Vec<u64> = (0..ENTRIES).collect();
    for part in numbers.chunks(500) {
        publish(&store, part.iter().map(|number| put(*number)).collect());
    }
    store.flush().unwrap();
    let newer: Vec<u64> = (0..ENTRIES).step_by(10).collect();
    for part in newer.chunks(500) {
        publish(&store, part.iter().map(|number| put(*number)).collect());
    }
    store
}

/// A memtable of all entries.
fn filled() -> Alone {
    let memtable = Alone::default();
    for first in (0..ENTRIES).step_by(500) {
        let records = (first..first + 500).map(put).collect();
        let (link, records) = frame(first, records);
        memtable.apply(link, &records);
    }
    memtable
}

fn memtable(c: &mut Criterion) {
    let mut group = c.benchmark_group("memtable");
    let (memtable, next) = (filled(), numbers());
    group.bench_function("get", |b| {
        b.iter_batched(
            || key(next()),
            |key| assert!(memtable.has(black_box(&key))),
            BatchSize::SmallInput,
        )
    });
    group.throughput(Throughput::Elements(FRAME));
    let seq = AtomicU64::new(ENTRIES);
    group.bench_function(format!("put {FRAME}"), |b| {
        b.iter_batched(
            || {
                let records = (0..FRAME).map(|_| put(next())).collect();
                frame(seq.fetch_add(FRAME, Ordering::Relaxed), records)
            },
            |(link, records)| memtable.apply(link, &records),
            BatchSize::SmallInput,
        )
    });
}

fn reads(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut group = c.benchmark_group("store");
    let get = |key: Bytes| store.get(black_box(&key)).unwrap();
    let next = numbers();
    for (name, place) in [("get from the memtable", 0), ("get from LMDB", 1)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || key(next() % (ENTRIES / 10) * 10 + place),
                |key| get(key).unwrap(),
                BatchSize::SmallInput,
            )
        });
    }
    group.bench_function("get what is absent", |b| {
        b.iter_batched(
            || key(next() + ENTRIES),
            |key| assert!(get(key).is_none()),
            BatchSize::SmallInput,
        )
    });
    for entries in [1, 100] {
        group.throughput(Throughput::Elements(entries));
        scan(&mut group, &store, usize::try_from(entries).unwrap());
    }
}

fn scan(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    store: &Store,
    max_entries: usize,
) {
    let next = numbers();
    let limits = ScanLimits {
        max_entries,
        max_bytes: 1 << 20,
        content: ScanContent::Entries,
    };
    group.bench_function(format!("scan {max_entries}"), |b| {
        b.iter_batched(
            || ScanRange {
                start: Bound::Included(key(next())),
                ..ScanRange::all()
            },
            |range| store.scan(black_box(&range), &limits).unwrap(),
            BatchSize::SmallInput,
        )
    });
}

criterion_group! {
    name = benches;
    config = kvclient::bench::settings();
    targets = memtable, reads
}
criterion_main!(benches);
