//! One process that this program started: a node, a peer, or a load generator.
//!
//! It is stopped by its id, and dropping stops it, however the measurement ended. What it says goes to a file, whose
//! last lines are shown when it dies.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// `USER_HZ`, the unit of times in `/proc/PID/stat`: 100 on every Linux that this runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// What `utime` is in `/proc/PID/stat`, counted from the first field after the name in brackets; `stime` follows.
const UTIME_AT: usize = 11;

const POLL: Duration = Duration::from_millis(20);

/// A child, and where its output goes.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts it, with what it prints in `log`. Settings of servers in this environment do not reach it.
    pub(crate) fn start(name: &str, mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(&log)?;
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("KV") || name.starts_with("ETCD_") {
                command.env_remove(&variable);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let name = name.to_owned();
        Ok(Self { child, name, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails with its last words if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.last_lines()),
        }
    }

    /// Waits until it ends by itself; its output.
    pub(crate) async fn finish(mut self) -> anyhow::Result<String> {
        let status = self.ended().await?;
        if !status.success() {
            bail!("{} ended ({status}):\n{}", self.name, self.last_lines());
        }
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Asks it to stop, and waits.
    pub(crate) async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let id = Pid::from_child(&self.child);
        kill_process(id, Signal::TERM)?;
        self.ended().await
    }

    async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(POLL).await;
        }
    }

    fn last_lines(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds that a process has used of the processors, user and system.
pub(crate) fn cpu_seconds(id: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
    let ticks: Vec<&str> = fields.split_whitespace().skip(UTIME_AT).take(2).collect();
    let mut sum = 0.0;
    for field in ticks {
        sum += field.parse::<f64>()?;
    }
    Ok(sum / TICKS_A_SECOND)
}

/// Memory of a process that is its own and not a file's.
pub(crate) fn anonymous_bytes(id: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let line = line.context("no RssAnon in status")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1_024)
}
