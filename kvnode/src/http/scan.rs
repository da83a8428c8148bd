//! `GET /kv`: the entries of this node's shard in key order, as lines of JSON or as frames
//! ([`kvclient::wire::scan`]).
//!
//! Made in pages, so that memory stays flat however long the scan: a page is one bounded read of the store off the
//! worker, and the next one is made when the connection has taken the one before. The first page is made before the
//! answer begins, so that what fails at once is answered with its status. What fails later breaks the connection: an
//! answer without its end line is never whole.
//!
//! It is no snapshot. Each key is looked at once and keys only move on, so a key that is there throughout comes
//! exactly once.

use std::{io, ops::Bound, sync::Arc, time::Instant};

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::Method, web};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use kvclient::{
    key::{Key, KeyError, MAX_KEY_BYTES},
    position::Position,
    wire::{
        batch::OpResult,
        content_type,
        error::ErrorCode,
        header,
        line::Line,
        query::Query,
        scan::{
            DEFAULT_SCAN_LIMIT, MAX_SCAN_LIMIT, ScanEnd, ScanEntry, after_key, encode_start,
            parse_after,
        },
    },
};

use super::{accept, answer, request, request::BadRequest};
use crate::{
    access::Caller,
    ownership::own_shard,
    service::{Service, read_failed},
    storage::Storage,
    store::{Entry, ScanContent, ScanLimits, ScanPage, ScanRange},
};

const PARAMETERS: &[&str] = &[
    "prefix",
    "start",
    "end",
    "after",
    "limit",
    "reverse",
    "keys_only",
];

/// Bytes of keys and values on a page: a fraction of a millisecond of LMDB, and many writes to a socket. One larger
/// entry is a page of its own.
const PAGE_BYTES: usize = 256 << 10;

/// Most entries on a page.
const PAGE_ENTRIES: usize = 1_024;

/// Answers a scan.
pub(super) async fn scan(
    request: HttpRequest,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let arrived = Instant::now();
    let asked = Asked::of(&request).and_then(|asked| {
        let (start, end) = (asked.range.start.as_ref(), asked.range.end.as_ref());
        let (start, end) = (start.map(|key| &key[..]), end.map(|key| &key[..]));
        caller.may(|grant| grant.allows_range(start, end))?;
        Ok((asked, request::terms(&request)?))
    });
    let (asked, terms) = match asked {
        Ok(asked) => asked,
        Err(error) => return answer::refused(error, &service),
    };
    let storage = match service.readable(&terms, arrived).await {
        Ok(storage) => storage,
        Err(refusal) => return answer::op(&request, refusal, &service),
    };
    if *request.method() == Method::HEAD {
        return head(asked.format, storage.store.visible(), &service).finish();
    }
    let mut scan = Scan::new(asked, storage, service.clone(), caller);
    match scan.chunk().await {
        Ok(first) => head(scan.format, scan.position, &service).streaming(body(scan, first)),
        Err(refusal) => answer::op(&request, refusal, &service),
    }
}

fn head(format: Format, position: Position, service: &Service) -> HttpResponseBuilder {
    let mut answer = answer::data(200, service);
    answer
        .insert_header((header::POSITION, position.to_string()))
        .content_type(format.content_type());
    answer
}

/// The first page, then the others as they are taken.
fn body(scan: Scan, first: Bytes) -> impl futures_core::Stream<Item = io::Result<Bytes>> {
    let rest = stream::unfold(Some(scan), async |scan| {
        let mut scan = scan.filter(|scan| !scan.ended)?;
        match scan.chunk().await {
            Ok(chunk) => Some((Ok(chunk), Some(scan))),
            Err(refusal) => {
                let why = refusal.error.map(|error| error.message).unwrap_or_default();
                tracing::warn!(why, "a scan was broken off");
                Some((Err(io::Error::other(why)), None))
            }
        }
    });
    stream::once(async { Ok(first) }).chain(Box::pin(rest))
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Lines,
    Frames,
}

impl Format {
    fn of(request: &HttpRequest) -> Self {
        match accept::prefers(request, content_type::FRAMES, content_type::NDJSON) {
            true => Self::Frames,
            false => Self::Lines,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Lines => content_type::NDJSON,
            Self::Frames => content_type::FRAMES,
        }
    }

