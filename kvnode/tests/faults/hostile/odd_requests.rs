//! The odd requests of E6 and what becomes of each.
//!
//! What is ambiguous (two lengths, a length and chunks, folded lines, spaces before colons) is refused and ends the
//! connection. Lenient, as RFC 9112 allows: a line may end in a bare line feed, headers may hold bytes above 127, an
//! empty line may come first.

/// A request, and what becomes of it.
pub(crate) struct Odd {
    pub(crate) what: String,
    /// A character is a byte. `{hidden}` stands for another request, `{length}` for its length; the keys `half{at}` must not be stored.
    pub(crate) request: String,
    /// Statuses of all answers.
    pub(crate) answers: &'static [u16],
    pub(crate) then: Then,
    /// What is hidden is a request of its own by all rules.
    pub(crate) hidden_is_sent: bool,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The node ends it.
    Closes,
    /// The next request on it is answered.
    GoesOn,
    /// The client ends its half in the middle.
    CutShort,
}

use Then::{Closes, CutShort, GoesOn};

/// All of them.
pub(crate) fn odd() -> Vec<Odd> {
    let mut all = Vec::new();
    for (answers, then, cases) in [
        (&[400][..], Closes, LENGTHS),
        (&[400], Closes, ENCODINGS),
        (&[400], Closes, CHUNKS),
        (&[400], CutShort, CUT),
    ] {
        for (headers, body) in cases {
            let request = put("half", headers, body);
            all.push(Odd::new(headers, request, answers, then));
        }
    }
    for (headers, body) in TAKEN {
        all.push(Odd::new(
            headers,
            put("taken", headers, body),
            &[204],
            GoesOn,
        ));
    }
    for line in HEADERS {
        let request =
            format!("GET /kv/odd HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n{{hidden}}");
        all.push(Odd::new(line, request, &[400], Closes));
    }
    for head in LINES {
        all.push(Odd::new(
            head,
            format!("{head}\r\n\r\n{{hidden}}"),
            &[400],
            Closes,
        ));
    }
    for (head, answers, then) in HEADS {
        all.push(Odd::new(head, format!("{head}\r\n\r\n"), answers, *then));
    }
    all.extend(others());
    all
}

impl Odd {
    fn new(what: &str, request: String, answers: &'static [u16], then: Then) -> Self {
        Self {
            what: what.escape_default().to_string(),
            request,
            answers,
            then,
            hidden_is_sent: false,
        }
    }
}

fn put(key: &str, headers: &str, body: &str) -> String {
    let key = if key == "half" { "half{at}" } else { key };
    format!("PUT /kv/{key} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{body}")
}

const HIDDEN_BEHIND_CHUNKS: &str = "0\r\n\r\n{hidden}";

/// Lengths that are none, or contradict each other.
const LENGTHS: &[(&str, &str)] = &[
    ("Content-Length: 1\r\nContent-Length: 1", "x{hidden}"),
    ("Content-Length: 1\r\nContent-Length: 60", "x{hidden}"),
    ("Content-Length: 1, 1", "x{hidden}"),
    ("Content-Length : 1", "x{hidden}"),
    ("Content-Length: -1", "x{hidden}"),
    ("Content-Length: +1", "x{hidden}"),
    ("Content-Length: 0x1", "x{hidden}"),
    ("Content-Length: 1.0", "x{hidden}"),
    ("Content-Length: 1 1", "x{hidden}"),
    ("Content-Length:", "x{hidden}"),
    ("Content-Length: 18446744073709551616", "x{hidden}"),
    ("Content-Length: 99999999999999999999999999", "x{hidden}"),
    ("X-A: a\r\n b\r\nContent-Length: 1", "x{hidden}"),
    ("Content-Length:\r\n 1", "x{hidden}"),
];

/// Encodings that are none, and such next to a length.
const ENCODINGS: &[(&str, &str)] = &[
    (
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        HIDDEN_BEHIND_CHUNKS,
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        HIDDEN_BEHIND_CHUNKS,
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        HIDDEN_BEHIND_CHUNKS,
    ),
    ("Transfer-Encoding: chunked, identity", HIDDEN_BEHIND_CHUNKS),
    ("Transfer-Encoding: identity, chunked", HIDDEN_BEHIND_CHUNKS),
    ("Transfer-Encoding: identity", HIDDEN_BEHIND_CHUNKS),
    ("Transfer-Encoding: xchunked", HIDDEN_BEHIND_CHUNKS),
    ("Transfer-Encoding: gzip, chunked", HIDDEN_BEHIND_CHUNKS),
    ("Transfer-Encoding: chunked, chunked", HIDDEN_BEHIND_CHUNKS),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        HIDDEN_BEHIND_CHUNKS,
    ),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        HIDDEN_BEHIND_CHUNKS,
    ),
    ("Transfer-Encoding: \u{b}chunked", HIDDEN_BEHIND_CHUNKS),
    ("Transfer-Encoding : chunked", HIDDEN_BEHIND_CHUNKS),
    (" Transfer-Encoding: chunked", HIDDEN_BEHIND_CHUNKS),
    ("Transfer-Encoding:\r\n chunked", HIDDEN_BEHIND_CHUNKS),
    ("Transfer-Encoding:", HIDDEN_BEHIND_CHUNKS),
    ("Transfer-Encoding: \"chunked\"", HIDDEN_BEHIND_CHUNKS),
];

