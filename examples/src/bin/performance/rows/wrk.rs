//! One run of `wrk`, the load generator for plain HTTP.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, ensure};

use crate::{
    bench::Bench,
    process::{Process, cpu_seconds},
};

const SCRIPT: &str = include_str!("etcd.lua");

/// Connections, each with one request under way.
const CONNECTIONS: &str = "64";

/// As many as there are cores.
const THREADS: &str = "2";

/// What it asks whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) port: u16,
    /// Process that answers.
    pub(super) server: u32,
    /// `kv` or `etcd`: how requests look.
    pub(super) form: &'static str,
    /// `put` or `get`.
    pub(super) op: &'static str,
    pub(super) keys: usize,
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
    asked: Asked,
    lasts: Duration,
) -> anyhow::Result<Answered> {
    let dir = bench.directory()?;
    let script = dir.path().join("etcd.lua");
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
    command.args(["--", asked.form, asked.op, &asked.keys.to_string()]);
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
