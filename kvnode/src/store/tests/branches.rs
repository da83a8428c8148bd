//! Damage in LMDB's branch pages: a walk does not see it, lookups go past what is there.

use std::{fs, path::Path};

use kvclient::wire::log::Record;

use super::{open, put};

const PAGE_BYTES: usize = 4096;

/// Kind of page and number of nodes of a page, by LMDB's `MDB_page`: flags at byte 10, the end of the node places at 12.
const BRANCH: u16 = 1;
const HEAD_BYTES: usize = 16;

fn number(page: &[u8], at: usize) -> usize {
    u16::from_le_bytes([page[at], page[at + 1]]).into()
}

/// Where the last byte of each key in a branch page lies; the first key of a page is empty.
fn keys_of_branches(file: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    for (nth, page) in file.chunks_exact(PAGE_BYTES).enumerate() {
        if number(page, 10) != usize::from(BRANCH) {
            continue;
        }
        for place in (HEAD_BYTES..number(page, 12)).step_by(2) {
            let node = number(page, place);
            let key_bytes = number(page, node + 6);
            if key_bytes > 0 {
                found.push(nth * PAGE_BYTES + node + 8 + key_bytes - 1);
            }
        }
    }
    found
}

/// Two levels of leaves at least, closed.
fn sound(path: &Path) -> Vec<String> {
    let keys: Vec<String> = (0..2_000).map(|n| format!("key {n:05}")).collect();
    let store = open(path);
    store.add(vec![Record::epoch_start(7, "a:1")]);
    for keys in keys.chunks(100) {
        store.add(keys.iter().map(|key| put(key, "v", None)).collect());
    }
    store.flush().unwrap();
    assert!(store.close());
    keys
}

/// A key between two leaves was flipped on the disk: `GET` said 404 of entries that were there, and neither the start nor
/// `kvnode check` noticed, since both went from leaf to leaf.
#[test]
fn what_lookups_do_not_find_was_called_sound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmdb");
    let keys = sound(&path);
    let file = path.join("data.mdb");
    let before = fs::read(&file).unwrap();
    let places = keys_of_branches(&before);
    assert!(places.len() > 10, "{} keys in branches", places.len());
    let mut with_effect = 0;
    for (nth, place) in places.into_iter().enumerate() {
        let mut damaged = before.clone();
        damaged[place] ^= 1 << (nth % 8);
        fs::write(&file, damaged).unwrap();
        let store = open(&path);
        let absent = keys
            .iter()
            .filter(|key| store.get(key.as_bytes()).unwrap().is_none());
        let absent = absent.count();
        let report = store.verify(|_| ()).unwrap();
        assert_eq!(
            absent == 0,
            report.is_sound(),
            "byte {place}: {absent} absent, {report:?}"
        );
        with_effect += usize::from(absent > 0);
        assert!(store.close());
    }
    assert!(with_effect > 5, "{with_effect}");
}
