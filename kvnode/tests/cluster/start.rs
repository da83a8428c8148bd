//! What a node refuses to start on, and with which exit code and words; how it stops; what it reads anew.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::{fs::FileExt, net::UnixDatagram},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvclient::{
    key::Key,
    wire::{
        batch::{Action, Op},
        log::{Effect, Frame, FrameBuilder, Record},
    },
};
use rustix::process::Signal;

use crate::support::{
    cluster::{Cluster, Node, Shape, map_text},
    eventually,
    http::{Ask, Raw, head},
    oracle::Oracle,
    ports::Port,
    writers::{Load, Writers},
};

const BAD_CONFIGURATION: i32 = 2;
const DATA_REFUSED: i32 = 3;
const IN_USE: i32 = 4;

/// A stopped node with some entries.
async fn stopped(shape: Shape) -> Cluster {
    let cluster = Cluster::start(shape).await;
    for node in cluster.nodes() {
        if node.status().await["role"] == "primary" {
            let shard = cluster
                .nodes()
                .iter()
                .position(|other| other.address == node.address);
            let key = cluster.key_in(shard.expect("a node") / (1 + shape.replicas), "k");
            node.put(&key, "v").await;
        }
    }
    for node in cluster.nodes() {
        node.stop().await;
    }
    cluster
}

/// Starts a node that should refuse; what it said.
async fn refused(node: &Node, extra: &[&str], code: i32) -> String {
    node.spawn(extra);
    let ended = node.ended().await;
    let said = node.said();
    assert_eq!(ended, code, "{extra:?}: {said}");
    let why = said.find("kvnode: ").map(|at| said[at..].to_owned());
    why.unwrap_or_else(|| panic!("no line says why: {said}"))
}

/// The file as it was before, byte for byte, and nothing else in its directory.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), fs::read(&path).expect("a file"))),
        }
    }
    found.sort();
    found
}

#[test]
fn a_mistake_in_the_map_is_named_with_file_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("map.toml"), dir.path().join("data"));
    let name = file.to_str().unwrap();
    let port = Port::take();
    let address = format!("127.0.0.1:{}", port.number);
    let good = map_text(1, &[address.clone(), "127.0.0.1:1".into()], 1);
    for (what, from, to, place, word) in [
        ("a typo", "name = \"s1\"", "nmae = \"s1\"", "8:1", "name"),
        ("a duplicate name", "\"s1\"", "\"s0\"", "8:8", "s0"),
        ("a duplicate idx", "idx = 1", "idx = 0", "9:7", "idx"),
        ("a gap", "idx = 1", "idx = 2", "9:7", "idx"),
        (
            "a duplicate address",
            "127.0.0.1:1\"",
            &format!("{address}\""),
            "10:",
            &address,
        ),
        (
            "a bad address",
            "127.0.0.1:1\"",
            "127.0.0.1\"",
            "10:",
            "port",
        ),
        (
            "no TOML",
            "[[shards]]\nname = \"s1\"",
            "[[shards]\nname = \"s1\"",
            "7:",
            "TOML",
        ),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{what}");
        fs::write(&file, &bad).unwrap();
        for arguments in [
            &[
                "--config",
                name,
                "--address",
                &address,
                "--data",
                data.to_str().unwrap(),
            ][..],
            &["--config", name, "--check-config"],
        ] {
            let (code, said) = Node::run(arguments);
            assert_eq!(code, BAD_CONFIGURATION, "{what}: {said}");
            assert!(said.contains(&format!("{name}:{place}")), "{what}: {said}");
            assert!(said.contains(word), "{what}: {said}");
        }
    }
    fs::write(&file, "version = 1\n").unwrap();
    let (code, said) = Node::run(&["--config", name, "--check-config"]);
    assert!(
        code == BAD_CONFIGURATION && said.contains(name),
        "no shards: {said}"
    );
    let missing = dir.path().join("missing.toml");
    let (code, said) = Node::run(&["--config", missing.to_str().unwrap(), "--check-config"]);
    assert!(
        code == BAD_CONFIGURATION && said.contains("missing.toml"),
        "{said}"
    );
    assert!(!data.exists(), "nothing is touched");

    fs::write(
        &file,
        map_text(1, &[address.clone(), "127.0.0.1:1".into()], 2),
    )
    .unwrap();
    let (code, said) = Node::run(&["--config", name, "--check-config"]);
    assert_eq!(
        (code, said),
        (0, format!("{address} primary s0\n127.0.0.1:1 replica s0\n"))
    );
}

