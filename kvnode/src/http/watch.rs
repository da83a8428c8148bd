//! `GET /watch`: the shard's changes in order, as server-sent events.
//!
//! ```text
//! event: put | delete | expire        one record
//! id: epoch.seq                       its position: send it back as Last-Event-ID to go on behind it
//! data: {"key":..,"value":..,"expires_at_ms":..,"by_expiry":..,"time_ms":..}
//!
//! event: position                     first, when it is level, and every 5 s: all up to here was looked at
//! id: epoch.seq
//! data: {"position":"epoch.seq","visible":"epoch.seq"}
//!
//! event: log_truncated                the log no longer has what comes next; the stream ends
//! data: {"position":"epoch.seq","truncated":seq}
//! ```
//!
//! Bytes that are not text come as `key_b64` and `value_b64`. `put` has `expires_at_ms` if the entry expires, `expire`
//! has it always (`null`: the entry no longer expires), `delete` has `by_expiry`. The start of a reign is no event, but
//! positions pass it. A watch is level when its position is `visible`, what readers of the node see: all that was written
//! before has been told.
//!
//! The events come from the [`Feed`](crate::feed::Feed), which tells only what readers see already. A piece is taken
//! when the connection has taken the one before. A watch holds neither store nor log back: one that is slower than the
//! log's retention is told so. The stream ends, to be resumed elsewhere or later, when the node stops, when a replica
//! changes to another copy of the data, when its log has parted from the primary's, and when the token it was begun
//! with ends or is taken out.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, http::Method, web};
use bytes::Bytes;
use futures_util::stream;
use kvclient::{
    key::MAX_KEY_BYTES,
    position::Position,
    wire::{batch::OpResult, content_type, error::ErrorCode, header, query::Query},
};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{answer, request, request::BadRequest};
use crate::{
    access::Caller,
    feed::{Follow, Pieces, position_event},
    log::{Log, LogError},
    service::Service,
    storage::Storage,
};

/// Pause between position events. It is also how a connection that is gone gets noticed.
const POSITION_EVERY: Duration = Duration::from_secs(5);

/// Answers a watch.
pub(super) async fn watch(
    request: HttpRequest,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let asked = asked(&request).and_then(|(prefix, from)| {
        caller.may(|grant| grant.allows_prefix(&prefix))?;
        Ok((prefix, from))
    });
    let (prefix, from) = match asked {
        Ok(asked) => asked,
        Err(error) => return answer::refused(error, &service),
    };
    let (storage, at) = match start(&request, from, &service).await {
        Ok(started) => started,
        Err(refusal) => return answer::op(&request, refusal, &service),
    };
    let mut answer = answer::data(200, &service);
    answer
        .insert_header((header::POSITION, at.to_string()))
        // Proxies that gather an answer before they pass it on would keep events back.
        .insert_header(("x-accel-buffering", "no"))
        .content_type(content_type::SSE);
    if *request.method() == Method::HEAD {
        return answer.finish();
    }
    let watch = Watch::new(service, &storage, at, prefix, caller);
    let body = stream::unfold(watch, async |mut watch| {
        let chunk = watch.next().await?;
        Some((chunk, watch))
    });
    answer.streaming(Box::pin(body))
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Now,
    After(Position),
    /// With the oldest record that the log has.
    Earliest,
}

impl From {
    fn of_text(text: &str) -> Option<Self> {
        match text {
            "earliest" => Some(Self::Earliest),
            _ => text.parse().ok().map(Self::After),
        }
    }
}

/// Prefix, and where to begin: `Last-Event-ID` before `after`, since a browser that reconnects sends the first URL
/// again.
fn asked(request: &HttpRequest) -> Result<(Bytes, From), BadRequest> {
    let raw = request.uri().query().unwrap_or_default();
    let query = Query::parse(raw, &["prefix", "after"])?;
    let prefix = query.bytes("prefix").unwrap_or_default();
    if prefix.len() > MAX_KEY_BYTES {
        let message = format!("no key is longer than {MAX_KEY_BYTES} bytes");
        return Err(BadRequest::new(ErrorCode::KeyTooLong, message));
    }
    let after = query.parsed(
        "after",
        "a position such as 3.1207, or earliest",
        From::of_text,
    )?;
    let last = request::parsed(
        request,
        "last-event-id",
        "a position such as 3.1207",
        |text| text.parse().ok().map(From::After),
    )?;
    let from = last.or(after).unwrap_or(From::Now);
    Ok((Bytes::copy_from_slice(prefix), from))
}

/// What to watch, once it holds the position to begin behind, and that position.
async fn start(
    request: &HttpRequest,
    from: From,
    service: &Service,
) -> Result<(Arc<Storage>, Position), OpResult> {
    let arrived = std::time::Instant::now();
    let refuse = |error: BadRequest| error.into_result(None);
    let mut terms = request::terms(request).map_err(refuse)?;
    service.readable(&terms, arrived).await?;
    // A position to begin behind is asked for as any other that must be held.
    if let From::After(after) = from {
        terms.min_position = Some(after);
    }
    let storage = service.readable(&terms, arrived).await?;
    let at = match from {
        From::Now => storage.store.visible(),
        From::After(after) => after,
        From::Earliest => earliest(&storage.log).map_err(|error| {
            tracing::error!(%error, "a watch cannot read the log");
            OpResult::refused(ErrorCode::StorageFailed, error.to_string(), None)
        })?,
    };
    match refuse_truncated(&storage, at) {
        Some(refusal) => Err(refusal),
        None => Ok((storage, at)),
    }
}

