//! What a shard's entries were at a position, worked out from the whole log of its primary: past the backup, and past the
//! code that restores it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use kvclient::{
    Client, Consistency, Position,
    wire::log::{Effect, Frame},
};

use crate::support::cluster::Node;

/// Key to value and expiry in Unix milliseconds.
pub(crate) type Model = BTreeMap<Bytes, (Bytes, Option<u64>)>;

/// All frames of a shard.
pub(crate) struct WholeLog(Vec<Frame>);

impl WholeLog {
    pub(crate) async fn of(primary: &Node) -> Self {
        let mut bytes = Bytes::from(primary.log_bytes(0).await);
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            frames.push(Frame::split_from(&mut bytes).expect("a frame"));
        }
        Self(frames)
    }

    /// The entries at the end of the last frame that is wanted.
    pub(crate) fn state(&self, is_wanted: impl Fn(&Frame) -> bool) -> Model {
        let mut model = Model::new();
        for frame in self.0.iter().take_while(|frame| is_wanted(frame)) {
            for (_, record) in frame.records().expect("records") {
                apply(&mut model, record.key, record.effect);
            }
        }
        model
    }

    pub(crate) fn at(&self, position: Position) -> Model {
        self.state(|frame| frame.header.first_seq <= position.seq)
    }

    /// A position and the time of the frame that is half-way between two positions.
    pub(crate) fn between(&self, first: Position, last: Position) -> (Position, u64) {
        let half = first.seq + (last.seq - first.seq) / 2;
        let frame = self.0.iter().find(|frame| frame.header.last_seq() >= half);
        let header = frame.expect("within the log").header;
        (header.link().position, header.time_ms)
    }
}

fn apply(model: &mut Model, key: Bytes, effect: Effect) {
    match effect {
        Effect::Put {
            value,
            expires_at_ms,
        } => _ = model.insert(key, (value, expires_at_ms)),
        Effect::Delete { .. } => _ = model.remove(&key),
        Effect::Expire { expires_at_ms } => {
            if let Some((_, expiry)) = model.get_mut(&key) {
                *expiry = expires_at_ms;
            }
        }
        Effect::EpochStart { .. } => {}
    }
}

pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_millis()).expect("not that late")
}

/// How far an expiry may be from what it was: the way of a put, on a busy machine.
const EXPIRY_WITHIN: Duration = Duration::from_secs(5);

/// Compares a cluster with what it should hold, byte for byte. What expires about now may be there or not. Primaries are
/// asked: replicas may be a moment behind.
pub(crate) async fn assert_holds(kv: &Client, expected: &Model) {
    let scan = kv.scan("").consistency(Consistency::Primary);
    let found: Vec<_> = scan.try_collect().await.expect("a whole scan");
    let now = now_ms();
    let slack = u64::try_from(EXPIRY_WITHIN.as_millis()).expect("short");
    let mut found: Model = found
        .into_iter()
        .map(|entry| {
            let key = Bytes::copy_from_slice(entry.key.as_bytes());
            let ttl = entry
                .ttl
                .map(|ttl| u64::try_from(ttl.as_millis()).expect("short"));
            (
                key,
                (entry.value.expect("a value"), ttl.map(|ttl| now + ttl)),
            )
        })
        .collect();
    for (key, (value, expires_at_ms)) in expected {
        let is_there = found.remove(key);
        if let Some(at) = expires_at_ms.filter(|at| *at <= now + slack) {
            assert!(
                is_there.is_none() || at + slack > now,
                "{key:?} has expired"
            );
            continue;
        }
        let (restored, expiry) = is_there.unwrap_or_else(|| panic!("{key:?} is missing"));
        assert!(restored == value, "{key:?} has another value");
        match (expiry, expires_at_ms) {
            (None, None) => {}
            (Some(is), Some(was)) => assert!(is.abs_diff(*was) < slack, "{key:?}: {is}, was {was}"),
            other => panic!("{key:?}: {other:?}"),
        }
    }
    assert!(
        found.is_empty(),
        "too much: {:?}",
        found.keys().take(5).collect::<Vec<_>>()
    );
}
