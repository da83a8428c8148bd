//! `GET /watch`: the shard's changes in order, as server-sent events.
//!
//! ```text
//! event: put | delete | expire        one record
//! id: epoch.seq                       its position: send it back as Last-Event-ID to go on behind it
//! data: {"key":..,"value":..,"expires_at_ms":..,"by_expiry":..,"time_ms":..}
//!
//! event: position                     first, and every 5 s: all up to here was looked at
//! id: epoch.seq
//! data: {"position":"epoch.seq"}
//!
//! event: log_truncated                the log no longer has what comes next; the stream ends
//! data: {"position":"epoch.seq","truncated":seq}
//! ```
//!
//! Bytes that are not text come as `key_b64` and `value_b64`. `put` has `expires_at_ms` if the entry expires, `expire`
//! has it always (`null`: the entry no longer expires), `delete` has `by_expiry`. The start of a reign is no event, but
//! positions pass it.
//!
//! A watch reads frames from the log as replicas do, and of these only what readers see already. It reads a bounded
//! piece, sends it, and reads on when the connection has taken it; at the end it waits for `visible` to move, which
//! costs a timer and an entry in a list. It holds neither store nor log back: a watch that is slower than the log's
//! retention is told so. The stream ends, to be resumed elsewhere or later, when the node stops, when a replica
//! changes to another copy of the data, and when its log has parted from the primary's.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, http::Method, web};
use bytes::Bytes;
use futures_util::stream;
use kvclient::{
    key::MAX_KEY_BYTES,
    position::Position,
    wire::{
        batch::OpResult,
        content_type,
        error::ErrorCode,
        header,
        line::Line,
        log::{Effect, Frame, Record},
        query::Query,
    },
};
use tokio::{sync::watch::Receiver, time::Instant};

use super::{answer, request, request::BadRequest};
use crate::{
    log::{Log, ReadFrames},
    service::Service,
    storage::Storage,
};

/// Pause between position events. It is also how a connection that is gone gets noticed.
const POSITION_EVERY: Duration = Duration::from_secs(5);

/// Bytes of frames read in one step: what a watch that catches up holds in memory, and a few milliseconds of work.
const STEP_BYTES: usize = 256 << 10;

/// A watch at most so many records behind reads inline: that is the last group or two, still in the page cache. A
/// hand-over to another thread would cost more, and thousands of watches woken at once would need as many threads.
const INLINE_RECORDS: u64 = 1_000;

/// Answers a watch.
pub(super) async fn watch(request: HttpRequest, service: web::Data<Service>) -> HttpResponse {
    let (prefix, after) = match asked(&request) {
        Ok(asked) => asked,
        Err(error) => return answer::refused(error, &service),
    };
    let storage = match start(&request, after, &service).await {
        Ok(storage) => storage,
        Err(refusal) => return answer::op(&request, refusal, &service),
    };
    let at = after.unwrap_or_else(|| storage.store.visible());
    let mut answer = answer::data(200, &service);
    answer
        .insert_header((header::POSITION, at.to_string()))
        // Proxies that gather an answer before they pass it on would keep events back.
        .insert_header(("x-accel-buffering", "no"))
        .content_type(content_type::SSE);
    if *request.method() == Method::HEAD {
        return answer.finish();
    }
    let watch = Watch::new(service, &storage, at, prefix);
    let body = stream::unfold(watch, async |mut watch| {
        let chunk = watch.next().await?;
        Some((chunk, watch))
    });
    answer.streaming(Box::pin(body))
}

/// Prefix, and the position behind which to begin: `Last-Event-ID` before `after`, since a browser that reconnects
/// sends the first URL again.
fn asked(request: &HttpRequest) -> Result<(Bytes, Option<Position>), BadRequest> {
    let raw = request.uri().query().unwrap_or_default();
    let query = Query::parse(raw, &["prefix", "after"])?;
    let prefix = query.bytes("prefix").unwrap_or_default();
    if prefix.len() > MAX_KEY_BYTES {
        let message = format!("no key is longer than {MAX_KEY_BYTES} bytes");
        return Err(BadRequest::new(ErrorCode::KeyTooLong, message));
    }
    let wanted = "a position such as 3.1207";
    let parse = |text: &str| text.parse().ok();
    let after = query.parsed("after", wanted, parse)?;
    let last = request::parsed(request, "last-event-id", wanted, parse)?;
    Ok((Bytes::copy_from_slice(prefix), last.or(after)))
}

