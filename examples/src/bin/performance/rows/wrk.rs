//! One run of `wrk`, the load generator for plain HTTP.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::{
    bench::Bench,
    process::{Process, cpu_seconds},
};

const SCRIPT: &str = include_str!("wrk.lua");

/// Connections, each with one request under way.
const CONNECTIONS: &str = "64";

/// As many as there are cores.
const THREADS: &str = "2";

/// What it asks whom.
#[derive(Debug)]
pub(super) struct Asked {
    port: u16,
    /// Process that answers.
    server: u32,
    /// All requests, one after the other.
    requests: PathBuf,
    request_bytes: usize,
    _dir: TempDir,
}

impl Asked {
    /// Makes the requests, which are all of one length. Each is method and path, and a body.
    pub(super) fn new(
        bench: &Bench,
        port: u16,
        server: u32,
        requests: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let dir = bench.directory()?;
        let file = dir.path().join("requests");
        let whole = requests.map(|(line, body)| {
            let length = body.len();
            format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{body}")
        });
        let whole: Vec<String> = whole.collect();
        let request_bytes = whole[0].len();
        let alike = whole.iter().all(|request| request.len() == request_bytes);
        ensure!(alike, "requests differ in length");
        fs::write(&file, whole.concat())?;
        Ok(Self {
            port,
            server,
            requests: file,
            request_bytes,
            _dir: dir,
        })
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) requests: u64,
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Processor time of the server, in microseconds a request.
    pub(super) server_cpu_us: f64,
}

/// Runs it, for whole seconds, as it knows no others. Every answer has to be a success.
pub(super) async fn run(
    bench: &Bench,
    wrk: &Path,
    asked: &Asked,
    lasts: Duration,
) -> anyhow::Result<Answered> {
    let dir = bench.directory()?;
    let script = dir.path().join("wrk.lua");
    fs::write(&script, SCRIPT)?;
    let seconds = lasts.as_secs().max(1);
    let mut command = Command::new(wrk);
    command.args([
        "--latency",
        "--threads",
        THREADS,
        "--connections",
        CONNECTIONS,
    ]);
    command
        .arg(format!("--duration={seconds}s"))
        .arg("--script")
        .arg(&script);
    command.arg(format!("http://127.0.0.1:{}", asked.port));
    command
        .arg("--")
        .arg(&asked.requests)
        .arg(asked.request_bytes.to_string());
    let before = cpu_seconds(asked.server)?;
    let process = Process::start("wrk", command, dir.path().join("wrk.log"))?;
    let said = process.finish().await?;
    Answered::parse(&said, cpu_seconds(asked.server)? - before).with_context(|| said.clone())
}

impl Answered {
    /// From the line that the script prints at the end.
    fn parse(said: &str, server_seconds: f64) -> anyhow::Result<Self> {
        let line = said.lines().find_map(|line| line.strip_prefix("result "));
        let fields = line.context("no result")?.split(' ').map(str::parse);
        let fields: Vec<u64> = fields.collect::<Result<_, _>>()?;
        let [requests, micros, p50, p99, failed] = fields[..] else {
            anyhow::bail!("five numbers are expected");
        };
        ensure!(failed == 0, "{failed} of {requests} requests failed");
        let (requests_f, seconds) = (requests as f64, micros as f64 / 1_000_000.0);
        Ok(Self {
            requests,
            per_second: requests_f / seconds,
            p50_us: p50 as f64,
            p99_us: p99 as f64,
            server_cpu_us: server_seconds * 1_000_000.0 / requests_f,
        })
    }
}
