//! What a client tells about its ops: history, numbers, trace, and a kind for every error.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use kvclient::{
    CallHistory, Error, GetOptions, Outcome, Stats, Why,
    wire::{
        batch::Op,
        error::{Applied, ErrorCode},
    },
};
use support::{Cluster, FakeNode, Reply, found, key_of, redirect, refused, stored};
use tracing_subscriber::fmt::MakeWriter;

/// The replies in their order; the last one for ever.
fn in_turn(replies: Vec<Reply>) -> impl Fn(&Op) -> Reply + Send + Sync + 'static {
    let next = AtomicUsize::new(0);
    move |_| replies[next.fetch_add(1, SeqCst).min(replies.len() - 1)].clone()
}

fn whys(history: &CallHistory) -> Vec<Why> {
    history.attempts().iter().map(|one| one.why).collect()
}

#[tokio::test]
async fn a_history_tells_of_every_attempt() {
    let cluster = Cluster::start(2, 0).await;
    let (here, there) = (cluster.primary(0), cluster.primary(1));
    let no = Some(Applied::No);
    here.script(in_turn(vec![
        refused(ErrorCode::NotReady, no),
        Reply::Break,
        redirect(&there.address),
    ]));
    there.script(|_| stored(1));
    let history = CallHistory::new();
    let kv = cluster.client().with_history(&history);
    let key = key_of(&cluster.map(1), 0);
    kv.put(&key, "v").await.unwrap();
    let expected = [
        Why::Chosen,
        Why::AfterPause,
        Why::AfterPause,
        Why::Redirected,
    ];
    assert_eq!(whys(&history), expected);
    let attempts = history.attempts();
    assert!(
        attempts
            .iter()
            .all(|one| one.op == "put" && one.key.to_string() == key)
    );
    assert!(attempts.is_sorted_by_key(|one| one.after), "{history}");
    let nodes: Vec<_> = attempts.iter().map(|one| &one.node).collect();
    let (here, there) = (&here.address, &there.address);
    assert_eq!(nodes, [here, here, here, there]);
    let text = history.to_string();
    let lines: Vec<&str> = text.lines().collect();
    let to = |node, why: &str| format!("put \"{key}\" -> {node} (shard0), {why}: ");
    for (line, start, end) in [
        (
            lines[0],
            to(here, "chosen"),
            "503 not_ready: as the script says in ",
        ),
        (
            lines[1],
            to(here, "again after a pause"),
            "the connection broke: ",
        ),
        (
            lines[2],
            to(here, "again after a pause"),
            &format!("redirected to {there} in "),
        ),
        (lines[3], to(there, "redirected"), "204 in "),
    ] {
        assert!(
            line.contains(&format!("{start}{end}")),
            "{line}\nis not {start}{end}"
        );
    }
    assert!(lines[1].contains(", after a pause of "), "{text}");
    history.clear();
    assert_eq!(history.to_string(), "");
}

#[tokio::test]
async fn a_history_of_many_ops_names_each() {
    let cluster = Cluster::start(1, 1).await;
    cluster.replica(0, 0).stop();
    cluster.primary(0).script(|_| found("v", 1));
    let history = CallHistory::new();
    let kv = cluster.client().with_history(&history);
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    kv.get_many(&keys).await.unwrap();
    for (key, is_there) in [("k7", true), ("k40", false)] {
        let attempts = history.attempts().into_iter();
        let ends: Vec<_> = attempts.filter(|one| one.key.to_string() == key).collect();
        assert_eq!(ends.last().is_some_and(|one| one.end == "200"), is_there);
    }
    let next = whys(&history)
        .into_iter()
        .filter(|why| *why == Why::NextNode);
    assert!(
        next.count() > 0,
        "some drew the node that is gone: {history}"
    );
    // A client without a history writes none.
    cluster.client().get("k").await.unwrap();
    assert!(
        history
            .attempts()
            .iter()
            .all(|one| one.key.to_string() != "k")
    );
}

/// What nodes did is what ops asked for, and what came on top of that.
fn adds_up(stats: &Stats) {
    let at_nodes: u64 = stats.nodes.iter().map(|node| node.ops).sum();
    let asked = stats.ops + stats.retries + stats.redirects + stats.hedges;
    assert_eq!(at_nodes, asked, "{stats:?}");
    let hedges: u64 = stats.nodes.iter().map(|node| node.hedges).sum();
    assert_eq!(hedges, stats.hedges, "{stats:?}");
    assert!(stats.hedges_won <= stats.hedges && stats.retries_held_back <= stats.retries);
    assert!(
        stats
            .nodes
            .iter()
            .all(|node| node.in_flight == 0 && node.errors <= node.ops)
    );
}

