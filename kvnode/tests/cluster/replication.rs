//! A replica follows its primary through everything that goes wrong between them, and its log stays the same bytes.

use std::{path::Path, time::Duration};

use kvclient::{
    key::Key,
    position::Position,
    wire::batch::{Action, Op},
};

use crate::support::{
    cluster::{Cluster, Node, Shape, equal_logs, map_text, swapped},
    eventually,
    http::Ask,
    oracle::Oracle,
    seeded,
    writers::{Load, Writers},
};

fn linked_pair() -> Shape {
    Shape {
        linked: true,
        ..Shape::pair()
    }
}

const LOAD: Load = Load {
    writers: 4,
    batch: 8,
    keys: 100,
    value_bytes: 400,
    run: 0,
};

/// Waits until a replica has all that its primary has, then compares logs, entries and what was acknowledged.
async fn assert_level(cluster: &Cluster, number: usize, oracles: &[Oracle]) {
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, number));
    let end = primary.at("durable").await;
    replica
        .wait_visible(end, "the replica becomes level with its primary")
        .await;
    equal_logs(primary, replica).await;
    for oracle in oracles {
        let losses = oracle.losses(replica).await;
        assert!(losses.is_empty(), "{losses:#?}");
    }
    replica.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_down_catches_up_by_the_log() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let mut oracles = [Oracle::default()];
    let writers = Writers::start(&cluster, LOAD);
    for round in 1..4 {
        writers.wait_acked(round * 400).await;
        // Cleanly the first time, then by force.
        match round {
            1 => replica.stop().await,
            _ => replica.kill(),
        }
        writers.wait_acked(round * 400 + 200).await;
        replica.start().await;
    }
    writers.stop(&mut oracles).await;
    assert_level(&cluster, 0, &oracles).await;
    assert_eq!(
        primary.status().await["truncated"],
        0,
        "no snapshot was needed"
    );
    assert!(!replica.said().contains("snapshot"), "{}", replica.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_replica_goes_on_where_it_was() {
    let cluster = Cluster::start(Shape::pair()).await;
    let mut oracles = [Oracle::default()];
    let writers = Writers::start(&cluster, LOAD);
    for round in 1..5 {
        cluster.replica(0, 0).pause();
        writers.wait_acked(round * 300).await;
        cluster.replica(0, 0).resume();
    }
    writers.stop(&mut oracles).await;
    assert_level(&cluster, 0, &oracles).await;
}

/// The link breaks in the middle of heads, frames and nothing at all; no gap and nothing twice comes of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_anywhere_leaves_no_gap() {
    let mut rng = seeded();
    let cluster = Cluster::start(linked_pair()).await;
    let link = cluster.link(0, 0);
    let mut oracles = [Oracle::default()];
    let writers = Writers::start(&cluster, LOAD);
    for strike in 1..=8 {
        link.drop_after(rng.usize(..150_000));
        eventually("the link breaks", async || {
            (link.breaks() >= strike).then_some(())
        })
        .await;
    }
    link.cut();
    let seen = cluster.replica(0, 0).at("durable").await;
    let written = writers_go_on(&writers, cluster.primary(0)).await;
    assert!(
        written > seen,
        "the primary does not wait for a replica that is cut off"
    );
    link.heal();
    link.delay(Duration::from_millis(20));
    writers_go_on(&writers, cluster.primary(0)).await;
    writers.stop(&mut oracles).await;
    link.heal();
    assert_level(&cluster, 0, &oracles).await;
}

/// Waits until the primary has a few hundred records more.
async fn writers_go_on(writers: &Writers, primary: &Node) -> Position {
    writers.wait_acked(1).await;
    let before = primary.at("durable").await;
    eventually("writes go on", async || {
        let now = primary.at("durable").await;
        (now.seq > before.seq + 300).then_some(now)
    })
    .await
}

/// Small segments and a memtable so small that the log is given free while the test looks.
const FORGETFUL: &[&str] = &["--log-retention", "1MiB", "--checkpoint-every", "500"];

