//! Single situations: reopening, replay, damage, no room, readers beside a flush.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::store::{Count, CountAt, IDLE_MS, RequestId, StoreError, env::Env};

#[test]
fn what_was_flushed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.meta().applied, Link::default());
    store.add(vec![Record::epoch_start(7, "a:1"), put("a", "1", None)]);
    store.add(vec![
        put("b", "", Some(50)),
        delete("a"),
        put("c", "3", None),
    ]);
    let applied = store.subscribe_applied();
    store.flush().unwrap();
    assert!(applied.has_changed().unwrap());
    store.write_floor(Position::new(1, 9)).unwrap();
    assert_eq!(store.stats().entries, 2);
    assert!(store.close());

    let store = open(dir.path());
    assert_eq!(store.meta().applied.position, Position::new(1, 5));
    assert_eq!(store.meta().applied.crc, 5);
    assert_eq!(store.meta().time_ms, 5);
    assert_eq!(store.meta().durable_floor, Position::new(1, 9));
    assert_eq!(store.lineage().epoch_at(1), 1);
    assert_eq!(store.visible(), Position::new(1, 5));
    assert_eq!(store.value("a"), None);
    assert_eq!(store.value("b"), Some(Bytes::new()));
    let b = store.get(b"b").unwrap().unwrap();
    assert_eq!(
        (b.position, b.expires_at_ms),
        (Position::new(1, 3), Some(50))
    );
    assert_eq!(store.get(b"").unwrap(), None);
    assert_eq!(store.get(&[7; 600]).unwrap(), None);
}

#[test]
fn keys_asked_for_together_are_answered_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = |n: usize| format!("key {n}");
    let puts = |keys: Range<usize>, value: &str| {
        let value = Bytes::copy_from_slice(value.as_bytes());
        keys.map(|n| put(&key(n), value.clone(), None)).collect()
    };
    store.add(vec![Record::epoch_start(7, "a:1")]);
    store.add(puts(0..40, "stored"));
    store.flush().unwrap();
    store.add(puts(20..60, "newer"));
    store.add(vec![delete(&key(0)), delete(&key(30))]);
    let keys: Vec<_> = (0..70).chain(25..35).map(key).collect();
    let together = |max_bytes| store.get_each(keys.iter().map(String::as_bytes), max_bytes);
    let one_by_one = keys.iter().map(|key| store.get(key.as_bytes()).unwrap());
    let found: Result<Vec<_>, _> = together(usize::MAX).into_iter().collect();
    assert_eq!(found.unwrap(), one_by_one.collect::<Vec<_>>());
    assert_eq!(together(0).len(), 2, "what is absent, and the first value");
    assert_eq!(together(6).len(), 3, "one more than there is room for");
    assert!(store.get_each([].into_iter(), 9).is_empty());
}

#[test]
fn a_reign_is_in_the_lineage_when_its_frame_is_visible() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.add(vec![Record::epoch_start(7, "a:1")]);
    assert_eq!(store.lineage().epoch_at(store.visible().seq), 1);
    let again = frame_after(1, vec![Record::epoch_start(8, "a:1")]);
    let error = store.publish(again.link, 0, &again.records);
    assert!(matches!(error, Err(StoreError::Fatal(_))), "epoch 1 twice");
    assert_eq!(store.visible(), Position::new(1, 1), "nothing of it shows");
}

#[test]
fn replay_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let frames = [
        store.add(vec![put("a", "1", None), put("b", "1", Some(9))]),
        store.add(vec![expire("a", Some(5)), delete("b")]),
    ];
    store.flush().unwrap();
    let before = store.checkpoints();
    frames.iter().for_each(|frame| store.add_frame(frame));
    assert_eq!(store.get(b"a").unwrap().unwrap().position.seq, 3);
    assert_eq!(store.value("b"), None);
    store.add(vec![put("c", "1", None)]);
    store.add(vec![delete("c")]);
    store.flush().unwrap();
    let after = store.checkpoints();
    assert_eq!(before[0].digest, after[1].digest, "the same entries again");
    assert_eq!(after[1].position.seq, 6);
    assert!(store.close());
    let floor = open(dir.path()).meta().durable_floor;
    assert_eq!(floor.seq, 6, "what was visible was durable");
}

#[test]
fn a_gap_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let frame = frame_after(5, vec![put("a", "1", None)]);
    let error = store.publish(frame.link, 0, &frame.records);
    assert!(matches!(error, Err(StoreError::Fatal(_))));
}

#[test]
fn another_history_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open(dir.path()).close());
    let error = Store::open(dir.path(), HISTORY + 1, small()).err();
    assert!(matches!(error, Some(StoreError::Refused(_))), "{error:?}");
}

