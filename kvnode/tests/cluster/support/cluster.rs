//! Real nodes on this machine: started, killed, paused and stopped by process id, and gone when dropped.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kvclient::{
    position::{Position, Seq},
    shard_map::Address,
    wire::{
        batch::{Op, OpResult, decode_results, encode_ops},
        log::Frame,
    },
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    eventually,
    http::{self, Answer, Ask},
    key_in,
    link::Link,
    ports::Port,
};

/// Small sizes, so that segments and memtables change often: the smallest segment that holds the largest frame.
pub(crate) const SMALL: &[&str] = &["--log-segment-size", "4100KiB", "--memtable-size", "64KiB"];

/// What a cluster looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) shards: usize,
    /// Replicas of each shard.
    pub(crate) replicas: usize,
    /// Whether each replica reaches its primary through a [`Link`].
    pub(crate) linked: bool,
    /// Flags of every node, after [`SMALL`].
    pub(crate) flags: &'static [&'static str],
    /// What is switched off in every node, as `KV_FAULTS` says it; the binary needs the feature `faults`.
    pub(crate) faults: &'static str,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            shards: 1,
            replicas: 0,
            linked: false,
            flags: &[],
            faults: "",
        }
    }
}

impl Shape {
    /// A primary and its replica.
    pub(crate) fn pair() -> Self {
        Self {
            replicas: 1,
            ..Self::default()
        }
    }
}

/// Nodes of one map, in its order: each shard's primary, then its replicas.
pub(crate) struct Cluster {
    pub(crate) shape: Shape,
    nodes: Vec<Node>,
    links: Vec<Link>,
    /// Text of the map that all nodes without a link go by.
    pub(crate) map: String,
    dir: TempDir,
}

impl Cluster {
    /// Starts all nodes and waits until they are ready.
    pub(crate) async fn start(shape: Shape) -> Self {
        let cluster = Self::prepare(shape);
        cluster.start_all().await;
        cluster
    }

    /// Writes maps and makes directories, but starts nothing.
    pub(crate) fn prepare(shape: Shape) -> Self {
        Self::prepare_at(shape, &[])
    }

