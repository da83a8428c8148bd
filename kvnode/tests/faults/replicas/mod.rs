//! Replication under faults: rows B1 to B9 and B11 to B14. What these tests share is here.
//!
//! Replicas are compared with their primary twice: the logs byte by byte, and the entries (keys, values, positions,
//! expiry) when both stand at one position.

mod copies;
mod forged;
mod killed;
mod lag;
mod links;
mod netns;
mod oneway;
mod parted;
mod reigns;
mod slow;
mod stream;

use std::collections::BTreeMap;

use bytes::Bytes;
use kvclient::{
    key::Key,
    position::Position,
    wire::{
        batch::{Action, Op},
        snapshot::{Chunk, Decoder, Entry},
    },
};

use crate::support::{
    cluster::{Node, equal_logs},
    eventually,
};

/// Flags under which the log is given free while a test looks.
const FORGETFUL: &[&str] = &["--log-retention", "1MiB", "--checkpoint-every", "500"];

/// All entries of a node that nobody writes to, by key.
async fn entries(node: &Node) -> BTreeMap<Bytes, Entry> {
    let answer = node.ask("GET", "/snapshot").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut decoder = Decoder::new();
    decoder.push(&answer.body);
    let (mut entries, mut ended) = (BTreeMap::new(), false);
    while let Some(chunk) = decoder.next_chunk().expect("a snapshot") {
        match chunk {
            Chunk::Entries(some) => {
                entries.extend(some.into_iter().map(|entry| (entry.key.clone(), entry)));
            }
            Chunk::End { .. } => ended = true,
            _ => {}
        }
    }
    assert!(ended, "the snapshot is whole");
    entries
}

/// How many keys have not the same entry in both.
fn differing(one: &BTreeMap<Bytes, Entry>, other: &BTreeMap<Bytes, Entry>) -> usize {
    let missing = other.keys().filter(|key| !one.contains_key(*key)).count();
    let unequal = one
        .iter()
        .filter(|(key, entry)| other.get(*key) != Some(entry));
    unequal.count() + missing
}

/// Waits until a replica has all that its primary has.
async fn level(primary: &Node, replica: &Node) -> Position {
    let end = primary.at("durable").await;
    let reason = "the replica becomes level with its primary";
    replica.wait_visible(end, reason).await;
    end
}

/// Waits until a replica is level with its primary, to which nobody writes, and checks that both hold the same, in
/// their logs and as entries; how many keys that are.
async fn assert_equal(primary: &Node, replica: &Node) -> usize {
    let end = level(primary, replica).await;
    equal_logs(primary, replica).await;
    let (ours, theirs) = (entries(primary).await, entries(replica).await);
    assert_eq!(differing(&ours, &theirs), 0, "at {end}");
    assert_eq!(replica.at("visible").await, end, "nobody wrote meanwhile");
    ours.len()
}

/// A batch that puts `count` keys named by `prefix`, each with a value of its own.
fn puts(prefix: &str, count: usize, value_bytes: usize) -> Vec<Op> {
    let put = |n: usize| {
        let key = format!("{prefix}{n}");
        let mut value = format!("{key}=");
        value.extend(std::iter::repeat_n(
            'v',
            value_bytes.saturating_sub(value.len()),
        ));
        let action = Action::Put {
            value: value.into(),
            ttl_ms: None,
        };
        Op::new(Key::new(key).expect("a key"), action)
    };
    (0..count).map(put).collect()
}

/// A write that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    key: Bytes,
    value: Bytes,
    position: Position,
}

/// Writes `count` keys of their own in batches of at most 100; what was acknowledged, which is all.
async fn write(node: &Node, prefix: &str, count: usize) -> Vec<Written> {
    let mut written = Vec::with_capacity(count);
    for ops in puts(prefix, count, 40).chunks(100) {
        for (op, result) in ops.iter().zip(node.batch(ops).await) {
            assert_eq!(result.status, 204, "{result:?}");
            let Action::Put { value, .. } = &op.action else {
                continue;
            };
            written.push(Written {
                key: op.key.to_bytes(),
                value: value.clone(),
                position: result.position.expect("a position"),
            });
        }
    }
    written
}

/// Writes the same large values again and again until a node's log no longer reaches back to `after`.
async fn write_beyond_retention(node: &Node, after: u64) {
    let ops = puts("bulk", 50, 60_000);
    for round in 0.. {
        for part in ops.chunks(25) {
            let results = node.batch(part).await;
            assert!(results.iter().all(|result| result.status == 204));
        }
        let status = node.status().await;
        if status["truncated"].as_u64() > Some(after) {
            return;
        }
        assert!(round < 100, "the log is never given free: {status}");
    }
}

/// How many of these writes are not what a node has, and not in `elsewhere` either.
fn missing(
    written: &[Written],
    held: &BTreeMap<Bytes, Entry>,
    elsewhere: &[serde_json::Value],
) -> usize {
    let is_held = |write: &&Written| {
        let entry = held.get(&write.key);
        entry.is_some_and(|entry| (entry.position, &entry.value) == (write.position, &write.value))
    };
    let lines: BTreeMap<String, &serde_json::Value> = elsewhere
        .iter()
        .map(|line| {
            (
                line["position"].as_str().unwrap_or_default().to_owned(),
                line,
            )
        })
        .collect();
    let is_saved = |write: &&Written| {
        let line = lines.get(&write.position.to_string());
        line.is_some_and(|line| {
            line["key"].as_str().map(str::as_bytes) == Some(&write.key)
                && line["value"].as_str().map(str::as_bytes) == Some(&write.value)
        })
    };
    written
        .iter()
        .filter(|write| !is_held(write) && !is_saved(write))
        .count()
}

/// The lines of all files in `diverged/` of a node.
fn saved_tails(node: &Node) -> Vec<serde_json::Value> {
    let Ok(files) = std::fs::read_dir(node.data.join("diverged")) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for file in files {
        let path = file.expect("a file").path();
        assert_eq!(path.extension(), Some("ndjson".as_ref()), "{path:?}");
        let text = std::fs::read_to_string(path).expect("text");
        lines.extend(
            text.lines()
                .map(|line| serde_json::from_str(line).expect("JSON")),
        );
    }
    lines
}

/// Waits until a node has said this so often since it was started.
async fn said(node: &Node, what: &str, times: usize) {
    eventually(&format!("{} says {what:?}", node.address), async || {
        (node.said().matches(what).count() >= times).then_some(())
    })
    .await;
}
