//! One node over HTTP: no routing, no retry, no state but idle connections.
//!
//! The only folder that knows HTTP libraries and sockets. Everything it does is one exchange with one address, with a
//! time limit and a limit on the answer's size, and ends in an answer or an [`AttemptError`] that says how far it got.
//! Used by the routing half of this crate, and by nodes to copy each other.
//!
//! All of it travels over connections of our own ([`connection`]), driven in the caller's future: with an HTTP library
//! its task and its pool stood between, which cost two hops between tasks and about 20 us of CPU an exchange; and
//! of HTTP there is little to do here, which `httparse` does too. So there is one way to a node, in the clear or with
//! TLS ([`transport`]), and no dependency that a program would have to share with this crate.
//!
//! What there is not, and why: proxies (nodes are near, and `HTTP_PROXY` would swallow `localhost`), redirects (they
//! lead only to nodes of the map, which is not known here), retries (a write may not be sent twice), HTTP/2 (one
//! connection per node would be one core per node).

mod answer;
mod chunked;
mod connection;
mod exchange;
mod head;
mod headers;
mod pool;
mod stream;
mod transport;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

pub use self::stream::{SnapshotBody, StreamBody};
use self::{
    answer::Answer,
    head::Request,
    headers::{read_headers, write_headers},
    pool::Pool,
};
use crate::{
    attempt::AttemptError,
    error::Error,
    scheme::Scheme,
    shard_map::{Address, ShardMap, json},
    tls::Tls,
    token::Token,
    wire::{
        MAX_VALUE_BYTES_CEILING,
        batch::{self, Action, Op, OpResult, Terms},
        content_type,
        error::Applied,
        header, log,
        pull::{PullAnswer, PullRequest},
        route,
    },
};

/// Most bytes of a batch's answer: 1,000 ordinary values of 64 KiB. Larger ones are asked for alone.
const BATCH_ANSWER_BYTES: usize = 64 << 20;

/// Most bytes of a map, a status, or another small answer.
const DOCUMENT_BYTES: usize = 16 << 20;

/// Room for what surrounds a value or a frame.
const SLACK_BYTES: usize = 64 << 10;

/// Settings of a [`NodeClient`].
///
/// ```
/// use std::time::Duration;
/// use kvclient::node_client::NodeClientOptions;
///
/// let mut far_away = NodeClientOptions::default();
/// far_away.connect_timeout = Duration::from_secs(2);
/// far_away.idle_per_node = 4;
/// assert_eq!(far_away.idle_timeout, Duration::from_secs(20));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeClientOptions {
    /// Longest wait for a connection. Default 500 ms: on one machine or in one data centre a node that is up
    /// accepts in a few ms; one lost SYN costs 1 s, and another node is asked by then.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept. Default 20 s: well below the 75 s after which a node closes it, so
    /// that a request is hardly ever written to a connection that is just being closed.
    pub idle_timeout: Duration,
    /// Idle connections kept per node. Default 16: two lanes and a few large values use fewer.
    pub idle_per_node: usize,
    /// Whom to trust, and who to be. Default `None`: nodes are spoken to in the clear; with it, never.
    pub tls: Option<Tls>,
    /// Shown to every node that is asked. Default none: nodes that ask nobody who he is need none.
    pub token: Option<Token>,
}

impl Default for NodeClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(20),
            idle_per_node: 16,
            tls: None,
            token: None,
        }
    }
}

impl NodeClientOptions {
    /// How nodes are spoken to.
    pub fn scheme(&self) -> Scheme {
        self.tls.as_ref().map_or(Scheme::Http, |_| Scheme::Https)
    }
}

/// Talks to one node at a time. Clones share their connections.
///
/// ```no_run
/// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use kvclient::{Address, Key, attempt::AttemptError, wire::batch::{Action, Op}};
///
/// let node: Address = "localhost:8080".parse()?;
/// let get = Op::new(Key::new("user:1")?, Action::Get);
/// let result = nodes.get(&node, &get, Duration::from_millis(500)).await?;
/// match AttemptError::check(result) {
///     Ok(result) => println!("{:?}", result.value), // `None`: no such key
///     Err(refused) => println!("{node} does not answer that: {refused}"), // perhaps another one does
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct NodeClient {
    pool: Arc<Pool>,
    token: Option<Token>,
}