    /// As [`Cluster::prepare`], with nodes at these IP addresses, in the order of the map, instead of 127.0.0.1.
    pub(crate) fn prepare_at(shape: Shape, hosts: &[String]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let per_shard = 1 + shape.replicas;
        let host = |at: usize| hosts.get(at).map_or("127.0.0.1", String::as_str);
        let ports: Vec<Port> = (0..shape.shards * per_shard)
            .map(|_| Port::take())
            .collect();
        let addresses: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(at, port)| format!("{}:{}", host(at), port.number))
            .collect();
        let map = map_text(1, &addresses, per_shard);
        let (mut nodes, mut links) = (Vec::new(), Vec::new());
        for (at, port) in ports.into_iter().enumerate() {
            let mut map = map.clone();
            let primary = at / per_shard * per_shard;
            if shape.linked && at != primary {
                let link = Link::to(addresses[primary].parse().expect("an address"));
                let mut addresses = addresses.clone();
                addresses[primary] = link.address().to_string();
                // A version of its own, since two maps of one version are a conflict.
                map = map_text(1 + at, &addresses, per_shard);
                links.push(link);
            }
            let node = Node::new(dir.path(), &at.to_string(), port, &map);
            let node = node
                .with_address(&addresses[at])
                .with_flags(SMALL)
                .with_flags(shape.flags);
            node.set_faults(shape.faults);
            nodes.push(node);
        }
        Self {
            shape,
            nodes,
            links,
            map,
            dir,
        }
    }

    /// Starts every node that does not run, and waits until all are ready.
    pub(crate) async fn start_all(&self) {
        for node in self.nodes.iter().filter(|node| !node.is_running()) {
            node.spawn(&[]);
        }
        for node in &self.nodes {
            node.wait_ready().await;
        }
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The primary of a shard.
    pub(crate) fn primary(&self, shard: usize) -> &Node {
        &self.nodes[shard * (1 + self.shape.replicas)]
    }

    /// A replica of a shard.
    pub(crate) fn replica(&self, shard: usize, number: usize) -> &Node {
        &self.nodes[shard * (1 + self.shape.replicas) + 1 + number]
    }

    /// The link between a replica and its primary.
    pub(crate) fn link(&self, shard: usize, number: usize) -> &Link {
        &self.links[shard * self.shape.replicas + number]
    }

    /// A key of a shard.
    pub(crate) fn key_in(&self, shard: usize, prefix: &str) -> String {
        key_in(shard, self.shape.shards, prefix)
    }

    /// A directory for whatever a test needs.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Checks that the logs of two nodes are the same bytes wherever both have any; how many bytes those are.
pub(crate) async fn equal_logs(one: &Node, other: &Node) -> usize {
    let seq = async |node: &Node, name: &str| node.status().await[name].as_u64().expect("a seq");
    let from = seq(one, "truncated")
        .await
        .max(seq(other, "truncated").await);
    let to = one
        .at("durable")
        .await
        .seq
        .min(other.at("durable").await.seq);
    let (mut one_bytes, mut other_bytes) = (one.log_bytes(from).await, other.log_bytes(from).await);
    // The longer one may have gone on meanwhile.
    let common = one_bytes.len().min(other_bytes.len());
    one_bytes.truncate(common);
    other_bytes.truncate(common);
    assert!(
        common > 0 || from == to,
        "nothing in common between {from} and {to}"
    );
    assert!(
        one_bytes == other_bytes,
        "the logs of {} and {} differ after seq {from}",
        one.address,
        other.address
    );
    common
}

/// The map of a pair with primary and replica in each other's place.
pub(crate) fn swapped(cluster: &Cluster, version: usize) -> String {
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    map_text(
        version,
        &[replica.address.clone(), primary.address.clone()],
        2,
    )
}

/// A map of even shards named `s0`, `s1` ...; each takes `per_shard` addresses, the primary's first.
pub(crate) fn map_text(version: usize, addresses: &[String], per_shard: usize) -> String {
    let mut text = format!("version = {version}\n");
    for (idx, shard) in addresses.chunks(per_shard).enumerate() {
        text.push_str(&format!(
            "[[shards]]\nname = \"s{idx}\"\nidx = {idx}\naddress = \"{}\"\nreplicas = {:?}\n",
            shard[0],
            &shard[1..]
        ));
    }
    text
}

/// A directory, a map and a port on which `kvnode` runs, or not.
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) data: PathBuf,
    pub(crate) map: PathBuf,
    log: PathBuf,
    flags: Vec<String>,
    client: reqwest::Client,
    /// Std mutex: held for a few system calls.
    process: Mutex<Process>,
    _port: Port,
}

#[derive(Default)]
struct Process {
    /// What the next start switches off.
    faults: String,
    /// The program that the next start goes through, with its arguments.
    wrapper: Vec<String>,
    child: Option<Child>,
    ended: Option<ExitStatus>,
    /// Where the log of the current run begins.
    log_from: usize,
}

impl Node {
    /// A node that was never started; it keeps its files under `name` in `dir`.
    pub(crate) fn new(dir: &Path, name: &str, port: Port, map: &str) -> Self {
        let file = |extension: &str| dir.join(format!("{name}.{extension}"));
        let node = Self {
            address: format!("127.0.0.1:{}", port.number),
            data: dir.join(name),
            map: file("toml"),
            log: file("log"),
            flags: Vec::new(),
            client: http::client(),
            process: Mutex::default(),
            _port: port,
        };
        node.write_map(map);
        node
    }

    fn with_address(mut self, address: &str) -> Self {
        address.clone_into(&mut self.address);
        self
    }

    fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the map file; the node reads it at its next start, or on SIGHUP.
    pub(crate) fn write_map(&self, text: &str) {
        fs::write(&self.map, text).expect("a map file");
    }

