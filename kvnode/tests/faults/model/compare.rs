//! What a node shows, compared with the model: positions, entries, scans, what is due, counts and sums.

use std::ops::Bound;

use bytes::Bytes;
use kvclient::{
    key::Key,
    position::Position,
    wire::batch::{Action, Op},
};
use kvnode::{
    commit::read_result,
    store::{ScanContent, ScanLimits, ScanRange},
};
use proptest::{prop_assert, prop_assert_eq, test_runner::TestCaseError};

use super::{
    node::{Node, failed},
    plain::Answer,
    run::{Outcome, Run},
    steps::KEYS,
};

impl Run {
    pub(super) fn compare(&self, node: &Node) -> Outcome {
        let (log, store) = (&node.storage.log, &node.storage.store);
        prop_assert_eq!(store.visible(), self.model.end);
        prop_assert_eq!(log.durable(), self.model.end);
        let applied = store.applied().position;
        prop_assert!(log.truncated() <= applied.seq && applied <= store.visible());
        for at in 0..KEYS {
            self.compare_key(node, key(at))?;
        }
        self.compare_scans(node)?;
        let due = store.expired(self.model.now_ms, 100).map_err(failed)?;
        prop_assert_eq!(due, self.model.due());
        Ok(())
    }

    fn compare_key(&self, node: &Node, key: Bytes) -> Outcome {
        let found = node.storage.store.get(&key).map_err(failed)?;
        let op = Op::new(Key::new(key).expect("a key"), Action::Get);
        let visible = node.storage.store.visible();
        let answer = read_result(&op, found, node.clock.now_ms(), visible);
        // A replica's clock may stand later than that of a primary whose machine was set back.
        if node.clock.now_ms() == self.model.now_ms {
            prop_assert_eq!(Answer::from(&answer), self.model.read(&op));
        }
        Ok(())
    }

    fn compare_scans(&self, node: &Node) -> Outcome {
        let bounds = [
            (Bound::Unbounded, Bound::Unbounded),
            (Bound::Included(key(2)), Bound::Excluded(key(7))),
            // A prefix.
            (Bound::Included("k0".into()), Bound::Excluded("k1".into())),
            (Bound::Excluded(key(3)), Bound::Included(key(3))),
        ];
        for (start, end) in bounds {
            for reverse in [false, true] {
                let range = ScanRange {
                    start: start.clone(),
                    end: end.clone(),
                    reverse,
                };
                prop_assert_eq!(scan(node, &range)?, self.wanted(&range), "{:?}", range);
            }
        }
        Ok(())
    }

    fn wanted(&self, range: &ScanRange) -> Vec<Scanned> {
        let within = |key: &Bytes| {
            (match &range.start {
                Bound::Included(start) => key >= start,
                Bound::Excluded(start) => key > start,
                Bound::Unbounded => true,
            }) && match &range.end {
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
                Bound::Unbounded => true,
            }
        };
        let entries = self.model.entries.iter().filter(|(key, _)| within(key));
        let mut wanted: Vec<_> = entries
            .map(|(key, entry)| {
                (
                    key.clone(),
                    entry.value.clone(),
                    entry.expires_at_ms,
                    entry.position,
                )
            })
            .collect();
        if range.reverse {
            wanted.reverse();
        }
        wanted
    }

    /// Counts and sums where both nodes have passed the same position.
    pub(super) fn compare_sums(&self, replica: &Node) -> Outcome {
        let theirs = replica.storage.store.checkpoints();
        for mine in self.primary().storage.store.checkpoints() {
            let same = theirs.iter().find(|their| their.position == mine.position);
            prop_assert!(same.is_none_or(|their| their.digest == mine.digest));
        }
        Ok(())
    }
}

type Scanned = (Bytes, Bytes, Option<u64>, Position);

/// All pages of a range, of three entries each.
fn scan(node: &Node, range: &ScanRange) -> Result<Vec<Scanned>, TestCaseError> {
    let limits = ScanLimits {
        max_entries: 3,
        max_bytes: 1 << 20,
        content: ScanContent::Entries,
    };
    let (mut all, mut rest) = (Vec::new(), range.clone());
    loop {
        let page = node.storage.store.scan(&rest, &limits).map_err(failed)?;
        let entry = |(key, entry): (Bytes, kvnode::store::Entry)| {
            (key, entry.value, entry.expires_at_ms, entry.position)
        };
        all.extend(page.entries.into_iter().map(entry));
        match all.last() {
            Some((last, ..)) if page.more => rest = range.after(last.clone()),
            _ => return Ok(all),
        }
    }
}

/// A key by its number: of two prefixes, and of all lengths.
pub(super) fn key(at: usize) -> Bytes {
    Bytes::from(format!("k{}{}", at % 2, "x".repeat(at)))
}