/// Answer of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// One result per op, in order.
    pub results: Vec<OpResult>,
    /// Identity of the map in force at the node.
    pub map_version: Option<String>,
}

/// Who asks for a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Names its data directory.
    pub node_id: u64,
    /// Where the map has it.
    pub node_address: Address,
    /// Longest wait for the answer's head, and then for each next piece of its body. The whole may take hours.
    pub idle_timeout: Duration,
}

impl NodeClient {
    /// A client without connections; needs no runtime until its first exchange.
    ///
    /// ```
    /// # fn main() -> kvclient::Result<()> {
    /// use kvclient::node_client::{NodeClient, NodeClientOptions};
    ///
    /// let nodes = NodeClient::new(NodeClientOptions::default())?; // one for all nodes
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// None today; settings that contradict each other would be one.
    pub fn new(options: NodeClientOptions) -> Result<Self, Error> {
        let pool = Pool {
            tls: options.tls,
            connect_timeout: options.connect_timeout,
            idle_timeout: options.idle_timeout,
            idle_per_node: options.idle_per_node,
            idle: Mutex::default(),
        };
        Ok(Self {
            pool: Arc::new(pool),
            token: options.token,
        })
    }

    /// Sends ops in one request: `POST /batch`.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use kvclient::{Key, key::KeyError, wire::batch::{Action, Op}};
    ///
    /// let node = "localhost:8080".parse()?;
    /// let keys = ["user:1", "user:2"].map(Key::new);
    /// let ops: Vec<Op> = keys.into_iter().map(|key| Ok(Op::new(key?, Action::Get))).collect::<Result<_, KeyError>>()?;
    /// let answer = nodes.batch(&node, &ops, Duration::from_secs(1)).await?;
    /// for (op, result) in ops.iter().zip(&answer.results) {
    ///     println!("{}: {}", op.key, result.status); // 307 where another node is to be asked
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: there are no results. Its `outcome()` holds for every write among the ops.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; writes may have been sent.
    pub async fn batch(
        &self,
        address: &Address,
        ops: &[Op],
        timeout: Duration,
    ) -> Result<BatchAnswer, AttemptError> {
        let body = batch::encode_ops(ops.iter());
        self.batch_encoded(address, body, ops.len(), timeout).await
    }

    /// As [`Self::batch`], for a body of `count` ops that was encoded elsewhere.
    pub(crate) async fn batch_encoded(
        &self,
        address: &Address,
        body: Vec<u8>,
        count: usize,
        timeout: Duration,
    ) -> Result<BatchAnswer, AttemptError> {
        let (answer, results) = self
            .post_ops(address, route::BATCH, body, count, timeout)
            .await?;
        let map_version = answer.header(header::MAP_VERSION).map(str::to_owned);
        Ok(BatchAnswer {
            results,
            map_version,
        })
    }

    /// Does ops on keys of one slot together or not at all: `POST /batch?atomic`. The result's value is the body with
    /// one result per op, see [`batch::decode_results`]; a request id stands on the first op and is that of all.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use kvclient::{Key, wire::batch::{Action, Op, decode_results}};
    ///
    /// let node = "localhost:8080".parse()?;
    /// let ops = [
    ///     Op::new(Key::new("{cart:5}:n")?, Action::Incr { delta: 1 }),
    ///     Op::new(Key::new("{cart:5}:coupon")?, Action::Delete),
    /// ];
    /// let result = nodes.atomic(&node, &ops, Duration::from_secs(1)).await?;
    /// let of_each = decode_results(result.value.unwrap_or_default())?;
    /// println!("both done, up to {:?}: {} results", result.position, of_each.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: there are no results. A refusal holds for all of the ops.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; the ops may have been sent.
    pub async fn atomic(
        &self,
        address: &Address,
        ops: &[Op],
        timeout: Duration,
    ) -> Result<OpResult, AttemptError> {
        let uri = format!("{}?atomic", route::BATCH);
        let body = batch::encode_ops(ops.iter());
        let (answer, results) = self
            .post_ops(address, &uri, body, ops.len(), timeout)
            .await?;
        Ok(OpResult {
            status: 200,
            applied: Some(Applied::Yes),
            position: results.iter().filter_map(|result| result.position).max(),
            value: Some(answer.body),
            ..OpResult::default()
        })
    }

