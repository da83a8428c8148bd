//! What is read from text: paths, queries, headers, tokens, JSON, the map's file.

use bytes::Bytes;
use kvclient::{
    Scheme, Session,
    key::{Plus, escape, unescape},
    position::Position,
    shard_map::{Address, json, toml},
    wire::{
        error::{ErrorBody, ErrorCode},
        log::{lineage_from_text, lineage_to_text},
        pull::{Headers, PullAnswer, PullRequest},
        query::{Query, parse_duration_ms},
        redirect,
        scan::{after_key, parse_after},
    },
};

use super::{Decoder, bytes::lineage};

/// A key in a path.
pub(crate) const KEY_IN_PATH: Decoder = Decoder {
    name: "key in a path",
    decode: |input| Some(escape(&unescape(input, Plus::Literal).ok()?).into_bytes()),
    valid: || texts(&["a/b%20c", "%00%ff+"]),
};

/// A key in a query.
pub(crate) const KEY_IN_QUERY: Decoder = Decoder {
    name: "key in a query",
    decode: |input| Some(escape(&unescape(input, Plus::Space).ok()?).into_bytes()),
    valid: || texts(&["a/b%20c", "%00%ff+"]),
};

/// A query, and what is read from it.
pub(crate) const QUERY: Decoder = Decoder {
    name: "query",
    decode: |input| {
        let query = Query::parse(text(input)?, &["key", "ttl", "persist", "limit"]).ok()?;
        let _ = (query.flag("persist"), query.duration_ms("ttl"));
        let _ = query.parsed("limit", "a number", |text| text.parse::<u64>().ok());
        let key = query.bytes("key")?;
        Some(format!("key={}", escape(key)).into_bytes())
    },
    valid: || texts(&["key=a+b%2B&ttl=90s", "persist&key=&limit=5"]),
};

/// A duration.
pub(crate) const DURATION: Decoder = Decoder {
    name: "duration",
    decode: |input| Some(format!("{}ms", parse_duration_ms(text(input)?)?).into_bytes()),
    valid: || texts(&["1ms", "90s", "2m", "36500d"]),
};

/// A position.
pub(crate) const POSITION: Decoder = Decoder {
    name: "position",
    decode: |input| Some(text(input)?.parse::<Position>().ok()?.to_string().into()),
    valid: || texts(&["0.0", "3.1207", "4294967295.18446744073709551615"]),
};

/// An entity tag.
pub(crate) const ETAG: Decoder = Decoder {
    name: "etag",
    decode: |input| Some(Position::from_etag(text(input)?).ok()?.to_etag().into()),
    valid: || texts(&["\"3.1207\""]),
};

/// A lineage in a header.
pub(crate) const LINEAGE: Decoder = Decoder {
    name: "lineage in a header",
    decode: |input| {
        let lineage = lineage_from_text(text(input)?).ok()?;
        let _ = lineage.common_seq(u64::MAX, &lineage, u64::MAX);
        Some(lineage_to_text(&lineage).into())
    },
    valid: || vec![lineage_to_text(&lineage()).into(), Vec::new()],
};

/// Where a scan goes on.
pub(crate) const AFTER: Decoder = Decoder {
    name: "after",
    decode: |input| Some(after_key(parse_after(text(input)?)?.as_bytes()).into()),
    valid: || vec![after_key(b"key").into(), after_key(b"\xff").into()],
};

/// A session's token.
pub(crate) const TOKEN: Decoder = Decoder {
    name: "token",
    decode: |input| Some(Session::from_token(text(input)?).ok()?.to_token().into()),
    valid: || texts(&["kv1", "kv1_0.3.1207_2.1.9"]),
};

/// A node's address.
pub(crate) const ADDRESS: Decoder = Decoder {
    name: "address",
    decode: |input| Some(text(input)?.parse::<Address>().ok()?.to_string().into()),
    valid: || texts(&["localhost:8080", "127.0.0.1:1", "[::1]:8080"]),
};

/// The `Location` of a redirect.
pub(crate) const LOCATION: Decoder = Decoder {
    name: "location",
    decode: |input| {
        let found = [Scheme::Http, Scheme::Https]
            .into_iter()
            .find_map(|scheme| {
                let target = redirect::target(scheme, text(input)?)?;
                Some(redirect::location(scheme, &target, "/kv/a"))
            });
        found.map(Into::into)
    },
    valid: || {
        texts(&[
            "http://localhost:8081/kv/a%2Fb?ttl=9s",
            "https://localhost:8081/kv/a",
            "http://[::1]:80",
        ])
    },
};

