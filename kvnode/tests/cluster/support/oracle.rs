//! What was promised: every write as [`Outcome::Acked`] or [`Outcome::Unknown`], never as absent.
//!
//! Each key has one writer, which writes one value after the other. An entry is right if it is the newest value that
//! was acknowledged, at its position, or one of unknown outcome at a later position. Anything else is a loss.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvclient::{
    key::Key,
    position::Position,
    wire::batch::{Action, Op, OpResult},
};

use super::cluster::Node;

/// Most keys read at once.
const PAGE: usize = 500;

/// What a writer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Applied and durable.
    Acked(Position),
    /// Was applied, or may yet be.
    Unknown,
}

/// Everything written to one shard.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    keys: BTreeMap<Bytes, History>,
    pub(crate) acked: usize,
    pub(crate) unknown: usize,
}

#[derive(Debug, Default)]
struct History {
    acked: Option<(Position, Bytes)>,
    unknown: Vec<Bytes>,
}

impl Oracle {
    /// Remembers one write.
    pub(crate) fn wrote(&mut self, key: &Key, value: Bytes, outcome: Outcome) {
        let history = self.keys.entry(key.to_bytes()).or_default();
        match outcome {
            Outcome::Acked(position) => {
                self.acked += 1;
                history.acked = Some((position, value));
            }
            Outcome::Unknown => {
                self.unknown += 1;
                history.unknown.push(value);
            }
        }
    }

    /// Adds what another writer, of other keys, was told.
    pub(crate) fn merge(&mut self, other: Self) {
        self.acked += other.acked;
        self.unknown += other.unknown;
        self.keys.extend(other.keys);
    }

    /// Compares everything with what a node answers; what is wrong, a line each.
    pub(crate) async fn losses(&self, node: &Node) -> Vec<String> {
        let keys: Vec<&Bytes> = self.keys.keys().collect();
        let mut losses = Vec::new();
        for page in keys.chunks(PAGE) {
            let get = |key: &&Bytes| {
                let key = Key::new(Bytes::clone(key)).expect("it was a key");
                Op::new(key, Action::Get)
            };
            let ops: Vec<Op> = page.iter().map(get).collect();
            let results = node.batch(&ops).await;
            assert_eq!(results.len(), page.len());
            for (key, result) in page.iter().zip(results) {
                losses.extend(self.judge(key, &result));
            }
        }
        losses
    }

    /// What is wrong with one entry, if anything.
    fn judge(&self, key: &Bytes, found: &OpResult) -> Option<String> {
        let history = &self.keys[key];
        let at = found.etag.unwrap_or_default();
        let is_right = match (&history.acked, &found.value, found.status) {
            (None, None, 404) => true,
            (Some((position, value)), Some(found), 200) if *position == at => value == found,
            (acked, Some(found), 200) => {
                let after = acked
                    .as_ref()
                    .map_or(Position::ZERO, |(position, _)| *position);
                at > after && history.unknown.contains(found)
            }
            _ => false,
        };
        let shown = |value: &Bytes| {
            value
                .slice(..value.len().min(40))
                .escape_ascii()
                .to_string()
        };
        (!is_right).then(|| {
            format!(
                "{}: {} at {at} {:?}, but acknowledged was {:?}",
                key.escape_ascii(),
                found.status,
                found.value.as_ref().map(shown),
                history.acked.as_ref().map(|(at, value)| (at, shown(value)))
            )
        })
    }
}

/// The proof that the oracle can fail.
#[test]
fn the_oracle_notices_every_kind_of_loss() {
    let key = Key::new("k").unwrap();
    let (first, second, unknown) = (
        Position::new(1, 5),
        Position::new(1, 9),
        Position::new(2, 12),
    );
    let mut oracle = Oracle::default();
    for (value, outcome) in [
        ("a", Outcome::Acked(first)),
        ("b", Outcome::Acked(second)),
        ("c", Outcome::Unknown),
    ] {
        oracle.wrote(&key, value.into(), outcome);
    }
    let found = |value: &'static str, at: Position| OpResult {
        status: 200,
        etag: Some(at),
        value: Some(value.into()),
        ..OpResult::default()
    };
    let absent = OpResult {
        status: 404,
        ..OpResult::default()
    };
    for (what, found, is_loss) in [
        ("the newest acknowledged", found("b", second), false),
        ("the unknown one after it", found("c", unknown), false),
        ("absent", absent, true),
        ("an older one", found("a", first), true),
        ("the newest at an older position", found("b", first), true),
        ("torn", found("", second), true),
        ("nobody's", found("x", unknown), true),
        ("the unknown one before it", found("c", first), true),
    ] {
        assert_eq!(
            oracle.judge(&key.to_bytes(), &found).is_some(),
            is_loss,
            "{what}"
        );
    }
}