    /// Asks for the map in force: `GET /cluster/map`. `None` if it is the one named by `if_none_match` (an
    /// identity, `version-hash`).
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let node = "localhost:8080".parse()?;
    /// let limit = Duration::from_secs(1);
    /// let map = nodes.cluster_map(&node, None, limit).await?.expect("nothing was named");
    /// match nodes.cluster_map(&node, Some(map.identity()), limit).await? {
    ///     None => println!("still {}", map.identity()),
    ///     Some(newer) => println!("{} now", newer.identity()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: ask another node.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn cluster_map(
        &self,
        address: &Address,
        if_none_match: Option<&str>,
        timeout: Duration,
    ) -> Result<Option<ShardMap>, AttemptError> {
        let known = if_none_match.map(|identity| ("if-none-match", format!("\"{identity}\"")));
        let headers: Vec<_> = known.into_iter().collect();
        let request = self.request(route::CLUSTER_MAP, &headers)?;
        let answer = self
            .pool
            .exchange(address, &request, timeout, DOCUMENT_BYTES);
        let answer = answer.await?;
        match answer.status {
            304 => Ok(None),
            200 => json::decode(&answer.body)
                .map(Some)
                .map_err(|error| AttemptError::Undecodable(error.to_string())),
            _ => Err(answer.refusal()),
        }
    }

    /// Asks for a JSON document such as `/status`.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let node = "localhost:8080".parse()?;
    /// let status = nodes.get_json(&node, "/status", Duration::from_secs(1)).await?;
    /// println!("{status:#}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]; any status but 200 is [`AttemptError::Refused`].
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn get_json(
        &self,
        address: &Address,
        path: &str,
        timeout: Duration,
    ) -> Result<serde_json::Value, AttemptError> {
        let request = self.request(path, &[])?;
        let answer = self
            .pool
            .exchange(address, &request, timeout, DOCUMENT_BYTES);
        let answer = answer.await?;
        if answer.status != 200 {
            return Err(answer.refusal());
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| AttemptError::Undecodable(error.to_string()))
    }

    /// Asks a primary for frames: `GET /log`. A refusal is an answer here, since a replica acts on it. `timeout`
    /// covers the primary's wait too.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use kvclient::{position::Lineage, wire::pull::PullRequest};
    ///
    /// // A reader of the log that is no replica yet: from its first record.
    /// let pull = PullRequest {
    ///     after: 0,
    ///     max_bytes: 1 << 20,
    ///     wait_ms: 1_000,
    ///     node_id: 7,
    ///     node_address: "localhost:8089".parse()?,
    ///     history: None,
    ///     lineage: Lineage::new(),
    ///     last_crc: 0,
    ///     map_version: None,
    /// };
    /// let primary = "localhost:8080".parse()?;
    /// let answer = nodes.pull(&primary, &pull, Duration::from_secs(5)).await?;
    /// println!("{}: {} bytes of frames, durable {:?}", answer.status, answer.frames.len(), answer.durable);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`] if no answer came or it does not decode: pull again after a while.
    ///
    /// # Cancel safety
    /// May be dropped; the primary then counts what the request acknowledged, and nothing else.
    pub async fn pull(
        &self,
        address: &Address,
        pull: &PullRequest,
        timeout: Duration,
    ) -> Result<PullAnswer, AttemptError> {
        let (uri, headers) = (pull.to_uri(), pull.to_headers());
        let request = self.request(&uri, &headers)?;
        // At least one frame comes whole, however small `max_bytes` is.
        let frame_bytes = log::largest_frame_bytes(MAX_VALUE_BYTES_CEILING);
        let limit_bytes = (pull.max_bytes as usize).max(frame_bytes) + SLACK_BYTES;
        let answer = self.pool.exchange(address, &request, timeout, limit_bytes);
        let answer = answer.await?;
        let (status, body) = (answer.status, answer.body.clone());
        PullAnswer::decode(status, |name| answer.header(name), body)
            .map_err(|error| AttemptError::Undecodable(error.to_string()))
    }

    /// Asks for a copy of the shard: `GET /snapshot`, piece by piece.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use kvclient::node_client::SnapshotRequest;
    ///
    /// let request = SnapshotRequest {
    ///     node_id: 7,
    ///     node_address: "localhost:8089".parse()?,
    ///     idle_timeout: Duration::from_secs(30),
    /// };
    /// let primary = "localhost:8080".parse()?;
    /// let mut copy = nodes.snapshot(&primary, &request).await?;
    /// let mut bytes = 0;
    /// while let Some(piece) = copy.chunk().await? {
    ///     bytes += piece.len(); // `wire::snapshot` says what they mean
    /// }
    /// println!("{bytes} bytes");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: nothing has arrived; ask again after a while.
    ///
    /// # Cancel safety
    /// May be dropped; the node notices the closed connection.
    pub async fn snapshot(
        &self,
        address: &Address,
        snapshot: &SnapshotRequest,
    ) -> Result<SnapshotBody, AttemptError> {
        let idle_timeout = snapshot.idle_timeout;
        let headers = [
            (header::NODE_ID, format!("{:016x}", snapshot.node_id)),
            (header::NODE_ADDRESS, snapshot.node_address.to_string()),
        ];
        let opened = self.open(address, route::SNAPSHOT, &headers, idle_timeout);
        Ok(SnapshotBody {
            body: opened.await?,
            idle_timeout,
        })
    }

    /// Asks for an answer that is read while it arrives: a scan, a watch. `timeout` is for its head; the terms are
    /// those of a read.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use kvclient::wire::{batch::Terms, scan::{ScanDecoder, ScanRequest}};
    ///
    /// let node = "localhost:8080".parse()?;
    /// let request = ScanRequest { prefix: "user:".into(), ..ScanRequest::default() };
    /// let limit = Duration::from_secs(1);
    /// let mut body = nodes.stream(&node, &request.to_uri(), &Terms::default(), limit).await?;
    /// let mut decoder = ScanDecoder::new();
    /// while let Some(piece) = body.chunk(limit).await? {
    ///     decoder.push(&piece);
    ///     while let Some(item) = decoder.next_item()? {
    ///         println!("{item:?}");
    ///     }
    /// }
    /// decoder.finish()?; // else its end is missing
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: no answer begins; any status but 200 is [`AttemptError::Refused`].
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn stream(
        &self,
        address: &Address,
        uri: &str,
        terms: &Terms,
        timeout: Duration,
    ) -> Result<StreamBody, AttemptError> {
        let mut headers = read_headers(terms);
        if uri.starts_with(route::KV) {
            headers.push(("accept", content_type::FRAMES.to_owned()));
        }
        self.open(address, uri, &headers, timeout).await
    }

    async fn open(
        &self,
        address: &Address,
        uri: &str,
        headers: &[(&'static str, String)],
        limit: Duration,
    ) -> Result<StreamBody, AttemptError> {
        let request = self.request(uri, headers)?;
        let until = Instant::now() + limit;
        let (begun, connection) = self.pool.begin(address, &request, until).await?;
        let status = begun.status;
        let body = StreamBody::new(begun, connection, address.clone(), Arc::clone(&self.pool));
        if status == 200 {
            return Ok(body);
        }
        Err(body
            .into_answer(self.pool.scheme(), status, until)
            .await?
            .refusal())
    }

    /// Stores one value alone: `PUT /kv/{key}`. For values that would delay the other ops of a batch.
    ///
    /// Takes the op's condition, ttl, ack and request id.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use kvclient::{Key, wire::batch::{Action, Op}};
    ///
    /// let primary = "localhost:8080".parse()?;
    /// let value = vec![0; 1 << 20].into();
    /// let op = Op::new(Key::new("photo:7")?, Action::Put { value, ttl_ms: Some(60_000) });
    /// let result = nodes.put(&primary, &op, Duration::from_secs(10)).await?;
    /// println!("{}, at {:?}", result.status, result.position);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: there is no result; a refusal by the node is a result.
    ///
    /// # Panics
    /// If the op is not a put.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; a body that arrived only in part is not stored.
    pub async fn put(
        &self,
        address: &Address,
        op: &Op,
        timeout: Duration,
    ) -> Result<OpResult, AttemptError> {
        let Action::Put { value, ttl_ms } = &op.action else {
            panic!("only a put carries a value");
        };
        let mut uri = op.key.to_uri();
        if let Some(ttl_ms) = ttl_ms {
            uri.push(if uri.contains('?') { '&' } else { '?' });
            uri.push_str(&format!("ttl={ttl_ms}ms"));
        }
        let request = Request {
            method: "PUT",
            uri: &uri,
            content_type: None,
            authorization: self.authorization(),
            headers: &write_headers(op),
            body: value,
        };
        let answer = self
            .pool
            .exchange(address, &request, timeout, DOCUMENT_BYTES);
        let answer = answer.await?;
        Ok(answer.into_result(&op.action))
    }

    /// Reads one entry alone: `GET /kv/{key}`. For values that are too large for a batch's answer.
    ///
    /// ```no_run
    /// # async fn example(nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use kvclient::{Key, wire::batch::{Action, Op}};
    ///
    /// let replica = "localhost:8083".parse()?;
    /// let mut op = Op::new(Key::new("photo:7")?, Action::Get);
    /// op.terms.min_position = Some("3.1207".parse()?); // not before it holds this
    /// op.terms.wait_ms = Some(100);
    /// let result = nodes.get(&replica, &op, Duration::from_secs(10)).await?;
    /// println!("{}: {} bytes", result.status, result.value.map_or(0, |value| value.len()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: there is no result; a refusal by the node is a result.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn get(
        &self,
        address: &Address,
        op: &Op,
        timeout: Duration,
    ) -> Result<OpResult, AttemptError> {
        let mut headers = write_headers(op);
        headers.extend(read_headers(&op.terms));
        let request = Request {
            method: "GET",
            uri: &op.key.to_uri(),
            content_type: None,
            authorization: self.authorization(),
            headers: &headers,
            body: b"",
        };
        let limit_bytes = MAX_VALUE_BYTES_CEILING + SLACK_BYTES;
        let answer = self.pool.exchange(address, &request, timeout, limit_bytes);
        let answer = answer.await?;
        Ok(answer.into_result(&op.action))
    }

    /// Sends a body of `count` ops: the answer, and one result per op.
    async fn post_ops(
        &self,
        address: &Address,
        uri: &str,
        body: Vec<u8>,
        count: usize,
        timeout: Duration,
    ) -> Result<(Answer, Vec<OpResult>), AttemptError> {
        let request = Request {
            method: "POST",
            uri,
            content_type: Some(content_type::FRAMES),
            authorization: self.authorization(),
            headers: &[],
            body: &body,
        };
        let answer = self
            .pool
            .exchange(address, &request, timeout, BATCH_ANSWER_BYTES);
        let answer = answer.await?;
        if answer.status != 200 {
            return Err(answer.refusal());
        }
        let results = batch::decode_results(answer.body.clone())
            .map_err(|error| AttemptError::Undecodable(error.to_string()))?;
        if results.len() != count {
            let problem = format!("{} results for {count} ops", results.len());
            return Err(AttemptError::Undecodable(problem));
        }
        Ok((answer, results))
    }

    /// A request without a body.
    fn request<'a>(
        &'a self,
        uri: &'a str,
        headers: &'a [(&'static str, String)],
    ) -> Result<Request<'a>, AttemptError> {
        Ok(Request {
            authorization: self.authorization(),
            ..get(uri, headers)?
        })
    }

    fn authorization(&self) -> Option<&str> {
        self.token.as_ref().map(Token::authorization)
    }
}