/// The body of a refusal.
pub(crate) const REFUSAL: Decoder = Decoder {
    name: "refusal",
    decode: |input| {
        let body: ErrorBody = serde_json::from_slice(input).ok()?;
        let _ = ErrorCode::from_text(&body.error);
        Some(body.to_json().into())
    },
    valid: || {
        vec![
            ErrorBody::new(ErrorCode::KeyEmpty, "no \"key\"")
                .to_json()
                .into(),
        ]
    },
};

/// A replica's pull: the query, then a header on each line.
pub(crate) const PULL: Decoder = Decoder {
    name: "pull",
    decode: |input| {
        let (query, headers) = text(input)?.split_once('\n')?;
        let pull = PullRequest::decode(query, |name| header(headers, name)).ok()?;
        let uri = pull.to_uri();
        let (_, query) = uri.split_once('?')?;
        Some(lines(query, &pull.to_headers()))
    },
    valid: || {
        let headers = "kv-node-id: 0123456789abcdef\nkv-node-address: localhost:8083\nkv-last-crc: 00000000\n\
            kv-history: 00000000000000000000000000000001\nkv-lineage: 1.1.abcd,2.9.1\nkv-map-version: 1-ab\n";
        texts(&[&format!("after=5&max_bytes=100&wait_ms=250\n{headers}")])
    },
};

/// The answer to a pull: the status, a header on each line, an empty line, the body.
pub(crate) const PULL_ANSWER: Decoder = Decoder {
    name: "pull answer",
    decode: |input| {
        let (head, body) = text(input)?.split_once("\n\n")?;
        let (status, headers) = head.split_once('\n').unwrap_or((head, ""));
        let status = status.parse().ok()?;
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = PullAnswer::decode(status, |name| header(headers, name), body).ok()?;
        let _ = answer.error_code();
        let body = match &answer.error {
            Some(error) => error.to_json().into(),
            None => answer.frames.to_vec(),
        };
        let head = lines(&status.to_string(), &answer.to_headers());
        Some([&head[..], b"\n", &body].concat())
    },
    valid: || {
        let headers = "kv-durable: 1.9\nkv-history: 00000000000000000000000000000001\nkv-lineage: 1.1.abcd\n\
            kv-clock-ms: 5\nkv-waited-ms: 6\nkv-checkpoints: 1.5:0123456789abcdef,1.6:0123456789abcdef\n";
        let refused = "kv-position: 1.5\n\n{\"error\":\"diverged\",\"message\":\"m\"}";
        texts(&[
            &format!("200\n{headers}\nframes"),
            &format!("409\n{refused}"),
        ])
    },
};

/// The map as nodes send it.
pub(crate) const MAP: Decoder = Decoder {
    name: "map",
    decode: |input| Some(json::encode(&json::decode(input).ok()?).into()),
    valid: || {
        let map = toml::parse(FILE, "a map").expect("a map");
        vec![json::encode(&map).into()]
    },
};

/// The map as a file. What it holds is written as JSON, since files are written by people only.
pub(crate) const MAP_FILE: Decoder = Decoder {
    name: "map file",
    decode: |input| {
        let map = match toml::parse(text(input)?, "a map") {
            Ok(map) => map,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return None;
            }
        };
        let again = json::decode(json::encode(&map).as_bytes()).expect("a map");
        assert_eq!(again.identity(), map.identity());
        Some(input.to_vec())
    },
    valid: || texts(&[FILE]),
};

const FILE: &str = r#"
version = 3
[[shards]]
name = "shard1"
idx = 0
address = "localhost:8080"
replicas = ["localhost:8083", "other:8083"]
slots = ["0-5460", "9000"]
zone = "a"
replica_zones = ["b", "c"]
[[shards]]
name = "shard2"
idx = 1
address = "[::1]:8081"
slots = ["5461-8999", "9001-16383"]
zone = "b"
"#;

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A header by its name.
fn header<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = lines.lines().filter_map(|line| line.split_once(": "));
    headers
        .find(|(other, _)| *other == name)
        .map(|(_, value)| value)
}

fn lines(first: &str, headers: &Headers) -> Vec<u8> {
    let mut lines = format!("{first}\n");
    for (name, value) in headers {
        lines.push_str(&format!("{name}: {value}\n"));
    }
    lines.into_bytes()
}
