//! One etcd, as a cluster of one member: what a program asks it over plain HTTP goes through its JSON gateway.
//!
//! It syncs its log before it answers, as shipped. Keys and values are base64 in JSON there.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    bench::Bench,
    load::{key, value},
    ports,
    process::Process,
};

/// Longest wait for its first answer.
const READY: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(50);

/// Most ops that it takes in one transaction (`--max-txn-ops`).
const OPS: usize = 128;

/// A running etcd.
#[derive(Debug)]
pub(crate) struct Etcd {
    server: Process,
    port: u16,
    /// Removed after the server above has ended.
    _dir: TempDir,
}

impl Etcd {
    /// Starts it and waits until it answers.
    pub(crate) async fn start(bench: &Bench, binary: &Path) -> anyhow::Result<Self> {
        let dir = bench.directory()?;
        let ports = ports::free(2)?;
        let [client, peer] = [ports[0], ports[1]].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new(binary);
        command.args(["--name", "one", "--log-level", "warn", "--logger", "zap"]);
        command.args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        command.args(["--initial-cluster", &format!("one={peer}"), "--data-dir"]);
        command.arg(dir.path().join("data"));
        let mut etcd = Self {
            server: Process::start("etcd", command, dir.path().join("etcd.log"))?,
            port: ports[0],
            _dir: dir,
        };
        etcd.ready().await?;
        Ok(etcd)
    }

    pub(crate) fn id(&self) -> u32 {
        self.server.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stores that many keys.
    pub(crate) async fn fill(&self, keys: usize, value_bytes: usize) -> anyhow::Result<()> {
        for first in (0..keys).step_by(OPS) {
            let puts = (first..keys.min(first + OPS)).map(|number| {
                let put = put_body(&key(number).to_string(), value(number, value_bytes));
                format!(r#"{{"requestPut":{put}}}"#)
            });
            let puts: Vec<String> = puts.collect();
            let body = format!(r#"{{"success":[{}]}}"#, puts.join(","));
            let answer = post(self.port, "/v3/kv/txn", &body).await?;
            ensure!(
                answer.contains(r#""succeeded":true"#),
                "not stored: {answer}"
            );
        }
        Ok(())
    }

    /// Number of writes so far: its revision, which counts them.
    pub(crate) async fn revision(&self) -> anyhow::Result<u64> {
        let answer = post(self.port, "/v3/kv/range", r#"{"key":"AA=="}"#).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
        let body: serde_json::Value = serde_json::from_str(body)?;
        let revision = body["header"]["revision"].as_str().context("a revision")?;
        Ok(revision.parse()?)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        while self.revision().await.is_err() {
            self.server.check()?;
            ensure!(Instant::now() < until, "etcd does not answer");
            sleep(POLL).await;
        }
        Ok(())
    }
}

/// Body of a write.
pub(crate) fn put_body(key: &str, value: impl AsRef<[u8]>) -> String {
    let (key, value) = (BASE64_STANDARD.encode(key), BASE64_STANDARD.encode(value));
    format!(r#"{{"key":"{key}","value":"{value}"}}"#)
}

/// Body of a read.
pub(crate) fn range_body(key: &str) -> String {
    format!(r#"{{"key":"{}"}}"#, BASE64_STANDARD.encode(key))
}

/// What the program calls itself: the first line of what `--version` prints.
pub(crate) fn version(binary: &Path) -> anyhow::Result<String> {
    let said = Command::new(binary).arg("--version").output()?.stdout;
    let said = String::from_utf8_lossy(&said);
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(version.context("a version")?.to_owned())
}

/// One request, and all that comes back until the connection ends, which HTTP/1.0 asks for.
async fn post(port: u16, path: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let length = body.len();
    let request = format!("POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.contains(" 200 "), "etcd answered: {answer}");
    Ok(answer)
}
