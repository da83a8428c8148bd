//! D6: every way in which curl sends a body, through a redirect. The value arrives whole or not at all: never empty, never
//! a part of it; and whoever is told that it is stored finds it.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::task::spawn_blocking;

use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    http::has_curl,
    report::{self, Row},
};

/// Ways to send a value that curl is given as text, as a file (`{file}`), or on its input.
const WAYS: &[(&str, &[&str])] = &[
    ("-d", &["-X", "PUT", "-d", "{text}"]),
    ("--data-raw", &["-X", "PUT", "--data-raw", "{text}"]),
    ("--data-binary", &["-X", "PUT", "--data-binary", "{text}"]),
    (
        "--data-binary @file",
        &["-X", "PUT", "--data-binary", "@{file}"],
    ),
    ("--data-binary @-", &["-X", "PUT", "--data-binary", "@-"]),
    ("--json", &["-X", "PUT", "--json", "{text}"]),
    ("-T file", &["-T", "{file}"]),
    ("-T -", &["-T", "-"]),
    ("-T .", &["-T", "."]),
    (
        "chunked file",
        &[
            "-X",
            "PUT",
            "-H",
            "Transfer-Encoding: chunked",
            "--data-binary",
            "@{file}",
        ],
    ),
    (
        "chunked -T",
        &["-H", "Transfer-Encoding: chunked", "-T", "{file}"],
    ),
    (
        "Expect",
        &[
            "-X",
            "PUT",
            "-H",
            "Expect: 100-continue",
            "--data-binary",
            "@{file}",
        ],
    ),
    ("Expect -T", &["-H", "Expect: 100-continue", "-T", "{file}"]),
    (
        "Expect chunked -T -",
        &[
            "-H",
            "Expect: 100-continue",
            "-H",
            "Transfer-Encoding: chunked",
            "-T",
            "-",
        ],
    ),
    (
        "no Expect",
        &["-X", "PUT", "-H", "Expect:", "--data-binary", "@{file}"],
    ),
    ("no Expect -T", &["-H", "Expect:", "-T", "{file}"]),
    ("no Expect -T -", &["-H", "Expect:", "-T", "-"]),
    (
        "HTTP/1.0",
        &["--http1.0", "-X", "PUT", "--data-binary", "@{file}"],
    ),
    ("HTTP/1.0 -T", &["--http1.0", "-T", "{file}"]),
    (
        "trusted",
        &[
            "--location-trusted",
            "-X",
            "PUT",
            "--data-binary",
            "@{file}",
        ],
    ),
    ("slow -T", &["--limit-rate", "4M", "-T", "{file}"]),
    (
        "cut off -T",
        &["--limit-rate", "20k", "--max-time", "0.3", "-T", "{file}"],
    ),
    (
        "cut off",
        &[
            "--limit-rate",
            "20k",
            "--max-time",
            "0.3",
            "-X",
            "PUT",
            "--data-binary",
            "@{file}",
        ],
    ),
    ("POST -d", &["-d", "{text}"]),
    ("POST file", &["--data-binary", "@{file}"]),
];

/// Values that are small, larger than a buffer, and as large as most ways can.
const SIZES: &[usize] = &[5, 70_000, 1_000_000];

