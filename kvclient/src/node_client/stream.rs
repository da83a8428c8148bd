//! Answers that are read while they arrive.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    answer::Answer,
    connection::Connection,
    exchange::{Begun, Rest},
    head::Headers,
    pool::Pool,
};
use crate::{attempt::AttemptError, scheme::Scheme, shard_map::Address};

/// Most bytes of an answer that says why there is nothing to read.
const REFUSAL_BYTES: usize = 1 << 20;

/// A snapshot that is arriving.
#[derive(Debug)]
pub struct SnapshotBody {
    pub(super) body: StreamBody,
    pub(super) idle_timeout: Duration,
}

/// An answer that is read while it arrives. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub struct StreamBody {
    headers: Headers,
    rest: Rest,
    keeps_open: bool,
    /// `None` behind the body's end, and once it has failed.
    connection: Option<Connection>,
    /// Where the connection goes then.
    node: Address,
    pool: Arc<Pool>,
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
    pub(super) fn new(
        begun: Begun,
        connection: Connection,
        node: Address,
        pool: Arc<Pool>,
    ) -> Self {
        Self {
            headers: begun.headers,
            rest: begun.rest,
            keeps_open: begun.keeps_open,
            connection: Some(connection),
            node,
            pool,
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
        let Some(connection) = &mut self.connection else {
            return match self.rest {
                Rest::Nothing => Ok(None),
                _ => Err(AttemptError::Broken("it has failed before".to_owned())),
            };
        };
        let until = Instant::now() + limit;
        let piece = connection.piece(&mut self.rest, until).await;
        match &piece {
            Ok(Some(_)) | Err(AttemptError::TimedOut) => {}
            Ok(None) => self.give_back(),
            Err(_) => self.connection = None,
        }
        piece
    }

    /// The whole of an answer that is not to be read while it arrives.
    pub(super) async fn into_answer(
        mut self,
        scheme: Scheme,
        status: u16,
        until: Instant,
    ) -> Result<Answer, AttemptError> {
        let mut body = Vec::new();
        while let Some(piece) = self.chunk(until - Instant::now()).await? {
            body.extend_from_slice(&piece);
            if body.len() > REFUSAL_BYTES {
                return Err(AttemptError::AnswerTooLarge {
                    limit_bytes: REFUSAL_BYTES,
                });
            }
        }
        Ok(Answer::new(scheme, status, self.headers, body.into()))
    }

    fn give_back(&mut self) {
        let is_clean = |connection: &Connection| self.keeps_open && connection.is_clean();
        let connection = self.connection.take().filter(is_clean);
        self.pool.keep(&self.node, connection);
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}
