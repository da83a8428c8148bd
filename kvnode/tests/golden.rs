//! A data directory of format 1, written once by the first kvnode that had it, must open for ever.
//!
//! `golden/v1` holds 800 puts with 20 deletes, 20 counts and entries with and without expiry between them, a part
//! in LMDB and the rest only in the log. Zeros at the end of the log's file are left out and put back here.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

#[path = "cluster/support/library.rs"]
mod library;

use library::library;

/// `--log-segment-size` of the node that wrote it.
const SEGMENT_BYTES: u64 = 4_263_936;

struct Node {
    child: Child,
    url: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn golden(to: &Path) -> PathBuf {
    let data = to.join("data");
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1"),
        &data,
    );
    let segment = data.join("gen-1/log/0000000000000001.seg");
    fs::OpenOptions::new()
        .write(true)
        .open(segment)
        .unwrap()
        .set_len(SEGMENT_BYTES)
        .unwrap();
    data
}

async fn start(temp: &Path, data: &Path) -> Node {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    let map = temp.join("map.toml");
    fs::write(
        &map,
        format!("[[shards]]\nname = \"shard1\"\nidx = 0\naddress = \"{address}\"\n"),
    )
    .unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_kvnode"))
        .args([
            "--address",
            &address,
            "--log-segment-size",
            &SEGMENT_BYTES.to_string(),
        ])
        .arg("--config")
        .arg(&map)
        .arg("--data")
        .arg(data)
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let node = Node {
        child,
        url: format!("http://{address}"),
    };
    let started = Instant::now();
    while get(&node, "/readyz").await.0 != 200 {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "the node becomes ready on golden data"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node
}

async fn get(node: &Node, path: &str) -> (u16, Vec<u8>) {
    let client = library().build().unwrap();
    match client.get(format!("{}{path}", node.url)).send().await {
        Ok(answer) => (
            answer.status().as_u16(),
            answer.bytes().await.unwrap().to_vec(),
        ),
        Err(_) => (0, Vec::new()),
    }
}

#[tokio::test]
async fn data_of_the_first_format_is_all_there() {
    let temp = tempfile::tempdir().unwrap();
    let data = golden(temp.path());
    let node = start(temp.path(), &data).await;
    for i in 1..=800 {
        let (status, value) = get(&node, &format!("/kv/key{i}")).await;
        if i <= 20 {
            assert_eq!(status, 404, "key{i} was deleted");
        } else {
            assert_eq!(
                value,
                format!("value-{i}-{}", "x".repeat(100)).into_bytes(),
                "key{i}"
            );
        }
    }
    for (path, expected) in [
        ("/kv/counter", &b"100"[..]),
        ("/kv/dated", b"dated"),
        ("/kv/persisted", b"kept"),
        ("/kv/empty", b""),
        ("/kv/%00%2F%ff", b"\0\xff"),
    ] {
        assert_eq!(get(&node, path).await, (200, expected.to_vec()), "{path}");
    }
}

#[test]
fn data_of_the_first_format_is_sound() {
    let temp = tempfile::tempdir().unwrap();
    let data = golden(temp.path());
    let check = Command::new(env!("CARGO_BIN_EXE_kvnode"))
        .arg("check")
        .arg("--data")
        .arg(&data)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{report}");
    assert!(
        report.contains("log: seq 1 to 1.846") && report.contains("applied 1.697"),
        "{report}"
    );
}