/// What the oldest record of the log follows. Not to be found should the log be cut at this very moment; then what is
/// given is before the log, too.
fn earliest(log: &Log) -> Result<Position, LogError> {
    let truncated = log.truncated();
    let link = log.link_at(truncated)?;
    Ok(link.map_or(Position::new(0, truncated), |link| link.position))
}

/// The refusal if the log lacks some of what comes behind a position.
fn refuse_truncated(storage: &Storage, after: Position) -> Option<OpResult> {
    let truncated = storage.log.truncated();
    if after.seq >= truncated {
        return None;
    }
    let message = format!(
        "the log begins after seq {truncated}; watch from now on, scan what is there, and then follow"
    );
    let mut refusal = OpResult::refused(ErrorCode::LogTruncated, message, None);
    refusal.position = Some(storage.store.visible());
    Some(refusal)
}

/// A watch on its way.
struct Watch {
    service: web::Data<Service>,
    caller: Caller,
    /// Only to see whether it is still in force: a watch keeps no store open.
    storage: Weak<Storage>,
    follow: Follow,
    /// What is to be given out before more is taken.
    events: Pieces,
    /// Until the next position event.
    pause: Pin<Box<Sleep>>,
    told: Told,
}

/// What the last position event said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// That there is more to come.
    Behind,
    /// That it was level at that moment.
    Level,
}

impl Watch {
    fn new(
        service: web::Data<Service>,
        storage: &Arc<Storage>,
        at: Position,
        prefix: Bytes,
        caller: Caller,
    ) -> Self {
        service.metrics.opened_watch();
        Self {
            service,
            caller,
            storage: Arc::downgrade(storage),
            follow: storage.feed.follow(prefix, at),
            events: Pieces::default(),
            // The first comes before the first record, so that a client knows where it began.
            pause: Box::pin(sleep_until(Instant::now())),
            told: Told::Behind,
        }
    }

    /// The next events; `None` at the end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(piece) = self.events.pop() {
                return Some(Ok(piece));
            }
            if !self.goes_on() {
                return None;
            }
            let events = match self.position_is_due() {
                true => Ok(self.told_position()),
                false => self.follow.next().await,
            };
            match events {
                // What was read without a find may have made it level.
                Ok(events) if events.is_empty() && self.position_is_due() => {}
                Ok(events) if events.is_empty() => self.wait().await,
                Ok(events) => self.events = events,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn goes_on(&self) -> bool {
        !self.follow.is_over()
            && !self.service.stopping.is_cancelled()
            && self.service.admission.still_admits(&self.caller)
            && self.service.still_reads(&self.storage)
    }

    fn position_is_due(&self) -> bool {
        let is_news = self.told == Told::Behind && self.is_level();
        is_news || Instant::now() >= self.pause.deadline()
    }

    /// Whether all that readers see was given out.
    fn is_level(&self) -> bool {
        self.follow.at().seq >= self.follow.visible().seq
    }

    /// A position event, behind the events that it would otherwise claim to be behind.
    fn told_position(&mut self) -> Pieces {
        let mut events = self.follow.take();
        self.told = match self.is_level() {
            true => Told::Level,
            false => Told::Behind,
        };
        let (at, visible) = (self.follow.at(), self.follow.visible());
        position_event(events.end(), at, at.max(visible));
        self.pause.as_mut().reset(Instant::now() + POSITION_EVERY);
        events
    }

    /// Waits for more, or for the next position event.
    async fn wait(&mut self) {
        tokio::select! {
            () = self.follow.ready() => {}
            () = self.pause.as_mut() => {}
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.service.metrics.closed_watch();
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::{From::*, *};

    #[test]
    fn where_a_watch_begins() {
        let of = |uri: &str, last: Option<&str>| {
            let mut request = TestRequest::with_uri(uri);
            if let Some(last) = last {
                request = request.insert_header(("last-event-id", last));
            }
            asked(&request.to_http_request())
                .map(|(_, from)| from)
                .map_err(|error| error.code)
        };
        assert_eq!(of("/watch", None), Ok(Now));
        assert_eq!(of("/watch?after=1.2", None), Ok(After(Position::new(1, 2))));
        assert_eq!(of("/watch?after=earliest", None), Ok(Earliest));
        assert_eq!(
            of("/watch?after=earliest", Some("1.5")),
            Ok(After(Position::new(1, 5)))
        );
        assert_eq!(of("/watch?after=5", None), Err(ErrorCode::BadParameter));
        assert_eq!(of("/watch", Some("earliest")), Err(ErrorCode::BadParameter));
        let long = format!("/watch?prefix={}", "a".repeat(512));
        assert_eq!(of(&long, None), Err(ErrorCode::KeyTooLong));
    }
}