    /// Switches something off from the next start on, as `KV_FAULTS` says it; an empty text switches all on again.
    pub(crate) fn set_faults(&self, faults: &str) {
        faults.clone_into(&mut self.process().faults);
    }

    /// From the next start on the node is started by this command, which must become the node (`exec`): the process
    /// id stays its own. None: as itself.
    pub(crate) fn set_wrapper(&self, command: &[&str]) {
        self.process().wrapper = command.iter().map(|part| (*part).to_owned()).collect();
    }

    /// The node's program: the one that `KV_NODE_BINARY` names, unless something is to be switched off in it.
    pub(crate) fn binary(faults: &str) -> PathBuf {
        let given = std::env::var_os("KV_NODE_BINARY").filter(|path| !path.is_empty());
        given
            .filter(|_| faults.is_empty())
            .map_or_else(|| env!("CARGO_BIN_EXE_kvnode").into(), PathBuf::from)
    }

    /// Starts the process with additional flags and does not wait for it.
    pub(crate) fn spawn(&self, extra: &[&str]) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.expect("a log file");
        let mut process = self.process();
        assert!(process.child.is_none(), "{} runs already", self.address);
        process.log_from = log
            .metadata()
            .expect("a length")
            .len()
            .try_into()
            .expect("small");
        let binary = Self::binary(&process.faults);
        let mut command = match process.wrapper.split_first() {
            None => Command::new(binary),
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(binary);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KVNODE_") {
                command.env_remove(name);
            }
        }
        command
            .env("KV_FAULTS", &process.faults)
            .arg("--config")
            .arg(&self.map)
            .args(["--address", &self.address, "--data"])
            .arg(&self.data)
            .args(["--workers", "2"])
            .args(&self.flags)
            .args(extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log);
        process.child = Some(command.spawn().expect("kvnode starts"));
        process.ended = None;
    }

    /// Starts the process and waits until it is ready.
    pub(crate) async fn start(&self) {
        self.spawn(&[]);
        self.wait_ready().await;
    }

    /// Whether the process is there.
    pub(crate) fn is_running(&self) -> bool {
        self.process().poll().is_none()
    }

    /// Waits until `/readyz` says 200.
    pub(crate) async fn wait_ready(&self) {
        eventually(&format!("{} is ready", self.address), async || {
            assert!(self.is_running(), "{} ended: {}", self.address, self.said());
            let answer = self.try_send(Ask::new("GET", "/readyz")).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Waits until `/readyz` says 503 with this in its text; the text.
    pub(crate) async fn wait_not_ready(&self, part: &str) -> String {
        let reason = format!("{} is not ready, saying {part:?}", self.address);
        eventually(&reason, async || {
            assert!(self.is_running(), "{} ended: {}", self.address, self.said());
            let answer = self.try_send(Ask::new("GET", "/readyz")).await.ok()?;
            let text = answer.text();
            (answer.status == 503 && text.contains(part)).then_some(text)
        })
        .await
    }

    /// Waits until the process has ended: its exit code, or minus the signal that ended it.
    pub(crate) async fn ended(&self) -> i32 {
        let status = eventually(&format!("{} ends", self.address), async || {
            self.process().poll()
        })
        .await;
        status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or(0))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(child) = &self.process().child {
            kill_process(Pid::from_child(child), signal).expect("the process is there");
        }
    }

    /// kill -9, and waits for the end.
    pub(crate) fn kill(&self) {
        let mut process = self.process();
        if let Some(mut child) = process.child.take() {
            child.kill().expect("a signal");
            process.ended = child.wait().ok();
        }
    }

    /// SIGTERM, and checks that it ends cleanly.
    pub(crate) async fn stop(&self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ended().await, 0, "{}", self.said());
    }

    /// Holds the process still until [`Node::resume`].
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// What it has written to stdout and stderr since it was last started.
    pub(crate) fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.get(self.process().log_from..)
            .unwrap_or_default()
            .to_owned()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process().child.as_ref().expect("it runs").id()
    }

    /// Sends a request; panics if no answer comes.
    pub(crate) async fn send(&self, ask: Ask) -> Answer {
        let shown = format!("{ask:?}");
        let answer = self.try_send(ask).await;
        answer.unwrap_or_else(|error| panic!("{shown:.200}: {error:?}\n{}", self.said()))
    }

    /// Sends a request.
    pub(crate) async fn try_send(&self, ask: Ask) -> Result<Answer, reqwest::Error> {
        http::send(&self.client, &format!("http://{}", self.address), ask).await
    }

    /// Sends a request without headers and body.
    pub(crate) async fn ask(&self, method: &'static str, uri: &str) -> Answer {
        self.send(Ask::new(method, uri)).await
    }

    /// Stores a value; its position.
    pub(crate) async fn put(&self, key: &str, value: impl Into<Bytes>) -> Position {
        let answer = self
            .send(Ask::new("PUT", format!("/kv/{key}")).body(value))
            .await;
        assert_eq!(answer.status, 204, "PUT {key}: {}", answer.text());
        answer.position()
    }

    /// A value, `None` if there is none; panics on any other answer.
    pub(crate) async fn get(&self, key: &str) -> Option<Bytes> {
        let answer = self.ask("GET", &format!("/kv/{key}")).await;
        match answer.status {
            200 => Some(answer.body),
            404 => None,
            other => panic!("GET {key}: {other} {}", answer.text()),
        }
    }

    /// Sends a batch; panics unless it is answered with results.
    pub(crate) async fn batch(&self, ops: &[Op]) -> Vec<OpResult> {
        let frames = encode_ops(ops.iter());
        let ask = Ask::new("POST", "/batch").header("content-type", "application/x-kv-frames");
        let answer = self.send(ask.body(frames)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        decode_results(answer.body).expect("results")
    }

    /// All bytes of frames after a seq.
    pub(crate) async fn log_bytes(&self, mut after: Seq) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let uri = format!("/log?after={after}&max_bytes={}", 1 << 20);
            let answer = self.ask("GET", &uri).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            if answer.body.is_empty() {
                return bytes;
            }
            bytes.extend_from_slice(&answer.body);
            let mut frames = answer.body;
            while !frames.is_empty() {
                let frame = Frame::split_from(&mut frames).expect("a frame");
                after = frame.header.last_seq();
            }
        }
    }

    /// `/status`.
    pub(crate) async fn status(&self) -> serde_json::Value {
        self.ask("GET", "/status").await.json()
    }

    /// A position of `/status`.
    pub(crate) async fn at(&self, name: &str) -> Position {
        let status = self.status().await;
        let text = status[name].as_str().map(str::to_owned);
        text.and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    /// Waits until this node's readers see at least `position`.
    pub(crate) async fn wait_visible(&self, position: Position, reason: &str) {
        eventually(reason, async || {
            let status = self.try_send(Ask::new("GET", "/status")).await.ok()?.json();
            let visible: Position = status["visible"].as_str()?.parse().ok()?;
            (visible >= position).then_some(())
        })
        .await;
    }

    /// The address for kvclient.
    pub(crate) fn to_address(&self) -> Address {
        self.address.parse().expect("an address")
    }

    /// Runs `kvnode` with these arguments alone: exit code and what it printed.
    pub(crate) fn run(arguments: &[&str]) -> (i32, String) {
        let output = Command::new(Self::binary(""))
            .args(arguments)
            .output()
            .expect("kvnode runs");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), text)
    }
}

impl Process {
    fn poll(&mut self) -> Option<ExitStatus> {
        if let Some(child) = &mut self.child {
            let ended = child.try_wait().expect("a status")?;
            self.child = None;
            self.ended = Some(ended);
        }
        Some(self.ended.unwrap_or_default())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let said = self.said();
            let from = said.len().saturating_sub(3_000);
            let tail = said.get(from..).unwrap_or(&said);
            eprintln!("--- {} said at last:\n{tail}", self.address);
        }
    }
}
