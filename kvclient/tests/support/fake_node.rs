//! A scripted node: real TCP on a port of its own, and a closure that answers each op.
//!
//! Understands as much HTTP/1.1 as the client speaks: `/batch`, `/kv/{key}`, `/cluster/map`. Without a script it
//! is a store in memory. It counts connections and batches, and remembers every op it was sent.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::replies::memory;
use bytes::Bytes;
use kvclient::{
    Key, Position, Scheme, ShardMap,
    key::{Plus, unescape},
    shard_map::{Address, json},
    wire::{
        batch::{Ack, Action, Condition, Op, OpResult, RequestId, decode_ops, encode_results},
        query::Query,
        redirect::location,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    select,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

/// What a node does about an op. For a batch the first that is no answer decides.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Answer(OpResult),
    /// Closes the connection without a word, after reading the request.
    Break,
    /// Never answers.
    Hang,
    /// Answers the whole request with this status and body.
    Http(u16, String),
    /// Redirects the whole request to this address.
    Moved(Address),
    /// Writes these bytes, whatever they are, and then closes or stalls.
    Raw(&'static [u8], Then),
    /// Does the other after this time.
    Late(Duration, Box<Self>),
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    Close,
    Stall,
}

impl Reply {
    /// This reply, after a while.
    pub(crate) fn late(self, delay_ms: u64) -> Self {
        Self::Late(Duration::from_millis(delay_ms), Box::new(self))
    }
}

/// What a node does about a request for a stream: a scan or a watch.
#[derive(Debug, Clone)]
pub(crate) enum StreamReply {
    /// Answers 200 with this header and then these parts.
    Stream(Vec<(&'static str, String)>, Vec<Part>),
    /// Answers with this status and body.
    Http(u16, String),
    /// Closes the connection without a word.
    Break,
    /// Never answers.
    Hang,
}

/// A part of a streamed body.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    /// Waits until the test says true.
    Gate(watch::Receiver<bool>),
    /// Sends these pieces from a place on, and further ones as the test adds them, until the client closes.
    Live(watch::Receiver<Vec<Vec<u8>>>, usize),
    /// Closes the connection in the middle of the body. Without it, the body ends cleanly.
    Cut,
    /// Sends nothing more and waits until the client closes the connection.
    Hang,
}

pub(super) type Script = Arc<dyn Fn(&Op) -> Reply + Send + Sync>;
type DocumentScript = Arc<dyn Fn(&str) -> Option<(u16, String)> + Send + Sync>;
type StreamScript = Arc<dyn Fn(&Request) -> StreamReply + Send + Sync>;

pub(crate) struct FakeNode {
    pub(crate) address: Address,
    shared: Arc<Shared>,
    accepting: Mutex<Option<AbortHandle>>,
    /// Bound and never listening: while the node does not listen, nobody else shall on its port.
    _holds_port: TcpSocket,
}

struct Shared {
    script: Mutex<Script>,
    map: Mutex<Option<ShardMap>>,
    map_requests: AtomicUsize,
    map_hangs: AtomicBool,
    connections: AtomicUsize,
    /// Connections open now, and the most there ever were.
    open: AtomicUsize,
    most_open: AtomicUsize,
    batches: Mutex<Vec<Vec<Op>>>,
    documents: Mutex<Option<DocumentScript>>,
    stream_script: Mutex<Option<StreamScript>>,
    streams: Mutex<Vec<Request>>,
    /// Streams that hung until the client closed them.
    closed_streams: AtomicUsize,
    paused: watch::Sender<bool>,
}

impl FakeNode {
    pub(crate) async fn start() -> Self {
        let node = Self::reserve();
        node.listen();
        node
    }

    /// A node that has an address and does not listen yet.
    pub(crate) fn reserve() -> Self {
        let socket = reusable_socket();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        Self {
            address: address.parse().unwrap(),
            shared: Arc::new(Shared {
                script: Mutex::new(memory()),
                map: Mutex::default(),
                map_requests: AtomicUsize::new(0),
                map_hangs: AtomicBool::new(false),
                connections: AtomicUsize::new(0),
                open: AtomicUsize::new(0),
                most_open: AtomicUsize::new(0),
                batches: Mutex::default(),
                documents: Mutex::default(),
                stream_script: Mutex::default(),
                streams: Mutex::default(),
                closed_streams: AtomicUsize::new(0),
                paused: watch::Sender::new(false),
            }),
            accepting: Mutex::default(),
            _holds_port: socket,
        }
    }

    /// Starts to listen on its address.
    pub(crate) fn listen(&self) {
        let socket = reusable_socket();
        socket
            .bind(self.address.to_string().parse().unwrap())
            .unwrap();
        let listener = socket.listen(64).unwrap();
        let accepting = tokio::spawn(accept(listener, self.shared.clone()));
        *self.accepting.lock().unwrap() = Some(accepting.abort_handle());
    }

    /// Stops listening and closes all connections.
    pub(crate) fn stop(&self) {
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.abort();
        }
    }

    pub(crate) fn script(&self, script: impl Fn(&Op) -> Reply + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// What it does about scans and watches; without it, they are 404.
    pub(crate) fn script_streams(
        &self,
        script: impl Fn(&Request) -> StreamReply + Send + Sync + 'static,
    ) {
        *self.shared.stream_script.lock().unwrap() = Some(Arc::new(script));
    }

    /// What it answers to a path that is neither for ops nor the map, such as `/status`: status and body.
    pub(crate) fn script_documents(
        &self,
        script: impl Fn(&str) -> Option<(u16, String)> + Send + Sync + 'static,
    ) {
        *self.shared.documents.lock().unwrap() = Some(Arc::new(script));
    }

    /// All requests for streams so far.
    pub(crate) fn streams(&self) -> Vec<Request> {
        self.shared.streams.lock().unwrap().clone()
    }

    /// How many streams that hung were closed by the client.
    pub(crate) fn closed_streams(&self) -> usize {
        self.shared.closed_streams.load(Ordering::SeqCst)
    }

    /// The map it says is in force.
    pub(crate) fn set_map(&self, map: &ShardMap) {
        *self.shared.map.lock().unwrap() = Some(map.clone());
    }

    /// Requests for its map are never answered.
    pub(crate) fn hang_on_map(&self) {
        self.shared.map_hangs.store(true, Ordering::SeqCst);
    }

    /// Requests are read, and answered only after [`Self::resume`].
    pub(crate) fn pause(&self) {
        self.shared.paused.send_replace(true);
    }

    pub(crate) fn resume(&self) {
        self.shared.paused.send_replace(false);
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The most connections that were open at once.
    pub(crate) fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }

    pub(crate) fn map_requests(&self) -> usize {
        self.shared.map_requests.load(Ordering::SeqCst)
    }

    /// All batches so far, each with its ops. An op sent alone is a batch of one.
    pub(crate) fn batches(&self) -> Vec<Vec<Op>> {
        self.shared.batches.lock().unwrap().clone()
    }

    /// All ops so far.
    pub(crate) fn ops(&self) -> Vec<Op> {
        self.batches().concat()
    }

    pub(crate) fn forget_ops(&self) {
        self.shared.batches.lock().unwrap().clear();
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One of several that may be bound to a port, of which one listens.
fn reusable_socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Aborted with this task, so that stopping a node closes its connections.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(stream, shared.clone()));
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    pub(crate) uri: String,
    head: String,
    if_none_match: Option<String>,
    if_match: Option<String>,
    request_id: Option<String>,
    body: Bytes,
}

impl Request {
    /// A header by its name.
    pub(crate) fn header(&self, wanted: &str) -> Option<String> {
        self.head.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.eq_ignore_ascii_case(wanted)).then(|| value.trim().to_owned())
        })
    }

    /// Parameters of the query.
    pub(crate) fn query(&self) -> Query {
        let (_, query) = self.uri.split_once('?').unwrap_or_default();
        Query::parse(query, STREAM_PARAMETERS).unwrap()
    }

    fn is_stream(&self) -> bool {
        let is_scan = self.method == "GET" && self.uri.starts_with("/kv?");
        is_scan && !self.uri.contains("key=") || self.uri.starts_with("/watch")
    }
}

