//! `kv verify` beside scripted nodes: equal, different, behind, never to be met, and silent.
#![allow(clippy::unwrap_used, reason = "only tests come here")]

mod support;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{
    FakeNode, FakeShard, StreamReply, found,
    tool::{Ran, Tool},
    wait_until,
};

/// Counts of 64 ranges, one entry in each of the first few.
fn counts(seq: u64, entries: u64, sum: &str) -> String {
    let range = |n| match n < entries {
        true => json!({ "count": 1, "sum": sum }),
        false => json!({ "count": 0, "sum": "0000000000000000" }),
    };
    let ranges: Vec<Value> = (0..64).map(range).collect();
    json!({ "position": format!("1.{seq}"), "entries": entries, "ranges": ranges }).to_string()
}

fn refusal(code: &str) -> String {
    json!({ "error": code, "message": "as the script says" }).to_string()
}

/// Seq that a request for counts names.
fn asked(uri: &str) -> Option<u64> {
    let (_, rest) = uri.split_once("/status/sums?seq=")?;
    rest.split('&').next()?.parse().ok()
}

/// A node whose last position is `seq`, and whose counts are always these.
fn stands_at(node: &FakeNode, seq: u64, entries: u64, sum: &'static str) {
    node.script_documents(move |uri| match asked(uri) {
        Some(asked) if asked == seq => Some((200, counts(seq, entries, sum))),
        Some(asked) if asked < seq => Some((410, refusal("position_lost"))),
        Some(_) => Some((503, refusal("behind"))),
        None => Some((200, json!({ "visible": format!("1.{seq}") }).to_string())),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_compared_at_one_position() {
    let kv = Tool::start(2, 1).await;
    for shard in &kv.cluster.shards {
        shard.iter().for_each(|node| stands_at(node, 7, 3, "ab"));
    }
    let equal = kv.run(&["verify"]);
    assert_eq!(equal.code, 0, "{equal:?}");
    assert_eq!(
        equal.text().matches("3 entries at 1.7").count(),
        4,
        "{equal:?}"
    );
    stands_at(kv.cluster.replica(1, 0), 7, 2, "ab");
    let differs = kv.run(&["verify"]);
    assert_eq!(differs.code, 1, "{differs:?}");
    let line = differs.text().lines().last().unwrap().to_owned();
    assert!(line.starts_with("shard1  127.0.0.1:"), "{line}");
    let told = "differs       at 1.7: slots 512-767 0 entries where the primary has 1; --deep names the keys";
    assert!(line.ends_with(told), "{line}");
    let json = kv.run(&["verify", "--json"]);
    let lines: Vec<Value> = json
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let verdicts: Vec<&str> = lines
        .iter()
        .map(|line| line["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["primary", "equal", "primary", "differs"]);
}

/// The primary is past each seq when the question for it comes, until the question is far enough ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_goes_on_is_met_ahead() {
    let kv = Tool::start(1, 1).await;
    let at = AtomicU64::new(100);
    kv.cluster
        .primary(0)
        .script_documents(move |uri| match asked(uri) {
            // 150 records since it told where it was.
            Some(asked) => match asked > at.fetch_add(150, Ordering::SeqCst) + 150 {
                true => Some((200, counts(asked, 3, "ab"))),
                false => Some((410, refusal("position_lost"))),
            },
            None => {
                let visible = format!("1.{}", at.load(Ordering::SeqCst));
                Some((200, json!({ "visible": visible }).to_string()))
            }
        });
    let replica = kv.cluster.replica(0, 0);
    replica.script_documents(|uri| Some((200, counts(asked(uri)?, 3, "ab"))));
    let met = kv.run(&["verify"]);
    assert_eq!(met.code, 0, "{met:?}");
    assert!(met.text().contains("equal"), "{met:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_no_equality() {
    let kv = Tool::start(1, 3).await;
    stands_at(kv.cluster.primary(0), 7, 3, "ab");
    stands_at(kv.cluster.replica(0, 0), 5, 3, "ab");
    kv.cluster.replica(0, 1).stop();
    let old = |uri: &str| asked(uri).map(|_| (404, refusal("no_such_path")));
    kv.cluster.replica(0, 2).script_documents(old);
    let ran = kv.run(&["verify", "--wait", "300ms"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(ran.text().matches("not compared").count(), 3, "{ran:?}");
    for part in ["no connection", "an older version of kvnode", "behind"] {
        assert!(ran.text().contains(part), "{part}: {ran:?}");
    }
    kv.cluster.primary(0).stop();
    let ran = kv.run(&["verify"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(
        ran.text().matches("the primary: no connection").count(),
        4,
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_names_what_differs_and_looks_again_at_what_was_written() {
    let kv = Tool::start(1, 1).await;
    let map = kv.cluster.map(1);
    let entry = |n: usize| (format!("k{n:03}").into_bytes(), vec![b'v'; n]);
    let entries: BTreeMap<_, _> = (0..300).map(entry).collect();
    let mut others = entries.clone();
    others.insert(b"k005".to_vec(), b"other".to_vec());
    others.insert(b"k200".to_vec(), b"written while it was read".to_vec());
    for (node, entries) in kv.cluster.shards[0].iter().zip([&entries, &others]) {
        let mut scripted = FakeShard::of(&map, 0, entries);
        scripted.page = 64;
        node.script_streams(move |request| scripted.answer(request));
    }
    kv.cluster.primary(0).script(|_| found("vvvvv", 6));
    kv.cluster
        .replica(0, 0)
        .script(|op| match op.key.as_bytes() {
            b"k005" => {
                assert!(
                    op.terms.min_position.is_some(),
                    "it must hold what the primary showed"
                );
                found("other", 6)
            }
            _ => found("vvvvv", 6),
        });
    let ran = kv.run(&["verify", "--deep"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let lines: Vec<&str> = ran.text().lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert!(lines[0].contains("k005: it has 5 bytes of "), "{ran:?}");
    assert!(lines[1].ends_with("primary       300 entries"), "{ran:?}");
    assert!(lines[2].ends_with("differs       1 key differs"), "{ran:?}");
    let counted = kv.run(&["verify", "--deep", "--show", "0"]);
    assert_eq!(counted.text().lines().count(), 2, "{counted:?}");

    kv.cluster
        .replica(0, 0)
        .script_streams(|_| StreamReply::Break);
    let broken = kv.run(&["verify", "--deep"]);
    assert_eq!(broken.code, 4, "{broken:?}");
    assert!(
        broken.text().contains("not compared  the connection broke"),
        "{broken:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_interrupts_it_is_told_how_far_it_was() {
    let kv = Tool::start(1, 1).await;
    let map = kv.cluster.map(1);
    let entries: BTreeMap<_, _> = [(b"a".to_vec(), b"1".to_vec())].into();
    let scripted = FakeShard::of(&map, 0, &entries);
    let primary = kv.cluster.primary(0);
    primary.script_streams(move |request| scripted.answer(request));
    let replica = kv.cluster.replica(0, 0);
    replica.script_streams(|_| StreamReply::Hang);
    let child = kv.command(&["verify", "--deep"]).spawn().unwrap();
    wait_until("it reads the replica", || !replica.streams().is_empty()).await;
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{ran:?}");
    assert_eq!(
        ran.said,
        "kv: stopped; 0 keys were compared, 0 of them differ\n"
    );
}
