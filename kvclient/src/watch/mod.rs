//! The changes of all shards, as one stream: each shard's in its own order, merged as they arrive.
//!
//! Each shard is followed by its own `ShardWatch`. A shard's next piece is asked for when what it has brought is handed
//! out, so that a watch holds one piece per shard, however slowly its events are taken; the rest waits in the buffers
//! of the connections, and then in the shard's log.
//!
//! There are no tasks: whatever a watch does, it does while it is polled. One that is dropped closes its connections.

mod shard;

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_core::{Stream, future::BoxFuture};
use futures_util::stream::FuturesUnordered;

use self::shard::{ShardWatch, Until};
use crate::{
    error::{Error, ErrorKind, Result},
    intent::SharedSession,
    key::{Key, KeyError, MAX_KEY_BYTES},
    policy::Consistency,
    position::Position,
    router::Router,
    session::Session,
    shard_reader::{ReaderOptions, ShardReader},
    wire::{
        log::Effect,
        watch::{WatchFrom, WatchItem},
    },
};

/// A minute: a node restarts in a few seconds; a shard that nobody serves for so long is something to be told.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Nodes say where they are every 5 s: two such words are missed, and some slack.
const SILENCE: Duration = Duration::from_secs(12);

/// One change of one key.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use futures_util::TryStreamExt;
///
/// let mut changes = kv.watch("user:");
/// while let Some(event) = changes.try_next().await? {
///     let age = event.time.elapsed().unwrap_or_default();
///     println!("{} at {} ({:.1?} ago): {}", event.shard, event.position, age, event.key);
///     // By this, whoever stores what it makes of an event knows an event that comes a second time.
///     let _place = (event.shard_idx, event.position);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Name of the shard that owns the key.
    pub shard: Arc<str>,
    /// Its number, as in [`Session`].
    pub shard_idx: u16,
    /// Place of the change in the shard's log. Events of one shard come in this order; those of different shards in
    /// none.
    pub position: Position,
    /// The key.
    pub key: Key,
    /// What became of it.
    pub change: Change,
    /// When it was written, by the shard's clock.
    pub time: SystemTime,
}

/// What became of a key.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::collections::HashMap;
/// use futures_util::TryStreamExt;
/// use kvclient::Change;
///
/// let mut copy = HashMap::new();
/// let mut changes = kv.watch("price:").from_start();
/// while let Some(event) = changes.try_next().await? {
///     match event.change {
///         Change::Put { value, .. } => _ = copy.insert(event.key, value),
///         Change::Delete { by_expiry } => {
///             copy.remove(&event.key);
///             println!("{} is gone{}", event.key, if by_expiry { ": its time was over" } else { "" });
///         }
///         Change::Expire { .. } => {} // the deletion will be told when it is there
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has this value from now on.
    Put {
        /// The whole value.
        value: Bytes,
        /// When it will be absent; `None`: never.
        expires_at: Option<SystemTime>,
    },
    /// It is absent from now on.
    Delete {
        /// Whether its time had come, rather than somebody removed it.
        by_expiry: bool,
    },
    /// Its value stays, its expiry changes.
    Expire {
        /// When it will be absent; `None`: never.
        expires_at: Option<SystemTime>,
    },
}

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

type Fetch = BoxFuture<'static, (usize, Result<Box<ShardWatch>>)>;

/// The feeds of all shards.
struct Feeds {
    /// Shards that have brought something; `None` while one is being fetched.
    shards: Vec<Option<Box<ShardWatch>>>,
    fetching: FuturesUnordered<Fetch>,
    /// Places of the shards that have brought something: each hands out one event, then the next one.
    turns: VecDeque<usize>,
    /// Shards not listened to yet.
    unready: Vec<usize>,
}