/// Chunks that are none.
const CHUNKS: &[(&str, &str)] = &[
    (
        "Transfer-Encoding: chunked",
        "10000000000000000\r\nabc{hidden}",
    ),
    ("Transfer-Encoding: chunked", "-1\r\nabc{hidden}"),
    (
        "Transfer-Encoding: chunked",
        "0x1\r\na\r\n0\r\n\r\n{hidden}",
    ),
    ("Transfer-Encoding: chunked", "\r\na\r\n0\r\n\r\n{hidden}"),
    ("Transfer-Encoding: chunked", "g\r\na\r\n0\r\n\r\n{hidden}"),
    (
        "Transfer-Encoding: chunked",
        "1;a=\nb\r\na\r\n0\r\n\r\n{hidden}",
    ),
    ("Transfer-Encoding: chunked", "1\na\n0\n\n{hidden}"),
    (
        "Transfer-Encoding: chunked",
        "1 1\r\na\r\n0\r\n\r\n{hidden}",
    ),
    ("Transfer-Encoding: chunked", "5\r\na\r\n0\r\n\r\n{hidden}"),
    ("Transfer-Encoding: chunked", "1\r\nab\r\n0\r\n\r\n{hidden}"),
];

/// Bodies that are not all there.
const CUT: &[(&str, &str)] = &[
    ("Content-Length: 5", "x"),
    ("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFFF\r\nabc"),
    ("Transfer-Encoding: chunked", "1\r\na\r\n"),
    ("Transfer-Encoding: chunked", "1\r\na\r\n0\r\n"),
    ("Transfer-Encoding: chunked", "1\r\na\r\n0\r\nX: y\n\n"),
    ("Upgrade: websocket\r\nContent-Length: 1", "x{hidden}"),
];

