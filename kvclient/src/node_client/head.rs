//! Heads of HTTP/1.1: the request's as text, the answer's as what it says about its body.
//!
//! ```text
//! POST /batch HTTP/1.1        what it asks for
//! host: localhost:8080        the node, as the map has it
//! user-agent: kvclient/..
//! content-length: 41          of whatever has a body
//! kv-..: ..                   the op's terms
//! ```
//!
//! Answers come from nodes and from whatever stands before them: an answer whose end cannot be told for certain is
//! refused, never guessed at. Pure: bytes in, bytes out.

use std::mem::MaybeUninit;

use httparse::{Error as HttpError, Header, ParserConfig, Response, Status};
use reqwest::header::HeaderMap;

use crate::shard_map::Address;

/// Most header lines of an answer. A node sends about ten; proxies add some.
const MAX_HEADERS: usize = 100;

/// One request, whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    /// Path and query, escaped.
    pub(super) uri: &'a str,
    pub(super) content_type: Option<&'static str>,
    /// Value of the header of that name.
    pub(super) authorization: Option<&'a str>,
    pub(super) headers: &'a [(&'static str, String)],
    /// Of a GET it is empty and not announced.
    pub(super) body: &'a [u8],
}

/// What the head of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnswerHead {
    pub(super) status: u16,
    /// Bytes of the head.
    pub(super) len: usize,
    pub(super) body: BodyLength,
    /// Whether the connection may be used again after it.
    pub(super) keeps_open: bool,
}

/// Where an answer's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    Bytes(u64),
    Chunked,
    UntilClosed,
}

/// Header lines of an answer. As text, since hardly any of them is ever asked for.
#[derive(Debug, Default)]
pub(super) struct Headers(Box<[u8]>);

impl Request<'_> {
    /// Appends the head.
    pub(super) fn write_head(&self, node: &Address, out: &mut Vec<u8>) {
        let Self { method, uri, .. } = *self;
        for part in [method, " ", uri, " HTTP/1.1\r\nhost: ", node.host(), ":"] {
            out.extend_from_slice(part.as_bytes());
        }
        write_number(u64::from(node.port()), out);
        out.extend_from_slice(
            concat!("\r\nuser-agent: kvclient/", env!("CARGO_PKG_VERSION")).as_bytes(),
        );
        if let Some(content_type) = self.content_type {
            write_line("content-type", content_type, out);
        }
        if let Some(authorization) = self.authorization {
            write_line("authorization", authorization, out);
        }
        for (name, value) in self.headers {
            write_line(name, value, out);
        }
        if method != "GET" {
            out.extend_from_slice(b"\r\ncontent-length: ");
            write_number(self.body.len() as u64, out);
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

impl AnswerHead {
    /// Reads the head at the front of what has arrived; `None` as long as it is not complete.
    ///
    /// # Errors
    /// What makes it an answer that nobody can read; the connection is of no use any more.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, String> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, bytes, &mut headers)
            .map_err(|error| no_http(error, bytes))?;
        let Status::Complete(len) = parsed else {
            return Ok(None);
        };
        let status = response.code.unwrap_or_default();
        let is_newer = response.version == Some(1);
        let framing = Framing::read(response.headers)?;
        Ok(Some(Self {
            status,
            len,
            body: framing.body_length(status, is_newer)?,
            keeps_open: is_newer && !framing.closes,
        }))
    }

    /// Whether the answer proper is still to come.
    pub(super) fn is_interim(&self) -> bool {
        (100..=199).contains(&self.status)
    }
}

/// Begins what a TLS end says when it does not understand: an alert, of TLS 1.0 to 1.3.
const TLS_ALERT: &[u8] = &[21, 3];

/// What to do about an answer that is one of TLS.
pub(super) const SPEAKS_TLS: &str = "it speaks TLS, and was spoken to in the clear; say whom to trust (kv: --ca or KV_CA, programs: `Tls`)";

/// Tells one mistake from all the others, since there is something to do about it.
fn no_http(error: HttpError, bytes: &[u8]) -> String {
    match bytes.starts_with(TLS_ALERT) {
        true => SPEAKS_TLS.to_owned(),
        false => format!("no HTTP: {error}"),
    }
}

/// The header lines that say where an answer ends and what comes of its connection.
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    /// Coded in a way that says where it ends.
    chunked: bool,
    closes: bool,
}

