//! A replica's pull and the primary's answer: `GET /log`, both directions side by side.
//!
//! ```text
//! request   /log?after=<seq>&max_bytes=<n>&wait_ms=<n>
//!           Kv-Node-Id       16 hex digits, random, drawn once per data directory
//!           Kv-Node-Address  host:port, as the map has it
//!           Kv-History       32 hex digits; left out by a node that has none yet
//!           Kv-Lineage       epoch.first_seq.reign_id, ...
//!           Kv-Last-Crc      8 hex digits, header CRC of the last frame held; 00000000 if none
//!           Kv-Map-Version   identity of its shard map
//!
//! answer    body             whole frames, one or more, or nothing
//!           Kv-Durable       epoch.seq
//!           Kv-History, Kv-Lineage   the primary's
//!           Kv-Clock-Ms      its shard time, Unix milliseconds
//!           Kv-Waited-Ms     how long it held the request
//!           Kv-Checkpoints   epoch.seq:digest, ... (digest as 16 hex digits)
//!           Kv-Position      on `diverged`: the last position both logs share
//!           Kv-Map-Version   identity of the primary's shard map; every answer of a node carries it
//! ```
//!
//! A refusal has its status and the JSON body of every refusal; the headers stand on it as well.

use bytes::Bytes;

use super::{
    bytes::DecodeError,
    error::{ErrorBody, ErrorCode},
    header,
    log::{lineage_from_text, lineage_to_text},
    query::Query,
    route,
};
use crate::{
    position::{Lineage, Position, Seq},
    shard_map::Address,
};

/// What a replica asks its primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Its own durable seq: frames after this one are wanted, and everything up to it is acknowledged.
    pub after: Seq,
    /// Bytes of frames it takes at once; one frame comes even if it is larger.
    pub max_bytes: u32,
    /// Milliseconds the primary may hold the request while there is nothing to send.
    pub wait_ms: u32,
    /// Names its data directory.
    pub node_id: u64,
    /// Where the map has it.
    pub node_address: Address,
    /// Which history its log belongs to; `None`: it is empty.
    pub history: Option<u128>,
    /// The reigns in its log.
    pub lineage: Lineage,
    /// Header CRC of its last frame, 0 if there is none.
    pub last_crc: u32,
    /// Identity of its shard map, if it says so.
    pub map_version: Option<String>,
}

/// What the primary answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullAnswer {
    /// HTTP status: 200 with frames or nothing, else a refusal.
    pub status: u16,
    /// Why it refused.
    pub error: Option<ErrorBody>,
    /// Whole frames, as they are in the primary's file.
    pub frames: Bytes,
    /// The primary's durable position.
    pub durable: Option<Position>,
    /// Which history its log belongs to.
    pub history: Option<u128>,
    /// The reigns in its log.
    pub lineage: Option<Lineage>,
    /// Its shard time, Unix milliseconds.
    pub clock_ms: Option<u64>,
    /// How long it held the request, in milliseconds.
    pub waited_ms: Option<u64>,
    /// Its newest checkpoints: position and digest of the contents there.
    pub checkpoints: Vec<(Position, u64)>,
    /// The last position both logs share, where they have parted.
    pub common: Option<Position>,
    /// Identity of its shard map. Read only: the node adds it to every answer.
    pub map_version: Option<String>,
}

