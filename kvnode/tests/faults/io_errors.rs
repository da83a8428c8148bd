//! A5: EIO on fdatasync and on writes, injected by strace. The node ends and has told nobody of the group at hand.
//!
//! A failed fdatasync leaves the frame in the page cache: the next start finds it and keeps it. So that nobody was told of
//! it shows in positions: the last frame of the reign that ended is the one that failed, and no acknowledged write
//! may lie in it. A failed write leaves nothing, so there any false acknowledgement would be a loss.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use kvclient::{position::Epoch, wire::log::Frame};

use super::ledger::{Ledger, ready_or_ended, restart};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    millis,
    report::{self, Row},
    seeded,
    writers::{Load, Writers},
};

const STORAGE_FAILED: i32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_failed_sync_or_write_ends_the_node_and_nobody_was_told() {
    if !has_strace() {
        return report::save_skipped("A5", "strace is not installed or may not trace");
    }
    let mut row = Row::begin("A5");
    let mut rng = seeded();
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let mut ledger = Ledger::default();
    let lmdb = node.data.join("gen-1/lmdb/data.mdb");
    let (mut slowest, mut struck) = (Duration::ZERO, Vec::new());
    for round in 0..if bar() { 50 } else { 4 } {
        let call = ["fdatasync", "pwrite64"][round % 2];
        let reign = node.at("durable").await.epoch + 1;
        node.kill();
        let trace = cluster.dir().join(format!("trace{round}"));
        match round % 4 {
            0 | 1 => inject(node, &trace, call, &rng.usize(4..60).to_string(), None),
            _ => inject(
                node,
                &trace,
                call,
                &rng.usize(1..4).to_string(),
                Some(&lmdb),
            ),
        }
        let writers = Writers::start(&cluster, load(round));
        let ended = node.ended().await;
        let at = SystemTime::now();
        assert_eq!(ended, STORAGE_FAILED, "{}", node.said());
        ledger.close(writers).await;
        let injected = first_injected(&trace);
        slowest = slowest.max(at.duration_since(injected.at).unwrap_or_default());
        restart(node).await;
        ledger.judge(node).await;
        if injected.left_a_frame() {
            let from = last_frame_of(node, reign).await;
            let told = ledger.oracle().newest_acked().seq;
            assert!(
                told < from,
                "told of {told}, the failed frame begins at {from}"
            );
        }
        struck.push(injected);
    }
    ledger.writes.assert_whole("after EIO");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    row.rounds = struck.len();
    row.writes = ledger.writes;
    row.figures = format!(
        "EIO on {}; 0 false acknowledgements, {} of them looked for in the failed frame; exit code 5 each time, {} ms \
         after EIO at most",
        count_by_thread(&struck),
        struck.iter().filter(|one| one.left_a_frame()).count(),
        millis(slowest)
    );
    row.save();
}

/// A node that goes on after failed writes acknowledges what no disk has.
#[tokio::test(flavor = "multi_thread")]
async fn a5_control_a_node_that_passes_over_failed_writes_loses_them() {
    if !has_strace() {
        return report::save_skipped("A5", "strace is not installed or may not trace");
    }
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    node.kill();
    node.set_faults("off=stop_on_storage_error");
    let trace = cluster.dir().join("trace");
    let segment = node.data.join("gen-1/log/0000000000000001.seg");
    inject(node, &trace, "pwrite64", "4+", Some(&segment));
    let mut ledger = Ledger::default();
    let few_keys = Load { keys: 4, ..load(0) };
    let writers = Writers::start(&cluster, few_keys);
    writers.wait_acked(100).await;
    node.kill();
    ledger.close(writers).await;
    first_injected(&trace);
    node.set_faults("");
    node.set_wrapper(&[]);
    node.spawn(&[]);
    let found = match ready_or_ended(node).await {
        None => {
            ledger.judge(node).await;
            assert!(ledger.writes.lost > 0, "{:?}", ledger.writes);
            format!("{} keys lost with acknowledged writes", ledger.writes.lost)
        }
        // LMDB had some of what the log had not.
        Some(code) => {
            assert_eq!(code, 3, "{}", node.said());
            let acked = ledger.oracle().acked;
            format!(
                "the log ended before what LMDB had (exit code 3), {acked} acknowledged writes in doubt"
            )
        }
    };
    let found = format!("all writes to the log failed from the 4th on: {found}");
    report::save_control("A5", "a failed write or sync ends the node", &found);
}

