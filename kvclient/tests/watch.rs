//! Watches: every change once and in order, whatever breaks on the way.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, StreamExt};
use kvclient::{Change, ErrorKind, Event, Position, Session, Watch, wire::error::ErrorCode};
use support::{
    Cluster, FakeLog, Part, StreamReply,
    fake_log::{position_event, truncated_event},
    fake_scan::refusal,
    wait_until,
};

/// All nodes of each shard tell the same log.
fn serve(cluster: &Cluster) -> Vec<FakeLog> {
    let shards = cluster.shards.iter().enumerate();
    let logs = shards.map(|(number, nodes)| {
        let log = FakeLog::new(&format!("shard{number}"));
        nodes.iter().for_each(|node| log.serve(node));
        log
    });
    logs.collect()
}

/// The next event; panics if none comes in 10 s.
async fn next(watch: &mut Watch) -> Event {
    let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    next.expect("an event in time")
        .expect("a watch does not end")
        .expect("no error")
}

/// The seqs of so many events.
async fn seqs(watch: &mut Watch, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        seqs.push(next(watch).await.position.seq);
    }
    seqs
}

async fn error(watch: &mut Watch) -> kvclient::Error {
    for _ in 0..1_000 {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        if let Err(error) = next
            .expect("an event in time")
            .expect("an error before the end")
        {
            assert!(watch.next().await.is_none(), "it is the last");
            return error;
        }
    }
    panic!("no error");
}

#[tokio::test]
async fn what_is_written_once_it_listens_is_told() {
    let cluster = Cluster::start(3, 0).await;
    let logs = serve(&cluster);
    for log in &logs {
        log.put("before", "not told");
    }
    let kv = cluster.client();
    let mut watch = kv.watch("");
    assert!(watch.position() == Session::new());
    watch.ready().await.unwrap();
    assert_eq!(watch.position().to_token(), "kv1_0.1.1_1.1.1_2.1.1");
    logs[1].put("k", "v");
    let event = next(&mut watch).await;
    assert_eq!((&*event.shard, event.shard_idx), ("shard1", 1));
    assert_eq!(
        (event.key.as_bytes(), event.position),
        (&b"k"[..], Position::new(1, 2))
    );
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(7);
    assert_eq!(event.time, time);
    let put = Change::Put {
        value: "v".into(),
        expires_at: None,
    };
    assert_eq!(event.change, put);
    assert_eq!(watch.position().to_token(), "kv1_0.1.1_1.1.2_2.1.1");
    assert_eq!(
        kv.session().position(1),
        Some(Position::new(1, 2)),
        "it has seen that"
    );
    assert!(watch.next().now_or_never().is_none());
}

#[tokio::test]
async fn every_kind_of_change() {
    let cluster = Cluster::start(1, 0).await;
    let logs = serve(&cluster);
    logs[0].add(
        "put",
        "{\"key_b64\":\"/w==\",\"value_b64\":\"/g==\",\"expires_at_ms\":5}",
    );
    logs[0].add("expire", "{\"key\":\"k\",\"expires_at_ms\":6}");
    logs[0].add("expire", "{\"key\":\"k\",\"expires_at_ms\":null}");
    logs[0].add("delete", "{\"key\":\"k\",\"by_expiry\":true}");
    let mut watch = cluster.client().watch("").from_start();
    let at = |ms| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
    let put = next(&mut watch).await;
    assert_eq!(put.key.as_bytes(), b"\xff");
    let value = vec![0xfe].into();
    let expires_at = at(5);
    assert_eq!(put.change, Change::Put { value, expires_at });
    for expires_at in [at(6), None] {
        assert_eq!(next(&mut watch).await.change, Change::Expire { expires_at });
    }
    let by_expiry = true;
    assert_eq!(next(&mut watch).await.change, Change::Delete { by_expiry });
}

#[tokio::test]
async fn it_goes_on_at_every_position() {
    let cluster = Cluster::start(2, 0).await;
    let logs = serve(&cluster);
    for n in 0..20 {
        logs[n % 2].put("k", "v");
    }
    let kv = cluster.client();
    let mut watch = kv.watch("").from_start();
    for seen in 1..=20 {
        next(&mut watch).await;
        let token = watch.position().to_token();
        let resumed = Session::from_token(&token).unwrap();
        let mut rest = kv.watch("").from(resumed.clone());
        assert_eq!(rest.position(), resumed, "nothing was given out yet");
        let mut behind = resumed;
        for _ in seen..20 {
            let event = next(&mut rest).await;
            let before = behind.position(event.shard_idx).unwrap_or_default();
            assert_eq!(event.position.seq, before.seq + 1, "no gap, no repeat");
            behind.advance(event.shard_idx, event.position);
        }
        assert!(rest.next().now_or_never().is_none(), "that was all");
    }
}