/// A request without a body, of nobody.
///
/// # Errors
/// [`AttemptError::NotConnected`]: the path or a header has what would end it, and so could be taken for another
/// request.
fn get<'a>(
    uri: &'a str,
    headers: &'a [(&'static str, String)],
) -> Result<Request<'a>, AttemptError> {
    let is_path = uri.starts_with('/') && uri.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_path {
        let problem = format!("{uri:?} is not an escaped path");
        return Err(AttemptError::NotConnected(problem));
    }
    let is_odd = |text: &str| text.bytes().any(|byte| byte.is_ascii_control());
    if let Some((name, value)) = headers.iter().find(|(_, value)| is_odd(value)) {
        let problem = format!("header {name}: {value:?} is not one line");
        return Err(AttemptError::NotConnected(problem));
    }
    Ok(Request {
        method: "GET",
        uri,
        content_type: None,
        authorization: None,
        headers,
        body: b"",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_taken_for_another_request_is_not_sent() {
        for uri in ["", "status", "/a b", "/a\r\nx: y", "/\u{e4}", "http://h:1/"] {
            assert!(get(uri, &[]).is_err(), "{uri:?}");
        }
        assert!(get("/a", &[("x", "1\r\ny: 2".to_owned())]).is_err());
        assert!(get("/kv?prefix=%20", &[("x", "1 2".to_owned())]).is_ok());
    }
}