/// A generation whose environment had gone was opened as an empty one, by `kvnode check` too.
#[test]
fn a_store_that_is_gone_is_refused_and_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let lmdb = dir.path().join("lmdb");
    let refused = |part: &str| {
        let error = Store::open(&lmdb, HISTORY, small()).err();
        assert!(
            matches!(&error, Some(StoreError::Refused(why)) if why.contains(part)),
            "{error:?}"
        );
    };
    refused("data.mdb is gone or empty");
    assert!(!lmdb.exists(), "nothing was made");
    std::fs::create_dir(&lmdb).unwrap();
    std::fs::write(lmdb.join("data.mdb"), b"").unwrap();
    refused("data.mdb is gone or empty");
    assert!(Env::open(&lmdb, 1 << 20, 10).unwrap().close());
    refused("does not say which history");
}

#[test]
fn a_store_is_not_made_over_another() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open(dir.path()).close());
    let error = Store::create(dir.path(), HISTORY, &small()).err();
    assert!(matches!(error, Some(StoreError::Refused(_))), "{error:?}");
}

#[test]
fn expire_copies_up_what_is_only_in_lmdb() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.add(vec![put("a", "1", None)]);
    store.flush().unwrap();
    store.add(vec![expire("a", Some(70)), expire("absent", Some(70))]);
    let a = store.get(b"a").unwrap().unwrap();
    assert_eq!(
        (a.position.seq, a.expires_at_ms, a.value),
        (2, Some(70), Bytes::from_static(b"1"))
    );
    assert_eq!(store.get(b"absent").unwrap(), None);
    store.add(vec![
        delete("a"),
        expire("a", None),
        put("a", "2", None),
        expire("a", Some(1)),
    ]);
    let a = store.get(b"a").unwrap().unwrap();
    assert_eq!((a.position.seq, a.value), (7, Bytes::from_static(b"2")));
}

#[test]
fn a_flipped_bit_is_never_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.add(vec![put("a", "precious", None), put("b", "fine", None)]);
    store.flush().unwrap();
    store.close();
    let env = Env::open(dir.path(), 1 << 20, 10).unwrap();
    let mut txn = env.write().unwrap();
    let mut row = env.data.get(&txn, b"a").unwrap().unwrap().to_vec();
    *row.last_mut().unwrap() ^= 1;
    env.data.put(&mut txn, b"a", &row).unwrap();
    txn.commit().unwrap();
    assert!(env.close());

    let store = open(dir.path());
    let error = store.get(b"a");
    assert!(
        matches!(error, Err(StoreError::Damaged { .. })),
        "{error:?}"
    );
    assert_eq!(store.stats().damaged_reads, 1);
    assert_eq!(store.value("b").as_deref(), Some(&b"fine"[..]));
    // Its expiry cannot be changed, yet the node goes on; and it can be overwritten.
    store.add(vec![expire("a", Some(5))]);
    assert!(store.get(b"a").is_err());
    store.add(vec![put("a", "new", None)]);
    store.flush().unwrap();
    assert_eq!(store.value("a").as_deref(), Some(&b"new"[..]));
}

#[test]
fn no_room_keeps_what_is_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        map_size_bytes: 512 << 10,
        ..small()
    };
    let store = open_with(dir.path(), options.clone());
    store.add(vec![put("small", "1", None)]);
    store.flush().unwrap();
    let big = Bytes::from(vec![7; 600 << 10]);
    store.add(vec![put("big", big.clone(), None)]);
    assert!(matches!(store.flush(), Err(StoreError::Full(_))));
    assert!(matches!(store.can_accept(), Err(StoreError::Full(_))));
    assert!(store.stats().no_room);
    assert_eq!(store.value("big"), Some(big.clone()));
    assert_eq!(store.value("small").as_deref(), Some(&b"1"[..]));
    // Frames that are durable already still go in, beyond two memtables' worth.
    for n in 0..4 {
        store.add(vec![put(&format!("more{n}"), big.clone(), None)]);
    }
    assert_eq!(store.value("more3"), Some(big.clone()));
    assert_eq!(store.applied().position.seq, 1);
    assert!(store.subscribe_failure().borrow().is_none());
    assert!(store.close());

    let larger = StoreOptions {
        map_size_bytes: 64 << 20,
        ..options
    };
    let store = open_with(dir.path(), larger);
    assert_eq!(store.visible().seq, 1, "the rest comes from the log again");
    store.add(vec![put("big", big.clone(), None)]);
    store.flush().unwrap();
    assert!(store.can_accept().is_ok());
}

