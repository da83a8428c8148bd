//! HTTP to a node: ordinary requests through reqwest, odd ones byte by byte, and real curl.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use kvclient::position::Position;
use reqwest::{Client, Method, redirect::Policy};

use super::library::library;

/// Time that an answer may take, with the longest wait of a node in it.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A request to send.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: &'static str,
    uri: String,
    headers: Vec<(String, String)>,
    body: Option<Bytes>,
}

impl Ask {
    /// A request without headers and body.
    pub(crate) fn new(method: &'static str, uri: impl Into<String>) -> Self {
        Self {
            method,
            uri: uri.into(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sets the body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name)?;
        Some(value)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The code in the JSON body of a refusal; checks that the body is one.
    pub(crate) fn error(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        let json = self.json();
        assert!(
            json["message"].as_str().is_some_and(|text| text.len() > 5),
            "{json}"
        );
        json["error"].as_str().expect("an error code").to_owned()
    }

    /// `Kv-Position`.
    pub(crate) fn position(&self) -> Position {
        let text = self.header("kv-position");
        text.and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("no Kv-Position in {self:?}"))
    }

    /// `ETag` with its quotes.
    pub(crate) fn etag(&self) -> String {
        self.header("etag")
            .unwrap_or_else(|| panic!("no ETag in {self:?}"))
            .to_owned()
    }
}

/// A client that follows nothing and goes through no proxy.
pub(crate) fn client() -> Client {
    library()
        .redirect(Policy::none())
        .timeout(ANSWER_WITHIN)
        .connect_timeout(Duration::from_secs(2))
        .build()
        .expect("an HTTP client")
}

/// Sends a request; an error says how the exchange broke.
pub(crate) async fn send(client: &Client, base: &str, ask: Ask) -> Result<Answer, reqwest::Error> {
    let method = Method::from_bytes(ask.method.as_bytes()).expect("a method");
    let mut request = client.request(method, format!("{base}{}", ask.uri));
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    if let Some(body) = ask.body {
        request = request.body(body);
    }
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = |value: &reqwest::header::HeaderValue| {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    };
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    Ok(Answer {
        status,
        headers,
        body: response.bytes().await?,
    })
}

/// A connection for exact bytes.
pub(crate) struct Raw(TcpStream);

impl Raw {
    /// Connects to `host:port`.
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream
            .set_read_timeout(Some(ANSWER_WITHIN))
            .expect("a timeout");
        stream
            .set_write_timeout(Some(ANSWER_WITHIN))
            .expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    /// Writes bytes; `false` if the other side has closed.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).is_ok()
    }

    /// Says that nothing more will come.
    pub(crate) fn finish(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Reads one answer; `None` if the connection ends before its head is complete.
    pub(crate) fn answer(&mut self, method: &str) -> Option<Answer> {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more(&mut bytes) {
                return None;
            }
        };
        let mut answer = parse_head(&bytes[..head_end]);
        let no_body = method == "HEAD" || matches!(answer.status, 100..=199 | 204 | 304);
        let length = match answer.header("content-length") {
            Some(length) if !no_body => length.parse().expect("a length"),
            _ => 0,
        };
        while bytes.len() < head_end + length {
            if !self.read_more(&mut bytes) {
                return None;
            }
        }
        assert_eq!(bytes.len(), head_end + length, "bytes behind the answer");
        answer.body = Bytes::copy_from_slice(&bytes[head_end..]);
        Some(answer)
    }

    /// Everything up to these bytes; panics if the connection ends or nothing comes for too long before.
    pub(crate) fn up_to(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let more = self.read_more(&mut bytes);
            assert!(more, "no {end:?} in {}", bytes.escape_ascii());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn read_more(&mut self, bytes: &mut Vec<u8>) -> bool {
        let mut part = [0; 64 << 10];
        match self.0.read(&mut part) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                bytes.extend_from_slice(&part[..count]);
                true
            }
        }
    }
}

/// Sends exact bytes on a connection of its own and reads the answer.
pub(crate) fn raw(address: &str, request: impl AsRef<[u8]>) -> Answer {
    let request = request.as_ref();
    let method = request.split(|&b| b == b' ').next().unwrap_or_default();
    let method = String::from_utf8_lossy(method).into_owned();
    let mut connection = Raw::connect(address);
    connection.write(request);
    connection
        .answer(&method)
        .unwrap_or_else(|| panic!("no answer to {}", request.escape_ascii()))
}

/// The bytes of a request head with a `Host`.
pub(crate) fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {uri} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

fn parse_head(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let header = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header line");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    Answer {
        status: status
            .and_then(|text| text.parse().ok())
            .expect("a status line"),
        headers: lines.map(header).collect(),
        body: Bytes::new(),
    }
}

/// Whether curl is there; says so if not.
pub(crate) fn has_curl() -> bool {
    let found = Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!("skipped: curl is not installed");
    }
    found
}

/// Runs curl; what it printed. Panics if it fails.
pub(crate) fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "-q",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "20",
        ])
        .args(arguments)
        .output()
        .expect("curl runs");
    assert!(
        output.status.success(),
        "curl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
