//! `kv top`: one table into a pipe, and a screen on a terminal.
#![allow(clippy::unwrap_used, reason = "only tests come here")]

mod support;

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpListener,
    os::fd::AsFd,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};
use serde_json::{Value, json};
use support::{FakeNode, tool::Tool};

/// A node that reads and writes all the time.
fn is_busy(node: &FakeNode) {
    node.script_documents(|uri| match uri {
        "/status" => Some((200, json!({ "state": "ready" }).to_string())),
        _ => {
            let (_, after) = uri.split_once("/status/history?after=")?;
            let at_ms = after.parse::<u64>().unwrap() + 1_000;
            let sample = json!({
                "at_ms": at_ms, "reads": 1_234, "writes": 56, "failed": 1, "read_p50_us": 100.0, "lag_ms": 7,
                "log_bytes": 1 << 20,
            });
            Some((200, json!({ "every_ms": 1_000, "samples": [sample] }).to_string()))
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_where_there_is_no_terminal() {
    let kv = Tool::start(1, 2).await;
    is_busy(kv.cluster.primary(0));
    is_busy(kv.cluster.replica(0, 0));
    kv.cluster.replica(0, 1).stop();
    let ran = kv.run(&["top"]);
    assert_eq!((ran.code, ran.said.as_str()), (0, ""), "{ran:?}");
    let lines: Vec<&str> = ran.text().lines().collect();
    assert!(lines[0].starts_with("kv top: 1 shards, map 1-"), "{ran:?}");
    assert!(lines[1].starts_with("reads          2,468/s"), "{ran:?}");
    assert!(lines[3].ends_with("2 of 3 nodes ready"), "{ran:?}");
    assert!(lines[6].contains("ready    1,234  100 us"), "{ran:?}");
    assert!(lines[8].contains("replica  down"), "{ran:?}");
    assert!(lines[9].contains("no connection"), "{ran:?}");
    assert!(!ran.text().contains('\u{1b}'), "{ran:?}");
    let json = kv.run(&["top", "--json"]);
    let first: Value = serde_json::from_str(json.text().lines().next().unwrap()).unwrap();
    assert_eq!(first["last"]["reads"], 1_234);
}

/// Takes the node's place with one that accepts every connection and never answers.
async fn falls_silent(node: &FakeNode) -> TcpListener {
    node.stop();
    let address = node.address.to_string();
    loop {
        // It takes a moment until the other one has let go.
        match TcpListener::bind(&address) {
            Ok(silent) => return silent,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// `kv top` on a terminal of its own.
struct OnTerminal {
    child: std::process::Child,
    terminal: File,
    shown: String,
}

impl OnTerminal {
    fn start(kv: &Tool) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        resize(&terminal, 100, 20);
        let open = || {
            let mut options = File::options();
            Stdio::from(
                options
                    .read(true)
                    .write(true)
                    .open(name.to_str().unwrap())
                    .unwrap(),
            )
        };
        let mut command = kv.command(&["top", "--timeout", "4s"]);
        command.env_remove("NO_COLOR").stdin(open()).stdout(open());
        let child = command.spawn().unwrap();
        rustix::io::ioctl_fionbio(&terminal, true).unwrap();
        Self {
            child,
            terminal: File::from(terminal),
            shown: String::new(),
        }
    }

    /// Waits until this is shown, and forgets what was before.
    async fn shows(&mut self, wanted: &str) {
        let began = Instant::now();
        loop {
            let mut bytes = [0; 4_096];
            if let Ok(len) = self.terminal.read(&mut bytes) {
                self.shown.push_str(&String::from_utf8_lossy(&bytes[..len]));
            }
            if let Some(at) = self.shown.find(wanted) {
                self.shown.drain(..at + wanted.len());
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{wanted:?} is not in {:?}",
                self.shown
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        !modes.contains(rustix::termios::LocalModes::ICANON)
    }
}

fn resize(terminal: impl AsFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_that_is_drawn_anew_until_q() {
    let kv = Tool::start(1, 1).await;
    is_busy(kv.cluster.primary(0));
    kv.cluster.primary(0).set_map(&kv.cluster.map(1));
    let _silent = falls_silent(kv.cluster.replica(0, 0)).await;
    let began = Instant::now();
    let mut top = OnTerminal::start(&kv);
    top.shows("\u{1b}[?1049h").await;
    assert!(
        began.elapsed() < Duration::from_millis(3_500),
        "it waited for the silent one"
    );
    assert!(top.is_raw());
    top.shows("q ends it").await;
    top.shows("1,234/s  \u{2588}").await;
    top.shows("\u{2588}\u{2588}\u{2588}").await;
    // A window that became small: lines are cut, and there are no more of them than fit.
    resize(&top.terminal, 20, 2);
    top.shows("kv top: 1 shards, ma\u{1b}[K\r").await;
    top.shows("\nreads          1,234\u{1b}[K\u{1b}[J").await;
    resize(&top.terminal, 100, 20);
    top.shows("q ends it").await;
    // It is told when its time is over; nobody has waited for that.
    top.shows("\u{1b}[31m").await;
    top.shows("down").await;
    top.shows("no answer in time").await;
    top.terminal.write_all(b"xq").unwrap();
    top.shows("\u{1b}[?1049l").await;
    assert_eq!(top.child.wait().unwrap().code(), Some(0));
    assert!(!top.is_raw(), "the terminal is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_left_as_it_was_also_by_a_signal() {
    let kv = Tool::start(1, 0).await;
    is_busy(kv.cluster.primary(0));
    for key in [None, Some(3)] {
        let mut top = OnTerminal::start(&kv);
        top.shows("1,234/s").await;
        match key {
            Some(key) => top.terminal.write_all(&[key]).unwrap(),
            None => kill_process(Pid::from_child(&top.child), Signal::TERM).unwrap(),
        }
        top.shows("\u{1b}[?1049l").await;
        assert_eq!(top.child.wait().unwrap().code(), Some(0));
        assert!(!top.is_raw());
    }
}
