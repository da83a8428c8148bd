//! The changes of all shards, as one stream: each shard's in its own order, merged as they arrive.
//!
//! Each shard is followed by its own `ShardWatch`, `Feeds` takes turns between them, and [`Event`] is what a caller gets
//! to see.
//!
//! There are no tasks: whatever a watch does, it does while it is polled. One that is dropped closes its connections.

mod event;
mod feeds;
mod shard;

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;

pub use self::event::{Change, Event};
use self::{
    feeds::Feeds,
    shard::{ShardWatch, Until},
};
use crate::{
    error::{Error, ErrorKind, Result},
    intent::SharedSession,
    key::{KeyError, MAX_KEY_BYTES},
    policy::Consistency,
    router::Router,
    session::Session,
    shard_reader::{ReaderOptions, ShardReader},
    wire::watch::WatchFrom,
};

/// A minute: a node restarts in a few seconds; a shard that nobody serves for so long is something to be told.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Nodes say where they are every 5 s: two such words are missed, and some slack.
const SILENCE: Duration = Duration::from_secs(12);

/// The changes of all keys with a prefix: a stream that does not end by itself.
///
/// Made by [`Client::watch`](crate::Client::watch). Its settings count until it is first polled; until then nothing is
/// asked of any node.
///
/// Every change comes exactly once, those of one shard in the order of its log, whatever node they are read from and
/// whichever nodes restart or fail meanwhile. Changes may come before the put that made them has returned. A read with
/// the same client sees at least what its watch has read.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::time::Duration;
/// use futures_util::TryStreamExt;
/// use kvclient::Session;
///
/// let mut changes = match std::fs::read_to_string("position") {
///     Ok(token) => kv.watch("user:").from(Session::from_token(&token).unwrap_or_default()),
///     Err(_) => kv.watch("user:").from_now(), // or from_start()
/// }
/// .timeout(Duration::from_secs(300)) // a shard may be away for five minutes
/// .silence(Duration::from_secs(15)); // a node may say nothing for so long
/// while let Some(event) = changes.try_next().await? {
///     println!("{}: {:?}", event.key, event.change);
///     // Dealt with: this is where to go on after a restart.
///     std::fs::write("position", changes.position().to_token()).expect("a file that can be written");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # From where
///
/// - By default, and with [`Self::from_now`], from the moment at which it listens: for all shards that is when
///   [`Self::ready`] has returned. A replica that is a little behind may tell what others wrote just before, too.
/// - [`Self::from`]: behind positions of an earlier watch, [`Self::position`], also in another process.
/// - [`Self::from_start`]: from the first record of each shard's log. Logs are cut ([`ErrorKind::Conflict`]).
///
/// To keep a copy of what is there, without a gap: start a watch, wait until it is ready, scan with the same client,
/// then follow the watch; what it tells may be contained in the scan already, which the positions of entries show.
///
/// # Errors
/// One item, and the last. [`ErrorKind::Conflict`]: the log of the shard named no longer has what comes next, or,
/// with [`Error::lost_position`], a disaster took it away; begin anew, as above. [`ErrorKind::Unavailable`]: no node of
/// the shard answered in time; go on later, [`Self::from`] where this one was. [`ErrorKind::Invalid`]: change the
/// prefix. [`ErrorKind::Corrupt`]: what came does not decode. [`ErrorKind::Misrouted`]: nodes and client have maps that
/// contradict each other.
///
/// # Cancel safety
/// May be dropped at any time; its connections are closed and nothing is left behind. A future that waits for the next
/// event may be dropped too, and no event is lost.
pub struct Watch {
    options: ReaderOptions,
    prefix: Bytes,
    from: From,
    until: Until,
    state: State,
    /// Where the events given out have led.
    position: Session,
}

/// Where a watch begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Now,
    /// Shards that are not in it: from their start.
    Behind(Session),
    Earliest,
}

enum State {
    New,
    Running(Feeds),
    Ended,
}

impl Watch {
    pub(crate) fn new(router: Arc<Router>, session: SharedSession, prefix: &[u8]) -> Self {
        let options = ReaderOptions {
            op: "watch",
            // "Now" is not before what this client has seen, whichever node it listens to.
            consistency: Consistency::ReadYourWrites,
            timeout: TIMEOUT,
            silence: SILENCE,
            session,
            router,
        };
        Self {
            options,
            prefix: Bytes::copy_from_slice(prefix),
            from: From::Now,
            until: Until::Dropped,
            state: State::New,
            position: Session::new(),
        }
    }

    /// Begins with what comes after the moment at which it listens; see [`Self::ready`]. The default.
    pub fn from_now(mut self) -> Self {
        self.position = Session::new();
        self.from = From::Now;
        self
    }

    /// Begins with the first record of each shard's log. That is everything there ever was only while the logs have
    /// never been cut.
    pub fn from_start(self) -> Self {
        self.from(Session::new())
    }