const STREAM_PARAMETERS: &[&str] = &[
    "prefix",
    "start",
    "end",
    "after",
    "limit",
    "reverse",
    "keys_only",
];

/// A connection counts as open for as long as this lives.
struct Open(Arc<Shared>);

impl Open {
    fn count(shared: &Arc<Shared>) -> Self {
        let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_open.fetch_max(open, Ordering::SeqCst);
        Self(shared.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _open = Open::count(&shared);
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        if request.is_stream() {
            match answer_stream(&mut stream, &shared, &request).await {
                Some(()) => continue,
                None => return,
            }
        }
        let (answer, then) = select! {
            answer = answer(&shared, &request) => answer,
            // The client gave up.
            () = closed(&stream) => return,
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
        match then {
            Then::GoOn => {}
            Then::Close => return,
            Then::Stall => return closed(&stream).await,
        }
    }
}

/// Answers a scan or a watch; `None` if the connection is to be closed.
async fn answer_stream(stream: &mut TcpStream, shared: &Shared, request: &Request) -> Option<()> {
    shared.streams.lock().unwrap().push(request.clone());
    let script = shared.stream_script.lock().unwrap().clone();
    let missing = StreamReply::Http(404, String::new());
    let (headers, parts) = match script.map_or(missing, |script| script(request)) {
        StreamReply::Stream(headers, parts) => (headers, parts),
        StreamReply::Http(status, body) => {
            let answer = http(status, &[], body.as_bytes());
            return stream.write_all(&answer).await.ok();
        }
        StreamReply::Break => return None,
        StreamReply::Hang => return hang(stream, shared).await,
    };
    let mut head = "HTTP/1.1 200 Scripted\r\ntransfer-encoding: chunked\r\n".to_owned();
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    for part in parts {
        match part {
            Part::Bytes(bytes) => write_chunk(stream, &bytes).await?,
            Part::Gate(mut open) => {
                open.wait_for(|open| *open).await.ok()?;
            }
            Part::Live(pieces, from) => return live(stream, shared, pieces, from).await,
            Part::Cut => return None,
            Part::Hang => return hang(stream, shared).await,
        }
    }
    stream.write_all(b"0\r\n\r\n").await.ok()
}

async fn write_chunk(stream: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    if bytes.is_empty() {
        // An empty chunk would be the end.
        return Some(());
    }
    let size = format!("{:x}\r\n", bytes.len());
    let chunk = [size.as_bytes(), bytes, b"\r\n"].concat();
    stream.write_all(&chunk).await.ok()
}

/// Sends what is there and what comes, until the client closes the connection.
async fn live(
    stream: &mut TcpStream,
    shared: &Shared,
    mut pieces: watch::Receiver<Vec<Vec<u8>>>,
    mut from: usize,
) -> Option<()> {
    loop {
        let new: Vec<Vec<u8>> = pieces.borrow_and_update()[from..].to_vec();
        from += new.len();
        for piece in new {
            write_chunk(stream, &piece).await?;
        }
        tokio::select! {
            changed = pieces.changed() => changed.ok()?,
            closed = hang(stream, shared) => return closed,
        }
    }
}

/// Waits until the client closes the connection.
async fn hang(stream: &mut TcpStream, shared: &Shared) -> Option<()> {
    let mut ignored = Vec::new();
    while read_more(stream, &mut ignored).await.is_some() {}
    shared.closed_streams.fetch_add(1, Ordering::SeqCst);
    None
}

/// Waits until the other side has closed the connection. It sends nothing before it has its answer.
async fn closed(stream: &TcpStream) {
    let _ = stream.peek(&mut [0]).await;
}

async fn answer(shared: &Shared, request: &Request) -> (Vec<u8>, Then) {
    if request.uri != "/cluster/map" {
        let documents = shared.documents.lock().unwrap().clone();
        return match documents.and_then(|script| script(&request.uri)) {
            Some((status, body)) => (http(status, &[], body.as_bytes()), Then::GoOn),
            None => answer_ops(shared, request).await,
        };
    }
    shared.map_requests.fetch_add(1, Ordering::SeqCst);
    if shared.map_hangs.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    (map_answer(shared, request), Then::GoOn)
}

async fn answer_ops(shared: &Shared, request: &Request) -> (Vec<u8>, Then) {
    let ops = match request.uri.as_str() {
        "/batch" | "/batch?atomic" => decode_ops(request.body.clone()).unwrap(),
        _ => vec![lone_op(request)],
    };
    shared.batches.lock().unwrap().push(ops.clone());
    let _ = shared.paused.subscribe().wait_for(|paused| !paused).await;
    let script = shared.script.lock().unwrap().clone();
    let mut results = Vec::new();
    for op in &ops {
        let mut reply = script(op);
        while let Reply::Late(delay, then) = reply {
            sleep(delay).await;
            reply = *then;
        }
        match reply {
            Reply::Answer(result) => results.push(result),
            Reply::Break => return (Vec::new(), Then::Close),
            Reply::Hang => std::future::pending().await,
            Reply::Moved(target) => {
                let location = location(Scheme::Http, &target, &request.uri);
                return (http(307, &[("location", location)], b""), Then::GoOn);
            }
            Reply::Http(status, body) => {
                return (http(status, &[], body.as_bytes()), Then::GoOn);
            }
            Reply::Raw(bytes, then) => return (bytes.to_vec(), then),
            Reply::Late(..) => unreachable!("its time is over"),
        }
    }
    (results_answer(shared, request, results), Then::GoOn)
}

fn results_answer(shared: &Shared, request: &Request, mut results: Vec<OpResult>) -> Vec<u8> {
    let map = shared.map.lock().unwrap();
    let identity = map.as_ref().map(|map| map.identity().to_owned());
    let mut headers = Vec::new();
    headers.extend(identity.map(|identity| ("kv-map-version", identity)));
    let refused = results.iter().position(|result| result.error.is_some());
    let alone = match (request.uri.as_str(), refused) {
        ("/batch", _) | ("/batch?atomic", None) => {
            return http(200, &headers, &encode_results(results.iter()));
        }
        (_, refused) => results.remove(refused.unwrap_or(0)),
    };
    headers.extend(alone.position.map(|at| ("kv-position", at.to_string())));
    headers.extend(alone.etag.map(|at| ("etag", at.to_etag())));
    let applied = alone.applied.map(|applied| applied.as_str().to_owned());
    headers.extend(applied.map(|applied| ("kv-applied", applied)));
    let body = match alone.error {
        Some(error) => {
            let code = error.code.as_str();
            format!(r#"{{"error":"{code}","message":"{}"}}"#, error.message).into()
        }
        None => alone.value.unwrap_or_default(),
    };
    http(alone.status, &headers, &body)
}

/// The op of `PUT` or `GET /kv/{key}` or `/kv?key=`.
fn lone_op(request: &Request) -> Op {
    let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
    let query = Query::parse(query, &["key", "ttl"]).unwrap();
    let key = match path.strip_prefix("/kv/") {
        Some(escaped) => unescape(escaped.as_bytes(), Plus::Literal).unwrap(),
        None => query.bytes("key").unwrap().to_vec(),
    };
    let action = match request.method.as_str() {
        "GET" => Action::Get,
        _ => Action::Put {
            value: request.body.clone(),
            ttl_ms: query.duration_ms("ttl").unwrap(),
        },
    };
    let mut op = Op::new(Key::new(key).unwrap(), action);
    let header = |text: &Option<String>, any, one: fn(Position) -> Condition| match text.as_deref()
    {
        Some("*") => Some(any),
        Some(tag) => Some(one(Position::from_etag(tag).unwrap())),
        None => None,
    };
    let none_match = header(
        &request.if_none_match,
        Condition::Absent,
        Condition::Differs,
    );
    op.terms.condition = none_match.or(header(&request.if_match, Condition::Exists, Condition::Is));
    op.terms.request_id = request.request_id.as_deref().map(request_id);
    let ack = request.header("kv-ack");
    op.terms.ack = ack.and_then(|text| Ack::from_text(&text).unwrap());
    let min_position = request.header("kv-min-position");
    op.terms.min_position = min_position.map(|text| text.parse().unwrap());
    let wait_ms = request.header("kv-wait-ms");
    op.terms.wait_ms = wait_ms.map(|text| text.parse().unwrap());
    op
}

/// `<client>.<n>;floor=<floor>`.
fn request_id(text: &str) -> RequestId {
    let (client, rest) = text.split_once('.').unwrap();
    let (n, floor) = rest.split_once(";floor=").unwrap();
    RequestId {
        client: u128::from_str_radix(client, 16).unwrap(),
        n: n.parse().unwrap(),
        floor: floor.parse().unwrap(),
    }
}

fn map_answer(shared: &Shared, request: &Request) -> Vec<u8> {
    let map = shared.map.lock().unwrap();
    let Some(map) = &*map else {
        return http(503, &[], b"");
    };
    let etag = format!("\"{}\"", map.identity());
    match request.if_none_match.as_ref() == Some(&etag) {
        true => http(304, &[], b""),
        false => http(200, &[("etag", etag)], json::encode(map).as_bytes()),
    }
}

fn http(status: u16, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 304 && status != 204 {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let head_len = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, buffer).await?;
    };
    let head = String::from_utf8(buffer[..head_len].to_vec()).unwrap();
    let header = |wanted: &str| {
        head.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.eq_ignore_ascii_case(wanted)).then(|| value.trim().to_owned())
        })
    };
    let body_len: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
    while buffer.len() < head_len + body_len {
        read_more(stream, buffer).await?;
    }
    let mut words = head.split(' ');
    let request = Request {
        method: words.next().unwrap().to_owned(),
        uri: words.next().unwrap().to_owned(),
        if_none_match: header("if-none-match"),
        if_match: header("if-match"),
        request_id: header("kv-request-id"),
        body: Bytes::copy_from_slice(&buffer[head_len..head_len + body_len]),
        head,
    };
    buffer.drain(..head_len + body_len);
    Some(request)
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let len = stream.read_buf(buffer).await.ok()?;
    (len > 0).then_some(())
}