/// What to watch, once it holds the position to begin behind.
async fn start(
    request: &HttpRequest,
    after: Option<Position>,
    service: &Service,
) -> Result<Arc<Storage>, OpResult> {
    let arrived = std::time::Instant::now();
    let refuse = |error: BadRequest| error.into_result(None);
    let mut terms = request::terms(request).map_err(refuse)?;
    service.readable(&terms, arrived).await?;
    // A position to begin behind is asked for as any other that must be held.
    terms.min_position = after.or(terms.min_position);
    let storage = service.readable(&terms, arrived).await?;
    let truncated = storage.log.truncated();
    match after {
        Some(after) if after.seq < truncated => {
            let message = format!(
                "the log begins after seq {truncated}; watch from now on, scan what is there, and then follow"
            );
            let mut refusal = OpResult::refused(ErrorCode::LogTruncated, message, None);
            refusal.position = Some(storage.store.visible());
            Err(refusal)
        }
        _ => Ok(storage),
    }
}

/// A watch on its way.
struct Watch {
    service: web::Data<Service>,
    /// Only to see whether it is still in force: a watch keeps no store open.
    storage: Weak<Storage>,
    visible: Receiver<Position>,
    feed: Feed,
    /// All up to here was looked at, and what is wanted of it was sent.
    at: Position,
    /// When the next position event is due.
    due: Instant,
    ended: bool,
}

impl Watch {
    fn new(
        service: web::Data<Service>,
        storage: &Arc<Storage>,
        at: Position,
        prefix: Bytes,
    ) -> Self {
        service.metrics.opened_watch();
        Self {
            service,
            storage: Arc::downgrade(storage),
            visible: storage.store.subscribe(),
            feed: Feed {
                log: storage.log.clone(),
                prefix,
            },
            at,
            due: Instant::now(),
            ended: false,
        }
    }

    /// The next events; `None` at the end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let mut out = Vec::new();
        loop {
            let goes_on = !self.ended
                && !self.service.stopping.is_cancelled()
                && self.service.still_reads(&self.storage);
            if !goes_on {
                return None;
            }
            let visible = *self.visible.borrow_and_update();
            // The first position event comes before the first record, so that a client knows where it began.
            if Instant::now() >= self.due {
                self.due = Instant::now() + POSITION_EVERY;
                position_event(&mut out, self.at);
            } else if self.at.seq < visible.seq {
                match self.step(visible).await {
                    Ok(events) => out = events,
                    Err(error) => return Some(Err(error)),
                }
            } else if !self.wait().await {
                return None;
            }
            if !out.is_empty() {
                return Some(Ok(out.into()));
            }
        }
    }

    /// Waits for more to read or for the next position event; false if there will be nothing.
    async fn wait(&mut self) -> bool {
        tokio::select! {
            changed = self.visible.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(self.due) => true,
            () = self.service.stopping.cancelled() => false,
        }
    }

    /// Reads the next piece of the log and moves on behind it.
    async fn step(&mut self, visible: Position) -> io::Result<Vec<u8>> {
        let (feed, at) = (self.feed.clone(), self.at);
        let step = if visible.seq - at.seq <= INLINE_RECORDS {
            feed.step(at, visible)
        } else {
            let step = web::block(move || feed.step(at, visible)).await;
            step.unwrap_or_else(|gone| Err(io::Error::other(gone)))
        };
        let step =
            step.inspect_err(|error| tracing::error!(%error, "a watch cannot read the log"))?;
        self.ended = step.truncated;
        self.at = step.at;
        Ok(step.events)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.service.metrics.closed_watch();
    }
}

/// From frames of the log to events.
#[derive(Debug, Clone)]
struct Feed {
    log: Log,
    prefix: Bytes,
}

/// What a step has found.
struct Step {
    events: Vec<u8>,
    /// All up to here is in `events`, as far as it is wanted.
    at: Position,
    /// The log no longer has what comes next, and `events` says so.
    truncated: bool,
}