#[tokio::test]
async fn numbers_add_up() {
    let cluster = Cluster::start(2, 1).await;
    for node in cluster.shards.iter().flatten() {
        let count = AtomicUsize::new(0);
        node.script(
            move |op| match (count.fetch_add(1, SeqCst) % 7, op.action.is_write()) {
                (3, _) => Reply::Break,
                (5, _) => refused(ErrorCode::Overloaded, Some(Applied::No)),
                (_, true) => stored(1),
                (_, false) => found("v", 1),
            },
        );
    }
    let kv = cluster.client();
    assert!(kv.stats().read_latency.is_none());
    for n in 0..60 {
        kv.put(format!("k{n}"), "v").await.unwrap();
        kv.get(format!("k{n}")).await.unwrap();
    }
    kv.put_many((0..30).map(|n| (format!("m{n}"), "v")))
        .await
        .unwrap();
    kv.atomic()
        .put("{a}1", "v")
        .put("{a}2", "v")
        .commit()
        .await
        .unwrap();
    let stats = kv.stats();
    assert_eq!(stats.ops, 60 + 60 + 30 + 1);
    assert!(
        stats.retries > 0 && stats.read_latency.is_some(),
        "{stats:?}"
    );
    assert_eq!(stats.map, cluster.map(1).identity());
    adds_up(&stats);
    let requests: usize = cluster
        .shards
        .iter()
        .flatten()
        .map(|node| node.batches().len())
        .sum();
    let counted: u64 = stats.nodes.iter().map(|node| node.requests).sum();
    assert_eq!(counted, requests as u64);
}

/// Attempts that were made again alone, or without a lost position, were missing among the retries.
#[tokio::test]
async fn numbers_add_up_for_rarer_repeats() {
    let cluster = Cluster::start(1, 0).await;
    let node = cluster.primary(0);
    let kv = cluster.client();
    node.script(in_turn(vec![
        refused(ErrorCode::TooLarge, None),
        found("v", 1),
    ]));
    let history = CallHistory::new();
    kv.with_history(&history).get("k").await.unwrap();
    assert_eq!(whys(&history), [Why::Chosen, Why::Alone]);
    adds_up(&kv.stats());
    assert_eq!(kv.stats().retries, 1);

    let session = kvclient::Session::from_token("kv1_0.1.99").unwrap();
    node.script(|op| match op.terms.min_position {
        Some(_) => refused(ErrorCode::PositionLost, None),
        None => found("v", 1),
    });
    kv.with_session(session)
        .get_many_with(["a", "b"], GetOptions::new())
        .await;
    adds_up(&kv.stats());
}

/// Every kind of error, provoked by what a program can do.
async fn provoked() -> Vec<Error> {
    let answers = async |reply: Reply| {
        let cluster = Cluster::start(1, 0).await;
        cluster.primary(0).script(move |_| reply.clone());
        cluster.client().put("k", "v").await.unwrap_err()
    };
    let no = Some(Applied::No);
    let stranger = FakeNode::reserve().address.clone();
    vec![
        Cluster::start(1, 0)
            .await
            .client()
            .put("", "v")
            .await
            .unwrap_err(),
        answers(refused(ErrorCode::PreconditionFailed, no)).await,
        answers(refused(ErrorCode::Unauthorized, no)).await,
        answers(refused(ErrorCode::DeadlineExceeded, no)).await,
        answers(refused(ErrorCode::NoSpace, no)).await,
        answers(redirect(&stranger)).await,
        answers(refused(ErrorCode::Damaged, no)).await,
    ]
}

#[tokio::test]
async fn every_kind_of_error_can_be_met() {
    // The enum may grow, so other crates cannot match it whole; its source can be read.
    let source = include_str!("../src/error.rs");
    let (_, body) = source.split_once("pub enum ErrorKind {").unwrap();
    let (body, _) = body.split_once('}').unwrap();
    let variants = body
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','));
    let kinds: BTreeSet<String> = variants.map(str::to_owned).collect();
    let errors = provoked().await;
    let met: BTreeSet<String> = errors
        .iter()
        .map(|error| format!("{:?}", error.kind()))
        .collect();
    assert_eq!(met, kinds);
    for error in errors {
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        let text = error.to_string();
        assert!(text.starts_with("put"), "{text}");
        assert!(text.contains(&error.kind().to_string()), "{text}");
    }
}

/// What a subscriber at level debug writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_trace_shows_each_attempt_within_its_op() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let cluster = Cluster::start(1, 0).await;
    let node = cluster.primary(0);
    node.script(in_turn(vec![Reply::Break, stored(1)]));
    cluster.client().put("user:1", "v").await.unwrap();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let attempts: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("attempt"))
        .collect();
    assert_eq!(attempts.len(), 2, "{text}");
    for (line, why) in attempts.iter().zip(["chosen", "again after a pause"]) {
        assert!(line.contains("op{op=\"put\" key=user:1}"), "{line}");
        assert!(
            line.contains(&format!("node={} why={why}", node.address)),
            "{line}"
        );
    }
    assert!(attempts[1].contains("end=\"204\""), "{text}");
}