/// Only the names of settings were looked at; the start refused what had been called right.
#[test]
fn check_config_took_settings_that_no_node_starts_with() {
    let dir = tempfile::tempdir().unwrap();
    let (map, settings) = (dir.path().join("map.toml"), dir.path().join("kvnode.toml"));
    fs::write(&map, map_text(1, &["127.0.0.1:1".into()], 1)).unwrap();
    let check = |more: &[&str]| {
        let fixed = ["--config", map.to_str().unwrap(), "--check-config"];
        Node::run(&[&fixed, more].concat())
    };
    let file = ["--settings", settings.to_str().unwrap()];
    for (setting, word) in [
        ("workers = 0", "--workers"),
        ("max_value_size = \"17MiB\"", "--max-value-size"),
        ("memtable_size = \"1KiB\"", "--memtable-size"),
        ("busy_poll_us = 20000", "--busy-poll-us"),
        ("max_connections = 0", "--max-connections"),
        ("log_level = \"kvnode=loud\"", "--log-level"),
        ("listen = \"nowhere\"", "--listen"),
    ] {
        fs::write(&settings, setting).unwrap();
        let (code, said) = check(&file);
        assert_eq!(code, BAD_CONFIGURATION, "{setting}: {said}");
        assert!(said.contains(word), "{setting}: {said}");
    }
    fs::write(&settings, "workers = 2\n").unwrap();
    assert_eq!(check(&file).0, 0);
    // For one node, also what depends on where it is.
    let (code, said) = check(&["--address", "127.0.0.1:2"]);
    assert!(
        code == BAD_CONFIGURATION && said.contains("not in the shard map"),
        "{said}"
    );
    let (code, said) = check(&["--address", "127.0.0.1:1", "--listen", "0.0.0.0:1"]);
    assert!(
        code == BAD_CONFIGURATION && said.contains("--insecure-no-auth"),
        "{said}"
    );
}

