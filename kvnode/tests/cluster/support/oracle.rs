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

/// Losses that are told one by one.
const SHOWN: usize = 5;

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

/// How writes ended, and what a node had of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Writes that were acknowledged.
    pub(crate) acked: usize,
    /// Keys whose newest acknowledged write is not there.
    pub(crate) lost: usize,
    /// Keys whose newest acknowledged write is there at another position than was told: done twice.
    pub(crate) duplicated: usize,
    /// Writes whose outcome was not told.
    pub(crate) unknown: usize,
    /// Of the keys with such writes behind the newest acknowledged one, those that show one.
    pub(crate) unknown_applied: usize,
}

impl Verdict {
    /// Adds what another shard or run came to.
    pub(crate) fn add(&mut self, other: Self) {
        self.acked += other.acked;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.unknown += other.unknown;
        self.unknown_applied += other.unknown_applied;
    }

    /// The same of everything written so far, with what an earlier look found wrong.
    pub(crate) fn with_losses_of(self, before: Self) -> Self {
        Self {
            lost: self.lost + before.lost,
            duplicated: self.duplicated + before.duplicated,
            ..self
        }
    }

    /// Fails unless nothing was lost and nothing done twice.
    pub(crate) fn assert_whole(&self, what: &str) {
        assert_eq!((self.lost, self.duplicated), (0, 0), "{what}: {self:?}");
    }
}

/// What is to be said of one entry.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// The newest acknowledged write.
    Acked,
    /// One of unknown outcome behind it.
    UnknownApplied,
    /// The newest acknowledged value, at another position.
    Duplicated,
    Lost,
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

    /// The newest position that anybody was told of.
    pub(crate) fn newest_acked(&self) -> Position {
        let acked = self.keys.values().filter_map(|key| key.acked.as_ref());
        acked
            .map(|(position, _)| *position)
            .max()
            .unwrap_or(Position::ZERO)
    }

    /// How many keys were written.
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Compares everything with what a node answers; what is wrong, a line each.
    pub(crate) async fn losses(&self, node: &Node) -> Vec<String> {
        let mut losses = Vec::new();
        for (key, found) in self.read_all(node).await {
            if let Judgement::Lost | Judgement::Duplicated = self.judge(&key, &found) {
                losses.push(self.describe(&key, &found));
            }
        }
        losses
    }

    /// Compares everything with what a node answers, in numbers. The first losses are printed.
    pub(crate) async fn verdict(&self, node: &Node) -> Verdict {
        let mut verdict = Verdict {
            acked: self.acked,
            unknown: self.unknown,
            ..Verdict::default()
        };
        for (key, found) in self.read_all(node).await {
            match self.judge(&key, &found) {
                Judgement::Acked => continue,
                Judgement::UnknownApplied => {
                    verdict.unknown_applied += 1;
                    continue;
                }
                Judgement::Duplicated => verdict.duplicated += 1,
                Judgement::Lost => verdict.lost += 1,
            }
            if verdict.lost + verdict.duplicated <= SHOWN {
                eprintln!("{}", self.describe(&key, &found));
            }
        }
        verdict
    }

    /// What a node answers for every key.
    async fn read_all(&self, node: &Node) -> Vec<(Bytes, OpResult)> {
        let keys: Vec<&Bytes> = self.keys.keys().collect();
        let mut all = Vec::with_capacity(keys.len());
        for page in keys.chunks(PAGE) {
            let get = |key: &&Bytes| {
                let key = Key::new(Bytes::clone(key)).expect("it was a key");
                Op::new(key, Action::Get)
            };
            let ops: Vec<Op> = page.iter().map(get).collect();
            let results = node.batch(&ops).await;
            assert_eq!(results.len(), page.len());
            all.extend(page.iter().copied().cloned().zip(results));
        }
        all
    }

    fn judge(&self, key: &Bytes, found: &OpResult) -> Judgement {
        let history = &self.keys[key];
        let at = found.etag.unwrap_or_default();
        match (&history.acked, &found.value, found.status) {
            (None, None, 404) => Judgement::Acked,
            (Some((position, value)), Some(found), 200) if value == found => {
                match *position == at {
                    true => Judgement::Acked,
                    false => Judgement::Duplicated,
                }
            }
            (acked, Some(found), 200) => {
                let after = acked
                    .as_ref()
                    .map_or(Position::ZERO, |(position, _)| *position);
                match at > after && history.unknown.contains(found) {
                    true => Judgement::UnknownApplied,
                    false => Judgement::Lost,
                }
            }
            _ => Judgement::Lost,
        }
    }

    /// What was found of an entry, and what was acknowledged.
    fn describe(&self, key: &Bytes, found: &OpResult) -> String {
        let shown = |value: &Bytes| {
            value
                .slice(..value.len().min(40))
                .escape_ascii()
                .to_string()
        };
        let acked = self.keys[key].acked.as_ref();
        format!(
            "{}: {} at {} {:?}, but acknowledged was {:?}",
            key.escape_ascii(),
            found.status,
            found.etag.unwrap_or_default(),
            found.value.as_ref().map(shown),
            acked.map(|(at, value)| (at, shown(value)))
        )
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
    for (what, found, expected) in [
        (
            "the newest acknowledged",
            found("b", second),
            Judgement::Acked,
        ),
        (
            "the unknown one after it",
            found("c", unknown),
            Judgement::UnknownApplied,
        ),
        ("absent", absent, Judgement::Lost),
        ("an older one", found("a", first), Judgement::Lost),
        (
            "the newest at another position",
            found("b", first),
            Judgement::Duplicated,
        ),
        ("torn", found("", second), Judgement::Lost),
        ("nobody's", found("x", unknown), Judgement::Lost),
        (
            "the unknown one before it",
            found("c", first),
            Judgement::Lost,
        ),
    ] {
        assert_eq!(oracle.judge(&key.to_bytes(), &found), expected, "{what}");
    }
}
