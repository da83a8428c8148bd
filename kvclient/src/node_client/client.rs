//! Ops, sent to one node and answered by it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    answer::Answer,
    head::Request,
    headers::{read_headers, write_headers},
    library::Library,
    options::NodeClientOptions,
    pool::Pool,
};
use crate::{
    attempt::AttemptError,
    error::Error,
    shard_map::Address,
    token::Token,
    wire::{
        MAX_VALUE_BYTES_CEILING,
        batch::{self, Action, Op, OpResult},
        content_type,
        error::Applied,
        header, route,
    },
};

/// Most bytes of a batch's answer: 1,000 ordinary values of 64 KiB. Larger ones are asked for alone.
const BATCH_ANSWER_BYTES: usize = 64 << 20;

/// Most bytes of the answer to a lone write.
const WRITTEN_BYTES: usize = 1 << 20;

/// Room for what surrounds a value.
const SLACK_BYTES: usize = 64 << 10;

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
    /// For ops: connections of our own.
    pool: Arc<Pool>,
    /// For everything else.
    pub(super) library: Library,
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
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the HTTP library cannot be set up on this machine.
    pub fn new(options: NodeClientOptions) -> Result<Self, Error> {
        let library = Library::new(&options)?;
        let pool = Pool {
            tls: options.tls(),
            connect_timeout: options.connect_timeout,
            idle_timeout: options.idle_timeout,
            idle_per_node: options.idle_per_node,
            idle: Mutex::default(),
        };
        Ok(Self {
            pool: Arc::new(pool),
            library,
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
            .exchange(address, &request, timeout, WRITTEN_BYTES);
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

    fn authorization(&self) -> Option<&str> {
        self.token.as_ref().map(Token::authorization)
    }
}
