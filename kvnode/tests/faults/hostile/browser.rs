//! E7: hostile pages in a real browser (headless Chromium). A page on another port of this machine, and one whose
//! name was rebound to this machine, change nothing and read nothing; what is stored as a page runs no script.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    time::Duration,
};

use crate::support::{
    PATIENCE, bar,
    cluster::{Cluster, Node, Shape},
    has_chromium,
    http::Ask,
    report::{self, Row},
};

const PAGE: &str = include_str!("page.html");
/// Time for a script to run, if it runs.
const TO_RUN: Duration = Duration::from_secs(4);

const SECRET: &str = "the-value-that-no-page-may-read";

#[tokio::test(flavor = "multi_thread")]
async fn e7_hostile_pages_change_nothing_and_read_nothing() {
    if !has_chromium() {
        report::save_skipped("E7", "chromium is not installed");
        return;
    }
    let mut row = Row::begin("E7");
    let cluster = victim("").await;
    let node = cluster.primary(0);
    let page = PageServer::start(node);
    let before = content(node).await;
    // Opened as itself, and under a name that was rebound to this machine.
    let mut tried = 0;
    for host in ["localhost", "evil.example"] {
        let report = visit(&page, &format!("http://{host}:{}/", page.port));
        let read = report["read"].as_array().expect("a list");
        assert!(read.is_empty(), "{host} read: {read:?}");
        tried += report["tried"].as_u64().expect("a number");
        row.rounds += 1;
    }
    // The rebound name as the node's own origin: every path is turned away.
    let port = node.address.rsplit(':').next().expect("a port");
    let some = if bar() { 4 } else { 1 };
    for path in ["/get?key=victim", "/kv/victim", "/kv", "/status"]
        .into_iter()
        .take(some)
    {
        let shown = open(&format!("http://evil.example:{port}{path}"), PATIENCE).await;
        assert!(
            shown.contains("unknown_host") && !shown.contains(SECRET),
            "{path}: {shown}"
        );
        row.rounds += 1;
    }
    // Opened by a person, a stored page is shown or kept, not run.
    for path in ["/get?key=page", "/kv/page", "/kv?prefix=page"]
        .into_iter()
        .take(some)
    {
        open(&format!("http://{}{path}", node.address), TO_RUN).await;
        row.rounds += 1;
    }
    assert_eq!(content(node).await, before, "something was changed");
    let ran = page
        .others
        .try_iter()
        .filter(|path| path.contains("ran"))
        .count();
    assert_eq!(ran, 0, "stored scripts ran");
    for uri in ["/kv/page", "/get?key=page", "/kv", "/status", "/kv/absent"] {
        let answer = node.ask("GET", uri).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
            ("cross-origin-resource-policy", "same-origin"),
            ("access-control-allow-origin", ""),
        ] {
            assert_eq!(
                answer.header(name).unwrap_or_default(),
                value,
                "{uri} {name}"
            );
        }
    }
    row.figures = format!(
        "{tried} attempts by 2 pages, {} addresses opened: 0 state changes, 0 values read, 0 scripts run",
        row.rounds - 2
    );
    row.save();
}

/// Without guards the same page writes, by images alone.
#[tokio::test(flavor = "multi_thread")]
async fn e7_control_without_guards_the_page_writes() {
    if !has_chromium() {
        return;
    }
    let cluster = victim("off=guards").await;
    let node = cluster.primary(0);
    let before = node.at("durable").await;
    let page = PageServer::start(node);
    visit(&page, &format!("http://localhost:{}/", page.port));
    let written = node.at("durable").await.seq - before.seq;
    assert!(written > 0);
    report::save_control(
        "E7",
        "the checks of what pages send",
        &format!("{written} writes by the same page"),
    );
}

async fn victim(faults: &'static str) -> Cluster {
    let cluster = Cluster::start(Shape {
        faults,
        ..Shape::default()
    })
    .await;
    cluster.primary(0).put("victim", SECRET).await;
    cluster
}

/// All entries, and how far the log is.
async fn content(node: &Node) -> String {
    let scan = node.send(Ask::new("GET", "/kv?limit=1000")).await;
    format!("{} {}", node.at("durable").await, scan.text())
}

fn chromium(profile: &tempfile::TempDir) -> Command {
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP evil.example 127.0.0.1",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Opens a page and waits until it reports.
fn visit(page: &PageServer, url: &str) -> serde_json::Value {
    let profile = tempfile::tempdir().expect("a directory");
    let browser = chromium(&profile)
        .arg(url)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let _browser = Ended(browser);
    let report = page
        .reports
        .recv_timeout(2 * PATIENCE)
        .expect("the page reports");
    serde_json::from_str(&report).expect("JSON")
}

/// Opens an address, for so long at most; what is shown, as HTML. What is not shown but kept as a file never ends.
async fn open(url: &str, within: Duration) -> String {
    let profile = tempfile::tempdir().expect("a directory");
    let shown = profile.path().join("shown");
    let file = std::fs::File::create(&shown).expect("a file");
    let browser = chromium(&profile)
        .args(["--virtual-time-budget=2000", "--dump-dom", url])
        .stdout(file)
        .spawn()
        .expect("it starts");
    let mut browser = Ended(browser);
    let ends = async {
        while browser.0.try_wait().expect("a status").is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = tokio::time::timeout(within, ends).await;
    drop(browser);
    std::fs::read_to_string(shown).unwrap_or_default()
}

/// A process that ends with its scope.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the page, and hears what it reports.
struct PageServer {
    port: u16,
    reports: Receiver<String>,
    /// Paths of all other requests.
    others: Receiver<String>,
}

impl PageServer {
    /// Stores what must not run, too: it would call here.
    fn start(node: &Node) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let call = format!("fetch('http://localhost:{port}/ran', {{mode: 'no-cors'}})");
        let store = |key: &str, value: String| {
            let length = value.len().to_string();
            let request = crate::support::http::head(
                "PUT",
                &format!("/kv/{key}"),
                &[("Content-Length", &length)],
            );
            assert_eq!(
                crate::support::http::raw(&node.address, request + &value).status,
                204
            );
        };
        store(
            "page",
            format!("<!DOCTYPE html><script>{call}</script><img src=x onerror=\"{call}\">"),
        );
        store("script", format!("{call};"));
        store(
            "style",
            format!("body{{background:url(http://localhost:{port}/ran)}}"),
        );
        let page = PAGE.replace("NODE", &node.address);
        let ((report, reports), (other, others)) = (mpsc::channel(), mpsc::channel());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (page, report, other) = (page.clone(), report.clone(), other.clone());
                std::thread::spawn(move || serve(stream, &page, &report, &other));
            }
        });
        Self {
            port,
            reports,
            others,
        }
    }
}

/// One request to a connection.
fn serve(
    stream: TcpStream,
    page: &str,
    report: &Sender<String>,
    other: &Sender<String>,
) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .ok()?;
    let mut reader = BufReader::new(&stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    // Nobody listens any more once the test has ended.
    let _ = match path {
        "/report" => report.send(String::from_utf8_lossy(&body).into_owned()),
        path => other.send(path.to_owned()),
    };
    let body = if path == "/" { page } else { "" };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
    (&stream)
        .write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .ok()
}