impl Framing {
    fn read(headers: &[Header<'_>]) -> Result<Self, String> {
        let mut framing = Self::default();
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = Some(length(header.value)?);
                if framing.length.is_some() && framing.length != length {
                    return Err("two lengths".to_owned());
                }
                framing.length = length;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if framing.chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err("a coding that was not asked for".to_owned());
                }
                framing.chunked = true;
            } else if header.name.eq_ignore_ascii_case("connection") {
                let mut words = header.value.split(|&b| b == b',');
                framing.closes |=
                    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
            }
        }
        // Whoever sends both may mean another end than the one that is read.
        framing.closes |= framing.chunked && framing.length.is_some();
        Ok(framing)
    }

    fn body_length(&self, status: u16, is_newer: bool) -> Result<BodyLength, String> {
        match (status, self.length) {
            (101, _) => Err("it changes the protocol".to_owned()),
            (100..=199 | 204 | 304, _) => Ok(BodyLength::Bytes(0)),
            _ if self.chunked && !is_newer => Err("chunks in HTTP/1.0".to_owned()),
            _ if self.chunked => Ok(BodyLength::Chunked),
            (_, Some(length)) => Ok(BodyLength::Bytes(length)),
            (_, None) => Ok(BodyLength::UntilClosed),
        }
    }
}

impl Headers {
    /// Of a head that [`AnswerHead::parse`] took.
    pub(super) fn of_head(head: &[u8]) -> Self {
        Self(head.into())
    }

    /// Of an answer that the HTTP library read.
    pub(super) fn of_map(map: &HeaderMap) -> Self {
        let mut text = Vec::new();
        for (name, value) in map {
            for part in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"] {
                text.extend_from_slice(part);
            }
        }
        Self(text.into())
    }

    /// The first header of this name, if it is text.
    pub(super) fn get(&self, wanted: &str) -> Option<&str> {
        let mut lines = self.0.split(|&b| b == b'\n');
        let value = lines.find_map(|line| {
            let (name, value) = line.split_at_checked(wanted.len())?;
            let value = value.strip_prefix(b":")?;
            name.eq_ignore_ascii_case(wanted.as_bytes())
                .then_some(value)
        })?;
        str::from_utf8(value.trim_ascii()).ok()
    }
}

