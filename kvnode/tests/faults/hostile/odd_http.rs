//! E6: odd and smuggled HTTP, byte by byte: each is answered as stated or cut, is never two requests where one was
//! sent, and is never stored half.
//!
//! A request may carry another one behind it, hidden where a reader that counts bodies otherwise would find it
//! (`{hidden}`): it must not be done. What goes on is asked once more on the same connection, so that a reader that
//! waits for more than there is shows.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::odd_requests::{Odd, Then, odd};
use crate::support::{
    cluster::{Cluster, Node, Shape},
    eventually,
    ports::Port,
    report::{self, Row},
};

#[tokio::test(flavor = "multi_thread")]
async fn e6_odd_requests_are_answered_as_stated() {
    let mut row = Row::begin("E6");
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    node.put("odd", "whole").await;
    let requests = odd();
    row.rounds = requests.len();
    let wrong = try_all(node, requests).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    let cut = odd().iter().filter(|odd| odd.then == Then::Closes).count();
    let proxied = behind_a_proxy(node).await;
    row.figures = format!(
        "{} requests, each answered as stated and none done twice or half; {cut} of them end the connection; {proxied}",
        row.rounds
    );
    row.save();
}

/// Foreign hosts and oversized heads are answered like any other then.
#[tokio::test(flavor = "multi_thread")]
async fn e6_control_without_guards_foreign_hosts_are_served() {
    let cluster = Cluster::start(Shape {
        faults: "off=guards",
        ..Shape::default()
    })
    .await;
    let wrong = try_all(cluster.primary(0), odd()).await;
    assert!(wrong.len() >= 5, "{wrong:#?}");
    let found = format!("{} requests not answered as stated", wrong.len());
    report::save_control("E6", "the checks of hosts and heads", &found);
}

/// Tries each on a connection of its own, some at once; what was wrong.
async fn try_all(node: &Node, requests: Vec<Odd>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut requests: Vec<(usize, Odd)> = requests.into_iter().enumerate().collect();
    while !requests.is_empty() {
        let rest = requests.split_off(requests.len().min(16));
        let tried = requests.into_iter().map(|(at, odd)| {
            let address = node.address.clone();
            tokio::task::spawn_blocking(move || judge(&address, &odd, at).err())
        });
        for tried in tried.collect::<Vec<_>>() {
            wrong.extend(tried.await.expect("no panic"));
        }
        requests = rest;
    }
    // What was sent half or hidden is not there; whoever comes next is served.
    assert_eq!(node.ask("GET", "/healthz").await.status, 200);
    wrong
}

fn judge(address: &str, odd: &Odd, at: usize) -> Result<(), String> {
    let bytes = bytes_of(odd, "hidden", at);
    let found = exchange(address, &bytes, odd.then);
    let mut expected = odd.answers.to_vec();
    if odd.then == Then::GoesOn {
        expected.push(200);
    }
    if found != expected {
        return Err(format!("{}: {found:?}, not {expected:?}", odd.what));
    }
    let stored = exchange(
        address,
        get(&format!("/kv/hidden{at}")).as_bytes(),
        Then::Closes,
    ) == [200];
    if stored != odd.hidden_is_sent {
        return Err(format!(
            "{}: the hidden request was done: {stored}",
            odd.what
        ));
    }
    let odd_key = exchange(
        address,
        get(&format!("/kv/half{at}")).as_bytes(),
        Then::Closes,
    );
    match odd_key[..] {
        [404] => Ok(()),
        _ => Err(format!(
            "{}: half a request was done: {odd_key:?}",
            odd.what
        )),
    }
}

/// The request with what stands for others in it; a character is a byte, so that any byte can be written.
fn bytes_of(odd: &Odd, hidden_key: &str, at: usize) -> Vec<u8> {
    let head = "HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let hidden = format!("PUT /kv/{hidden_key}{at} {head}");
    let text = odd
        .request
        .replace("{hidden}", &hidden)
        .replace("{length}", &hidden.len().to_string())
        .replace("{at}", &at.to_string());
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a byte"))
        .collect()
}

fn get(uri: &str) -> String {
    format!("GET {uri} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Sends bytes and reads to the connection's end: the statuses of all answers.
fn exchange(address: &str, bytes: &[u8], then: Then) -> Vec<u16> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    // A node that has refused the head may have closed before all of it was sent.
    let _ = stream.write_all(bytes);
    match then {
        Then::Closes => {}
        Then::CutShort => {
            let _ = stream.shutdown(Shutdown::Write);
        }
        Then::GoesOn => {
            let _ = stream.write_all(get("/healthz").as_bytes());
        }
    }
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    String::from_utf8_lossy(&answers)
        .split("HTTP/1.")
        .skip(1)
        .filter_map(|answer| answer.get(2..5)?.parse().ok())
        .collect()
}

/// The same through haproxy, which shares its connections to the node among clients: whatever the odd requests leave
/// behind, the next client is answered what it asked for.
async fn behind_a_proxy(node: &Node) -> String {
    let Some(proxy) = Proxy::start(node).await else {
        return "behind haproxy: not tried, it is not installed".into();
    };
    node.put("victim", "its own value").await;
    let requests = odd();
    let (count, mut broken) = (requests.len(), 0);
    for (at, odd) in requests.into_iter().enumerate() {
        let (address, what) = (proxy.address.clone(), odd.what.clone());
        let next = tokio::task::spawn_blocking(move || {
            // Half-closed, so that it ends at once whatever it is.
            exchange(&address, &bytes_of(&odd, "proxied", at), Then::CutShort);
            victim(&address)
        });
        let answer = next.await.expect("no panic");
        // The proxy may find that the connection it kept has just been closed; it says so, and mixes up nothing.
        if answer.starts_with("HTTP/1.1 502") {
            broken += 1;
            continue;
        }
        let is_own = answer.starts_with("HTTP/1.1 200") && answer.ends_with("its own value");
        let is_one = answer.matches("HTTP/1.").count() == 1;
        assert!(is_own && is_one, "after {what}: {answer}");
    }
    assert!(broken < count / 10, "{broken} broken connections");
    let own = count - broken;
    format!(
        "behind haproxy the next client had its own answer {own} times of {count}, never another's ({broken} times 502)"
    )
}

/// What a client that asks for its own value is answered.
fn victim(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("a timeout");
    let sent = stream.write_all(get("/kv/victim").as_bytes());
    sent.expect("it is taken");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

struct Proxy {
    address: String,
    process: Child,
    _port: Port,
    _dir: tempfile::TempDir,
}

impl Proxy {
    /// `None` if it is not installed.
    async fn start(node: &Node) -> Option<Self> {
        let (dir, port) = (tempfile::tempdir().expect("a directory"), Port::take());
        let config = dir.path().join("haproxy.cfg");
        let text = format!(
            "global\n  maxconn 200\ndefaults\n  mode http\n  http-reuse always\n  option accept-invalid-http-request\n  \
             timeout connect 5s\n  timeout client 20s\n  timeout server 20s\nfrontend f\n  bind 127.0.0.1:{}\n  \
             default_backend b\nbackend b\n  server n {}\n",
            port.number, node.address
        );
        std::fs::write(&config, text).expect("a file");
        let process = Command::new("haproxy")
            .args(["-db", "-q", "-f"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let address = format!("127.0.0.1:{}", port.number);
        let proxy = Self {
            address,
            process,
            _port: port,
            _dir: dir,
        };
        eventually("haproxy answers", async || {
            TcpStream::connect(&proxy.address).ok()
        })
        .await;
        Some(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
