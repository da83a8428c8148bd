//! Chromium without a window, told what to do over a pipe: JSON messages that end with a zero byte.
//!
//! The browser reads orders from descriptor 3 and writes answers to descriptor 4; a shell puts its stdin and stdout
//! there. What it says besides (errors of scripts, what a policy forbade) is kept for [`Browser::events`].

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver},
    },
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENCE, has_chromium, report};

/// Turns the shell's stdin and stdout into the browser's descriptors 3 and 4.
const START: &str = "exec chromium \"$@\" 3<&0 4>&1 >/dev/null";

/// A browser; it ends with its scope.
pub(crate) struct Browser {
    child: Child,
    /// Std mutex: held for one order and its answer.
    pipe: Mutex<Pipe>,
    _profile: TempDir,
}

struct Pipe {
    orders: ChildStdin,
    said: Receiver<Value>,
    next_id: u64,
    events: Vec<Value>,
}

impl Browser {
    /// Starts one, if there is one on this machine.
    pub(crate) fn start() -> Option<Self> {
        if !has_chromium() {
            report::save_skipped("page", "chromium is not installed");
            return None;
        }
        let profile = tempfile::tempdir().expect("a directory");
        let mut child = Command::new("sh")
            .args(["-c", START, "sh", "--headless", "--no-sandbox"])
            .args(["--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let pipe = Pipe {
            orders: child.stdin.take().expect("a pipe"),
            said: listen(child.stdout.take().expect("a pipe")),
            next_id: 0,
            events: Vec::new(),
        };
        Some(Self {
            child,
            pipe: Mutex::new(pipe),
            _profile: profile,
        })
    }

    /// Gives an order and waits for what comes of it; `session` is the tab's, or empty for the browser itself.
    pub(crate) fn order(&self, session: &str, method: &str, parameters: Value) -> Value {
        let done = self.try_order(session, method, parameters);
        done.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same, where it may be refused.
    pub(crate) fn try_order(
        &self,
        session: &str,
        method: &str,
        parameters: Value,
    ) -> Result<Value, Value> {
        self.pipe().order(session, method, parameters)
    }

    /// What a tab said besides, as pairs of method and parameters.
    pub(crate) fn events(&self, session: &str) -> Vec<(String, Value)> {
        let pipe = self.pipe();
        let of_session = pipe.events.iter().filter(|e| e["sessionId"] == session);
        of_session
            .filter_map(|event| Some((event["method"].as_str()?.into(), event["params"].clone())))
            .collect()
    }

    fn pipe(&self) -> MutexGuard<'_, Pipe> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pipe {
    fn order(&mut self, session: &str, method: &str, parameters: Value) -> Result<Value, Value> {
        self.next_id += 1;
        let mut order = json!({ "id": self.next_id, "method": method, "params": parameters });
        if !session.is_empty() {
            order["sessionId"] = session.into();
        }
        let order = format!("{order}\0");
        self.orders.write_all(order.as_bytes()).expect("it listens");
        loop {
            let said = self.said.recv_timeout(PATIENCE);
            let said = said.unwrap_or_else(|_| panic!("{method}: no answer"));
            if said["id"] != self.next_id {
                self.events.push(said);
                continue;
            }
            return match said["error"].is_null() {
                true => Ok(said["result"].clone()),
                false => Err(said["error"].clone()),
            };
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Messages as they come; the thread ends with the pipe.
fn listen(pipe: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
            let message = serde_json::from_slice(&message).expect("JSON");
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    receiver
}
