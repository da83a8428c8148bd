//! Measurements whose figures stand in the headers of `read` and `flush`. They prove nothing and are run by hand:
//! `cargo test --release -p kvnode --lib store::tests::measure -- --ignored --nocapture --test-threads 1`

use std::{hint::black_box, time::Instant};

use super::*;

const ENTRIES: u64 = 2_000_000;

/// A key whose order is unlike that of its number.
fn scattered(n: u64) -> String {
    format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn add_all(store: &Store, numbers: impl Iterator<Item = u64>) {
    let numbers: Vec<_> = numbers.collect();
    for frame in numbers.chunks(500) {
        let records = frame
            .iter()
            .map(|n| put(&scattered(*n), vec![7; 100], None));
        store.add(records.collect());
    }
}

/// Memory of this process, without what is mapped from files.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon"));
    line.unwrap().to_owned()
}

#[test]
#[ignore = "a measurement"]
fn memory_of_a_memtable() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        memtable_bytes: 1 << 30,
        ..StoreOptions::default()
    };
    let store = open_with(dir.path(), options);
    println!("before: {}", memory());
    // Then the table has just doubled.
    for (from, to) in [(0, 400_000), (400_000, 460_000)] {
        add_all(&store, from..to);
        println!("{to} entries: {}, {:?}", memory(), store.stats());
    }
}

/// Nothing is flushed before it is asked for.
fn in_one_memtable() -> StoreOptions {
    StoreOptions {
        memtable_bytes: 1 << 30,
        checkpoint_every: u64::MAX,
        ..StoreOptions::default()
    }
}

/// What the commit thread and readers do most: overwrite keys that are in the memtable already, and read them.
#[test]
#[ignore = "a measurement"]
fn overwrites_and_reads_in_a_memtable() {
    const KEYS: u64 = 33_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), in_one_memtable());
    let started = Instant::now();
    add_all(&store, 0..KEYS);
    println!("a new key: {:?}", started.elapsed() / 33_000);
    let random = |n: u64| n.wrapping_mul(7919 * 7919) % KEYS;
    let record = |n| put(&scattered(random(n)), vec![7; 100], None);
    let frames: Vec<Vec<Record>> = (0..2_000)
        .map(|frame| (frame * 100..(frame + 1) * 100).map(record).collect())
        .collect();
    let started = Instant::now();
    for records in frames {
        store.add(records);
    }
    println!("an overwrite: {:?}", started.elapsed() / 200_000);
    let keys: Vec<_> = (0..500_000).map(|n| scattered(random(n))).collect();
    let started = Instant::now();
    for key in &keys {
        black_box(store.get(key.as_bytes()).unwrap().unwrap());
    }
    println!("a read: {:?}", started.elapsed() / 500_000);
}

/// More dirty pages than LMDB keeps in memory in one transaction: it has to write some before the commit.
#[test]
#[ignore = "a measurement"]
fn a_flush_that_spills() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), in_one_memtable());
    store.add(vec![Record::epoch_start(7, "a:1")]);
    for part in 0..4 {
        add_all(&store, part * 1_500_000..(part + 1) * 1_500_000);
        store.flush().unwrap();
    }
    let random = |n: u64| n.wrapping_mul(7919 * 7919) % 6_000_000;
    add_all(&store, (0..400_000).map(random));
    println!("before: {}", memory());
    let started = Instant::now();
    store.flush().unwrap();
    println!(
        "400000 random entries of 6000000 flushed in {:?}, {}",
        started.elapsed(),
        memory()
    );
    let report = store.verify(|_| ()).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[test]
#[ignore = "a measurement"]
fn reads_and_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), StoreOptions::default());
    let started = Instant::now();
    add_all(&store, 0..ENTRIES);
    store.flush().unwrap();
    println!(
        "{ENTRIES} entries put and flushed in {:?}: {:?}",
        started.elapsed(),
        store.stats()
    );

    for keys in [100_000, ENTRIES] {
        time_reads(&store, keys, 1);
        time_reads(&store, keys, 2);
    }

    let started = Instant::now();
    add_all(&store, (0..200_000).map(|n| n * 7919 % ENTRIES));
    println!(
        "200000 random entries published in {:?}: {:?}",
        started.elapsed(),
        store.stats()
    );
    let started = Instant::now();
    store.flush().unwrap();
    println!(
        "and flushed in {:?}: {:?}",
        started.elapsed(),
        store.stats()
    );

    add_all(&store, 0..100_000);
    let started = Instant::now();
    for n in 0..100_000 {
        black_box(store.get(scattered(n).as_bytes()).unwrap());
    }
    println!("a read from a memtable: {:?}", started.elapsed() / 100_000);
    let started = Instant::now();
    store.verify(|_| ()).unwrap();
    println!("verified in {:?}", started.elapsed());
}

fn time_reads(store: &Store, keys: u64, threads: u64) {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for n in 0..500_000 {
                    let key = scattered((n * 7919 + thread) % keys);
                    black_box(store.get(key.as_bytes()).unwrap().unwrap());
                }
            });
        }
    });
    println!(
        "a read from LMDB, of {keys} keys, {threads} threads: {:?}",
        started.elapsed() / 500_000
    );
}