impl Feed {
    /// Reads on behind `at`, at most up to `visible`, which is behind it and the end of a frame. Blocks.
    fn step(&self, at: Position, visible: Position) -> io::Result<Step> {
        let mut step = Step {
            events: Vec::new(),
            at,
            truncated: false,
        };
        match self.log.read_after(at.seq, STEP_BYTES) {
            Ok(ReadFrames::Frames(frames)) => self.take(frames, visible, &mut step)?,
            Ok(ReadFrames::UpToDate) => {}
            Ok(ReadFrames::Truncated) => {
                truncated_event(&mut step.events, at, self.log.truncated());
                step.truncated = true;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        if step.at == at && !step.truncated {
            // What is visible is durable, so there must have been a frame.
            return Err(io::Error::other(format!("the log has nothing after {at}")));
        }
        Ok(step)
    }

    fn take(&self, mut frames: Bytes, visible: Position, step: &mut Step) -> io::Result<()> {
        while !frames.is_empty() {
            let frame = Frame::split_from(&mut frames).map_err(io::Error::other)?;
            if frame.header.last_seq() > visible.seq {
                break;
            }
            for (position, record) in frame.records().map_err(io::Error::other)? {
                // The first frame may begin before where the watch is.
                if position.seq > step.at.seq && record.key.starts_with(&self.prefix) {
                    record_event(&mut step.events, position, frame.header.time_ms, &record);
                }
            }
            step.at = frame.header.link().position;
        }
        Ok(())
    }
}

fn record_event(out: &mut Vec<u8>, position: Position, time_ms: u64, record: &Record) {
    let name = match record.effect {
        Effect::Put { .. } => "put",
        Effect::Delete { .. } => "delete",
        Effect::Expire { .. } => "expire",
        Effect::EpochStart { .. } => return,
    };
    event(out, name, Some(position), |line| {
        let line = line.bytes("key", &record.key);
        let line = match &record.effect {
            Effect::Put {
                value,
                expires_at_ms,
            } => line
                .bytes("value", value)
                .optional("expires_at_ms", *expires_at_ms),
            Effect::Expire { expires_at_ms } => line.field("expires_at_ms", expires_at_ms),
            Effect::Delete { by_expiry } => line.field("by_expiry", by_expiry),
            Effect::EpochStart { .. } => line,
        };
        line.field("time_ms", time_ms)
    });
}

fn position_event(out: &mut Vec<u8>, at: Position) {
    event(out, "position", Some(at), |line| {
        line.field("position", at.to_string())
    });
}

/// It has no id, so that `Last-Event-ID` stays what it was.
fn truncated_event(out: &mut Vec<u8>, at: Position, truncated: u64) {
    event(out, "log_truncated", None, |line| {
        line.field("position", at.to_string())
            .field("truncated", truncated)
    });
}

/// Writes an event. JSON has no line breaks but in escapes, so its data is one line whatever the keys and values.
fn event(
    out: &mut Vec<u8>,
    name: &str,
    id: Option<Position>,
    data: impl FnOnce(Line<'_>) -> Line<'_>,
) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(format!("\nid: {id}").as_bytes());
    }
    out.extend_from_slice(b"\ndata: ");
    data(Line::begin(out)).end();
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn text_of(effect: Effect) -> String {
        let mut out = Vec::new();
        let record = Record::new(Bytes::from_static(b"k"), effect);
        record_event(&mut out, Position::new(3, 7), 99, &record);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_of_records() {
        let put = |value, expires_at_ms| Effect::Put {
            value: Bytes::from_static(value),
            expires_at_ms,
        };
        for (effect, event, fields) in [
            (put(b"a\nb", None), "put", r#""value":"a\nb","#),
            (
                put(b"\xff", Some(5)),
                "put",
                r#""value_b64":"/w==","expires_at_ms":5,"#,
            ),
            (
                Effect::Delete { by_expiry: true },
                "delete",
                r#""by_expiry":true,"#,
            ),
            (
                Effect::Expire {
                    expires_at_ms: None,
                },
                "expire",
                r#""expires_at_ms":null,"#,
            ),
        ] {
            let expected = format!(
                "event: {event}\nid: 3.7\ndata: {{\"key\":\"k\",{fields}\"time_ms\":99}}\n\n"
            );
            assert_eq!(text_of(effect), expected);
        }
        let reign = Effect::EpochStart {
            reign_id: 1,
            node: "n:1".into(),
        };
        assert_eq!(text_of(reign), "");
    }

    #[test]
    fn events_of_the_watch_itself() {
        let mut out = Vec::new();
        position_event(&mut out, Position::new(3, 7));
        truncated_event(&mut out, Position::new(3, 7), 90);
        let expected = "event: position\nid: 3.7\ndata: {\"position\":\"3.7\"}\n\n\
            event: log_truncated\ndata: {\"position\":\"3.7\",\"truncated\":90}\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn where_a_watch_begins() {
        let of = |uri: &str, last: Option<&str>| {
            let mut request = TestRequest::with_uri(uri);
            if let Some(last) = last {
                request = request.insert_header(("last-event-id", last));
            }
            asked(&request.to_http_request())
                .map(|(_, after)| after)
                .map_err(|error| error.code)
        };
        assert_eq!(of("/watch", None), Ok(None));
        assert_eq!(of("/watch?after=1.2", None), Ok(Some(Position::new(1, 2))));
        assert_eq!(
            of("/watch?after=1.2", Some("1.5")),
            Ok(Some(Position::new(1, 5)))
        );
        assert_eq!(of("/watch?after=5", None), Err(ErrorCode::BadParameter));
        assert_eq!(of("/watch", Some("x")), Err(ErrorCode::BadParameter));
        let long = format!("/watch?prefix={}", "a".repeat(512));
        assert_eq!(of(&long, None), Err(ErrorCode::KeyTooLong));
    }
}
