//! Copies made through scans and staging, and verification.

use std::path::PathBuf;

use super::{model::pages, *};
use crate::store::{
    Entry, ScanContent, ScanLimits, ScanRange, Staging, StoreError, env::Env, tables::expiry_key,
};

const PAGE: ScanLimits = ScanLimits {
    max_entries: 3,
    max_bytes: 1 << 20,
    content: ScanContent::Entries,
};

fn key(n: u64) -> String {
    format!("key{:02}", n % 40)
}

/// The record number `n` of a history in which every effect happens.
fn change(n: u64) -> Record {
    match n % 5 {
        0 => delete(&key(n / 3)),
        1 => expire(&key(n / 2), Some(n)),
        2 => marked(put(&key(n * 7), n.to_string(), None), 1, n, 0),
        _ => put(&key(n * 7), n.to_string(), Some(1000 - n)),
    }
}

fn fill(store: &Store, changes: std::ops::Range<u64>) -> Vec<TestFrame> {
    let numbers: Vec<_> = changes.collect();
    let frames = numbers.chunks(4);
    frames
        .map(|frame| store.add(frame.iter().map(|n| change(*n)).collect()))
        .collect()
}

/// Reads a store page by page while it goes on, as a primary does for a new replica. Gives the frames behind the start.
fn copy(source: &Store, staging: &mut Staging) -> Vec<TestFrame> {
    let mut after = None;
    loop {
        let requests = source.requests(after, 3).unwrap();
        let Some(last) = requests.last() else { break };
        after = Some((last.mark.client, last.mark.n));
        staging.put_requests(&requests).unwrap();
    }
    let (mut frames, mut range) = (Vec::new(), ScanRange::all());
    for n in 0.. {
        let page = source.scan(&range, &PAGE).unwrap();
        staging.put_entries(&page.entries).unwrap();
        frames.extend(fill(source, 200 + n * 9..209 + n * 9));
        if n == 1 {
            source.flush().unwrap();
        }
        let last = page.entries.last().filter(|_| page.more);
        let Some((last, _)) = last else { break };
        range = range.after(last.clone());
    }
    frames
}

#[test]
fn a_copy_made_while_the_source_goes_on_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    let source = open(&dir.path().join("source"));
    source.add(vec![Record::epoch_start(7, "a:1")]);
    fill(&source, 0..100);
    source.flush().unwrap();
    fill(&source, 100..200);
    let options = StoreOptions {
        memtable_bytes: 1000,
        ..small()
    };
    let target = dir.path().join("target");
    let mut staging = Staging::create(&target, HISTORY, &options).unwrap();
    let frames = copy(&source, &mut staging);
    assert!(frames.len() > 10, "the source went on");
    for frame in &frames {
        staging
            .apply_frame(frame.link, frame.link.position.seq, &frame.records)
            .unwrap();
    }
    let end = frames.last().unwrap().link;
    let lineage = source.lineage().as_ref().clone();
    staging.finish(end, end.position.seq, lineage).unwrap();
    source.flush().unwrap();

    let copy = open(&target);
    assert_eq!(copy.applied(), source.applied());
    let all = |store: &Store| pages(store, &ScanRange::all(), &PAGE);
    assert_eq!(all(&copy), all(&source));
    assert_eq!(copy.requests(None, 1000), source.requests(None, 1000));
    assert!(copy.verify(|_| ()).unwrap().is_sound());
    let digest = |store: &Store| store.checkpoints().last().unwrap().digest;
    let next = frame_after(end.position.seq, vec![put("next", "1", None)]);
    for store in [&copy, &source] {
        store.add_frame(&next);
        store.flush().unwrap();
    }
    assert_eq!(digest(&copy), digest(&source));
}

#[test]
fn an_unfinished_copy_is_not_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut staging = Staging::create(dir.path(), HISTORY, &small()).unwrap();
    staging.put_entries(&[entry_at(5)]).unwrap();
    drop(staging);
    let refused = |error: Option<StoreError>| matches!(error, Some(StoreError::Refused(_)));
    assert!(refused(Store::open(dir.path(), HISTORY, small()).err()));
    assert!(refused(
        Staging::create(dir.path(), HISTORY, &small()).err()
    ));
}

#[test]
fn a_copy_that_ends_too_early_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut staging = Staging::create(dir.path(), HISTORY, &small()).unwrap();
    staging.put_entries(&[entry_at(5)]).unwrap();
    let end = frame_after(3, vec![delete("other")]).link;
    let refused = staging.finish(end, 4, lineage());
    assert!(matches!(refused, Err(StoreError::Refused(_))));
}