/// What became of one value.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Stored, and said to be.
    Stored,
    /// Stored whole, but curl had given up before it was told.
    Untold,
    /// Not stored, and not said to be.
    Refused,
    /// Stored as something else, or not as was said.
    Wrong(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_a_value_arrives_whole_or_not_at_all() {
    if !has_curl() {
        report::save_skipped("D6", "curl is not installed");
        return;
    }
    let mut row = Row::begin("D6");
    let (rounds, sizes) = match bar() {
        true => (3, SIZES),
        false => (1, &SIZES[1..2]),
    };
    let cluster = cluster().await;
    let (mut refused, mut wrong) = (Vec::new(), Vec::new());
    for (round, &bytes) in
        (0..rounds).flat_map(|round| sizes.iter().map(move |bytes| (round, bytes)))
    {
        for asked in 0..3 {
            let all = WAYS.iter().map(async |(name, arguments)| {
                let key = key(&cluster, &format!("r{round}b{bytes}a{asked}"), name);
                let end = send(&cluster, cluster.primary(asked), &key, arguments, bytes).await;
                (name, end)
            });
            for (name, end) in join_all(all).await {
                match end {
                    Some(End::Stored) => row.writes.acked += 1,
                    Some(End::Untold) => row.writes.unknown_applied += 1,
                    Some(End::Refused) => refused.push(*name),
                    Some(End::Wrong(how)) => {
                        wrong.push(format!("{name}, {bytes} bytes by node {asked}: {how}"));
                    }
                    None => continue,
                }
                row.rounds += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    row.writes.unknown = row.writes.unknown_applied;
    let refusals = refused.len();
    refused.sort_unstable();
    refused.dedup();
    row.figures = format!(
        "{} ways to send a body, values of {sizes:?} bytes, two of three nodes redirect: {} stored whole, {refusals} not \
         stored and told so (some of {}), none empty, none in part",
        WAYS.len(),
        row.writes.acked,
        refused.join(", ")
    );
    row.save();
}

/// A front that redirects as many web programs do.
#[tokio::test(flavor = "multi_thread")]
async fn d6_control_a_302_stores_empty_values() {
    if !has_curl() {
        return;
    }
    let cluster = cluster().await;
    let owner = cluster.primary(2);
    let front = says_302(owner.address.clone());
    let all = WAYS.iter().map(async |(name, arguments)| {
        let key = key(&cluster, "front", name);
        let arguments = fill(cluster.dir(), arguments, 5)?;
        curl(&front, &key, arguments, value(5)).await;
        let stored = owner.get(&key).await?;
        stored.is_empty().then_some(*name)
    });
    let empty: Vec<&str> = join_all(all).await.into_iter().flatten().collect();
    assert!(!empty.is_empty());
    let found = format!(
        "{} of {} ways stored an empty value: {}",
        empty.len(),
        WAYS.len(),
        empty.join(", ")
    );
    report::save_control("D6", "redirects are 307; a front says 302", &found);
}

/// A key of the third shard that names the way.
fn key(cluster: &Cluster, prefix: &str, way: &str) -> String {
    let way = way.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    cluster.key_in(2, &format!("{prefix}{way}-"))
}

async fn cluster() -> Cluster {
    Cluster::start(Shape {
        shards: 3,
        ..Shape::default()
    })
    .await
}

/// Sends a value to a node; `None` if this way is not one for such a value.
async fn send(
    cluster: &Cluster,
    node: &Node,
    key: &str,
    arguments: &[&str],
    bytes: usize,
) -> Option<End> {
    let arguments = fill(cluster.dir(), arguments, bytes)?;
    let value = value(bytes);
    let is_told = curl(&node.address, key, arguments, value.clone()).await;
    let stored = cluster.primary(2).get(key).await;
    Some(match stored {
        Some(stored) if stored == value && is_told => End::Stored,
        Some(stored) if stored == value => End::Untold,
        None if !is_told => End::Refused,
        other => End::Wrong(format!(
            "told {is_told}, stored {:?} bytes",
            other.map(|value| value.len())
        )),
    })
}

/// Text without anything that curl reads as something else.
fn value(bytes: usize) -> Bytes {
    "abcdefg"
        .chars()
        .cycle()
        .take(bytes)
        .collect::<String>()
        .into()
}

/// The arguments with value and file in them. A large value is too much for an argument.
fn fill(dir: &Path, arguments: &[&str], bytes: usize) -> Option<Vec<String>> {
    let file = dir.join(format!("value{bytes}"));
    let value = value(bytes);
    if !file.exists() {
        std::fs::write(&file, &value).expect("a file");
    }
    let has_text = arguments.iter().any(|argument| argument.contains("{text}"));
    if has_text && bytes > 100_000 {
        return None;
    }
    let text = String::from_utf8_lossy(&value);
    let filled = arguments.iter().map(|argument| {
        let argument = argument.replace("{file}", &file.display().to_string());
        argument.replace("{text}", &text)
    });
    Some(filled.collect())
}

/// Runs curl with the value on its input; whether it was told that the value is stored.
async fn curl(address: &str, key: &str, arguments: Vec<String>, value: Bytes) -> bool {
    let url = format!("http://{address}/kv/{key}");
    let run = move || {
        let mut child = Command::new("curl")
            .args([
                "-q",
                "-s",
                "-L",
                "--noproxy",
                "*",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
            ])
            .args(["--max-time", "20"])
            .args(arguments)
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl runs");
        let mut input = child.stdin.take().expect("a pipe");
        // Not every way reads it.
        let writer = thread::spawn(move || drop(input.write_all(&value)));
        let output = child.wait_with_output().expect("curl ends");
        writer.join().expect("no panic");
        output.status.success() && output.stdout == b"204"
    };
    spawn_blocking(run).await.expect("no panic")
}

/// Something that sends everybody to another node, by 302. Ends with the process.
fn says_302(target: String) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let target = target.clone();
            thread::spawn(move || redirect(stream, &target));
        }
    });
    address
}

fn redirect(mut stream: TcpStream, target: &str) {
    let mut bytes = Vec::new();
    let mut part = [0; 4 << 10];
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(count @ 1..) => bytes.extend_from_slice(&part[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&bytes);
    let uri = head.split(' ').nth(1).unwrap_or("/");
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://{target}{uri}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(answer.as_bytes());
    // Until curl has sent all and closed: else it would see a broken connection.
    while let Ok(1..) = stream.read(&mut part) {}
}
