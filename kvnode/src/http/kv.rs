//! `/kv/{key}` and `/kv?key=`: one op each, raw bytes in and out.

use std::{sync::Arc, time::Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header::HeaderName},
    web,
};
use bytes::Bytes;
use kvclient::{
    key::Key,
    wire::{
        batch::{Action, Op, Terms},
        error::{Applied, ErrorCode},
        header,
        query::Query,
    },
};

use super::{answer, awake, body, guard, past, request, request::BadRequest};
use crate::{
    access::{Caller, Denied, Need, Scope},
    metrics::{OpKind, OpOutcome},
    ownership::{Access, Decision},
    service::{Service, turned_away},
    timing::{Part, Timing},
};

/// Of the W3C's "Server Timing": browsers show it, curl -v too.
static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Reads an entry.
pub(super) async fn get(
    request: HttpRequest,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let timing = timing(&request);
    let mut at = None;
    let op = request::key_and_query(&request).and_then(|(key, query)| {
        only(&query, &["key", "at"])?;
        at = query.parsed("at", "a position such as 3.1207", |text| text.parse().ok())?;
        caller.may(|grant| grant.allows_key(key.as_bytes()))?;
        let terms = if is_ours(&key, Access::Read, &service) {
            request::terms(&request)?
        } else {
            Terms::default()
        };
        Ok(Op {
            key,
            action: Action::Get,
            terms,
        })
    });
    match (op, at) {
        (Ok(op), None) => run(&request, op, &service, timing).await,
        (Ok(op), Some(at)) => past::entry(&request, op, at, &service).await,
        (Err(error), _) => answer::op(&request, error.into_result(None), &service),
    }
}

/// Changes an entry: PUT, DELETE, and the POST forms.
pub(super) async fn write(
    request: HttpRequest,
    payload: &mut web::Payload,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let (arrived, timing) = (Instant::now(), timing(&request));
    let (key, query) = match request::key_and_query(&request) {
        Ok(found) => found,
        Err(error) => return refuse(&request, payload, error, &service).await,
    };
    if let Err(denied) = may_write(&caller, &key, &query) {
        return answer::refused_write(denied.into(), &service);
    }
    // Ownership comes before anything else: what is another shard's is judged there. The body is read all the
    // same, so that a client that sends it sees the answer.
    let elsewhere = turned_away(
        &service.route(&key, Access::Write, &service.map.load()),
        Some(Applied::No),
    );
    let limit = service.config.sizes.max_value_bytes;
    let body = body::read(&service, &request, payload, limit).await;
    if let Some(timing) = &timing {
        timing.took(Part::Body, timing.elapsed());
    }
    if let Some(result) = elsewhere {
        // In a batch it would have been counted with the rest.
        if let Ok(action) = action(&request, &query, Bytes::new()) {
            let op = (OpKind::of(&action), OpOutcome::of(&result));
            service.metrics.ops.add([op].into_iter(), arrived.elapsed());
        }
        return answer::op(&request, result, &service);
    }
    // Borrowed, so that the body counts as held until its write is answered.
    let op = body.as_ref().map_err(Clone::clone).and_then(|body| {
        let terms = request::terms(&request)?;
        let action = action(&request, &query, body.bytes.clone())?;
        Ok(Op { key, action, terms })
    });
    match op {
        Ok(op) => run(&request, op, &service, timing).await,
        Err(error) => answer::op(&request, error.into_result(Some(Applied::No)), &service),
    }
}

/// Whether a caller who may write something may write this. A counter tells its value, so it reads, too.
fn may_write(caller: &Caller, key: &Key, query: &Query) -> Result<(), Denied> {
    if query.has("incr") {
        caller.may(|grant| grant.allows(Need::Scope(Scope::Read)))?;
    }
    caller.may(|grant| grant.allows_key(key.as_bytes()))
}

fn action(request: &HttpRequest, query: &Query, body: Bytes) -> Result<Action, BadRequest> {
    let ttl_ms = query.duration_ms("ttl")?;
    if *request.method() == Method::PUT {
        only(query, &["key", "ttl"])?;
        return Ok(Action::Put {
            value: body,
            ttl_ms,
        });
    }
    if *request.method() == Method::DELETE {
        only(query, &["key"])?;
        return Ok(Action::Delete);
    }
    if !body.is_empty() {
        guard::check_post_type(request)?;
    }
    let integer = |text: &str| text.strip_prefix('+').unwrap_or(text).parse().ok();
    let delta = query.parsed("incr", "a 64-bit integer", integer)?;
    match (delta, ttl_ms, query.flag("persist")?) {
        (Some(delta), None, false) => Ok(Action::Incr { delta }),
        (None, Some(ttl_ms), false) => Ok(Action::Expire { ttl_ms }),
        (None, None, true) => Ok(Action::Persist),
        _ => Err(BadRequest::new(
            ErrorCode::BadParameter,
            "POST takes one of ?incr=5, ?ttl=90s and ?persist",
        )),
    }
}