/// Unusual, and whole.
const TAKEN: &[(&str, &str)] = &[
    ("Content-Length: 0001", "x"),
    ("Content_Length: 50", ""),
    ("X-HTTP-Method-Override: DELETE\r\nContent-Length: 1", "x"),
    ("Expect: 200-ok\r\nContent-Length: 1", "x"),
    ("Transfer-Encoding: chunked", "1;a=b\r\na\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "1 \r\na\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "0000000001\r\na\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "1\r\na\r\n0\r\nX: y\r\n\r\n"),
    (
        "Transfer-Encoding: chunked",
        "1\r\na\r\n0\r\nContent-Length: 60\r\n\r\n",
    ),
    ("Transfer-Encoding: CHUNKED", "1\r\na\r\n0\r\n\r\n"),
];

/// Header lines that are none.
const HEADERS: &[&str] = &[
    "X: a\rb",
    "X\0Y: a",
    "X: a\0b",
    "X: a\u{1b}[2Jb",
    "X: a\u{7f}b",
    "X\u{ff}: a",
    "XYZ",
    ": a",
    "X Y: a",
    " X: a",
    "Host: localhost",
    "Host: evil.example",
];

/// Request lines that are none, with what else belongs to them.
const LINES: &[&str] = &[
    "GET /kv/odd",
    "GET /kv/odd HTTP/1.1",
    "GET /kv/odd HTTP/1.1\r\n Host: localhost",
    "GET /kv/odd HTTP/1.1\rHost: localhost",
    "GET /kv/odd HTTP/1.2\r\nHost: localhost",
    "GET /kv/odd HTTP/2.0\r\nHost: localhost",
    "GET /kv/odd http/1.1\r\nHost: localhost",
    "GET /kv/odd HTTP/1.1 x\r\nHost: localhost",
    "GET /kv/a b HTTP/1.1\r\nHost: localhost",
    "GET /kv/\0 HTTP/1.1\r\nHost: localhost",
    "GET /kv/\u{1b}[2J HTTP/1.1\r\nHost: localhost",
    "GET /kv/\u{ff} HTTP/1.1\r\nHost: localhost",
    "GET /kv/\"<> HTTP/1.1\r\nHost: localhost",
    "GET kv/odd HTTP/1.1\r\nHost: localhost",
    "GET\t/kv/odd\tHTTP/1.1\r\nHost: localhost",
    "GET  /kv/odd  HTTP/1.1\r\nHost: localhost",
    "G@T /kv/odd HTTP/1.1\r\nHost: localhost",
    "PRI * HTTP/2.0\r\n\r\nSM",
    "\0\u{1}\u{2}\u{3}",
    "\u{16}\u{3}\u{1}\0\u{6c}\u{1}\0\0\u{68}\u{3}\u{3}",
    "SSH-2.0-OpenSSH_9.2",
    "EHLO evil",
    "*1\r\n$4\r\nPING",
];

/// Whole heads, with what becomes of them.
const HEADS: &[(&str, &[u16], Then)] = &[
    ("GET /kv/odd HTTP/1.1\nHost: localhost", &[200], GoesOn),
    (
        "\r\n\r\nGET /kv/odd HTTP/1.1\r\nHost: localhost",
        &[200],
        GoesOn,
    ),
    (
        "GET /kv/odd HTTP/1.1\r\nHost: localhost\r\nX: a\tb\u{ff}",
        &[200],
        GoesOn,
    ),
    ("GET /kv/odd#x HTTP/1.1\r\nHost: localhost", &[200], GoesOn),
    (
        "GET http://localhost/kv/odd HTTP/1.1\r\nHost: localhost",
        &[200],
        GoesOn,
    ),
    (
        "GET http://evil.example/kv/odd HTTP/1.1\r\nHost: localhost",
        &[421],
        GoesOn,
    ),
    (
        "GET http://localhost/kv/odd HTTP/1.1\r\nHost: evil.example",
        &[421],
        GoesOn,
    ),
    (
        "GET http://localhost@evil.example/kv/odd HTTP/1.1\r\nHost: localhost",
        &[421],
        GoesOn,
    ),
    (
        "GET /kv/odd HTTP/1.1\r\nHost: localhost@evil.example",
        &[421],
        GoesOn,
    ),
    ("GET /kv/odd HTTP/1.1\r\nHost: local host", &[421], GoesOn),
    (
        "GET /kv/odd HTTP/1.1\r\nHost: localhost:evil",
        &[421],
        GoesOn,
    ),
    ("GET /kv/odd HTTP/1.1\r\nHost: [::1]evil", &[421], GoesOn),
    ("GET /kv/odd HTTP/1.1\r\nHost: \u{ff}", &[421], GoesOn),
    ("GET /kv/odd HTTP/1.1\r\nHost:", &[421], GoesOn),
    ("GET /kv/odd HTTP/1.0\r\nHost: localhost", &[200], Closes),
    ("GET /kv/odd HTTP/1.0", &[421], Closes),
    (
        "PUT /kv/odd HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked",
        &[400],
        Closes,
    ),
    (
        "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost",
        &[404],
        Closes,
    ),
    (
        "GET localhost:80 HTTP/1.1\r\nHost: localhost",
        &[404],
        GoesOn,
    ),
    ("GET * HTTP/1.1\r\nHost: localhost", &[404], GoesOn),
    ("OPTIONS * HTTP/1.1\r\nHost: localhost", &[404], GoesOn),
    (
        "OPTIONS /kv/odd HTTP/1.1\r\nHost: localhost",
        &[405],
        GoesOn,
    ),
    ("get /kv/odd HTTP/1.1\r\nHost: localhost", &[405], GoesOn),
    ("BREW /kv/odd HTTP/1.1\r\nHost: localhost", &[405], GoesOn),
    ("TRACE /kv/odd HTTP/1.1\r\nHost: localhost", &[405], GoesOn),
    ("PATCH /kv/odd HTTP/1.1\r\nHost: localhost", &[405], GoesOn),
    (
        "GET /kv/odd HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue",
        &[100, 200],
        GoesOn,
    ),
    (
        "GET /kv/odd HTTP/1.1\r\nHost: localhost\r\nConnection: close, keep-alive",
        &[200],
        Closes,
    ),
    (
        "GET /kv/odd HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket",
        &[200],
        Closes,
    ),
    (
        "GET /kv/odd HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket",
        &[200],
        Closes,
    ),
    (
        "PUT /kv/odd HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551615",
        &[413],
        Closes,
    ),
    (
        "PUT /kv/odd HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 99999999",
        &[100, 413],
        Closes,
    ),
];

/// Bodies where none belongs, and requests one behind the other.
fn others() -> Vec<Odd> {
    let mut all = Vec::new();
    // The connection would go on or end, depending on whether the body came together with the head.
    for (method, answer) in [("GET", &[200][..]), ("HEAD", &[200]), ("OPTIONS", &[405])] {
        let head = format!("{method} /kv/odd HTTP/1.1\r\nHost: localhost\r\nConnection: close");
        let request = head + "\r\nContent-Length: {length}\r\n\r\n{hidden}";
        all.push(Odd::new(
            &format!("{method} with a body"),
            request,
            answer,
            Closes,
        ));
    }
    let expect = put("taken", "Expect: 100-CONTINUE\r\nContent-Length: 1", "x");
    all.push(Odd::new("Expect in capitals", expect, &[100, 204], GoesOn));
    let many = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    all.push(Odd::new("a hundred at once", many, &[200; 100], GoesOn));
    let long = format!(
        "GET /kv/{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a".repeat(20_000)
    );
    all.push(Odd::new("a long target", long, &[431], GoesOn));
    let sent = [
        ("no length", put("taken", "X: y", "{hidden}"), &[204, 204][..]),
        (
            "h2c",
            "GET /kv/odd HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n{hidden}"
                .into(),
            &[200, 204],
        ),
    ];
    for (what, request, answers) in sent {
        let mut odd = Odd::new(what, request, answers, GoesOn);
        odd.hidden_is_sent = true;
        all.push(odd);
    }
    all
}