/// The entry of key `k` that record `seq` made.
fn entry_at(seq: Seq) -> (Bytes, Entry) {
    let entry = Entry {
        position: Position::new(1, seq),
        expires_at_ms: Some(seq),
        value: Bytes::from(seq.to_string()),
    };
    (Bytes::from_static(b"k"), entry)
}

#[test]
fn of_an_entry_that_comes_twice_the_newer_stays() {
    for memtable_bytes in [1, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            memtable_bytes,
            ..small()
        };
        let mut staging = Staging::create(dir.path(), HISTORY, &options).unwrap();
        staging
            .put_entries(&[entry_at(3), entry_at(5), entry_at(4)])
            .unwrap();
        // What made the entry so comes again, then something new.
        let again = frame_after(3, vec![put("k", "4", None), put("k", "5", Some(5))]);
        let new = frame_after(5, vec![expire("k", Some(99))]);
        for frame in [&again, &new] {
            staging.apply_frame(frame.link, 5, &frame.records).unwrap();
        }
        let late = staging.put_entries(&[entry_at(5)]);
        assert!(
            matches!(late, Err(StoreError::Refused(_))),
            "entries behind frames"
        );
        staging.finish(new.link, 5, lineage()).unwrap();
        let store = open(dir.path());
        let k = store.get(b"k").unwrap().unwrap();
        assert_eq!(
            (k.position.seq, k.expires_at_ms, k.value),
            (6, Some(99), entry_at(5).1.value)
        );
        assert!(store.verify(|_| ()).unwrap().is_sound());
    }
}

fn lineage() -> kvclient::position::Lineage {
    let mut lineage = kvclient::position::Lineage::new();
    let reign = kvclient::position::Reign {
        epoch: 1,
        first_seq: 1,
        reign_id: 7,
    };
    lineage.push(reign).unwrap();
    lineage
}

/// A sound store, closed, whose tables a test then damages.
fn sound_store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmdb");
    let store = open(&path);
    store.add(vec![Record::epoch_start(7, "a:1")]);
    fill(&store, 0..100);
    store.add(vec![put("temporary", "x", Some(77))]);
    store.flush().unwrap();
    let report = store.verify(|_| ()).unwrap();
    assert!(report.complete && report.is_sound(), "{report:?}");
    assert!(report.entries > 20);
    assert!(store.close());
    (dir, path)
}

#[test]
fn verification_sees_every_kind_of_damage() {
    type Damage = fn(&Env, &mut heed::RwTxn);
    let kinds: [(&str, Damage); 5] = [
        ("its checksum is wrong", |env, txn| {
            let mut row = env.data.get(txn, b"temporary").unwrap().unwrap().to_vec();
            *row.last_mut().unwrap() ^= 1;
            env.data.put(txn, b"temporary", &row).unwrap();
        }),
        ("its expiry is not in the index", |env, txn| {
            let (row, _) = env.expiry.first(txn).unwrap().unwrap();
            let row = row.to_vec();
            env.expiry.put(txn, &row, b"another").unwrap();
        }),
        ("the index of expiries has", |env, txn| {
            env.expiry.put(txn, &expiry_key(1, 1), b"ghost").unwrap();
        }),
        ("should be", |env, txn| {
            let (key, _) = env.data.first(txn).unwrap().unwrap();
            let key = key.to_vec();
            assert!(env.data.delete(txn, &key).unwrap());
        }),
        ("request", |env, txn| {
            let (key, row) = env.requests.first(txn).unwrap().unwrap();
            let (key, mut row) = (key.to_vec(), row.to_vec());
            row[0] ^= 1;
            env.requests.put(txn, &key, &row).unwrap();
        }),
    ];
    for (problem, damage) in kinds {
        let (_dir, path) = sound_store();
        let env = Env::open(&path, 1 << 20, 10).unwrap();
        let mut txn = env.write().unwrap();
        damage(&env, &mut txn);
        txn.commit().unwrap();
        assert!(env.close());
        let report = open(&path).verify(|_| ()).unwrap();
        let told = report.problems.iter().any(|told| told.contains(problem));
        assert!(told, "{problem:?} is not in {:?}", report.problems);
    }
}

#[test]
fn a_verification_in_steps_sees_one_state_while_the_store_goes_on() {
    let (_dir, path) = sound_store();
    let store = open(&path);
    let mut verifier = store.verifier().unwrap();
    let mut steps = 0;
    while verifier.step(100).unwrap() {
        steps += 1;
        fill(&store, 100 + steps * 4..104 + steps * 4);
        store.flush().unwrap();
    }
    assert!(steps > 5);
    assert!(verifier.report().is_sound(), "{:?}", verifier.report());
    drop(verifier);
    assert!(store.verify(|_| ()).unwrap().is_sound());
    assert!(store.close());
}
