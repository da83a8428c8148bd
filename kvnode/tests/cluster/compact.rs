//! `kvnode compact`: a smaller file with the same entries, and a directory that opens whatever interrupts it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use kvclient::{
    key::Key,
    wire::batch::{Action, Op},
};

use crate::support::{
    cluster::{Cluster, Node, Shape},
    eventually, seeded, slow,
};

const DATA_REFUSED: i32 = 3;
const IN_USE: i32 = 4;

fn file(node: &Node) -> PathBuf {
    node.data.join("gen-1/lmdb/data.mdb")
}

fn size(node: &Node) -> u64 {
    fs::metadata(file(node)).expect("the file").len()
}

fn run(node: &Node, command: &str) -> (i32, String) {
    Node::run(&[command, "--data", node.data.to_str().expect("UTF-8")])
}

async fn put(node: &Node, keys: std::ops::Range<usize>, round: u8) {
    let value = bytes::Bytes::from(vec![round; 4_000]);
    let op = |n| {
        let key = Key::new(format!("k{n:05}")).expect("a key");
        Op::new(
            key,
            Action::Put {
                value: value.clone(),
                ttl_ms: None,
            },
        )
    };
    for chunk in keys.map(op).collect::<Vec<_>>().chunks(200) {
        node.batch(chunk).await;
    }
}

async fn delete(node: &Node, keys: impl Iterator<Item = usize>) {
    let op = |n| Op::new(Key::new(format!("k{n:05}")).expect("a key"), Action::Delete);
    for chunk in keys.map(op).collect::<Vec<_>>().chunks(500) {
        node.batch(chunk).await;
    }
}

/// A node with a file of which most is free: 2,000 entries of which every tenth is left.
async fn wasteful() -> Cluster {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    put(node, 0..2_000, 1).await;
    delete(node, (0..2_000).filter(|n| n % 10 != 0)).await;
    // What is left lies in LMDB.
    put(node, 5_000..5_100, 2).await;
    let end = node.at("durable").await;
    eventually("all is in LMDB", async || {
        let sums = node
            .ask("GET", &format!("/status/sums?seq={}", end.seq))
            .await;
        (sums.status == 200).then_some(())
    })
    .await;
    cluster
}

async fn has_all(node: &Node) {
    for n in (0..2_000).step_by(10) {
        let value = node.get(&format!("k{n:05}")).await;
        assert!(
            value.is_some_and(|value| value[..] == [1; 4_000]),
            "k{n:05}"
        );
    }
    assert_eq!(node.get("k00001").await, None);
    assert_eq!(node.status().await["entries"], 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_as_small_as_what_it_holds() {
    let cluster = wasteful().await;
    let node = cluster.primary(0);
    let (code, said) = run(node, "compact");
    assert_eq!(code, IN_USE, "a node runs on it: {said}");
    node.stop().await;
    let before = size(node);
    let (code, said) = run(node, "compact");
    assert_eq!(code, 0, "{said}");
    for part in [
        &format!("{before} bytes, of which")[..],
        "are free",
        "sound: 300 entries",
        "fewer",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let after = size(node);
    assert!(after * 3 < before, "{after} of {before}");
    assert!(
        said.contains(&format!("the copy needs {after} bytes")),
        "what was said was so: {said}"
    );
    assert!(!node.data.join("gen-1/lmdb.new").exists());
    let (code, said) = run(node, "check");
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(node, "compact");
    assert!(code == 0 && said.contains("nothing to gain"), "{said}");
    node.start().await;
    has_all(node).await;
    node.put("k00001", "and it goes on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_directory_opens() {
    let cluster = wasteful().await;
    let node = cluster.primary(0);
    node.stop().await;
    let large = fs::read(file(node)).expect("the file");
    let mut rng = seeded();
    let mut ended = [0, 0];
    for round in 0..if slow() { 400 } else { 60 } {
        let mut child = Command::new(Node::binary(""))
            .args(["compact", "--data", node.data.to_str().expect("UTF-8")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kvnode runs");
        tokio::time::sleep(Duration::from_micros(rng.u64(0..40_000))).await;
        let _ = child.kill();
        ended[usize::from(child.wait().expect("a status").success())] += 1;
        let (code, said) = run(node, "check");
        assert_eq!(code, 0, "round {round}: {said}");
        if size(node) < large.len() as u64 {
            fs::write(file(node), &large).expect("the large file again");
        }
    }
    eprintln!("killed {}, came to their end {}", ended[0], ended[1]);
    assert!(ended[0] > 0, "none was killed on its way");
    node.start().await;
    assert!(
        !node.data.join("gen-1/lmdb.new").exists(),
        "what was left is removed"
    );
    has_all(node).await;
}

/// Whatever of a copy a crash has left, nobody takes it for the data.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_copy_is_never_in_force() {
    let cluster = wasteful().await;
    let node = cluster.primary(0);
    node.stop().await;
    let whole = fs::read(file(node)).expect("the file");
    let left = node.data.join("gen-1/lmdb.new");
    for part in [0, 1, 4_095, 8_192, whole.len() / 2] {
        fs::create_dir_all(&left).expect("a directory");
        fs::write(left.join("data.mdb"), &whole[..part]).expect("a part");
        assert_eq!(run(node, "check").0, 0, "{part}");
        node.start().await;
        assert!(!left.exists());
        has_all(node).await;
        node.stop().await;
    }
    fs::create_dir_all(&left).expect("a directory");
    fs::write(left.join("data.mdb"), &whole[..8_192]).expect("a part");
    let (code, said) = run(node, "compact");
    assert_eq!(code, 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_not_replaced() {
    let cluster = wasteful().await;
    let node = cluster.primary(0);
    node.stop().await;
    let mut bytes = fs::read(file(node)).expect("the file");
    // In the value of an entry that is there.
    let at = bytes
        .windows(64)
        .position(|window| window == [2; 64])
        .expect("a value");
    bytes[at + 32] ^= 1;
    fs::write(file(node), &bytes).expect("the file");
    assert_eq!(run(node, "check").0, DATA_REFUSED);
    let (code, said) = run(node, "compact");
    assert_eq!(code, DATA_REFUSED, "{said}");
    assert!(
        said.contains("the copy is not sound, so what was there stays"),
        "{said}"
    );
    assert_eq!(fs::read(file(node)).expect("the file"), bytes);
    assert!(!node.data.join("gen-1/lmdb.new").exists());
    let (code, said) = Node::run(&["compact", "--data", "/no/such/place"]);
    assert_eq!(code, DATA_REFUSED, "{said}");
}