/// Breaks at every byte of the answer, cleanly or not, also inside of an event.
#[tokio::test]
async fn no_cut_makes_a_gap_or_a_repeat() {
    let cluster = Cluster::start(1, 1).await;
    let log = FakeLog::new("shard0");
    for n in 0..4 {
        log.put("k", &n.to_string());
    }
    let cut_at = Arc::new(AtomicUsize::new(0));
    for node in &cluster.shards[0] {
        let (log, cut_at) = (log.clone(), cut_at.clone());
        node.script_streams(move |request| {
            let mut bytes = log.bytes(request);
            match cut_at.swap(usize::MAX, Ordering::SeqCst) {
                at if at < bytes.len() => {
                    bytes.truncate(at);
                    let mut parts = vec![Part::Bytes(bytes)];
                    parts.extend((at % 2 == 0).then_some(Part::Cut));
                    log.reply(parts)
                }
                _ => log.answer(request),
            }
        });
    }
    let kv = cluster.client();
    for at in 0..350 {
        cut_at.store(at, Ordering::SeqCst);
        let mut watch = kv.watch("").from_start();
        assert_eq!(seqs(&mut watch, 4).await, [1, 2, 3, 4], "cut at {at}");
    }
}

#[tokio::test]
async fn a_restart_of_its_node_is_survived() {
    let cluster = Cluster::start(1, 0).await;
    let logs = serve(&cluster);
    let mut watch = cluster.client().watch("");
    watch.ready().await.unwrap();
    logs[0].put("k", "1");
    assert_eq!(seqs(&mut watch, 1).await, [1]);
    for round in 1..4 {
        cluster.primary(0).stop();
        logs[0].put("k", "while it is down");
        let up = async {
            let address = cluster.primary(0).address.to_string();
            let is_down = || std::net::TcpStream::connect(&address).is_err();
            wait_until("nobody listens", is_down).await;
            cluster.primary(0).listen();
        };
        let (seqs, ()) = tokio::join!(seqs(&mut watch, 1), up);
        assert_eq!(seqs, [round + 1]);
    }
    let requests = cluster.primary(0).streams();
    let after = |at: usize| String::from_utf8(requests[at].query().bytes("after").unwrap().into());
    assert!(requests[0].query().bytes("after").is_none(), "from now");
    assert_eq!(after(1).unwrap(), "1.1");
}

#[tokio::test]
async fn another_node_goes_on_where_one_fell() {
    let cluster = Cluster::start(1, 1).await;
    let logs = serve(&cluster);
    let mut watch = cluster.client().watch("");
    watch.ready().await.unwrap();
    let listened = |node: usize| !cluster.shards[0][node].streams().is_empty();
    let first = usize::from(!listened(0));
    logs[0].put("k", "1");
    assert_eq!(seqs(&mut watch, 1).await, [1]);
    cluster.shards[0][first].stop();
    logs[0].put("k", "2");
    assert_eq!(seqs(&mut watch, 1).await, [2]);
    assert!(listened(1 - first));
}

#[tokio::test]
async fn a_silent_connection_is_dead() {
    let cluster = Cluster::start(1, 1).await;
    let log = FakeLog::new("shard0");
    let asked = Arc::new(AtomicUsize::new(0));
    for node in &cluster.shards[0] {
        let (log, asked) = (log.clone(), asked.clone());
        node.script_streams(move |request| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => log.reply(vec![Part::Bytes(position_event(0)), Part::Hang]),
            _ => log.answer(request),
        });
    }
    let mut watch = cluster
        .client()
        .watch("")
        .silence(Duration::from_millis(100));
    watch.ready().await.unwrap();
    log.put("k", "v");
    assert_eq!(seqs(&mut watch, 1).await, [1]);
    wait_until("the silent one is closed", || {
        let closed = cluster.shards[0].iter().map(|node| node.closed_streams());
        closed.sum::<usize>() >= 1
    })
    .await;
}

