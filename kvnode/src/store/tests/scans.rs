//! Scans where memtables are larger than a page, and beside writers.

use std::ops::Bound;

use super::{model::pages, *};
use crate::store::{ScanContent, ScanLimits, ScanRange};

fn limits(max_entries: usize) -> ScanLimits {
    ScanLimits {
        max_entries,
        max_bytes: 1 << 20,
        content: ScanContent::Entries,
    }
}

#[test]
fn many_tombstones_do_not_end_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = |n: usize| format!("key{n:05}");
    store.add((0..3000).map(|n| put(&key(n), "v", None)).collect());
    store.flush().unwrap();
    store.add((1..2999).map(|n| delete(&key(n))).collect());
    for reverse in [false, true] {
        let range = ScanRange {
            reverse,
            ..ScanRange::all()
        };
        let page = store.scan(&range, &limits(10)).unwrap();
        assert_eq!(page.entries.len(), 2);
        assert!(!page.more);
    }
}

#[test]
fn empty_and_inverted_ranges_are_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.add(vec![put("b", "1", None), put("c", "1", None)]);
    let key = Bytes::from_static;
    for (start, end) in [
        (Bound::Included(key(b"c")), Bound::Included(key(b"b"))),
        (Bound::Excluded(key(b"b")), Bound::Excluded(key(b"b"))),
        (Bound::Excluded(key(b"b")), Bound::Excluded(key(b"c"))),
        (Bound::Included(key(b"d")), Bound::Unbounded),
    ] {
        for reverse in [false, true] {
            let range = ScanRange {
                start: start.clone(),
                end: end.clone(),
                reverse,
            };
            assert!(pages(&store, &range, &limits(5)).is_empty(), "{range:?}");
        }
    }
}

#[test]
fn keys_that_stay_come_exactly_once_beside_writers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stays = |n: usize| format!("key{n:04}-stays");
    store.add((0..200).map(|n| put(&stays(n), "0", None)).collect());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..60 {
                let comes = |n: usize| format!("key{n:04}-comes");
                let turn = |n: usize| match round % 2 {
                    0 => delete(&comes(n)),
                    _ => put(&comes(n), "x", None),
                };
                let rewritten = (0..200)
                    .step_by(7)
                    .map(|n| put(&stays(n), round.to_string(), None));
                store.add((0..200).map(turn).chain(rewritten).collect());
                if round % 3 == 0 {
                    store.flush().unwrap();
                }
            }
        });
        while !writer.is_finished() {
            for reverse in [false, true] {
                let range = ScanRange {
                    reverse,
                    ..ScanRange::all()
                };
                let all = pages(&store, &range, &limits(13));
                let stayed = all.iter().filter(|(key, _)| key.ends_with(b"-stays"));
                assert_eq!(stayed.count(), 200);
                let in_order = |pair: &[(Bytes, _)]| (pair[0].0 < pair[1].0) != reverse;
                assert!(all.windows(2).all(in_order));
            }
        }
    });
}

#[test]
fn requests_are_read_back_from_memory_and_lmdb() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 1..=6 {
        store.add(vec![marked(put("a", "1", None), 9 - u128::from(n), n, 0)]);
        if n == 3 {
            store.flush().unwrap();
        }
    }
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = store.requests(after, 4).unwrap();
        ids.extend(
            page.iter()
                .map(|request| (request.mark.client, request.mark.n)),
        );
        after = ids.last().copied();
        if page.len() < 4 {
            break;
        }
    }
    assert_eq!(ids, [(3, 6), (4, 5), (5, 4), (6, 3), (7, 2), (8, 1)]);
    let last = store.requests(Some((7, 2)), 4).unwrap();
    assert_eq!(last[0].position, Position::new(1, 1));
    assert_eq!(last[0].mark.outcome[..], b"ok"[..]);
}

/// An id that was forgotten and used again had its former row in LMDB and the new one in memory. The former was read
/// back: after a restart a repeat got the former outcome, or was done a second time, since that one was old.
#[test]
fn of_two_requests_under_one_id_the_newer_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.add(vec![marked(put("a", "1", None), 1, 1, 0)]);
    store.flush().unwrap();
    store.add(vec![marked(put("a", "2", None), 1, 1, 0)]);
    let positions = || -> Vec<u64> {
        let requests = store.requests(None, 100).unwrap();
        requests
            .iter()
            .map(|request| request.position.seq)
            .collect()
    };
    assert_eq!(positions(), [2], "from memory");
    store.flush().unwrap();
    assert_eq!(positions(), [2], "from LMDB");
}

/// A page had up to 10,000 requests however large their outcomes: a chunk of a snapshot that no replica takes, and
/// gigabytes of memory at start.
#[test]
fn pages_of_requests_with_large_outcomes_are_short_and_leave_none_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let large = |n: u64| {
        let mut record = marked(put("a", "1", None), 1, n, 0);
        if let Some(mark) = &mut record.mark {
            mark.outcome = vec![0; 300 << 10][..].into();
        }
        record
    };
    // Those in memory lie between and behind those in LMDB.
    for n in [1, 3, 5, 7, 9, 11] {
        store.add(vec![large(n)]);
    }
    store.flush().unwrap();
    for n in [2, 4, 12, 13, 14, 15, 16] {
        store.add(vec![large(n)]);
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.requests(after, 10_000).unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 4, "{}", page.len());
        after = Some(last.id());
        found.extend(page.iter().map(|request| request.mark.n));
    }
    assert_eq!(found, [1, 2, 3, 4, 5, 7, 9, 11, 12, 13, 14, 15, 16]);
}