/// Writes until the primary's log no longer reaches back to `after`.
async fn write_beyond_retention(primary: &Node, after: u64) {
    let value = vec![b'x'; 60_000];
    for n in 0.. {
        let put = |key: String| {
            let action = Action::Put {
                value: value.clone().into(),
                ttl_ms: None,
            };
            Op::new(Key::new(key).expect("a key"), action)
        };
        let ops: Vec<Op> = (0..20)
            .map(|op| put(format!("bulk{}", (n * 20 + op) % 50)))
            .collect();
        for result in primary.batch(&ops).await {
            assert_eq!(result.status, 204, "{result:?}");
        }
        if primary.status().await["truncated"].as_u64() > Some(after) {
            return;
        }
        assert!(
            n < 300,
            "the log is never given free: {}",
            primary.status().await
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_retention_a_replica_takes_a_snapshot_by_itself_while_writes_go_on() {
    let cluster = Cluster::start(Shape {
        flags: FORGETFUL,
        ..Shape::pair()
    })
    .await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let mut oracles = [Oracle::default()];
    let gone = primary.put("gone", "v").await;
    replica
        .wait_visible(gone, "the replica has the entry")
        .await;
    replica.kill();
    primary.ask("DELETE", "/kv/gone").await;
    let behind = primary.at("durable").await;
    write_beyond_retention(primary, behind.seq).await;

    // Slow enough that the replica, once it has the snapshot, finds the log still reaching back to it.
    let slow = Load {
        writers: 1,
        batch: 2,
        ..LOAD
    };
    let writers = Writers::start(&cluster, slow);
    writers.wait_acked(100).await;
    replica.start().await;
    let snapshot = "snapshot is in force";
    eventually(snapshot, async || {
        replica.said().contains(snapshot).then_some(())
    })
    .await;
    writers_go_on(&writers, primary).await;
    writers.stop(&mut oracles).await;
    assert_level(&cluster, 0, &oracles).await;
    assert_eq!(
        replica.get("gone").await,
        None,
        "what was deleted meanwhile does not come back"
    );
    assert_same_entries(primary, replica).await;
    assert_eq!(
        generations(&replica.data),
        ["gen-2"],
        "the old generation is removed"
    );

    // It is an ordinary replica from now on: by the log, after a restart too.
    replica.kill();
    let position = primary.put("after", "v").await;
    replica.start().await;
    replica
        .wait_visible(position, "the log goes on where the snapshot ended")
        .await;
    assert!(!replica.said().contains(snapshot), "{}", replica.said());
}

fn generations(data: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(data)
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.starts_with("gen-"))
        .collect();
    names.sort();
    names
}

/// Checks that the snapshots of two nodes, taken while nobody writes, hold the same entries.
async fn assert_same_entries(one: &Node, other: &Node) {
    let (one, other) = (entries(one).await, entries(other).await);
    assert!(!one.is_empty());
    assert!(
        one == other,
        "{} and {} entries differ",
        one.len(),
        other.len()
    );
}

async fn entries(node: &Node) -> Vec<kvclient::wire::snapshot::Entry> {
    use kvclient::wire::snapshot::{Chunk, Decoder};
    let answer = node.ask("GET", "/snapshot").await;
    assert_eq!(answer.status, 200);
    let mut decoder = Decoder::new();
    decoder.push(&answer.body);
    let (mut entries, mut ended) = (Vec::new(), false);
    while let Some(chunk) = decoder.next_chunk().expect("a snapshot") {
        match chunk {
            Chunk::Entries(some) => entries.extend(some),
            Chunk::End { .. } => ended = true,
            _ => {}
        }
    }
    assert!(ended, "the snapshot is whole");
    entries
}

/// However often a snapshot breaks off, the old data stays in force until a whole one is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_breaks_off_is_never_put_in_force() {
    let mut rng = seeded();
    let cluster = Cluster::start(Shape {
        flags: FORGETFUL,
        ..linked_pair()
    })
    .await;
    let (primary, replica, link) = (
        cluster.primary(0),
        cluster.replica(0, 0),
        cluster.link(0, 0),
    );
    let old = primary.put("old", "v").await;
    replica.wait_visible(old, "the replica has the entry").await;
    link.cut();
    write_beyond_retention(primary, old.seq + 1).await;
    link.heal();
    for strike in 1..=4 {
        link.drop_after(rng.usize(2_000..2_000_000));
        eventually("the snapshot breaks off", async || {
            (link.breaks() >= strike).then_some(())
        })
        .await;
        assert_eq!(
            replica.get("old").await.as_deref(),
            Some(&b"v"[..]),
            "the old data is served"
        );
        assert_eq!(replica.at("visible").await, old);
    }
    // Killed while it builds, too.
    link.delay(Duration::from_millis(5));
    eventually("a snapshot is being built", async || {
        (generations(&replica.data).len() == 2).then_some(())
    })
    .await;
    replica.kill();
    link.heal();
    replica.start().await;
    let end = primary.at("durable").await;
    replica
        .wait_visible(end, "a whole snapshot is in force at last")
        .await;
    assert_same_entries(primary, replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_replica_joins_late_and_two_follow_one_primary() {
    let cluster = Cluster::prepare(Shape {
        replicas: 2,
        flags: &["--checkpoint-every", "300"],
        ..Shape::default()
    });
    let primary = cluster.primary(0);
    primary.spawn(&[]);
    primary.wait_ready().await;
    let mut oracles = [Oracle::default()];
    let writers = Writers::start(&cluster, LOAD);
    writers.wait_acked(500).await;
    cluster.replica(0, 0).start().await;
    writers_go_on(&writers, primary).await;
    cluster.replica(0, 1).start().await;
    writers_go_on(&writers, primary).await;
    writers.stop(&mut oracles).await;
    for number in [0, 1] {
        assert_level(&cluster, number, &oracles).await;
        assert_same_entries(primary, cluster.replica(0, number)).await;
    }
    let end = primary.at("durable").await.to_string();
    eventually("the primary counts both replicas as level", async || {
        let status = primary.status().await;
        let replicas = status["replicas"].as_array()?;
        let level = replicas
            .iter()
            .filter(|replica| replica["durable"] == end.as_str());
        (level.count() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_and_replica_pass_the_same_checkpoints() {
    let cluster = Cluster::start(Shape {
        flags: &["--checkpoint-every", "200"],
        ..Shape::pair()
    })
    .await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let mut oracles = [Oracle::default()];
    let writers = Writers::start(&cluster, LOAD);
    writers.wait_acked(2_000).await;
    writers.stop(&mut oracles).await;
    assert_level(&cluster, 0, &oracles).await;
    // Both answer a pull, also a replica; the header names their newest checkpoints.
    let same = eventually("both have passed the same checkpoints", async || {
        let (one, other) = (checkpoints(primary).await, checkpoints(replica).await);
        let same = one.iter().filter(|one| other.contains(one)).count();
        for (position, digest) in &one {
            let differs = |(at, sum): &&(String, String)| at == position && sum != digest;
            assert_eq!(
                other.iter().find(differs),
                None,
                "the sums at {position} differ"
            );
        }
        (same >= 2).then_some(same)
    })
    .await;
    assert!(same >= 2);
}

/// Position and digest of the checkpoints that a node names to a replica that pulls.
async fn checkpoints(node: &Node) -> Vec<(String, String)> {
    let status = node.status().await;
    let ask = Ask::new("GET", "/log?after=0&max_bytes=1&wait_ms=0")
        .header("kv-node-id", "00000000000000ff")
        .header("kv-node-address", "nobody:1")
        .header("kv-history", status["history"].as_str().expect("a history"))
        .header("kv-lineage", "")
        .header("kv-last-crc", "00000000");
    let answer = node.send(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let header = answer.header("kv-checkpoints").unwrap_or_default();
    let pair = |item: &str| {
        let (position, digest) = item.split_once(':').expect("a checkpoint");
        (position.trim().to_owned(), digest.to_owned())
    };
    header
        .split(',')
        .filter(|item| !item.is_empty())
        .map(pair)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_unknown_then_small_then_grows_while_the_primary_is_silent() {
    let cluster = Cluster::prepare(Shape::pair());
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    replica.spawn(&[]);
    replica.wait_not_ready("first copy").await;
    let status = replica.status().await;
    assert_eq!(
        (&status["lag_ms"], &status["lag_records"]),
        (&().into(), &().into())
    );
    let answer = replica.ask("GET", "/kv/k").await;
    assert_eq!((answer.status, answer.error().as_str()), (503, "not_ready"));
    assert_eq!(answer.header("kv-lag-ms"), None);

    primary.start().await;
    assert_eq!(primary.status().await["lag_ms"], 0);
    let position = primary.put("k", "v").await;
    replica.wait_visible(position, "the replica follows").await;
    replica.wait_ready().await;
    let lag = async || {
        let answer = replica.ask("GET", "/kv/k").await;
        assert_eq!(answer.status, 200);
        answer
            .header("kv-lag-ms")
            .map(|text| text.parse::<u64>().expect("milliseconds"))
    };
    eventually(
        "the lag of an idle pair stays below a pull's wait and a bit",
        async || (lag().await? < 400).then_some(()),
    )
    .await;
    let within = |ms: u64| Ask::new("GET", "/kv/k").header("kv-max-lag-ms", ms);
    eventually("a replica within the bound answers", async || {
        (replica.send(within(400)).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(
        primary.send(within(0)).await.status,
        200,
        "a primary does not lag"
    );

    primary.pause();
    eventually("the lag grows while the primary is silent", async || {
        (lag().await? > 1_000).then_some(())
    })
    .await;
    let refused = replica.send(within(400)).await;
    assert_eq!((refused.status, refused.error().as_str()), (503, "behind"));
    assert_eq!(refused.position(), position);
    primary.resume();
    eventually("the lag is small again", async || {
        (lag().await? < 400).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_may_wait_for_a_position() {
    let cluster = Cluster::start(linked_pair()).await;
    let (primary, replica, link) = (
        cluster.primary(0),
        cluster.replica(0, 0),
        cluster.link(0, 0),
    );
    link.cut();
    let position = primary.put("k", "new").await;
    let read = |wait_ms: u64| {
        Ask::new("GET", "/kv/k")
            .header("kv-min-position", position)
            .header("kv-wait-ms", wait_ms)
    };
    assert_eq!(primary.send(read(0)).await.text(), "new");
    for wait_ms in [0, 50] {
        let behind = replica.send(read(wait_ms)).await;
        assert_eq!((behind.status, behind.error().as_str()), (503, "behind"));
        assert!(behind.position() < position && behind.header("retry-after").is_some());
    }
    let (answer, ()) = tokio::join!(replica.send(read(5_000)), async { link.heal() });
    assert_eq!((answer.status, answer.text().as_str()), (200, "new"));

    // A position of an older reign at a seq where a newer one holds will never come.
    primary.kill();
    primary.start().await;
    let next = primary.put("k", "newer").await;
    replica
        .wait_visible(next, "the new reign reaches the replica")
        .await;
    let lost = Position::new(position.epoch, next.seq + 1);
    for node in [primary, replica] {
        let ask = Ask::new("GET", "/kv/k")
            .header("kv-min-position", lost)
            .header("kv-wait-ms", 5_000);
        let answer = node.send(ask).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (410, "position_lost")
        );
        assert_eq!(answer.position(), next);
        let held = Ask::new("GET", "/kv/k").header("kv-min-position", position);
        assert_eq!(
            node.send(held).await.text(),
            "newer",
            "an older position is held"
        );
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

/// The map of a pair in its own order.
fn ordered(cluster: &Cluster, version: usize) -> String {
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    map_text(
        version,
        &[primary.address.clone(), replica.address.clone()],
        2,
    )
}

/// Makes the replica of a stopped pair a primary of its own for a while, so that it holds `own` and the primary
/// does not, and turns it into a replica again behind everybody's back.
async fn diverge(cluster: &Cluster) {
    let replica = cluster.replica(0, 0);
    let marker = replica.data.join("node.toml");
    let as_replica = std::fs::read_to_string(&marker).expect("a marker");
    replica.write_map(&map_text(7, std::slice::from_ref(&replica.address), 1));
    replica.spawn(&["--promote"]);
    replica.wait_ready().await;
    replica.put("own", "only here").await;
    replica.put("binary%FF", &b"\xfe"[..]).await;
    replica.stop().await;
    std::fs::write(&marker, as_replica).expect("the marker as it was");
    replica.write_map(&ordered(cluster, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diverged_replica_keeps_its_tail_and_waits_for_a_person() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let common = primary.put("common", "v").await;
    replica
        .wait_visible(common, "the replica has the write")
        .await;
    primary.stop().await;
    replica.stop().await;
    diverge(&cluster).await;
    primary.start().await;
    primary.put("theirs", "v").await;
    let before = replica_end(replica).await;

    replica.spawn(&[]);
    let why = replica.wait_not_ready("diverged").await;
    assert!(
        why.contains("--rejoin") && why.contains("diverged/"),
        "{why}"
    );
    for uri in ["/kv/common", "/get?key=common"] {
        let answer = replica.ask("GET", uri).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (503, "replica_diverged"),
            "{uri}"
        );
    }
    assert_eq!(replica.at("durable").await, before, "nothing is truncated");
    let tail = saved_tail(replica);
    let keys: Vec<String> = tail
        .iter()
        .map(|line| line["key"].as_str().unwrap_or("-").to_owned())
        .collect();
    assert_eq!(
        keys,
        ["", "own", "-"],
        "exactly what only this node has: {tail:?}"
    );
    assert_eq!(
        (&tail[0]["kind"], &tail[1]["kind"]),
        (&"epoch_start".into(), &"put".into())
    );
    assert_eq!(tail[1]["value"], "only here");
    assert_eq!(
        (&tail[2]["key_b64"], &tail[2]["value_b64"]),
        (&"YmluYXJ5/w==".into(), &"/g==".into())
    );
    assert_eq!(
        primary.get("own").await,
        None,
        "the primary does not take it"
    );

    // A restart changes nothing of that, with nobody there to tell it again, and writes nothing twice.
    primary.stop().await;
    replica.kill();
    replica.spawn(&[]);
    replica.wait_not_ready("diverged").await;
    let answer = replica.ask("GET", "/kv/own").await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (503, "replica_diverged")
    );
    assert_eq!(saved_tail(replica), tail);
    replica.stop().await;

    // (With this replica there the primary would not take writes again: its log is the longer one.)
    primary.start().await;
    replica.spawn(&["--rejoin"]);
    replica.wait_ready().await;
    let end = primary.at("durable").await;
    replica
        .wait_visible(end, "after --rejoin the replica follows")
        .await;
    assert_eq!(replica.get("own").await, None);
    assert_eq!(replica.get("theirs").await.as_deref(), Some(&b"v"[..]));
    assert_same_entries(primary, replica).await;
    assert_eq!(
        generations(&replica.data),
        ["gen-1", "gen-2"],
        "the old data stays aside"
    );
    assert_eq!(saved_tail(replica), tail);
}

/// Last position of a replica that does not run, from `kvnode check`.
async fn replica_end(replica: &Node) -> Position {
    let (code, text) = Node::run(&["check", "--data", replica.data.to_str().expect("UTF-8")]);
    assert_eq!(code, 0, "{text}");
    let end = text
        .split(" to ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    end.and_then(|end| end.parse().ok())
        .unwrap_or_else(|| panic!("{text}"))
}

/// The lines of the one file in `diverged/`.
fn saved_tail(replica: &Node) -> Vec<serde_json::Value> {
    let files: Vec<_> = std::fs::read_dir(replica.data.join("diverged"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(files[0].extension(), Some("ndjson".as_ref()));
    let text = std::fs::read_to_string(&files[0]).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_another_history_keeps_everything_and_serves_nothing() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let position = primary.put("first", "v").await;
    replica
        .wait_visible(position, "the replica has the write")
        .await;
    replica.kill();
    primary.kill();
    // A primary that begins anew, as after a lost disk, while nobody is there to warn it.
    std::fs::rename(&primary.data, cluster.dir().join("lost")).expect("moved");
    primary.start().await;
    primary.put("second", "v").await;
    replica.spawn(&[]);
    let why = replica.wait_not_ready("diverged").await;
    assert!(why.contains("history"), "{why}");
    let answer = replica.ask("GET", "/kv/first").await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (503, "replica_diverged")
    );
    let tail = saved_tail(replica);
    assert_eq!(tail.last().expect("a line")["key"], "first");
    assert_eq!(replica.at("durable").await, position);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_lost_its_data_does_not_take_writes_beside_a_replica_that_has_it() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let position = primary.put("k", "v").await;
    replica
        .wait_visible(position, "the replica has the write")
        .await;
    primary.stop().await;

    // Shorter: a backup from before the last writes.
    let (whole, backup) = (cluster.dir().join("whole"), cluster.dir().join("backup"));
    copy_dir(&primary.data, &backup);
    primary.start().await;
    let newer = primary.put("k", "newer").await;
    replica
        .wait_visible(newer, "the replica has the newer write")
        .await;
    primary.stop().await;
    std::fs::rename(&primary.data, &whole).expect("moved");
    std::fs::rename(&backup, &primary.data).expect("moved");
    primary.spawn(&[]);
    let why = primary.wait_not_ready("longer log").await;
    assert!(
        why.contains(&replica.address) && why.contains("--promote"),
        "{why}"
    );
    assert_read_only(primary).await;
    // The replica's pulls tell it of a newer epoch, which says less: with --promote it would lose the newer write.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let still = primary.wait_not_ready("").await;
        assert!(still.contains("longer log"), "{still}");
    }
    assert_eq!(
        replica.get("k").await.as_deref(),
        Some(&b"newer"[..]),
        "the replica keeps its data"
    );
    primary.stop().await;

    // Empty: a new disk.
    std::fs::remove_dir_all(&primary.data).expect("removed");
    primary.spawn(&[]);
    let why = primary.wait_not_ready("empty").await;
    assert!(why.contains(&replica.address), "{why}");
    assert_read_only(primary).await;
    assert_eq!(
        replica.get("k").await.as_deref(),
        Some(&b"newer"[..]),
        "the replica keeps its data"
    );
    primary.stop().await;

    // With its own data back, all is well.
    std::fs::remove_dir_all(&primary.data).expect("removed");
    std::fs::rename(&whole, &primary.data).expect("moved");
    primary.start().await;
    let last = primary.put("k", "last").await;
    replica
        .wait_visible(last, "the replica follows again")
        .await;
}

async fn assert_read_only(node: &Node) {
    let answer = node.send(Ask::new("PUT", "/kv/k").body("no")).await;
    assert_eq!((answer.status, answer.error().as_str()), (503, "not_ready"));
    assert_eq!(answer.header("kv-applied"), Some("no"));
}

/// The primary's machine is lost, its replica promoted by a person; then the old machine comes back as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_goes_on_and_the_old_primary_takes_no_writes() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (old, new) = (cluster.primary(0), cluster.replica(0, 0));
    let position = old.put("k", "v").await;
    new.wait_visible(position, "the replica has the write")
        .await;
    old.kill();
    new.kill();
    new.write_map(&swapped(&cluster, 2));
    new.spawn(&[]);
    assert_eq!(
        new.ended().await,
        3,
        "not without a person's word: {}",
        new.said()
    );
    assert!(new.said().contains("--promote"), "{}", new.said());
    new.spawn(&["--promote"]);
    new.wait_ready().await;
    assert_eq!(new.get("k").await.as_deref(), Some(&b"v"[..]));
    let after = new.put("k", "after").await;
    assert!(after.epoch > position.epoch && after.seq > position.seq);
    new.kill();
    new.start().await;

    // The old one still goes by the old map.
    old.spawn(&[]);
    let why = old.wait_not_ready(&new.address).await;
    assert!(why.contains("longer log") || why.contains("epoch"), "{why}");
    assert_read_only(old).await;
    old.stop().await;

    // By the new map it is a replica, and its data is given up only on a person's word.
    old.write_map(&swapped(&cluster, 2));
    old.spawn(&[]);
    assert_eq!(old.ended().await, 3, "{}", old.said());
    assert!(old.said().contains("--rejoin"), "{}", old.said());
    old.spawn(&["--rejoin"]);
    old.wait_ready().await;
    let end = new.at("durable").await;
    old.wait_visible(end, "the old primary follows the new one")
        .await;
    assert_eq!(old.get("k").await.as_deref(), Some(&b"after"[..]));
    assert_same_entries(new, old).await;
}

/// An old primary had taken writes that the promoted replica never got. Told to --rejoin, it set them aside in its old
/// generation, where nobody looks, while a replica that has parted writes what only it has to `diverged/`.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_rejoins_saves_what_only_it_has() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (old, new) = (cluster.primary(0), cluster.replica(0, 0));
    let common = old.put("common", "v").await;
    new.wait_visible(common, "the replica has the write").await;
    new.kill();
    old.put("only", "here").await;
    // Reigns that nobody else knows of, newer than the one that the replica will begin.
    for _ in 0..2 {
        old.kill();
        old.start().await;
    }
    let own = old.at("durable").await;
    old.kill();
    new.write_map(&swapped(&cluster, 2));
    new.spawn(&["--promote"]);
    new.wait_ready().await;
    let theirs = new.put("theirs", "v").await;
    old.write_map(&swapped(&cluster, 2));
    old.spawn(&["--rejoin"]);
    old.wait_visible(theirs, "the old primary follows the new one")
        .await;
    let tail = saved_tail(old);
    assert!(own.epoch > theirs.epoch, "{own} {theirs}");
    assert_eq!(tail.len(), 3, "the write and two reigns: {tail:?}");
    assert_eq!(
        (&tail[0]["key"], &tail[0]["value"]),
        (&"only".into(), &"here".into())
    );
    assert_eq!(old.get("only").await, None);
    let after = new.put("after", "v").await;
    old.wait_visible(after, "the new primary's reign goes on")
        .await;
    assert_same_entries(new, old).await;
}

/// A replica that has followed a newer primary tells the old one so, which stops at once and remembers it.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_is_fenced_by_what_a_replica_knows() {
    let cluster = Cluster::prepare(Shape {
        replicas: 2,
        ..Shape::default()
    });
    cluster.start_all().await;
    let (old, new, witness) = (
        cluster.primary(0),
        cluster.replica(0, 0),
        cluster.replica(0, 1),
    );
    let position = old.put("k", "v").await;
    for replica in [new, witness] {
        replica
            .wait_visible(position, "the replicas have the write")
            .await;
    }
    // The old primary is cut off for a while: here, paused.
    old.pause();
    new.kill();
    witness.kill();
    let [a, b, c] = [new, old, witness].map(|node| node.address.clone());
    let map = map_text(2, &[a, b, c], 3);
    new.write_map(&map);
    new.spawn(&["--promote"]);
    new.wait_ready().await;
    let after = new.put("k", "after").await;
    witness.write_map(&map);
    witness.start().await;
    witness
        .wait_visible(after, "the witness follows the new primary")
        .await;
    witness.kill();
    new.kill();

    old.resume();
    old.wait_ready().await;
    witness.write_map(&cluster.map);
    witness.spawn(&[]);
    let why = old.wait_not_ready("epoch").await;
    assert!(why.contains(&after.epoch.to_string()), "{why}");
    assert_read_only(old).await;
    assert_eq!(
        old.get("k").await.as_deref(),
        Some(&b"v"[..]),
        "it still serves what it has"
    );
    assert_eq!(
        witness.at("durable").await,
        after,
        "the witness truncates nothing"
    );
    witness.kill();

    // Remembered over a restart, with nobody there to tell it again.
    old.stop().await;
    old.spawn(&[]);
    old.wait_not_ready("--promote").await;
    assert_read_only(old).await;
    old.stop().await;

    // A person says otherwise: the new reign is newer than any that was heard of, so that no position is used twice.
    old.spawn(&["--promote"]);
    old.wait_ready().await;
    let again = old.put("k", "again").await;
    assert!(
        again.epoch > after.epoch,
        "{again} reuses the epoch of {after}"
    );
    old.stop().await;
    old.start().await;
    assert!(old.put("k", "and again").await.epoch > again.epoch);
}
