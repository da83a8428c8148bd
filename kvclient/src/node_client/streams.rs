//! Answers that are read while they arrive.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::timeout;

use super::{answer::failure, client::NodeClient, headers::read_headers};
use crate::{
    attempt::AttemptError,
    shard_map::Address,
    wire::{batch::Terms, content_type, header, route},
};

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

/// A snapshot that is arriving.
#[derive(Debug)]
pub struct SnapshotBody {
    pub(super) body: StreamBody,
    pub(super) idle_timeout: Duration,
}

/// An answer that is read while it arrives. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub struct StreamBody {
    response: Response,
    end: End,
}

/// How far an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Ahead,
    Reached,
    /// It broke off before its end.
    Missing,
}

impl NodeClient {
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
        let begun = self
            .library
            .begin(address, route::SNAPSHOT, &headers, idle_timeout);
        let body = StreamBody::new(begun.await?);
        Ok(SnapshotBody { body, idle_timeout })
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
        let begun = self.library.begin(address, uri, &headers, timeout);
        Ok(StreamBody::new(begun.await?))
    }
}

impl SnapshotBody {
    /// The next piece; `None` at the end of the body.
    ///
    /// ```no_run
    /// # async fn example(mut copy: kvclient::node_client::SnapshotBody) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::{fs::File, io::Write};
    ///
    /// let mut file = File::create("snapshot.part")?; // whole, and to be renamed, when `None` comes
    /// while let Some(piece) = copy.chunk().await? {
    ///     file.write_all(&piece)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: the snapshot is incomplete; throw away what arrived.
    ///
    /// # Cancel safety
    /// May be dropped; no piece is lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, AttemptError> {
        self.body.chunk(self.idle_timeout).await
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.body.header(name)
    }
}

impl StreamBody {
    fn new(response: Response) -> Self {
        Self {
            response,
            end: End::Ahead,
        }
    }

    /// The next piece, waited for at most so long; `None` at the end of the body.
    ///
    /// ```no_run
    /// # async fn example(mut feed: kvclient::node_client::StreamBody) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use kvclient::wire::watch::WatchDecoder;
    ///
    /// let mut decoder = WatchDecoder::new();
    /// // A node says where it is every 5 s: one that is silent for longer than two of these is gone.
    /// while let Some(piece) = feed.chunk(Duration::from_secs(12)).await? {
    ///     decoder.push(&piece);
    ///     while let Some(item) = decoder.next_item()? {
    ///         println!("{item:?}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AttemptError`]: nothing more will come.
    ///
    /// # Cancel safety
    /// May be dropped; no piece is lost.
    pub async fn chunk(&mut self, limit: Duration) -> Result<Option<Bytes>, AttemptError> {
        match self.end {
            End::Ahead => {}
            End::Reached => return Ok(None),
            End::Missing => return Err(AttemptError::Broken("it has failed before".to_owned())),
        }
        let piece = timeout(limit, self.response.chunk()).await;
        let piece = piece.map_err(|_| AttemptError::TimedOut)?;
        match &piece {
            Ok(Some(_)) => {}
            Ok(None) => self.end = End::Reached,
            Err(_) => self.end = End::Missing,
        }
        piece.map_err(|error| failure(&error))
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}