    fn start(self, out: &mut Vec<u8>) {
        match self {
            Self::Lines => {}
            Self::Frames => encode_start(out),
        }
    }

    fn entry(self, entry: &ScanEntry, out: &mut Vec<u8>) {
        if self == Self::Frames {
            return entry.encode(out);
        }
        let line = Line::begin(out).bytes("key", entry.key.as_bytes());
        let line = match &entry.value {
            Some(value) => line.bytes("value", value),
            None => line,
        };
        line.field("position", entry.position.to_string())
            .optional("ttl_ms", entry.ttl_ms)
            .end();
    }

    fn end(self, end: &ScanEnd, out: &mut Vec<u8>) {
        if self == Self::Frames {
            return end.encode(out);
        }
        let line = Line::begin(out);
        let line = match &end.next {
            Some(next) => line.field("next", next),
            None => line.field("done", true),
        };
        line.field("shard", &end.shard)
            .field("shards", end.shards)
            .field("position", end.position.to_string())
            .end();
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    range: ScanRange,
    limit: usize,
    content: ScanContent,
    format: Format,
}

impl Asked {
    fn of(request: &HttpRequest) -> Result<Self, BadRequest> {
        let query = Query::parse(request.uri().query().unwrap_or_default(), PARAMETERS)?;
        let wanted = "a whole number from 1 to 100000";
        let limit = query.parsed("limit", wanted, |text| {
            request::number(text).filter(|limit| (1..=MAX_SCAN_LIMIT).contains(limit))
        })?;
        let content = match query.flag("keys_only")? {
            true => ScanContent::Keys,
            false => ScanContent::Entries,
        };
        Ok(Self {
            range: range(&query)?,
            limit: limit.unwrap_or(DEFAULT_SCAN_LIMIT),
            content,
            format: Format::of(request),
        })
    }
}

/// The keys that have the prefix, are not before `start`, are before `end`, and lie behind `after` in the order asked
/// for. A parameter without a value is as good as none.
fn range(query: &Query) -> Result<ScanRange, BadRequest> {
    let reverse = query.flag("reverse")?;
    let (prefix, start, end) = (
        bound(query, "prefix")?,
        bound(query, "start")?,
        bound(query, "end")?,
    );
    let lower = prefix.iter().chain(&start).max();
    let upper = prefix
        .as_deref()
        .and_then(prefix_end)
        .into_iter()
        .chain(end)
        .min();
    let range = ScanRange {
        start: lower.map_or(Bound::Unbounded, |key| Bound::Included(key.clone())),
        end: upper.map_or(Bound::Unbounded, Bound::Excluded),
        reverse,
    };
    let wanted = "the value of next in the end line of a scan";
    let Some(after) = query.parsed("after", wanted, parse_after)? else {
        return Ok(range);
    };
    let after = after.to_bytes();
    // Outside the range it cuts off nothing or everything; `ScanRange::after` would widen the range instead.
    let is_behind = match (&range.start, &range.end) {
        (Bound::Included(start), _) if !reverse => after < *start,
        (_, Bound::Excluded(end)) if reverse => after >= *end,
        _ => false,
    };
    Ok(if is_behind { range } else { range.after(after) })
}

fn bound(query: &Query, name: &str) -> Result<Option<Bytes>, BadRequest> {
    match query.bytes(name) {
        None | Some([]) => Ok(None),
        Some(key) if key.len() > MAX_KEY_BYTES => Err(KeyError::TooLong {
            len_bytes: key.len(),
        }
        .into()),
        Some(key) => Ok(Some(Bytes::copy_from_slice(key))),
    }
}

/// The first key behind all keys of a prefix; `None` if nothing is behind them.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// A scan on its way.
struct Scan {
    service: web::Data<Service>,
    caller: Caller,
    storage: Arc<Storage>,
    /// What is left of the range.
    range: ScanRange,
    content: ScanContent,
    format: Format,
    /// How many entries may still come.
    left: usize,
    /// Size of the next page: it grows while expired entries fill pages of which little is left.
    page_entries: usize,
    /// Visible after the last page was read.
    position: Position,
    began: bool,
    ended: bool,
}

impl Scan {
    fn new(
        asked: Asked,
        storage: Arc<Storage>,
        service: web::Data<Service>,
        caller: Caller,
    ) -> Self {
        Self {
            service,
            caller,
            storage,
            range: asked.range,
            content: asked.content,
            format: asked.format,
            left: asked.limit,
            page_entries: asked.limit.min(PAGE_ENTRIES),
            position: Position::ZERO,
            began: false,
            ended: false,
        }
    }