#[tokio::test]
async fn a_log_that_does_not_reach_back_is_told() {
    let cluster = Cluster::start(2, 1).await;
    let logs = serve(&cluster);
    logs[0].put("k", "v");
    // Refused at once, and told while it reads.
    for is_refused in [true, false] {
        for node in &cluster.shards[1] {
            let log = logs[1].clone();
            node.script_streams(move |request| match is_refused {
                true => refusal(ErrorCode::LogTruncated),
                false => {
                    let after = log.after(request);
                    let parts = [position_event(after), truncated_event(after)];
                    log.reply(parts.map(Part::Bytes).into())
                }
            });
        }
        let mut watch = cluster.client().watch("").from_start();
        let error = error(&mut watch).await;
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(error.shard(), Some("shard1"));
        assert_eq!(error.lost_position(), None);
        assert!(
            error.to_string().contains("scan"),
            "says what to do: {error}"
        );
        for node in &cluster.shards[1] {
            assert!(!node.streams().is_empty(), "both were asked");
        }
        assert!(watch.ready().await.is_err(), "it has ended");
    }
}

#[tokio::test]
async fn a_node_whose_log_reaches_back_is_found() {
    let cluster = Cluster::start(1, 2).await;
    let logs = serve(&cluster);
    logs[0].put("k", "v");
    for replica in 0..2 {
        let node = cluster.replica(0, replica);
        node.script_streams(|_| refusal(ErrorCode::LogTruncated));
    }
    for _ in 0..5 {
        let mut watch = cluster.client().watch("").from_start();
        assert_eq!(seqs(&mut watch, 1).await, [1]);
    }
}

#[tokio::test]
async fn a_lost_position_is_told() {
    let cluster = Cluster::start(1, 0).await;
    cluster
        .primary(0)
        .script_streams(|_| refusal(ErrorCode::PositionLost));
    let session = Session::from_token("kv1_0.1.9").unwrap();
    let error = error(&mut cluster.client().watch("").from(session)).await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.lost_position(), Some(Position::new(1, 9)));
}

#[tokio::test]
async fn a_shard_without_nodes_is_an_error_in_the_end() {
    let cluster = Cluster::start(2, 0).await;
    let logs = serve(&cluster);
    let kv = cluster.client();
    let mut watch = kv.watch("").timeout(Duration::from_millis(200));
    watch.ready().await.unwrap();
    cluster.primary(1).stop();
    let failed = error(&mut watch).await;
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed}");
    assert_eq!((failed.op(), failed.shard()), ("watch", Some("shard1")));
    assert_eq!(failed.node(), Some(&cluster.primary(1).address));
    let mut early = kv.watch("").timeout(Duration::from_millis(50));
    assert_eq!(
        early.ready().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // What it had given out is known, and it can go on there.
    let address = cluster.primary(1).address.to_string();
    let is_down = || std::net::TcpStream::connect(&address).is_err();
    wait_until("nobody listens", is_down).await;
    cluster.primary(1).listen();
    logs[1].put("k", "v");
    let mut later = kv.watch("").from(watch.position());
    assert_eq!(seqs(&mut later, 1).await, [1]);
}

#[tokio::test]
async fn now_is_not_before_what_the_client_has_seen() {
    let cluster = Cluster::start(1, 1).await;
    let logs = serve(&cluster);
    logs[0].put("k", "v");
    let kv = cluster.client();
    kv.merge_session(&"kv1_0.1.1".parse().unwrap());
    cluster.replica(0, 0).script_streams(|request| {
        assert_eq!(request.header("kv-min-position").as_deref(), Some("1.1"));
        assert_eq!(request.header("kv-wait-ms").as_deref(), Some("50"));
        refusal(ErrorCode::Behind)
    });
    for _ in 0..5 {
        let mut watch = kv.watch("");
        watch.ready().await.unwrap();
        assert_eq!(watch.position().to_token(), "kv1_0.1.1");
    }
    assert!(!cluster.replica(0, 0).streams().is_empty());
}

