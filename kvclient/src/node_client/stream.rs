//! Answers that are read while they arrive.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::timeout;

use super::answer::failure;
use crate::attempt::AttemptError;

/// A snapshot that is arriving.
#[derive(Debug)]
pub struct SnapshotBody {
    pub(super) body: StreamBody,
    pub(super) idle_timeout: Duration,
}

/// An answer that is read while it arrives. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub struct StreamBody {
    pub(super) response: Response,
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
        timeout(limit, self.response.chunk())
            .await
            .map_err(|_| AttemptError::TimedOut)?
            .map_err(|error| failure(&error))
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}
