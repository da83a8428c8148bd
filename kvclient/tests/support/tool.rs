//! The tool `kv`, run as a script would run it, beside scripted nodes.

use std::{
    ffi::OsStr,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use super::Cluster;

/// Nodes, and a map file that names them.
pub(crate) struct Tool {
    pub(crate) cluster: Cluster,
    dir: tempfile::TempDir,
}

impl Tool {
    pub(crate) async fn start(shards: usize, replicas: usize) -> Self {
        let cluster = Cluster::start(shards, replicas).await;
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for (idx, nodes) in cluster.shards.iter().enumerate() {
            let replicas: Vec<String> = nodes[1..].iter().map(|n| n.address.to_string()).collect();
            text.push_str(&format!(
                "[[shards]]\nname = \"shard{idx}\"\nidx = {idx}\naddress = \"{}\"\nreplicas = {replicas:?}\n",
                nodes[0].address
            ));
        }
        std::fs::write(dir.path().join("sharding.toml"), text).unwrap();
        Self { cluster, dir }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `kv` in the directory of the map.
    pub(crate) fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_remove("KV_MAP")
            .env_remove("KV_NODE")
            .env_remove("KV_CA")
            .env_remove("KV_CERT")
            .env_remove("KV_KEY")
            .env_remove("KV_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `kv` to its end.
    pub(crate) fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// The same, with something on standard input.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Runs `kv` for its exit code.
    pub(crate) fn code(&self, arguments: &[&str]) -> i32 {
        self.run(arguments).code
    }
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) said: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: output.stdout,
            said: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}