/// The flush is stopped at no particular point: readers must find the old or the new value in each state between.
#[test]
fn readers_beside_a_flush_never_miss() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.add(vec![put("k", vec![0; 8], None)]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut newest = 0;
                while !done.load(Ordering::Relaxed) {
                    let floor = store.visible().seq;
                    let entry = store.get(b"k").unwrap().expect("it is never absent");
                    assert!(
                        entry.position.seq >= newest.max(floor),
                        "older than what was seen"
                    );
                    assert!(
                        store.visible() >= entry.position,
                        "seen before it was visible"
                    );
                    newest = entry.position.seq;
                }
            });
        }
        for n in 1..200_u64 {
            store.add(vec![put("k", n.to_le_bytes().to_vec(), None)]);
            if n % 2 == 0 {
                store.flush().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(store.stats().flushes >= 99);
}

#[test]
fn a_full_memtable_is_flushed_by_itself_and_memory_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        memtable_bytes: 64 << 10,
        ..small()
    };
    let store = open_with(dir.path(), options);
    let mut applied = store.subscribe_applied();
    for n in 0..200 {
        store.add(vec![put(&format!("k{n}"), vec![1; 4096], None)]);
        assert!(store.stats().memtable_bytes <= 2 * (64 << 10) + 8192);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime
        .block_on(applied.wait_for(|link| link.position.seq > 150))
        .unwrap();
    for n in 0..200 {
        assert!(store.value(&format!("k{n}")).is_some(), "k{n}");
    }
}

#[test]
fn checkpoints_stand_at_multiples_whatever_the_frames() {
    let digests = |frames: &[usize]| {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            checkpoint_every: 100,
            ..small()
        };
        let store = open_with(dir.path(), options);
        let mut keys = 0_usize..;
        for (&len, flush) in frames.iter().zip([true, false].into_iter().cycle()) {
            let keys = keys.by_ref().take(len);
            store.add(
                keys.map(|n| put(&format!("k{}", n % 30), n.to_string(), None))
                    .collect(),
            );
            if flush {
                store.flush().unwrap();
            }
        }
        store.flush().unwrap();
        let checkpoints = store.checkpoints();
        let at = |seq| checkpoints.iter().find(|c| c.position.seq == seq).copied();
        (at(100), at(200))
    };
    let one = digests(&[100; 3]);
    let other = digests(&[10; 25]);
    assert!(one.0.is_some() && one.1.is_some());
    assert_eq!(one, other);
}

/// Two stores that flush where they like are compared where somebody says.
#[test]
fn what_is_contained_at_a_seq_is_the_same_whatever_was_flushed_before() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let counts = dirs.each_ref().map(|dir| {
        let store = open(dir.path());
        for n in 0..10 {
            store.add(vec![
                put("a", n.to_string(), None),
                delete("b"),
                put(&n.to_string(), "", None),
            ]);
            if n == 4 && dir.path() == dirs[0].path() {
                store.flush().unwrap();
            }
        }
        // Wanted before it is there: the first frame end behind it counts, and nothing later.
        assert!(matches!(store.count_at(32), Ok(CountAt::Waiting)));
        store.add(vec![
            put("c", "1", None),
            put("d", "1", None),
            put("e", "1", None),
        ]);
        store.add(vec![put("f", "1", None)]);
        assert!(matches!(store.count_at(31), Ok(CountAt::Passed(at)) if at.seq == 34));
        let behind = count_of(&store, 32);
        // Wanted when it is the last one.
        let last = count_of(&store, 34);
        assert_eq!((behind.position().seq, last.position().seq), (33, 34));
        assert_eq!((behind.sums().entries(), last.sums().entries()), (14, 15));
        [behind.sums().clone(), last.sums().clone()]
    });
    assert_eq!(counts[0], counts[1]);
}

fn count_of(store: &Store, seq: Seq) -> Count {
    store.count_at(seq).unwrap();
    store.flush().unwrap();
    match store.count_at(seq).unwrap() {
        CountAt::Counted(count) => count,
        other => panic!("seq {seq} is not counted: {other:?}"),
    }
}

#[test]
fn remembered_requests_are_dropped_below_their_clients_floor() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 1..=5 {
        store.add(vec![marked(put("a", "1", None), 1, n, 0)]);
        store.add(vec![marked(put("a", "1", None), 2, n, n.saturating_sub(1))]);
    }
    store.flush().unwrap();
    let env = &store.inner.core.env;
    let txn = env.read().unwrap();
    assert_eq!(env.requests.len(&txn).unwrap(), 5 + 2);
}

#[test]
fn a_flush_forgets_clients_that_are_idle() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let add = |records, time_ms| {
        let frame = frame_after(store.visible().seq, records);
        store.publish(frame.link, time_ms, &frame.records).unwrap();
    };
    let clients = |store: &Store| {
        let requests = store.requests(None, 100).unwrap();
        requests.into_iter().map(|request| request.id()).collect()
    };
    add(vec![marked(put("a", "1", None), 1, 1, 1)], 1_000);
    add(vec![marked(put("a", "1", None), 2, 1, 1)], 2_000);
    store.flush().unwrap();
    add(vec![marked(put("a", "1", None), 3, 1, 1)], 1_001 + IDLE_MS);
    store.flush().unwrap();
    let left: Vec<RequestId> = clients(&store);
    assert_eq!(left, [(2, 1), (3, 1)]);
}
