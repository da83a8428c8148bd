//! Random histories against a model: a `BTreeMap` that knows the rule of effects and nothing of memtables.

use std::{collections::BTreeMap, ops::Bound, path::Path};

use proptest::prelude::*;

use super::*;
use crate::store::{Entry, ScanContent, ScanLimits, ScanRange};

const KEYS: usize = 12;

#[derive(Debug, Clone)]
enum Step {
    Frame(Vec<Record>),
    Flush,
    Reopen,
}

fn any_record() -> impl Strategy<Value = Record> {
    let key = (0..KEYS).prop_map(|n| format!("key{n:02}"));
    let expiry = proptest::option::of(1..100_u64);
    let len = prop_oneof![9 => 0..40_usize, 1 => Just(5000)];
    let change = prop_oneof![
        4 => (any::<u8>(), len, expiry.clone()).prop_map(|(byte, len, at)| put("", vec![byte; len], at)),
        2 => Just(delete("")),
        2 => expiry.prop_map(|at| expire("", at)),
    ];
    (key, change).prop_map(|(key, record)| Record {
        key: Bytes::from(key),
        ..record
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec(any_record(), 1..6).prop_map(Step::Frame),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

type Model = BTreeMap<Bytes, Entry>;

fn apply(model: &mut Model, position: Position, record: &Record) {
    match &record.effect {
        Effect::Put {
            value,
            expires_at_ms,
        } => {
            let entry = Entry {
                position,
                expires_at_ms: *expires_at_ms,
                value: value.clone(),
            };
            model.insert(record.key.clone(), entry);
        }
        Effect::Delete { .. } => {
            model.remove(&record.key);
        }
        Effect::Expire { expires_at_ms } => {
            if let Some(entry) = model.get_mut(&record.key) {
                entry.position = position;
                entry.expires_at_ms = *expires_at_ms;
            }
        }
        Effect::EpochStart { .. } => {}
    }
}

/// Small enough that histories of a few dozen records flush by themselves too.
fn tiny() -> StoreOptions {
    StoreOptions {
        memtable_bytes: 3000,
        checkpoint_every: 16,
        ..small()
    }
}

fn run(dir: &Path, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut store = open_with(dir, tiny());
    let (mut model, mut log) = (Model::new(), Vec::new());
    for step in steps {
        match step {
            Step::Frame(records) => {
                let frame = store.add(records.clone());
                for (position, record) in &frame.records {
                    apply(&mut model, *position, record);
                }
                log.push(frame);
            }
            Step::Flush => store.flush().expect("there is room"),
            Step::Reopen => {
                prop_assert!(store.close());
                store = open_with(dir, tiny());
                log.iter().for_each(|frame| store.add_frame(frame));
            }
        }
        compare_points(&store, &model)?;
    }
    compare_scans(&store, &model)?;
    compare_due(&store, &model)?;
    store.flush().expect("there is room");
    compare_scans(&store, &model)?;
    compare_due(&store, &model)?;
    prop_assert_eq!(store.stats().entries, model.len() as u64);
    Ok(())
}

fn compare_points(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    for n in 0..KEYS {
        let key = Bytes::from(format!("key{n:02}"));
        let got = store.get(&key).expect("not damaged");
        prop_assert_eq!(got.as_ref(), model.get(&key), "{:?}", key);
    }
    Ok(())
}

fn compare_scans(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    let key = |n: usize| Bytes::from(format!("key{n:02}"));
    let bounds = [
        (Bound::Unbounded, Bound::Unbounded),
        (Bound::Included(key(2)), Bound::Excluded(key(9))),
        (Bound::Excluded(key(2)), Bound::Included(key(9))),
        (Bound::Included(key(5)), Bound::Included(key(5))),
    ];
    for (start, end) in bounds {
        for reverse in [false, true] {
            let range = ScanRange {
                start: start.clone(),
                end: end.clone(),
                reverse,
            };
            let mut wanted: Vec<_> = model
                .range((start.clone(), end.clone()))
                .map(|(key, entry)| (key.clone(), entry.clone()))
                .collect();
            if reverse {
                wanted.reverse();
            }
            for (max_entries, max_bytes) in [(1, 1 << 20), (3, 1 << 20), (100, 60), (100, 1 << 20)]
            {
                let mut limits = ScanLimits {
                    max_entries,
                    max_bytes,
                    content: ScanContent::Entries,
                };
                prop_assert_eq!(&pages(store, &range, &limits), &wanted, "{:?}", range);
                limits.content = ScanContent::Keys;
                let keys = pages(store, &range, &limits);
                prop_assert!(keys.iter().all(|(_, entry)| entry.value.is_empty()));
                let brief = |all: &[(Bytes, Entry)]| -> Vec<_> {
                    all.iter()
                        .map(|(k, e)| (k.clone(), e.position, e.expires_at_ms))
                        .collect()
                };
                prop_assert_eq!(brief(&keys), brief(&wanted));
            }
        }
    }
    Ok(())
}

/// All pages of a range.
pub(super) fn pages(store: &Store, range: &ScanRange, limits: &ScanLimits) -> Vec<(Bytes, Entry)> {
    let (mut all, mut rest) = (Vec::new(), range.clone());
    loop {
        let page = store.scan(&rest, limits).expect("not damaged");
        assert!(page.entries.len() <= limits.max_entries);
        all.extend(page.entries);
        if !page.more {
            return all;
        }
        let (last, _) = all.last().expect("a page with more behind it has entries");
        rest = rest.after(last.clone());
    }
}

fn compare_due(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    let mut wanted: Vec<_> = model
        .iter()
        .filter(|(_, entry)| entry.is_expired(50))
        .map(|(key, entry)| {
            (
                entry.expires_at_ms,
                entry.position.seq,
                key.clone(),
                entry.position,
            )
        })
        .collect();
    wanted.sort();
    let wanted: Vec<_> = wanted
        .into_iter()
        .map(|(_, _, key, position)| (key, position))
        .collect();
    for max in [1, 2, 100] {
        let due = store.expired(50, max).expect("not damaged");
        prop_assert_eq!(&due[..], &wanted[..max.min(wanted.len())]);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_map(steps in proptest::collection::vec(any_step(), 1..40)) {
        let dir = tempfile::tempdir().expect("a directory");
        run(dir.path(), &steps)?;
    }

    /// When memtables are flushed must not show in the sums.
    #[test]
    fn sums_do_not_depend_on_flushes(
        frames in proptest::collection::vec((proptest::collection::vec(any_record(), 1..6), any::<bool>()), 1..20),
    ) {
        let digest = |flush_between: bool| {
            let dir = tempfile::tempdir().expect("a directory");
            let store = open_with(dir.path(), small());
            for (records, flush) in &frames {
                store.add(records.clone());
                if *flush && flush_between {
                    store.flush().expect("there is room");
                }
            }
            store.flush().expect("there is room");
            store.checkpoints().last().copied()
        };
        prop_assert_eq!(digest(true), digest(false));
    }
}