impl Feeds {
    fn new(feeds: impl Iterator<Item = Box<ShardWatch>>) -> Self {
        let mut all = Self {
            shards: Vec::new(),
            fetching: FuturesUnordered::new(),
            turns: VecDeque::new(),
            unready: Vec::new(),
        };
        for (place, feed) in feeds.enumerate() {
            all.shards.push(None);
            all.unready.push(place);
            all.fetch(place, feed);
        }
        all
    }

    fn fetch(&mut self, place: usize, feed: Box<ShardWatch>) {
        let fetch = async move { (place, feed.fetch().await) };
        self.fetching.push(Box::pin(fetch));
    }

    fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
        position: &mut Session,
    ) -> Poll<Result<()>> {
        while !self.unready.is_empty() {
            ready!(self.poll_fetched(context, position))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_event(
        &mut self,
        context: &mut Context<'_>,
        position: &mut Session,
    ) -> Poll<Result<Option<Event>>> {
        loop {
            while let Some(place) = self.turns.pop_front() {
                if let Some(event) = self.take_turn(place, position) {
                    return Poll::Ready(Ok(Some(event)));
                }
            }
            if self.fetching.is_empty() {
                // All shards are over.
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_fetched(context, position))?;
        }
    }

    /// Lets one more shard bring something.
    fn poll_fetched(
        &mut self,
        context: &mut Context<'_>,
        position: &mut Session,
    ) -> Poll<Result<()>> {
        // Not empty: a shard is fetched, or it has its turn first, or it is over.
        let fetched = ready!(Pin::new(&mut self.fetching).poll_next(context));
        let Some((place, feed)) = fetched else {
            return Poll::Pending;
        };
        let mut feed = feed?;
        self.unready.retain(|unready| *unready != place);
        // Positions that lead are no events: where it listens is known at once.
        while let Some(at) = feed.pop_position() {
            position.advance(feed.reader().shard_idx(), at);
        }
        self.give_turn(place, feed);
        Poll::Ready(Ok(()))
    }

    fn give_turn(&mut self, place: usize, feed: Box<ShardWatch>) {
        if feed.is_empty() {
            if !feed.is_over() {
                self.fetch(place, feed);
            }
            return;
        }
        self.shards[place] = Some(feed);
        self.turns.push_back(place);
    }

    /// The next event of a shard; `None` if it brought only positions.
    fn take_turn(&mut self, place: usize, position: &mut Session) -> Option<Event> {
        let mut feed = self.shards[place].take()?;
        let mut event = None;
        while event.is_none()
            && let Some(item) = feed.pop()
        {
            let (at, found) = event_of(item, feed.reader());
            position.advance(feed.reader().shard_idx(), at);
            event = found;
        }
        self.give_turn(place, feed);
        event
    }
}

/// Where an item leads, and its event if it has one.
fn event_of(item: WatchItem, shard: &ShardReader) -> (Position, Option<Event>) {
    let (position, key, effect, time_ms) = match item {
        WatchItem::Position { at, .. } | WatchItem::Truncated { position: at, .. } => {
            return (at, None);
        }
        WatchItem::Record {
            position,
            key,
            effect,
            time_ms,
        } => (position, key, effect, time_ms),
    };
    let change = match effect {
        Effect::Put {
            value,
            expires_at_ms,
        } => Change::Put {
            value,
            expires_at: expires_at_ms.map(time),
        },
        Effect::Delete { by_expiry } => Change::Delete { by_expiry },
        Effect::Expire { expires_at_ms } => Change::Expire {
            expires_at: expires_at_ms.map(time),
        },
        Effect::EpochStart { .. } => return (position, None),
    };
    let event = Event {
        shard: shard.shard().clone(),
        shard_idx: shard.shard_idx(),
        position,
        key,
        change,
        time: time(time_ms),
    };
    (position, Some(event))
}

/// A point in time; one that is out of range is the last that a clock may show in practice.
fn time(unix_ms: u64) -> SystemTime {
    const YEAR_10000_MS: u64 = 253_402_300_800_000;
    SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms.min(YEAR_10000_MS))
}