/// Headers as they are written: name and value.
pub type Headers = Vec<(&'static str, String)>;

impl PullRequest {
    /// Path and query.
    pub fn to_uri(&self) -> String {
        format!(
            "{}?after={}&max_bytes={}&wait_ms={}",
            route::LOG,
            self.after,
            self.max_bytes,
            self.wait_ms
        )
    }

    /// The headers.
    pub fn to_headers(&self) -> Headers {
        let mut headers = vec![
            (header::NODE_ID, format!("{:016x}", self.node_id)),
            (header::NODE_ADDRESS, self.node_address.to_string()),
            (header::LINEAGE, lineage_to_text(&self.lineage)),
            (header::LAST_CRC, format!("{:08x}", self.last_crc)),
        ];
        headers.extend(self.history.map(history_header));
        headers.extend(
            self.map_version
                .clone()
                .map(|identity| (header::MAP_VERSION, identity)),
        );
        headers
    }

    /// Reads a request: its raw query, and its headers by name.
    ///
    /// # Errors
    /// [`DecodeError`] names what is missing or malformed; answer 400.
    pub fn decode<'a>(
        raw_query: &str,
        header: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Self, DecodeError> {
        let query = Query::parse(raw_query, &["after", "max_bytes", "wait_ms"])
            .map_err(|error| problem(error.to_string()))?;
        let read = Fields(header);
        Ok(Self {
            after: number(&query, "after")?,
            max_bytes: number(&query, "max_bytes")?,
            wait_ms: number(&query, "wait_ms")?,
            node_id: need(header::NODE_ID, read.parsed(header::NODE_ID, hex_u64)?)?,
            node_address: need(
                header::NODE_ADDRESS,
                read.parsed(header::NODE_ADDRESS, |text| text.parse().ok())?,
            )?,
            history: read.parsed(header::HISTORY, hex_u128)?,
            lineage: need(
                header::LINEAGE,
                read.parsed(header::LINEAGE, |text| lineage_from_text(text).ok())?,
            )?,
            last_crc: need(header::LAST_CRC, read.parsed(header::LAST_CRC, hex_u32)?)?,
            map_version: read.parsed(header::MAP_VERSION, map_identity)?,
        })
    }
}

impl PullAnswer {
    /// A refusal without headers; fill in what the replica should know.
    pub fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            error: Some(ErrorBody::new(code, message)),
            ..Self::default()
        }
    }

    /// Why it refused, as a code.
    pub fn error_code(&self) -> Option<ErrorCode> {
        let error = self.error.as_ref()?;
        Some(ErrorCode::from_text(&error.error))
    }

    /// The headers.
    pub fn to_headers(&self) -> Headers {
        let mut headers = Headers::new();
        let mut add = |name, text: Option<String>| headers.extend(text.map(|text| (name, text)));
        add(header::DURABLE, self.durable.map(|at| at.to_string()));
        add(header::LINEAGE, self.lineage.as_ref().map(lineage_to_text));
        add(header::CLOCK_MS, self.clock_ms.map(|ms| ms.to_string()));
        add(header::WAITED_MS, self.waited_ms.map(|ms| ms.to_string()));
        add(header::POSITION, self.common.map(|at| at.to_string()));
        headers.extend(self.history.map(history_header));
        if !self.checkpoints.is_empty() {
            headers.push((header::CHECKPOINTS, checkpoints_to_text(&self.checkpoints)));
        }
        headers
    }

    /// Reads an answer: status, headers by name, body.
    ///
    /// # Errors
    /// [`DecodeError`] names the header that is malformed; nothing of the answer may be used.
    pub fn decode<'a>(
        status: u16,
        header: impl Fn(&str) -> Option<&'a str>,
        body: Bytes,
    ) -> Result<Self, DecodeError> {
        let read = Fields(header);
        let mut answer = Self {
            status,
            durable: read.parsed(header::DURABLE, |text| text.parse().ok())?,
            history: read.parsed(header::HISTORY, hex_u128)?,
            lineage: read.parsed(header::LINEAGE, |text| lineage_from_text(text).ok())?,
            clock_ms: read.parsed(header::CLOCK_MS, |text| text.parse().ok())?,
            waited_ms: read.parsed(header::WAITED_MS, |text| text.parse().ok())?,
            checkpoints: read
                .parsed(header::CHECKPOINTS, checkpoints_from_text)?
                .unwrap_or_default(),
            common: read.parsed(header::POSITION, |text| text.parse().ok())?,
            map_version: read.parsed(header::MAP_VERSION, map_identity)?,
            ..Self::default()
        };
        match status {
            200 => answer.frames = body,
            204 => {}
            _ => answer.error = Some(error_of(&body)),
        }
        Ok(answer)
    }
}

/// A refusal's body; something in between (a proxy, another program) may answer without one.
fn error_of(body: &[u8]) -> ErrorBody {
    serde_json::from_slice(body)
        .unwrap_or_else(|_| ErrorBody::new(ErrorCode::Other, "refused without a reason"))
}

fn history_header(history: u128) -> (&'static str, String) {
    (header::HISTORY, format!("{history:032x}"))
}

fn checkpoints_to_text(checkpoints: &[(Position, u64)]) -> String {
    let texts: Vec<String> = checkpoints
        .iter()
        .map(|(position, digest)| format!("{position}:{digest:016x}"))
        .collect();
    texts.join(",")
}

fn checkpoints_from_text(text: &str) -> Option<Vec<(Position, u64)>> {
    let checkpoint = |item: &str| {
        let (position, digest) = item.split_once(':')?;
        Some((position.parse().ok()?, hex_u64(digest)?))
    };
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(checkpoint)
        .collect()
}

/// Headers by name, whatever library holds them.
struct Fields<F>(F);

impl<'a, F: Fn(&str) -> Option<&'a str>> Fields<F> {
    fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, DecodeError> {
        let Some(text) = (self.0)(name) else {
            return Ok(None);
        };
        let parsed = parse(text);
        parsed
            .map(Some)
            .ok_or_else(|| problem(format!("{name} cannot be read: {text:?}")))
    }
}

/// An identity is one word: a field that is not cannot be sent on as it came.
fn map_identity(text: &str) -> Option<String> {
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_word.then(|| text.to_owned())
}

fn need<T>(name: &str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or_else(|| problem(format!("{name} is missing")))
}

fn number<T: std::str::FromStr>(query: &Query, name: &'static str) -> Result<T, DecodeError> {
    let value = query
        .parsed(name, "a whole number", |text| text.parse().ok())
        .map_err(|error| problem(error.to_string()))?;
    need(name, value)
}

fn problem(problem: String) -> DecodeError {
    DecodeError::new("pull", problem)
}

