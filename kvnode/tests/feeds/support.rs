//! Nodes as processes of their own, and just enough of a client to ask them.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvclient::{
    key::{Key, escape},
    wire::{
        batch::{Action, Op, decode_results, encode_ops},
        content_type,
    },
};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

use crate::library::library;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Small enough that a test fills several segments, with nothing kept beyond what must be.
pub(crate) const SHORT_LOG: &[&str] = &[
    "--log-segment-size",
    "5MiB",
    "--log-retention",
    "0",
    "--memtable-size",
    "1MiB",
];

/// One shard's nodes on this machine; stopped and removed on drop.
pub(crate) struct Shard {
    pub(crate) client: Client,
    map: PathBuf,
    ports: Vec<u16>,
    options: Vec<&'static str>,
    nodes: Vec<Option<Child>>,
    dir: tempfile::TempDir,
}

impl Shard {
    /// A primary with nothing special about it.
    pub(crate) async fn primary() -> Self {
        Self::start(1, &[]).await
    }

    /// A primary and `nodes - 1` replicas, started with these options and ready.
    pub(crate) async fn start(nodes: usize, options: &[&'static str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ports = free_ports(nodes);
        let address = |port: &u16| format!("\"127.0.0.1:{port}\"");
        let replicas: Vec<_> = ports[1..].iter().map(address).collect();
        let map = dir.path().join("sharding.toml");
        let text = format!(
            "[[shards]]\nname = \"only\"\nidx = 0\naddress = {}\nreplicas = [{}]\n",
            address(&ports[0]),
            replicas.join(", ")
        );
        std::fs::write(&map, text).expect("the map can be written");
        let client = library().build().expect("a client");
        let mut shard = Self {
            client,
            map,
            ports,
            options: options.to_vec(),
            nodes: (0..nodes).map(|_| None).collect(),
            dir,
        };
        for node in 0..nodes {
            shard.run(node).await;
        }
        shard
    }

    /// Starts a node that does not run, and waits until it is ready.
    pub(crate) async fn run(&mut self, node: usize) {
        let child = Command::new(env!("CARGO_BIN_EXE_kvnode"))
            .arg("--config")
            .arg(&self.map)
            .args(["--address", &format!("127.0.0.1:{}", self.ports[node])])
            .arg("--data")
            .arg(self.data(node))
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.log(node)).expect("a file for its log"))
            .spawn()
            .expect("kvnode starts");
        self.nodes[node] = Some(child);
        let url = self.url(node, "/readyz");
        self.until("the node is ready", async || {
            let answer = self.client.get(&url).send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
    }

    /// Asks a node to stop and waits for it; how long it took.
    pub(crate) async fn stop(&mut self, node: usize) -> Duration {
        self.signal(node, "-TERM");
        let mut child = self.nodes[node].take().expect("the node runs");
        let began = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            assert!(began.elapsed() < PATIENCE, "{}", self.said(node));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    /// Sends a signal to a node that runs.
    pub(crate) fn signal(&self, node: usize, signal: &str) {
        let child = self.nodes[node].as_ref().expect("the node runs");
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !condition().await {
            assert!(began.elapsed() < PATIENCE, "{what}: {}", self.said(0));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Address of a path of a node.
    pub(crate) fn url(&self, node: usize, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[node])
    }

    /// Asks a node for a path.
    pub(crate) async fn get(&self, node: usize, path: &str) -> Response {
        let answer = self.client.get(self.url(node, path)).send().await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A node's `/status`.
    pub(crate) async fn status(&self, node: usize) -> Value {
        let text = self.get(node, "/status").await.text().await.expect("text");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Stores a value; `query` may say `?ttl=..`.
    pub(crate) async fn put(&self, key: &[u8], query: &str, value: impl Into<reqwest::Body>) {
        let url = self.url(0, &format!("/kv/{}{query}", escape(key)));
        let answer = self.client.put(url).body(value).send().await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::NO_CONTENT);
    }

    /// Does something to a key with an empty body.
    pub(crate) async fn ask(&self, method: reqwest::Method, path: &str) -> StatusCode {
        let request = self.client.request(method, self.url(0, path));
        request.send().await.expect("an answer").status()
    }

    /// Does many ops in batches.
    pub(crate) async fn batch(&self, ops: Vec<Op>) {
        for ops in ops.chunks(500) {
            let request = self.client.post(self.url(0, "/batch"));
            let request = request.header("content-type", content_type::FRAMES);
            let answer = request
                .body(encode_ops(ops.iter()))
                .send()
                .await
                .expect("an answer");
            let body = answer.bytes().await.expect("a body");
            for result in decode_results(body).expect("results") {
                assert!(result.status < 300, "{result:?}");
            }
        }
    }

    /// Stores so many values of 1 MiB.
    pub(crate) async fn put_mebibytes(&self, count: usize) {
        for n in 0..count {
            self.put(format!("k{n:02}").as_bytes(), "", vec![b'x'; 1 << 20])
                .await;
        }
    }

    /// Writes until the log of a node begins behind a seq.
    pub(crate) async fn until_truncated(&self, node: usize, beyond: u64) {
        self.until("the log is truncated", async || {
            self.put(b"more", "", vec![b'x'; 1 << 20]).await;
            let status = self.status(node).await;
            status["truncated"].as_u64().expect("a seq") > beyond
        })
        .await;
    }

    fn data(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node{node}"))
    }

    fn log(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node{node}.log"))
    }

    fn said(&self, node: usize) -> String {
        std::fs::read_to_string(self.log(node)).unwrap_or_default()
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        for mut node in self.nodes.drain(..).flatten() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// An op that stores a value.
pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>, ttl_ms: Option<u64>) -> Op {
    let action = Action::Put {
        value: value.into(),
        ttl_ms,
    };
    Op::new(Key::new(key).expect("a key"), action)
}

/// Ports below those the kernel gives to clients, so that nobody gets one between its choice and its use. Each is
/// chosen once in this process; processes begin at different places.
fn free_ports(count: usize) -> Vec<u16> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static CHOSEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id() * 64;
    let candidates = std::iter::repeat_with(|| {
        let nth = begin.wrapping_add(CHOSEN.fetch_add(1, Ordering::Relaxed));
        u16::try_from(FIRST + nth % COUNT).expect("a port")
    });
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.filter(is_free).take(count).collect()
}