    /// The next part of the answer, never empty.
    ///
    /// # Errors
    /// The refusal; the scan is of no use from then on.
    async fn chunk(&mut self) -> Result<Bytes, OpResult> {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.began, true) {
            self.format.start(&mut out);
        }
        let empty = out.len();
        while out.len() == empty {
            let page = self.page().await?;
            self.write(page, &mut out);
        }
        Ok(out.into())
    }

    async fn page(&mut self) -> Result<ScanPage, OpResult> {
        if !self.service.still_reads(&Arc::downgrade(&self.storage)) {
            let message = "this node no longer reads the data that this scan began on; go on with another scan";
            return Err(OpResult::refused(ErrorCode::NotReady, message, None));
        }
        if !self.service.admission.still_admits(&self.caller) {
            let message = "the token that this scan began with has ended";
            return Err(OpResult::refused(ErrorCode::Unauthorized, message, None));
        }
        let limits = ScanLimits {
            max_entries: self.page_entries,
            max_bytes: PAGE_BYTES,
            content: self.content,
        };
        let (store, range) = (self.storage.store.clone(), self.range.clone());
        let read = web::block(move || store.scan(&range, &limits)).await;
        let page = match read {
            Ok(page) => page.map_err(|error| read_failed(&error))?,
            Err(_) => {
                let message = "the scan was given up";
                return Err(OpResult::refused(ErrorCode::StorageFailed, message, None));
            }
        };
        // Loaded after the lookups: it may say more than was seen, never less.
        self.position = self.storage.store.visible();
        Ok(page)
    }

    /// Writes the live entries of a page, and the end if it is there.
    fn write(&mut self, page: ScanPage, out: &mut Vec<u8>) {
        let now_ms = self.service.clock.now_ms();
        let mut more = page.more;
        let mut last = None;
        for (key, entry) in page.entries {
            if self.left == 0 {
                more = true;
                break;
            }
            last = Some(key.clone());
            if !entry.is_expired(now_ms)
                && let Ok(key) = Key::new(key)
            {
                self.left -= 1;
                self.format.entry(&self.entry(key, entry, now_ms), out);
            }
        }
        // A page with more behind it is never empty.
        match last.filter(|_| more) {
            Some(last) if self.left > 0 => {
                self.range = self.range.after(last);
                self.page_entries = (self.page_entries * 2).min(PAGE_ENTRIES);
            }
            last => self.end(last.as_deref().map(after_key), out),
        }
    }

    fn entry(&self, key: Key, entry: Entry, now_ms: u64) -> ScanEntry {
        ScanEntry {
            key,
            value: (self.content == ScanContent::Entries).then_some(entry.value),
            position: entry.position,
            ttl_ms: entry.expires_at_ms.map(|at| at.saturating_sub(now_ms)),
        }
    }