fn hex_u32(text: &str) -> Option<u32> {
    is_hex(text, 8).then(|| u32::from_str_radix(text, 16).ok())?
}

fn hex_u64(text: &str) -> Option<u64> {
    is_hex(text, 16).then(|| u64::from_str_radix(text, 16).ok())?
}

fn hex_u128(text: &str) -> Option<u128> {
    is_hex(text, 32).then(|| u128::from_str_radix(text, 16).ok())?
}

/// Exactly so many hex digits: `from_str_radix` alone would take a sign.
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Reign;

    fn lineage() -> Lineage {
        let mut lineage = Lineage::new();
        let reign = Reign {
            epoch: 1,
            first_seq: 1,
            reign_id: 0xab,
        };
        lineage.push(reign).expect("the first");
        lineage
    }

    fn lookup<'a>(headers: &'a Headers) -> impl Fn(&str) -> Option<&'a str> {
        |name| {
            let (_, value) = headers.iter().find(|(other, _)| *other == name)?;
            Some(value.as_str())
        }
    }

    fn request() -> PullRequest {
        PullRequest {
            after: 7,
            max_bytes: 1 << 20,
            wait_ms: 250,
            node_id: 0xff,
            node_address: "localhost:8083".parse().expect("address"),
            history: Some(0x1234),
            lineage: lineage(),
            last_crc: 0xabc,
            map_version: Some("1-ab".into()),
        }
    }

    #[test]
    fn a_request_comes_back_as_it_was() {
        let request = request();
        assert_eq!(
            request.to_uri(),
            "/log?after=7&max_bytes=1048576&wait_ms=250"
        );
        let headers = request.to_headers();
        let decoded =
            PullRequest::decode("after=7&max_bytes=1048576&wait_ms=250", lookup(&headers));
        assert_eq!(decoded, Ok(request));
    }

    #[test]
    fn an_empty_replica_may_ask() {
        let empty = PullRequest {
            after: 0,
            history: None,
            lineage: Lineage::new(),
            last_crc: 0,
            ..request()
        };
        let headers = empty.to_headers();
        let decoded =
            PullRequest::decode("after=0&max_bytes=1048576&wait_ms=250", lookup(&headers));
        assert_eq!(decoded, Ok(empty));
    }

    /// With a line break at its end it was taken as it came, and was another one when it was read again.
    #[test]
    fn a_map_identity_is_one_word() {
        for (identity, is_read) in [
            ("1-ab", true),
            ("1-ab\r", false),
            ("1-ab x", false),
            ("1-\u{e9}", false),
            ("", false),
        ] {
            let mut headers = request().to_headers();
            headers.retain(|(name, _)| *name != header::MAP_VERSION);
            headers.push((header::MAP_VERSION, identity.into()));
            let query = "after=7&max_bytes=1&wait_ms=2";
            let decoded = PullRequest::decode(query, lookup(&headers));
            assert_eq!(decoded.is_ok(), is_read, "{identity:?}");
            let answer = PullAnswer::decode(200, lookup(&headers), Bytes::new());
            assert_eq!(answer.is_ok(), is_read, "{identity:?}");
        }
    }

    #[test]
    fn a_missing_or_malformed_header_is_named() {
        let query = "after=7&max_bytes=1&wait_ms=2";
        for name in [
            header::NODE_ID,
            header::NODE_ADDRESS,
            header::LINEAGE,
            header::LAST_CRC,
        ] {
            let mut headers = request().to_headers();
            headers.retain(|(other, _)| *other != name);
            let error = PullRequest::decode(query, lookup(&headers)).expect_err("missing");
            assert!(error.problem.contains(name), "{error}");
            headers.push((name, "+zz".into()));
            let error = PullRequest::decode(query, lookup(&headers)).expect_err("malformed");
            assert!(error.problem.contains(name), "{error}");
        }
    }

    #[test]
    fn an_answer_comes_back_as_it_was() {
        let answer = PullAnswer {
            status: 200,
            frames: Bytes::from_static(b"frames"),
            durable: Some(Position::new(1, 9)),
            history: Some(5),
            lineage: Some(lineage()),
            clock_ms: Some(1_700_000_000_000),
            waited_ms: Some(3),
            checkpoints: vec![(Position::new(1, 5), 0xfeed), (Position::new(1, 8), 1)],
            ..PullAnswer::default()
        };
        let headers = answer.to_headers();
        let decoded = PullAnswer::decode(200, lookup(&headers), answer.frames.clone());
        assert_eq!(decoded, Ok(answer));
    }

    #[test]
    fn a_refusal_keeps_its_headers() {
        let mut answer = PullAnswer::refused(ErrorCode::Diverged, "parted");
        answer.common = Some(Position::new(1, 4));
        let body = answer.error.as_ref().expect("an error").to_json();
        let headers = answer.to_headers();
        let decoded = PullAnswer::decode(409, lookup(&headers), body.into()).expect("an answer");
        assert_eq!(decoded.error_code(), Some(ErrorCode::Diverged));
        assert_eq!(decoded, answer);
    }
}
