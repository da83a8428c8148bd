//! A13: no descriptors and no memory. The node refuses, or ends and comes back; what was acknowledged is there.

use std::{fs, net::TcpStream, path::PathBuf, time::Duration};

use super::ledger::{Ledger, restart};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    eventually,
    report::{self, Row},
    writers::{Load, Writers},
};

const STORAGE_FAILED: i32 = 5;
const KILLED: i32 = -9;

/// How long a node with too little memory may take to be killed or to get through.
const FATE_WITHIN: Duration = Duration::from_secs(15);

/// Too few for all who connect.
const FEW_DESCRIPTORS: &[&str] = &["prlimit", "--nofile=96", "--"];

fn load(run: usize, value_bytes: usize) -> Load {
    Load {
        writers: 8,
        batch: 4,
        keys: 30,
        value_bytes,
        run,
    }
}

/// More connections than there are descriptors, all idle.
fn hogs(node: &Node) -> Vec<TcpStream> {
    (0..100)
        .filter_map(|_| TcpStream::connect(&node.address).ok())
        .collect()
}

/// A control group with a limit on memory, gone when dropped.
struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// `None` without the right to make one, or where the machine has no such groups.
    fn make(name: &str, bytes: usize) -> Option<Self> {
        let path = PathBuf::from("/sys/fs/cgroup/memory")
            .join(format!("kvnode-{}-{name}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let limit = Self(path);
        fs::write(limit.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(limit)
    }

    /// How a node is started in it.
    fn start_in(&self, node: &Node) {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        node.set_wrapper(&["sh", "-c", &enter, "sh"]);
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// What became of a node in its rounds.
#[derive(Default)]
struct Outcomes {
    lived: usize,
    ended: usize,
}

/// Rounds in which connections would take all descriptors while the log needs more.
async fn without_descriptors(ledger: &mut Ledger, rounds: usize) {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let mut this = Ledger::default();
    for round in 0..rounds {
        node.kill();
        node.set_wrapper(FEW_DESCRIPTORS);
        node.start().await;
        let writers = Writers::start(&cluster, load(round, 4_000));
        writers.wait_acked(50).await;
        let idle = hogs(node);
        let so_far = writers.acked();
        eventually("the node writes segments or ends", async || {
            (!node.is_running() || writers.acked() > so_far + 1_500).then_some(())
        })
        .await;
        drop(idle);
        assert!(node.is_running(), "{}", node.said());
        node.put("after", "the connections are gone").await;
        node.kill();
        this.close(writers).await;
        restart(node).await;
        this.judge(node).await;
    }
    ledger.writes.add(this.writes);
}

/// Rounds in which the kernel kills the node for its memory. `None`: no such limit can be set here.
async fn without_memory(ledger: &mut Ledger, rounds: usize) -> Option<Outcomes> {
    let limit = MemoryLimit::make("limit", 48 << 20)?;
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let mut outcomes = Outcomes::default();
    let mut this = Ledger::default();
    for round in 0..rounds {
        node.kill();
        limit.start_in(node);
        node.spawn(&[]);
        let small = Writers::start(&cluster, load(2 * round, 200));
        eventually("some writes are acknowledged", async || {
            (!node.is_running() || small.acked() > 50).then_some(())
        })
        .await;
        let heavy = Load {
            writers: 32,
            ..load(2 * round + 1, 900_000)
        };
        let large = Writers::start(&cluster, heavy);
        // Memory that is scarce makes it slow, too: how far it gets is not what matters.
        let fate = eventually("the node is killed or gets through", async || {
            (!node.is_running() || large.acked() > 100).then_some(())
        });
        let _ = tokio::time::timeout(FATE_WITHIN, fate).await;
        match node.is_running() {
            true => outcomes.lived += 1,
            false => {
                outcomes.ended += 1;
                assert_eq!(node.ended().await, KILLED, "{}", node.said());
            }
        }
        node.kill();
        this.close(small).await;
        this.close(large).await;
        restart(node).await;
        this.judge(node).await;
    }
    ledger.writes.add(this.writes);
    Some(outcomes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_without_descriptors_or_memory_nothing_is_lost() {
    let mut row = Row::begin("A13");
    let mut ledger = Ledger::default();
    let rounds = if bar() { 10 } else { 1 };
    without_descriptors(&mut ledger, rounds).await;
    let memory = without_memory(&mut ledger, rounds).await;
    ledger.writes.assert_whole("after exhaustion");
    row.rounds = rounds * if memory.is_some() { 2 } else { 1 };
    row.writes = ledger.writes;
    let of_memory = match memory {
        Some(memory) => format!(
            "48 MiB of memory {rounds} times: killed by the kernel {}, went on {}",
            memory.ended, memory.lived
        ),
        None => "no limit on memory: no right to make a control group".into(),
    };
    row.figures = format!(
        "96 descriptors and 100 idle connections {rounds} times: went on each time; {of_memory}"
    );
    row.save();
}

/// Connections that may take the last descriptor end the node.
#[tokio::test(flavor = "multi_thread")]
async fn a13_control_connections_that_take_all_descriptors_end_the_node() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    node.kill();
    node.set_wrapper(FEW_DESCRIPTORS);
    node.set_faults("off=own_descriptors");
    node.start().await;
    let mut ledger = Ledger::default();
    let writers = Writers::start(&cluster, load(0, 4_000));
    writers.wait_acked(50).await;
    let _idle = hogs(node);
    let code = node.ended().await;
    assert_eq!(code, STORAGE_FAILED, "{}", node.said());
    ledger.close(writers).await;
    restart(node).await;
    ledger.judge(node).await;
    let found = format!(
        "100 idle connections ended the node with code 5 when the log needed a descriptor, {} writes of unknown outcome",
        ledger.writes.unknown
    );
    report::save_control("A13", "connections leave descriptors for storage", &found);
}