fn write_line(name: &str, value: &str, out: &mut Vec<u8>) {
    debug_assert!(!value.contains(['\r', '\n']), "{name}: {value:?}");
    for part in ["\r\n", name, ": ", value] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Decimal digits, without the detour of a formatter.
fn write_number(number: u64, out: &mut Vec<u8>) {
    if number >= 10 {
        write_number(number / 10, out);
    }
    out.push(b'0' + u8::try_from(number % 10).expect("below 10"));
}

/// Digits only: a sign or a list is what other readers may take differently.
fn length(value: &[u8]) -> Result<u64, String> {
    let text = str::from_utf8(value).unwrap_or_default();
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let length = is_plain.then(|| text.parse().ok()).flatten();
    length.ok_or_else(|| "a length that is no number".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(lines: &str) -> Result<Option<AnswerHead>, String> {
        AnswerHead::parse(
            format!("HTTP/1.1 {lines}\r\n\r\n")
                .replace('|', "\r\n")
                .as_bytes(),
        )
    }

    #[test]
    fn a_request_says_what_it_is() {
        let headers = [("kv-ack", "all".to_owned())];
        let request = Request {
            method: "PUT",
            uri: "/kv/a%20b",
            content_type: None,
            authorization: Some("Bearer t"),
            headers: &headers,
            body: &[b'x'; 1_024],
        };
        let mut out = Vec::new();
        request.write_head(&"[::1]:8080".parse().unwrap(), &mut out);
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "PUT /kv/a%20b HTTP/1.1\r\nhost: [::1]:8080\r\nuser-agent: kvclient/{version}\r\n\
             authorization: Bearer t\r\nkv-ack: all\r\ncontent-length: 1024\r\n\r\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    /// A cluster that was given certificates was, to whoever still spoke in the clear, of an "invalid HTTP version".
    #[test]
    fn a_node_with_tls_was_told_as_no_http() {
        let alert = [21, 3, 1, 0, 2, 2, 70];
        let said = AnswerHead::parse(&alert).unwrap_err();
        assert!(
            said.contains("speaks TLS") && said.contains("--ca"),
            "{said}"
        );
        let said = AnswerHead::parse(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap_err();
        assert!(said.starts_with("no HTTP: "), "{said}");
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        use BodyLength::{Bytes, Chunked, UntilClosed};
        for (lines, body, keeps_open) in [
            ("200 OK|content-length: 12", Bytes(12), true),
            (
                "200 |Content-Length:0|Connection: keep-alive",
                Bytes(0),
                true,
            ),
            ("200 OK|content-length: 7|content-length: 7", Bytes(7), true),
            (
                "200 OK|content-length: 7|connection: x , Close",
                Bytes(7),
                false,
            ),
            ("200 OK|transfer-encoding: Chunked", Chunked, true),
            (
                "200 OK|transfer-encoding: chunked|content-length: 3",
                Chunked,
                false,
            ),
            ("204 No|content-length: 3", Bytes(0), true),
            ("304 Not|transfer-encoding: chunked", Bytes(0), true),
            ("502 Bad", UntilClosed, true),
        ] {
            let head = parse(lines).unwrap().unwrap();
            assert_eq!((head.body, head.keeps_open), (body, keeps_open), "{lines}");
        }
        let older = AnswerHead::parse(b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n");
        assert!(!older.unwrap().unwrap().keeps_open);
    }

    #[test]
    fn what_may_be_read_in_two_ways_is_refused() {
        for lines in [
            "200 OK|content-length: 1|content-length: 2",
            "200 OK|content-length: +1",
            "200 OK|content-length: 1, 1",
            "200 OK|content-length: ",
            "200 OK|content-length: 99999999999999999999",
            "200 OK|transfer-encoding: gzip, chunked",
            "200 OK|transfer-encoding: chunked|transfer-encoding: chunked",
            "200 OK|content-length : 1",
            "101 Switching",
            "2000 OK",
        ] {
            assert!(parse(lines).is_err(), "{lines}");
        }
        let older = b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(AnswerHead::parse(older).is_err());
        let many = "200 OK".to_owned() + &"|a: b".repeat(MAX_HEADERS + 1);
        assert!(parse(&many).is_err());
    }

    #[test]
    fn headers_are_found_by_their_whole_name() {
        let text = b"HTTP/1.1 200 OK\r\nkv-position-x: 1\r\nKv-Position:  3.4 \r\nb: \xff\r\n\r\n";
        let headers = Headers::of_head(text);
        assert_eq!(headers.get("kv-position"), Some("3.4"));
        for absent in ["kv-pos", "b", "c", "http/1.1 200 ok"] {
            assert_eq!(headers.get(absent), None, "{absent}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = AnswerHead::parse(&bytes);
            let _ = AnswerHead::parse(&[b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat());
            let _ = Headers::of_head(&bytes).get("etag");
        }

        #[test]
        fn a_part_of_a_head_is_none(cut in 0..56_usize) {
            let whole = b"HTTP/1.1 200 OK\r\netag: \"1.2\"\r\ncontent-length: 1000000\r\n\r\n";
            prop_assert_eq!(AnswerHead::parse(&whole[..cut]), Ok(None));
            prop_assert!(AnswerHead::parse(whole).unwrap().is_some());
        }
    }
}