    fn end(&mut self, next: Option<String>, out: &mut Vec<u8>) {
        let map = self.service.map.load();
        let end = ScanEnd {
            next,
            shard: own_shard(&map, self.service.place()).name.clone(),
            shards: u32::try_from(map.shards().len()).unwrap_or(u32::MAX),
            position: self.position,
        };
        self.format.end(&end, out);
        self.ended = true;
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn asked(query: &str) -> Result<Asked, ErrorCode> {
        let request = TestRequest::with_uri(&format!("/kv?{query}")).to_http_request();
        Asked::of(&request).map_err(|error| error.code)
    }

    #[test]
    fn prefixes_end_where_the_next_one_begins() {
        for (prefix, end) in [
            (&b"a"[..], Some(&b"b"[..])),
            (b"a\xff", Some(b"b")),
            (b"a\xff\xff", Some(b"b")),
            (b"\xfe", Some(b"\xff")),
            (b"\xff", None),
            (b"\xff\xff", None),
            (b"a\0", Some(b"a\x01")),
        ] {
            assert_eq!(prefix_end(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    #[test]
    fn ranges_are_what_all_parameters_allow() {
        let after = after_key(b"bb");
        let text = |bound: Bound<Bytes>| match bound {
            Bound::Unbounded => String::new(),
            Bound::Included(key) => format!("[{}", key.escape_ascii()),
            Bound::Excluded(key) => format!("({}", key.escape_ascii()),
        };
        for (query, start, end) in [
            ("", "", ""),
            ("prefix=&start=&end=", "", ""),
            ("prefix=b", "[b", "(c"),
            ("prefix=%ff", "[\\xff", ""),
            ("start=a&end=c", "[a", "(c"),
            ("prefix=b&start=a&end=d", "[b", "(c"),
            ("prefix=b&start=ba&end=bz", "[ba", "(bz"),
            (&format!("prefix=b&after={after}"), "(bb", "(c"),
            (&format!("prefix=b&after={after}&reverse"), "[b", "(bb"),
            (&format!("start=bc&after={after}"), "[bc", ""),
            (&format!("end=ba&after={after}&reverse"), "", "(ba"),
            (&format!("start=bb&after={after}"), "(bb", ""),
        ] {
            let range = asked(query).expect(query).range;
            let bounds = (text(range.start), text(range.end));
            assert_eq!(bounds, (start.into(), end.into()), "{query}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let long = format!("start={}", "a".repeat(512));
        for (query, code) in [
            ("limit=0", ErrorCode::BadParameter),
            ("limit=100001", ErrorCode::BadParameter),
            ("limit=", ErrorCode::BadParameter),
            ("after=a", ErrorCode::BadParameter),
            ("after=", ErrorCode::BadParameter),
            ("reverse=yes", ErrorCode::BadParameter),
            ("prefx=a", ErrorCode::BadParameter),
            ("prefix=%f", ErrorCode::BadEscape),
            ("prefix=a&prefix=b", ErrorCode::BadParameter),
            (&long, ErrorCode::KeyTooLong),
        ] {
            assert_eq!(asked(query), Err(code), "{query}");
        }
        let asked = asked("limit=7&keys_only&reverse=1").expect("well-formed");
        assert_eq!((asked.limit, asked.content), (7, ScanContent::Keys));
    }

    #[test]
    fn frames_come_to_those_who_ask() {
        for (accept, format) in [
            ("*/*", Format::Lines),
            ("application/x-ndjson", Format::Lines),
            ("application/x-kv-frames", Format::Frames),
            ("text/html, application/x-kv-frames;q=1", Format::Frames),
            ("application/x-kv-frames;q=0, */*", Format::Lines),
        ] {
            let request = TestRequest::with_uri("/kv").insert_header(("accept", accept));
            assert_eq!(Format::of(&request.to_http_request()), format, "{accept}");
        }
    }

    #[test]
    fn lines() {
        let mut out = Vec::new();
        let entry = |ttl_ms, value: Option<&'static [u8]>| ScanEntry {
            key: Key::new("k").unwrap(),
            value: value.map(Bytes::from_static),
            position: Position::new(1, 2),
            ttl_ms,
        };
        Format::Lines.entry(&entry(Some(9), Some(b"v")), &mut out);
        Format::Lines.entry(&entry(None, None), &mut out);
        let mut end = ScanEnd {
            next: Some("aw".into()),
            shard: "s".into(),
            shards: 3,
            position: Position::new(1, 5),
        };
        Format::Lines.end(&end, &mut out);
        end.next = None;
        Format::Lines.end(&end, &mut out);
        let expected = [
            r#"{"key":"k","value":"v","position":"1.2","ttl_ms":9}"#,
            r#"{"key":"k","position":"1.2"}"#,
            r#"{"next":"aw","shard":"s","shards":3,"position":"1.5"}"#,
            r#"{"done":true,"shard":"s","shards":3,"position":"1.5"}"#,
        ];
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