fn load(run: usize) -> Load {
    Load {
        writers: 8,
        batch: 4,
        keys: 40,
        value_bytes: 100,
        run,
    }
}

/// Whether strace is there and may trace.
fn has_strace() -> bool {
    Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Starts a node one of whose threads finds EIO in a system call when it comes to it for the nth time, on any file
/// or on one. Each thread counts for itself.
fn inject(node: &Node, trace: &Path, call: &str, nth: &str, on: Option<&Path>) {
    let (trace, calls) = (trace.display().to_string(), format!("trace={call}"));
    let inject = format!("inject={call}:error=EIO:when={nth}");
    let mut command = vec![
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-ttt",
        "-y",
        "-Y",
        "-o",
        &trace,
        "-e",
        &calls,
        "-e",
        &inject,
        "-e",
        "signal=none",
    ];
    let path = on.map(|path| path.display().to_string());
    if let Some(path) = &path {
        command.extend(["-P", path]);
    }
    node.set_wrapper(&command);
    node.spawn(&[]);
}

/// An error that a thread was given.
struct Injected {
    thread: String,
    call: String,
    file: PathBuf,
    at: SystemTime,
}

impl Injected {
    /// Whether what the log's last frame says was already written: the commit thread's sync of a segment.
    fn left_a_frame(&self) -> bool {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        self.thread == "commit"
            && self.call == "fdatasync"
            && name.ends_with(".seg")
            && !name.starts_with("spare")
    }
}

/// The first error that strace says it gave; fails if it gave none.
fn first_injected(trace: &Path) -> Injected {
    let text = fs::read_to_string(trace).expect("strace wrote");
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| line.contains("(INJECTED)"));
    let at = at.unwrap_or_else(|| panic!("nothing was injected: {text:.2000}"));
    let thread = lines[at].split(' ').next().unwrap_or_default();
    // Where another thread's call came between, the call's beginning stands on a line of its own before.
    let mut until = lines[..=at]
        .iter()
        .rev()
        .filter(|line| line.starts_with(thread));
    let line = until.find(|line| !line.contains(" resumed>"));
    line.and_then(|line| parse(line))
        .unwrap_or_else(|| panic!("not understood: {}", lines[at]))
}

/// `123<commit> 1700000000.000001 fdatasync(12</data/1.seg>) = -1 EIO (Input/output error) (INJECTED)`; strace pads.
fn parse(line: &str) -> Option<Injected> {
    let (_, rest) = line.split_once('<')?;
    let (thread, rest) = rest.split_once('>')?;
    let (at, rest) = rest.trim_start().split_once(' ')?;
    let (call, rest) = rest.trim_start().split_once('(')?;
    let (_, rest) = rest.split_once('<')?;
    let (file, _) = rest.split_once('>')?;
    Some(Injected {
        thread: thread.to_owned(),
        call: call.to_owned(),
        file: file.into(),
        at: UNIX_EPOCH + Duration::from_secs_f64(at.parse().ok()?),
    })
}

/// How often which thread was given an error in which call.
fn count_by_thread(struck: &[Injected]) -> String {
    let mut kinds: Vec<String> = struck
        .iter()
        .map(|one| format!("{} of {}", one.call, one.thread))
        .collect();
    kinds.sort_unstable();
    let counts = kinds
        .chunk_by(|one, other| one == other)
        .map(|kind| format!("{} ({})", kind[0], kind.len()));
    counts.collect::<Vec<_>>().join(", ")
}

/// First seq of the last frame of a reign.
async fn last_frame_of(node: &Node, reign: Epoch) -> u64 {
    let mut bytes = Bytes::from(node.log_bytes(0).await);
    let mut last = None;
    while !bytes.is_empty() {
        let header = Frame::split_from(&mut bytes).expect("a frame").header;
        if header.epoch == reign {
            last = Some(header.first_seq);
        }
    }
    last.expect("a reign has frames")
}
