//! Large values: flushed a few at a time, so that several memtables may wait for LMDB, and its file stays small.
//!
//! A write transaction that a test holds keeps the flush waiting, so that what is frozen stays so.

use std::{sync::mpsc, thread::scope, time::Duration};

use super::{model::pages, *};
use crate::store::{ScanContent, ScanLimits, ScanRange};

/// As many as make a memtable of 1 MiB full by themselves: on their pages they take an eighth of that.
const FILLING: usize = 3;
const LARGE_BYTES: usize = 40 << 10;

const ALL: ScanLimits = ScanLimits {
    max_entries: 100,
    max_bytes: 64 << 20,
    content: ScanContent::Entries,
};

fn large(byte: u8) -> Vec<u8> {
    vec![byte; LARGE_BYTES]
}

fn frozen(store: &Store) -> usize {
    store.inner.core.view.load().memtables().count() - 1
}

/// Writes enough for one more memtable to be frozen.
fn fill(store: &Store, byte: u8) {
    for n in 0..FILLING {
        store.add(vec![put(&format!("fill{n}"), large(byte), None)]);
    }
}

/// A history over several memtables: in each something about the same keys.
fn changes(store: &Store) {
    store.add(vec![put("kept", "0", None), put("gone", "0", Some(9))]);
    fill(store, 1);
    store.add(vec![put("later", "1", Some(5)), expire("kept", Some(7))]);
    store.add(vec![marked(put("asked", "1", None), 4, 1, 0)]);
    fill(store, 2);
    store.add(vec![delete("gone"), put("later", "2", Some(6))]);
    store.add(vec![marked(put("asked", "2", None), 4, 2, 0)]);
    fill(store, 3);
    store.add(vec![expire("later", Some(8))]);
}

/// All that readers can ask for.
fn seen(store: &Store) -> impl PartialEq + std::fmt::Debug {
    let reversed = ScanRange {
        reverse: true,
        ..ScanRange::all()
    };
    let few = ScanLimits {
        max_entries: 2,
        ..ALL
    };
    let keys = ["kept", "gone", "later", "asked", "fill0", "fill3"];
    (
        keys.map(|key| store.get(key.as_bytes()).unwrap()),
        pages(store, &ScanRange::all(), &ALL),
        pages(store, &reversed, &few),
        store.expired(100, 10).unwrap(),
        store.expired(6, 10).unwrap(),
        store.requests(None, 10).unwrap(),
    )
}

#[test]
fn several_frozen_memtables_are_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.add(vec![Record::epoch_start(7, "a:1")]);
    let held = store.inner.core.env.write().unwrap();
    changes(&store);
    assert_eq!(frozen(&store), 3, "each in turn, and none is in LMDB");
    let before = seen(&store);
    assert_eq!(store.value("later").as_deref(), Some(&b"2"[..]));
    assert_eq!(store.expired(100, 10).unwrap().len(), 2);
    drop(held);
    store.flush().unwrap();
    assert_eq!(frozen(&store), 0);
    assert_eq!(seen(&store), before);
    assert!(store.verify(|_| ()).unwrap().is_sound());
}

/// Each memtable is one transaction with its own `applied`, so between two of them LMDB has the state at a frame's end.
#[test]
fn between_two_flushes_a_crash_leaves_a_sound_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut frames = vec![store.add(vec![Record::epoch_start(7, "a:1")])];
    for byte in 1..40 {
        for n in 0..FILLING {
            let key = format!("k{}", usize::from(byte) * 7 % 5 + n);
            frames.push(store.add(vec![put(&key, large(byte), Some(u64::from(byte)))]));
        }
    }
    let before = pages(&store, &ScanRange::all(), &ALL);
    // It ends behind the transaction that is under way; what is only in memtables is gone, as after a crash.
    assert!(store.close());
    let store = open(dir.path());
    assert!(store.verify(|_| ()).unwrap().is_sound());
    let ends_at_frame = |frame: &TestFrame| frame.link == store.applied();
    assert!(frames.iter().any(ends_at_frame), "{:?}", store.applied());
    frames.iter().for_each(|frame| store.add_frame(frame));
    assert_eq!(pages(&store, &ScanRange::all(), &ALL), before);
    store.flush().unwrap();
    assert!(store.verify(|_| ()).unwrap().is_sound());
}

#[test]
fn writers_wait_when_memtables_weigh_what_two_may() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let limit_bytes = 2 << 20;
    scope(|scope| {
        let held = store.inner.core.env.write().unwrap();
        let (written, heard) = mpsc::channel();
        let store = &store;
        scope.spawn(move || {
            for n in 0..100_u8 {
                store.add(vec![put(&format!("k{n}"), large(n), None)]);
                written.send(()).expect("somebody listens");
            }
        });
        let taken = || heard.recv_timeout(Duration::from_millis(200)).is_ok();
        let mut count = 0;
        while taken() {
            count += 1;
            assert!(store.stats().memtable_bytes <= limit_bytes + LARGE_BYTES + 4096);
        }
        assert!((20..100).contains(&count), "{count} were taken, then none");
        assert_eq!(store.value("k7"), Some(large(7).into()));
        drop(held);
        while count < 100 {
            heard.recv().expect("it goes on");
            count += 1;
        }
    });
    store.flush().unwrap();
    assert_eq!(store.stats().entries, 100);
    assert_eq!(frozen(&store), 0);
}

/// Two flushes of a whole memtable of values of 64 KiB lay free beside what was live: 2.7 times that.
#[test]
fn overwriting_large_values_leaves_little_free_space_in_the_file() {
    for value_bytes in [4_000, 64 << 10, 200 << 10] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let keys = (2 << 20) / value_bytes;
        for round in 0..11_u8 {
            for n in 0..keys {
                let value = vec![round; value_bytes];
                store.add(vec![put(&format!("k{n}"), value, None)]);
            }
        }
        store.flush().unwrap();
        let (used, live) = (store.stats().used_bytes, 2 << 20);
        assert!(used <= 2 * live, "{used} bytes, values of {value_bytes}");
    }
}

#[test]
fn the_checkpoint_at_a_multiple_is_told_behind_many_others() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        checkpoint_every: 100,
        ..small()
    };
    let store = open_with(dir.path(), options);
    for n in 0..120 {
        store.add(vec![put(&format!("k{n}"), "1", None)]);
    }
    for byte in 0..12 {
        fill(&store, byte);
        store.flush().unwrap();
    }
    let told = store.newest_checkpoints(8);
    assert_eq!(told.len(), 9);
    assert_eq!(told[0].position.seq, 100);
    let all = store.checkpoints();
    assert_eq!(told[1..], all[all.len() - 8..]);
    assert_eq!(store.newest_checkpoints(100), all);
}