/// Parameters that the path knows, but this method does not.
fn only(query: &Query, known: &[&str]) -> Result<(), BadRequest> {
    match request::KV_PARAMETERS
        .iter()
        .find(|name| query.has(name) && !known.contains(name))
    {
        None => Ok(()),
        Some(name) => {
            let message = format!("the parameter {name:?} does not go with this method");
            Err(BadRequest::new(ErrorCode::BadParameter, message))
        }
    }
}

fn is_ours(key: &Key, access: Access, service: &Service) -> bool {
    service.route(key, access, &service.map.load()) == Decision::Serve
}

/// Where times are written down, if they are asked for.
fn timing(request: &HttpRequest) -> Option<Arc<Timing>> {
    let asked = request.headers().get(header::TIMING)?;
    (asked == "1").then(Timing::begin)
}

async fn run(
    request: &HttpRequest,
    op: Op,
    service: &Service,
    timing: Option<Arc<Timing>>,
) -> HttpResponse {
    let Some(timing) = timing else {
        let result = awake::execute_one(service, op).await;
        return answer::op(request, result, service);
    };
    let result = service.execute_timed(op, &timing).await;
    let mut response = answer::op(request, result, service);
    if let Ok(value) = timing.to_header().parse() {
        response.headers_mut().insert(SERVER_TIMING.clone(), value);
    }
    response
}

async fn refuse(
    request: &HttpRequest,
    payload: &mut web::Payload,
    error: BadRequest,
    service: &Service,
) -> HttpResponse {
    let limit = service.config.sizes.max_value_bytes;
    drop(body::read(service, request, payload, limit).await);
    answer::refused_write(error, service)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        path::Path,
        sync::mpsc,
        time::{Duration, Instant},
    };

    use kvclient::shard_map::toml;

    use crate::{
        config::{NodeConfig, Sizes},
        marker::Order,
        node::{self, RunningNode},
        ownership::Place,
    };

    async fn start(data: &Path) -> RunningNode {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let map = format!("[[shards]]\nname = \"s\"\nidx = 0\naddress = \"{address}\"\n");
        let map = toml::parse(&map, "a map").unwrap();
        let address = map.shards()[0].primary.address.clone();
        let config = NodeConfig {
            place: Place::find(&map, &address).unwrap(),
            map,
            address,
            listen: Vec::new(),
            data: data.to_owned(),
            order: Order::None,
            sizes: Sizes {
                log_segment_bytes: 8 << 20,
                ..Sizes::default()
            },
            workers: 1,
            busy_poll: Duration::ZERO,
            slow_request: None,
            max_connections: 16,
            allow_get_writes: false,
            tokens: None,
            tls: None,
            node_token: None,
            insecure_no_auth: false,
        };
        node::start_on(config, vec![listener]).await.unwrap()
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A body was counted only while it was read, so that bodies waiting for a slow disk had no bound.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_counts_as_held_until_its_write_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let node = start(dir.path()).await;
        let service = node.service.clone();
        until("it takes writes", || service.ready().is_ok()).await;
        let commit = service.storage.load().as_ref().unwrap().commit.clone();
        let (go_on, waits) = mpsc::channel::<()>();
        let (at_work, works) = mpsc::channel();
        commit.run_on_thread(move || {
            at_work.send(()).unwrap();
            let _ = waits.recv();
        });
        works.recv().unwrap();

        let mut connection = TcpStream::connect(node.addresses[0]).unwrap();
        let head = "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n";
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(&[b'v'; 50_000]).unwrap();
        until("the write is queued", || commit.queued() == 1).await;
        assert_eq!(service.metrics.in_flight.bytes(), 50_000);
        drop(go_on);
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204");
        until("it is given back", || {
            service.metrics.in_flight.bytes() == 0
        })
        .await;
        drop((connection, commit));
        node.stop().await.unwrap();
    }
}