#[test]
fn mistakes_on_the_command_line_touch_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("map.toml"), dir.path().join("data"));
    let port = Port::take();
    let address = format!("127.0.0.1:{}", port.number);
    fs::write(&file, map_text(1, std::slice::from_ref(&address), 1)).unwrap();
    let everywhere = format!("0.0.0.0:{}", port.number);
    for (arguments, words) in [
        (&["--address", "127.0.0.1:1"][..], address.as_str()),
        (&[], "--address"),
        (
            &["--address", &address, "--listen", &everywhere],
            "--insecure-no-auth",
        ),
        (
            &["--address", &address, "--listen", "[::]:0"],
            "--insecure-no-auth",
        ),
        (
            &["--address", &address, "--log-segment-size", "4099KiB"],
            "--log-segment-size",
        ),
        (
            &["--address", &address, "--max-value-size", "17MiB"],
            "16MiB",
        ),
        (&["--address", &address, "--no-such-flag"], "--no-such-flag"),
    ] {
        let common = [
            "--config",
            file.to_str().unwrap(),
            "--data",
            data.to_str().unwrap(),
        ];
        let (code, said) = Node::run(&[&common[..], arguments].concat());
        assert_eq!(code, BAD_CONFIGURATION, "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!data.exists(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_is_named() {
    let cluster = Cluster::prepare(Shape::default());
    let node = cluster.primary(0);
    let port: u16 = node.address.rsplit(':').next().unwrap().parse().unwrap();
    let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert!(
        refused(node, &[], BAD_CONFIGURATION)
            .await
            .contains(&node.address)
    );
    assert!(!node.data.exists(), "the data is not touched");
    drop(busy);
    node.start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_never_share_a_directory() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    node.put("k", "v").await;
    let port = Port::take();
    let listen = format!("127.0.0.1:{}", port.number);
    let (map, data) = (node.map.to_str().unwrap(), node.data.to_str().unwrap());
    let common = [
        "--config",
        map,
        "--address",
        &node.address,
        "--data",
        data,
        "--listen",
        &listen,
    ];
    for arguments in [&common[..], &["check", "--data", data]] {
        let (code, said) = Node::run(arguments);
        assert_eq!(code, IN_USE, "{said}");
        assert!(said.contains(data), "{said}");
    }
    node.put("k", "the first goes on").await;
    node.kill();
    node.start().await;
    assert_eq!(
        node.get("k").await.as_deref(),
        Some(&b"the first goes on"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_shard_slots_or_role_is_refused() {
    let cluster = stopped(Shape {
        shards: 2,
        replicas: 1,
        ..Shape::default()
    })
    .await;
    let addresses: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| node.address.clone())
        .collect();
    let [a, b, c, d] = [0, 1, 2, 3].map(|at: usize| addresses[at].clone());
    let node = cluster.primary(0);
    let before = files(&node.data);
    for (what, map, words) in [
        (
            "another shard",
            map_text(2, &[c.clone(), d.clone(), a.clone(), b.clone()], 2),
            &["\"s0\"", "\"s1\""][..],
        ),
        (
            "other slots",
            map_text(
                2,
                &[
                    a.clone(),
                    b.clone(),
                    c.clone(),
                    d.clone(),
                    "127.0.0.1:1".into(),
                    "127.0.0.1:2".into(),
                ],
                2,
            ),
            &["slots", "0-8191", "old map back"],
        ),
        (
            "a replica now",
            map_text(2, &[b.clone(), a.clone(), c.clone(), d.clone()], 2),
            &["was the primary", "--rejoin"],
        ),
    ] {
        node.write_map(&map);
        let said = refused(node, &[], DATA_REFUSED).await;
        for word in words {
            assert!(said.contains(word), "{what}: {said}");
        }
        assert!(files(&node.data) == before, "{what}: nothing is changed");
    }
    node.write_map(&cluster.map);
    assert!(
        refused(node, &["--rejoin"], DATA_REFUSED)
            .await
            .contains("--rejoin is for replicas")
    );
    let replica = cluster.replica(0, 0);
    assert!(
        refused(replica, &["--promote"], DATA_REFUSED)
            .await
            .contains("change the map first")
    );
    replica.write_map(&map_text(2, &[b, a, c, d], 2));
    assert!(
        refused(replica, &[], DATA_REFUSED)
            .await
            .contains("--promote")
    );
    // What was refused is as good as before.
    replica.write_map(&cluster.map);
    cluster.start_all().await;
    assert!(node.get(&cluster.key_in(0, "k")).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_data_is_not_a_new_node() {
    let cluster = stopped(Shape::default()).await;
    let node = cluster.primary(0);
    let aside = cluster.dir().join("aside");
    for (lost, words) in [
        ("gen-1", "gone"),
        ("gen-1/log", "log is gone"),
        ("gen-1/lmdb/data.mdb", "data.mdb is gone"),
        ("CURRENT", "CURRENT is gone"),
        ("node.toml", "node.toml is gone"),
    ] {
        fs::rename(node.data.join(lost), &aside).unwrap();
        let said = refused(node, &[], DATA_REFUSED).await;
        assert!(said.contains(words), "{lost}: {said}");
        // A check made an empty environment in place of the one that was gone, and called it sound.
        let (code, text) = Node::run(&["check", "--data", node.data.to_str().unwrap()]);
        assert_eq!(code, DATA_REFUSED, "{lost}: {text}");
        assert!(!node.data.join(lost).exists(), "{lost} was made anew");
        fs::rename(&aside, node.data.join(lost)).unwrap();
    }
    // A log that lost a segment, though its directory is there.
    let segment = segments(node).remove(0);
    fs::rename(&segment, &aside).unwrap();
    refused(node, &[], DATA_REFUSED).await;
    fs::rename(&aside, &segment).unwrap();
    node.start().await;
    assert!(node.get(&cluster.key_in(0, "k")).await.is_some());
}

/// The files of a node's log, first to last.
fn segments(node: &Node) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(node.data.join("gen-1/log"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

/// Frames of a node's log, and the file and offset at which one lies.
async fn frames(node: &Node) -> Vec<Frame> {
    let mut bytes = Bytes::from(node.log_bytes(0).await);
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        frames.push(Frame::split_from(&mut bytes).expect("a frame"));
    }
    frames
}

fn find(node: &Node, frame: &Frame) -> (PathBuf, u64) {
    let found = segments(node).into_iter().find_map(|path| {
        let contents = fs::read(&path).ok()?;
        let at = contents
            .windows(frame.bytes.len())
            .position(|part| part == frame.bytes)?;
        Some((path, at as u64))
    });
    found.expect("the frame is in a file")
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file");
    file.write_all_at(bytes, offset).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    for round in 0..3_u32 {
        let last = node.put("k", format!("value {round}")).await;
        let end = frames(node).await.pop().unwrap();
        node.kill();
        let mut builder = FrameBuilder::new();
        let value = Bytes::from(vec![b't'; 1_000]);
        builder.push(&Record::new(
            Key::new("torn").unwrap().to_bytes(),
            Effect::Put {
                value,
                expires_at_ms: None,
            },
        ));
        let torn = builder.finish(&end.header.link(), end.header.epoch, end.header.time_ms);
        let (path, at) = find(node, &end);
        let kept = [20, 500, torn.bytes.len() - 1][round as usize];
        write_at(&path, at + end.bytes.len() as u64, &torn.bytes[..kept]);
        let (code, said) = Node::run(&["check", "--data", node.data.to_str().unwrap()]);
        assert_eq!(code, 0, "a torn tail is no damage: {said}");
        node.start().await;
        assert_eq!(node.get("torn").await, None);
        assert_eq!(node.get("k").await, Some(format!("value {round}").into()));
        assert!(node.said().contains("torn tail"), "{}", node.said());
        let next = node.put("next", "v").await;
        assert_eq!(next.seq, last.seq + 2, "only the new reign came between");
    }
}

/// It ended with exit 5, as if the disk had failed, and did not say what to do.
#[tokio::test(flavor = "multi_thread")]
async fn an_lmdb_whose_pages_lead_nowhere_is_refused_as_damaged() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    for page in 0..4 {
        let put = |n| {
            let key = Key::new(format!("k{page}:{n}")).unwrap();
            let value = Bytes::from(vec![b'v'; 200]);
            Op::new(
                key,
                Action::Put {
                    value,
                    ttl_ms: None,
                },
            )
        };
        node.batch(&(0..500).map(put).collect::<Vec<_>>()).await;
    }
    node.stop().await;
    let path = node.data.join("gen-1/lmdb/data.mdb");
    assert!(mislead_branches(&path) > 0, "a tree of more than one level");
    let said = refused(node, &[], DATA_REFUSED).await;
    assert!(said.contains("--rejoin"), "{said}");
}

/// Lets the first child of every branch page lie far behind the end of the file; how many pages that were.
fn mislead_branches(path: &Path) -> usize {
    const PAGE: usize = 4_096;
    const FLAGS: usize = 10;
    const BRANCH: u16 = 1;
    const FIRST_NODE: usize = 16;
    let bytes = fs::read(path).expect("pages");
    let mut misled = 0;
    for (number, page) in bytes.chunks_exact(PAGE).enumerate() {
        let u16_at = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        let node = usize::from(u16_at(FIRST_NODE));
        if u16_at(FLAGS) == BRANCH && node + 4 <= PAGE {
            write_at(path, (number * PAGE + node) as u64, &[0xff; 4]);
            misled += 1;
        }
    }
    misled
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_is_named_and_nothing_is_served() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    for n in 0..20 {
        node.put(&format!("k{n}"), format!("value {n}")).await;
    }
    let frames = frames(node).await;
    node.kill();
    let data = node.data.to_str().unwrap();
    let (code, said) = Node::run(&["check", "--data", data]);
    assert_eq!(code, 0, "{said}");
    let damaged = &frames[frames.len() / 2];
    let (path, at) = find(node, damaged);
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    // In the header, in the body, in its last byte.
    for offset in [5, 45, damaged.bytes.len() - 1] {
        let byte = damaged.bytes[offset];
        write_at(&path, at + offset as u64, &[byte ^ 0x10]);
        let before = files(&node.data.join("gen-1/log"));
        for said in [refused(node, &[], DATA_REFUSED).await, {
            let (code, said) = Node::run(&["check", "--data", data]);
            assert_eq!(code, DATA_REFUSED, "{said}");
            said
        }] {
            assert!(said.contains(&name), "names the file {name}: {said}");
            let seq = damaged.header.first_seq;
            assert!(
                said.contains(&seq.to_string()) || said.contains(&(seq - 1).to_string()),
                "names seq {seq}: {said}"
            );
        }
        assert!(
            files(&node.data.join("gen-1/log")) == before,
            "nothing is cut"
        );
        write_at(&path, at + offset as u64, &[byte]);
    }
    node.start().await;
    for n in 0..20 {
        assert_eq!(
            node.get(&format!("k{n}")).await,
            Some(format!("value {n}").into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_finishes_what_runs_and_ends_with_0() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let mut oracles = [Oracle::default()];
    for run in 0..3 {
        let load = Load {
            writers: 8,
            batch: 4,
            keys: 50,
            value_bytes: 200,
            run,
        };
        let writers = Writers::start(&cluster, load);
        writers.wait_acked(400).await;
        // A request that is half sent when the signal comes is finished and answered.
        let mut half = Raw::connect(&node.address);
        let headers = [("Content-Length", "10"), ("Expect", "100-continue")];
        half.write(head("PUT", &format!("/kv/half{run}"), &headers));
        let goes_on = half.answer("PUT").expect("the node has begun with it");
        assert_eq!(goes_on.status, 100);
        half.write("01234");
        let began = Instant::now();
        node.signal(Signal::TERM);
        eventually("the node stops", async || {
            node.said().contains("stops").then_some(())
        })
        .await;
        assert!(half.write("56789"));
        let answer = half.answer("PUT").expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
        assert_eq!(node.ended().await, 0, "{}", node.said());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "stopping took {took:?}");
        writers.stop(&mut oracles).await;
        node.start().await;
        assert_eq!(
            node.get(&format!("half{run}")).await.as_deref(),
            Some(&b"0123456789"[..])
        );
        let losses = oracles[0].losses(node).await;
        assert!(losses.is_empty(), "{losses:#?}");
    }
}

/// A stopping node answered and then closed the connection without having said so. A client that had sent its next
/// write on it could not tell whether that was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_tells_its_clients_to_close() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let mut half = Raw::connect(&node.address);
    let headers = [("Content-Length", "10"), ("Expect", "100-continue")];
    half.write(head("PUT", "/kv/half", &headers));
    let goes_on = half.answer("PUT").expect("the node has begun with it");
    assert_eq!(goes_on.status, 100);
    node.signal(Signal::TERM);
    eventually("the node stops", async || {
        node.said().contains("stops").then_some(())
    })
    .await;
    let late = std::net::TcpStream::connect(&node.address);
    assert!(late.is_err(), "nobody new is let in");
    half.write("0123456789");
    let answer = half.answer("PUT").expect("an answer");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (204, Some("close"))
    );
    assert_eq!(node.ended().await, 0, "{}", node.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_is_not_ready_and_one_that_idles_stops_at_once() {
    let cluster = Cluster::start(Shape::pair()).await;
    let node = cluster.primary(0);
    // Open and idle: no reason to wait.
    let mut idle = Raw::connect(&node.address);
    idle.write(head("GET", "/healthz", &[]));
    assert!(idle.answer("GET").is_some());
    for node in cluster.nodes() {
        let began = Instant::now();
        node.stop().await;
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    }
    let (code, said) = Node::run(&["check", "--data", node.data.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_map_anew_and_takes_only_what_may_change() {
    let cluster = Cluster::start(Shape {
        shards: 2,
        ..Shape::default()
    })
    .await;
    let node = cluster.primary(0);
    let [own, other, moved] =
        [&node.address, &cluster.primary(1).address, "127.0.0.1:1"].map(String::from);
    let identity = async || node.ask("GET", "/cluster/map").await.etag();
    let before = identity().await;
    for (what, map, words) in [
        ("no TOML", "[[shards".to_owned(), "map.toml"),
        (
            "one version, other contents",
            map_text(1, &[own.clone(), moved.clone()], 1),
            "raise the version",
        ),
        (
            "one shard more",
            map_text(2, &[own.clone(), other.clone(), moved.clone()], 1),
            "slots",
        ),
        (
            "this node is gone",
            map_text(2, &[moved.clone(), other.clone()], 1),
            "no longer in it",
        ),
        (
            "another role",
            map_text(2, &[other.clone(), own.clone()], 1),
            "role",
        ),
    ] {
        let told = node.said().matches("not reloaded").count();
        node.write_map(&map);
        node.signal(Signal::HUP);
        eventually(what, async || {
            (node.said().matches("not reloaded").count() > told).then_some(())
        })
        .await;
        let said = node.said();
        let last = said
            .lines()
            .rfind(|line| line.contains("not reloaded"))
            .unwrap();
        assert!(
            last.contains(words) || words == "map.toml" && last.contains(".toml:"),
            "{what}: {last}"
        );
        assert_eq!(identity().await, before, "{what}");
    }
    let key = cluster.key_in(1, "k");
    let location = async || {
        let answer = node.send(Ask::new("GET", format!("/kv/{key}"))).await;
        assert_eq!(answer.status, 307);
        answer.header("location").unwrap().to_owned()
    };
    assert!(location().await.contains(&other));
    node.write_map(&map_text(2, &[own, moved.clone()], 1));
    node.signal(Signal::HUP);
    eventually("the new map is in force", async || {
        (identity().await != before).then_some(())
    })
    .await;
    assert!(identity().await.starts_with("\"2-"));
    assert!(
        location().await.contains(&moved),
        "redirects go by the new map"
    );
    let position = node.put(&cluster.key_in(0, "k"), "v").await;
    assert_eq!(position.epoch, 1, "it is the same reign");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_the_flag_then_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("kvnode.toml");
    let settings_name = settings.to_str().unwrap();
    let cluster = Cluster::prepare(Shape::default());
    let node = cluster.primary(0);
    fs::write(&settings, "max_value_size = \"100B\"\n").unwrap();
    for (extra, limit) in [
        (&["--settings", settings_name][..], 100),
        (
            &["--settings", settings_name, "--max-value-size", "200B"],
            200,
        ),
    ] {
        node.spawn(extra);
        node.wait_ready().await;
        for (bytes, status) in [(limit, 204), (limit + 1, 413)] {
            let answer = node
                .send(Ask::new("PUT", "/kv/k").body(vec![b'x'; bytes]))
                .await;
            assert_eq!(answer.status, status, "{bytes} of {limit}");
        }
        node.stop().await;
    }
    fs::write(&settings, "max_valeu_size = \"100B\"\n").unwrap();
    let said = refused(node, &["--settings", settings_name], BAD_CONFIGURATION).await;
    assert!(
        said.contains(settings_name) && said.contains("max_valeu_size"),
        "{said}"
    );
}

/// A value that is not what was written is never an answer: the node refuses to start on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_lmdb_is_found_before_anything_is_served() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    node.put("victim", "the value that will be damaged").await;
    eventually("the entry is in LMDB", async || {
        node.put("filler", vec![b'x'; 60_000]).await;
        (node.at("applied").await.seq > 2).then_some(())
    })
    .await;
    node.stop().await;
    let data = node.data.to_str().unwrap();
    assert_eq!(Node::run(&["check", "--data", data]).0, 0);

    let path = node.data.join("gen-1/lmdb/data.mdb");
    let contents = fs::read(&path).unwrap();
    let places: Vec<usize> = contents
        .windows(15)
        .enumerate()
        .filter(|(_, part)| *part == b"the value that ")
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "the value is in the file");
    // Older copies of the page may be there, too: all of them.
    for at in &places {
        write_at(&path, *at as u64 + 4, &[contents[at + 4] ^ 1]);
    }
    let said = refused(node, &[], DATA_REFUSED).await;
    assert!(
        said.contains("victim") && said.contains("kvnode check"),
        "{said}"
    );
    let (code, said) = Node::run(&["check", "--data", data]);
    assert!(code == DATA_REFUSED && said.contains("victim"), "{said}");
    for at in &places {
        write_at(&path, *at as u64 + 4, &[contents[at + 4]]);
    }
    node.start().await;
    assert!(node.get("victim").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_go_by_different_maps_of_one_version_say_so() {
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let addresses = [
        primary.address.clone(),
        replica.address.clone(),
        "127.0.0.1:1".into(),
    ];
    replica.stop().await;
    replica.write_map(&map_text(1, &addresses, 3));
    replica.spawn(&[]);
    for (node, other) in [(primary, replica), (replica, primary)] {
        let why = node.wait_not_ready("map_conflict").await;
        assert!(why.contains(&other.address), "{why}");
    }
    primary.put("k", "data is served all the same").await;
    for node in [primary, replica] {
        node.write_map(&map_text(2, &addresses, 3));
        node.signal(Signal::HUP);
    }
    for node in [primary, replica] {
        node.wait_ready().await;
    }
}

/// A service manager waits for these words: it starts what needs the node after the first, and does not call it hung
/// after the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_that_it_serves_how_it_is_and_that_it_stops() {
    let cluster = Cluster::prepare(Shape::default());
    let node = cluster.primary(0);
    let path = cluster.dir().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    node.set_wrapper(&["env", &variable]);
    node.start().await;
    let mut heard = Vec::new();
    let mut hear = |until: &str| {
        while heard.last().is_none_or(|last: &String| last != until) {
            let mut message = [0; 512];
            let length = socket.recv(&mut message).expect("a message");
            heard.push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
        heard.clone()
    };
    assert_eq!(hear("READY=1"), ["READY=1"], "first of all");
    hear("STATUS=ready");
    node.stop().await;
    let all = hear("STOPPING=1");
    assert!(
        all.iter().filter(|message| *message == "READY=1").count() == 1,
        "{all:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_is_read_anew() {
    let cluster = Cluster::prepare(Shape::default());
    let node = cluster.primary(0);
    let settings = cluster.dir().join("kvnode.toml");
    let write = |level: &str| {
        fs::write(&settings, format!("log_level = {level:?}\n")).expect("a file");
    };
    write("warn");
    node.spawn(&["--settings", settings.to_str().expect("utf-8")]);
    node.wait_ready().await;
    let reload = async |word: &str| {
        let told = node.said().matches(word).count();
        node.signal(Signal::HUP);
        eventually(word, async || {
            (node.said().matches(word).count() > told).then_some(())
        })
        .await;
    };
    assert!(!node.said().contains("serves"), "{}", node.said());
    write("info");
    reload("the log level is changed").await;
    assert!(node.said().contains("level=\"info\""), "{}", node.said());
    reload("the shard map is reloaded").await;
    write("lou=der=than");
    reload("the log level is not changed").await;
    fs::remove_file(&settings).expect("it is there");
    reload("the log level is not changed").await;
    // What was written before is written on.
    write("info");
    reload("the shard map is reloaded").await;
    node.stop().await;
}