    /// Begins with the oldest record that each shard's log still has, however much of it has been cut: the past as far
    /// as nodes keep it (`--log-retention`). Where that is, [`Self::position`] says when [`Self::ready`] has returned.
    pub fn from_earliest(mut self) -> Self {
        self.position = Session::new();
        self.from = From::Earliest;
        self
    }

    /// Ends when all that is there has been told, instead of waiting for more: the stream gives `None` then. What is
    /// there is what the node of each shard that is listened to has when it is level; what this client has written or
    /// read is among it.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use futures_util::TryStreamExt;
    ///
    /// let mut past = kv.watch("user:1").from_earliest().until_level();
    /// while let Some(event) = past.try_next().await? {
    ///     println!("{} {} {:?}", event.position, event.key, event.change);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn until_level(mut self) -> Self {
        self.until = Until::Level;
        self
    }

    /// Goes on behind these positions: those of an earlier watch, or what a client has seen. A shard that they do not
    /// hold is watched from its start.
    pub fn from(mut self, positions: Session) -> Self {
        self.position = positions.clone();
        self.from = From::Behind(positions);
        self
    }

    /// Which nodes may be listened to. By default ([`Consistency::ReadYourWrites`]) any that has what this client has seen;
    /// [`Consistency::Primary`]: the primaries alone, so that nothing is behind what anybody was told of.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.options.consistency = consistency;
        self
    }

    /// Longest time that a shard may be without a node that answers, all attempts and pauses included. Default a
    /// minute: a node restarts in a few seconds; a shard that nobody serves for so long is something to be told.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// How long a node may be silent before another one is listened to. Default 12 s: nodes say where they are every
    /// 5 s, so two such words are missed.
    pub fn silence(mut self, silence: Duration) -> Self {
        self.options.silence = silence;
        self
    }

    /// Waits until it listens to all shards: what is written after that, by anybody, is told, also if the watch began
    /// "now". No event is lost or handed out meanwhile.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use futures_util::TryStreamExt;
    ///
    /// let mut changes = kv.watch("config:");
    /// changes.ready().await?;
    /// // Whatever is written from here on is told: nothing falls between what is read now and the first event.
    /// let entries: Vec<_> = kv.scan("config:").try_collect().await?;
    /// while let Some(event) = changes.try_next().await? {
    ///     println!("{} has changed", event.key);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As of the stream, which then has ended. [`ErrorKind::Unavailable`] also if it had ended before.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn ready(&mut self) -> Result<()> {
        poll_fn(|context| self.poll_ready(context)).await
    }

    /// Where the events given out have led, by shard: for [`Self::from`], at any time, also after an error, and as text
    /// ([`Session::to_token`]). It moves on with time even if the prefix has no events. A shard is missing until it
    /// is listened to.
    pub fn position(&self) -> Session {
        self.position.clone()
    }

    /// Starts to listen to all shards.
    fn begin(&self) -> Result<Feeds> {
        let len_bytes = self.prefix.len();
        if len_bytes > MAX_KEY_BYTES {
            let error = Error::new(ErrorKind::Invalid, self.options.op);
            return Err(error.with_source(KeyError::TooLong { len_bytes }));
        }
        let map = self.options.router.refresher.routes().map().clone();
        let feeds = map.shards().iter().map(|shard| {
            let from = match &self.from {
                From::Now => WatchFrom::Now,
                From::Behind(session) => {
                    WatchFrom::After(session.position(shard.idx).unwrap_or_default())
                }
                From::Earliest => WatchFrom::Earliest,
            };
            let reader = ShardReader::new(self.options.clone(), shard);
            let prefix = self.prefix.clone();
            Box::new(ShardWatch::new(reader, prefix, from, self.until))
        });
        Ok(Feeds::new(feeds))
    }

    /// The feeds, started if they were not; `None` after the end.
    fn feeds(&mut self) -> Result<Option<(&mut Feeds, &mut Session)>> {
        if let State::New = self.state {
            self.state = State::Running(self.begin().inspect_err(|_| self.state = State::Ended)?);
        }
        Ok(match &mut self.state {
            State::Running(feeds) => Some((feeds, &mut self.position)),
            State::New | State::Ended => None,
        })
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let op = self.options.op;
        let Some((feeds, position)) = self.feeds()? else {
            let error = Error::new(ErrorKind::Unavailable, op);
            return Poll::Ready(Err(error.with_source("this watch has ended")));
        };
        let ready = ready!(feeds.poll_ready(context, position));
        if ready.is_err() {
            self.state = State::Ended;
        }
        Poll::Ready(ready)
    }
}

impl Stream for Watch {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some((feeds, position)) = self.feeds()? else {
            return Poll::Ready(None);
        };
        let event = ready!(feeds.poll_event(context, position)).transpose();
        if !matches!(event, Some(Ok(_))) {
            self.state = State::Ended;
        }
        Poll::Ready(event)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.prefix.escape_ascii();
        write!(f, "Watch(\"{prefix}\", {})", self.position)
    }
}