#[tokio::test]
async fn a_rare_prefix_moves_on_with_its_shard() {
    let cluster = Cluster::start(1, 0).await;
    let log = FakeLog::new("shard0");
    let (open, gate) = tokio::sync::watch::channel(false);
    cluster.primary(0).script_streams(move |_| {
        let events = [position_event(0), position_event(5), position_event(900)];
        let mut parts = events.map(Part::Bytes).to_vec();
        parts.insert(1, Part::Gate(gate.clone()));
        parts.push(Part::Hang);
        log.reply(parts)
    });
    let mut watch = cluster.client().watch("rare");
    watch.ready().await.unwrap();
    open.send_replace(true);
    let moved = async {
        for _ in 0..5_000 {
            if watch.position().position(0) == Some(Position::new(1, 900)) {
                return;
            }
            let tick = Duration::from_millis(1);
            assert!(tokio::time::timeout(tick, watch.next()).await.is_err());
        }
        panic!("it does not move on");
    };
    moved.await;
}

#[tokio::test]
async fn a_watch_that_is_dropped_closes_its_connections() {
    let cluster = Cluster::start(3, 0).await;
    let logs = serve(&cluster);
    let mut watch = cluster.client().watch("");
    watch.ready().await.unwrap();
    logs[0].put("k", "v");
    next(&mut watch).await;
    drop(watch);
    wait_until("all three are closed", || {
        let closed = cluster
            .shards
            .iter()
            .flatten()
            .map(|node| node.closed_streams());
        closed.sum::<usize>() == 3
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_at_once() {
    let cluster = Cluster::start(1, 0).await;
    let mut watch = cluster.client().watch(vec![b'a'; 512]);
    assert_eq!(error(&mut watch).await.kind(), ErrorKind::Invalid);
    assert_eq!(cluster.primary(0).connections(), 0);
}

#[tokio::test]
async fn what_does_not_decode_is_not_asked_for_again() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script_streams(|_| {
        let bytes = b"event: put\nid: what\ndata: {}\n\n".to_vec();
        StreamReply::Stream(Vec::new(), vec![Part::Bytes(bytes)])
    });
    let mut watch = cluster.client().watch("");
    assert_eq!(error(&mut watch).await.kind(), ErrorKind::Corrupt);
    assert_eq!(cluster.primary(0).streams().len(), 1);
}

/// Each watch that ended counted as a read that its node had left unanswered: three of them, and a node that was well
/// was ejected. And as long as one was open, its node seemed the busier one, so that all reads went to the other.
#[tokio::test]
async fn an_open_watch_is_nothing_that_its_node_owes() {
    let cluster = Cluster::start(1, 0).await;
    serve(&cluster);
    let kv = cluster.client();
    let mut watches: Vec<Watch> = (0..5).map(|_| kv.watch("")).collect();
    for watch in &mut watches {
        watch.ready().await.unwrap();
    }
    let node = || kv.stats().nodes.remove(0);
    assert_eq!(node().in_flight, 0);
    tokio::time::sleep(Duration::from_millis(150)).await;
    for watch in watches {
        drop(watch);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    assert_eq!((node().ejections, node().in_flight), (0, 0));
}

#[tokio::test]
async fn the_past_ends_when_it_is_level_and_goes_on_after_a_break() {
    let cluster = Cluster::start(2, 1).await;
    let logs: Vec<_> = (0..2).map(|n| FakeLog::new(&format!("shard{n}"))).collect();
    for (log, nodes) in logs.iter().zip(&cluster.shards) {
        let asked = Arc::new(AtomicUsize::new(0));
        for node in nodes {
            let (log, asked) = (log.clone(), asked.clone());
            node.script_streams(move |request| {
                let query = request.query();
                match asked.fetch_add(1, Ordering::SeqCst) {
                    // Breaks off behind the first record.
                    0 => {
                        assert_eq!(query.bytes("after"), Some(&b"earliest"[..]));
                        let first = log.first_bytes();
                        log.reply(vec![Part::Bytes([position_event(0), first].concat())])
                    }
                    _ => {
                        assert_eq!(query.bytes("after"), Some(&b"1.1"[..]));
                        log.answer_level(request)
                    }
                }
            });
        }
        for n in 0..3 {
            log.put("k", &format!("{n}"));
        }
    }
    let mut past = cluster.client().watch("k").from_earliest().until_level();
    let mut told = Vec::new();
    while let Some(event) = tokio::time::timeout(Duration::from_secs(10), past.next())
        .await
        .expect("it ends")
    {
        let event = event.unwrap();
        told.push((event.shard_idx, event.position.seq));
    }
    told.sort_unstable();
    assert_eq!(told, [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]);
    assert!(past.next().await.is_none(), "it stays ended");
    assert_eq!(past.position().to_token(), "kv1_0.1.3_1.1.3");
}
