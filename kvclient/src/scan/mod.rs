//! All shards' entries in one order, as a stream.
//!
//! Each shard is read by its own `ShardScan`; here they are merged. An entry leaves when every shard that is not at its
//! end has shown its next one, since only then is it known to be the first. So the stream waits for the shard whose
//! turn it is, and for no other: the rest wait in the buffers of their connections, which bounds what a scan holds
//! (one piece of a body per shard, at least one entry) however large the range and however slow its reader.
//!
//! There are no tasks: whatever a scan does, it does while it is polled. One that is dropped closes its
//! connections.

mod shard;

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::{Stream, future::BoxFuture};
use futures_util::stream::FuturesUnordered;

use self::shard::ShardScan;
use crate::{
    error::{Error, ErrorKind, Result},
    intent::SharedSession,
    key::{Key, KeyError, MAX_KEY_BYTES},
    policy::Consistency,
    position::Position,
    router::Router,
    shard_reader::{ReaderOptions, ShardReader},
    wire::scan::{ScanEntry, ScanRequest, after_key, parse_after},
};

/// An entry that a [`Scan`] brings.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use futures_util::TryStreamExt;
///
/// let mut entries = kv.scan("page:");
/// let mut seen_bytes = 0;
/// while let Some(entry) = entries.try_next().await? {
///     println!("{}, written at {}, for another {:?}", entry.key, entry.position, entry.ttl);
///     seen_bytes += entry.value.as_deref().map_or(0, <[u8]>::len);
///     if seen_bytes > 1 << 20 {
///         println!("enough for now; to go on behind it: {}", entry.token());
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedEntry {
    /// Its key.
    pub key: Key,
    /// Its value; `None` only where [`Scan::keys_only`] leaves values out.
    pub value: Option<Bytes>,
    /// Where it was last written: for [`PutOptions::if_match`](crate::PutOptions::if_match).
    pub position: Position,
    /// How long it still lives, in whole milliseconds; `None`: for ever.
    pub ttl: Option<Duration>,
}

impl ScannedEntry {
    /// Text that lets a scan of otherwise equal settings go on behind this entry: for [`Scan::after`].
    pub fn token(&self) -> String {
        after_key(self.key.as_bytes())
    }
}

/// The entries of a range of keys, in the order of their bytes, over all shards: a stream.
///
/// Made by [`Client::scan`](crate::Client::scan). Its settings count until it is first polled; until then nothing is
/// asked of any node.
///
/// It is no snapshot: a key that is there throughout comes exactly once; one that comes, goes or changes meanwhile may
/// show either state. It has no gaps: where a shard cannot be read to its end, also from another node and after pauses,
/// the stream brings an error and ends. What it shows counts as seen by the client's session.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::time::Duration;
/// use futures_util::TryStreamExt;
/// use kvclient::Consistency;
///
/// let mut page = kv
///     .scan("log:")
///     .start("log:2026-01") // this one too
///     .end("log:2026-02") // but not this one
///     .reverse() // the newest first
///     .keys_only()
///     .limit(50)
///     .consistency(Consistency::Eventual)
///     .timeout(Duration::from_secs(2));
/// while let Some(entry) = page.try_next().await? {
///     println!("{}", entry.key);
/// }
/// if let Some(token) = page.token() {
///     // The next page, perhaps in another process: the same range and direction, behind the last entry.
///     let next = kv.scan("log:").start("log:2026-01").end("log:2026-02").reverse().after(token).limit(50);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// One item, and the last: [`ErrorKind::Invalid`]: change the range or the token. [`ErrorKind::Unavailable`]: no node of
/// the shard named went on in time; go on later, from [`Self::token`]. [`ErrorKind::Conflict`]: a position this session
/// had seen is lost, see [`Error::lost_position`]. [`ErrorKind::Corrupt`]: damaged data. [`ErrorKind::Misrouted`]:
/// nodes and client have maps that contradict each other.
///
/// # Cancel safety
/// May be dropped at any time; its connections are closed and nothing is left behind. A future that waits for the next
/// entry may be dropped too, and no entry is lost.
pub struct Scan {
    options: ReaderOptions,
    request: ScanRequest,
    limit: usize,
    state: State,
    /// The last entry given out.
    last: Option<Key>,
}

enum State {
    New,
    Running(Merge),
    Ended,
}

impl Scan {
    pub(crate) fn new(router: Arc<Router>, session: SharedSession, prefix: &[u8]) -> Self {
        let client = &router.options;
        let options = ReaderOptions {
            op: "scan",
            consistency: client.consistency,
            timeout: client.timeout,
            silence: client.attempt_timeout,
            session,
            router,
        };
        Self {
            options,
            request: ScanRequest {
                prefix: Bytes::copy_from_slice(prefix),
                ..ScanRequest::default()
            },
            limit: usize::MAX,
            state: State::New,
            last: None,
        }
    }

    /// Leaves values out: less to read and to send.
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// The last key comes first.
    pub fn reverse(mut self) -> Self {
        self.request.reverse = true;
        self
    }

    /// No key before this one, in the order of bytes, whichever way the scan goes. Default, and if empty: none.
    pub fn start(mut self, key: impl AsRef<[u8]>) -> Self {
        self.request.start = Bytes::copy_from_slice(key.as_ref());
        self
    }

    /// No key at this one or behind it, in the order of bytes, whichever way the scan goes. Default, and if empty: none.
    pub fn end(mut self, key: impl AsRef<[u8]>) -> Self {
        self.request.end = Bytes::copy_from_slice(key.as_ref());
        self
    }

    /// Most entries, over all shards. Default: all there are.
    pub fn limit(mut self, entries: usize) -> Self {
        self.limit = entries;
        self
    }

    /// How new the entries must be, as of any read. Default: what the client was built with, by default
    /// [`Consistency::ReadYourWrites`].
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.options.consistency = consistency;
        self
    }

    /// Goes on behind the place where an earlier scan was, of otherwise equal settings: [`Self::token`], or an
    /// entry's own.
    pub fn after(mut self, token: impl Into<String>) -> Self {
        self.request.after = Some(token.into());
        self
    }

    /// Longest wait for a shard's next entries, all attempts and pauses included. Default: what the client was built
    /// with, by default 5 s. The whole may take as long as it takes: a deadline for it would depend on how much there
    /// is, and on how fast its entries are taken. A node that is silent for longer than
    /// [`ClientBuilder::attempt_timeout`](crate::ClientBuilder::attempt_timeout) is left for another one.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Text that lets another scan of otherwise equal settings go on behind the last entry this one gave out, at any
    /// time, in any process: for [`Self::after`]. `None` before the first entry of a scan that began at the front.
    pub fn token(&self) -> Option<String> {
        let last = self.last.as_ref();
        last.map(|key| after_key(key.as_bytes()))
            .or_else(|| self.request.after.clone())
    }

    /// Starts to read all shards.
    fn begin(&self) -> Result<Merge> {
        self.check()?;
        let map = self.options.router.refresher.routes().map().clone();
        let shards = map.shards();
        let scans = shards.iter().map(|shard| {
            let reader = ShardReader::new(self.options.clone(), shard);
            ShardScan::new(reader, self.request.clone(), self.limit, shards.len())
        });
        Ok(Merge::new(scans.map(Box::new), self.request.reverse))
    }

    fn check(&self) -> Result<()> {
        let invalid = || Error::new(ErrorKind::Invalid, self.options.op);
        let request = &self.request;
        let bounds = [&request.prefix, &request.start, &request.end];
        let len_bytes = bounds.map(|key| key.len()).into_iter().max().unwrap_or(0);
        if len_bytes > MAX_KEY_BYTES {
            return Err(invalid().with_source(KeyError::TooLong { len_bytes }));
        }
        match &request.after {
            Some(token) if parse_after(token).is_none() => {
                Err(invalid().with_source(format!("{token:?} is not the token of a scan")))
            }
            _ => Ok(()),
        }
    }

    /// Ends it, with what is to be said last.
    fn finish(&mut self, last: Option<Error>) -> Poll<Option<Result<ScannedEntry>>> {
        self.state = State::Ended;
        Poll::Ready(last.map(Err))
    }
}

impl Stream for Scan {
    type Item = Result<ScannedEntry>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let State::New = this.state {
            match this.begin() {
                Ok(merge) => this.state = State::Running(merge),
                Err(error) => return this.finish(Some(error)),
            }
        }
        let State::Running(merge) = &mut this.state else {
            return Poll::Ready(None);
        };
        let entry = match ready!(merge.poll_entry(context)) {
            Some(Ok(entry)) => entry,
            Some(Err(error)) => return this.finish(Some(error)),
            None => return this.finish(None),
        };
        this.limit -= 1;
        if this.limit == 0 {
            this.state = State::Ended;
        }
        this.last = Some(entry.key.clone());
        Poll::Ready(Some(Ok(ScannedEntry {
            key: entry.key,
            value: entry.value,
            position: entry.position,
            ttl: entry.ttl_ms.map(Duration::from_millis),
        })))
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scan(\"{}\")", self.request.prefix.escape_ascii())
    }
}

type Fetch = BoxFuture<'static, (usize, Result<Box<ShardScan>>)>;

/// Puts the shards' entries into one order.
struct Merge {
    /// Shards that have entries ready or are at their end; `None` while one is being fetched.
    shards: Vec<Option<Box<ShardScan>>>,
    /// Shards whose next entry is not known yet. Nothing can leave before they all are.
    fetching: FuturesUnordered<Fetch>,
    /// The next entry of each other shard.
    heads: BinaryHeap<Head>,
    reverse: bool,
}

impl Merge {
    fn new(scans: impl Iterator<Item = Box<ShardScan>>, reverse: bool) -> Self {
        let mut merge = Self {
            shards: Vec::new(),
            fetching: FuturesUnordered::new(),
            heads: BinaryHeap::new(),
            reverse,
        };
        for (place, scan) in scans.enumerate() {
            merge.shards.push(None);
            merge.fetch(place, scan);
        }
        merge
    }

    fn fetch(&mut self, place: usize, scan: Box<ShardScan>) {
        if scan.is_done() {
            return;
        }
        let fetch = async move { (place, scan.fetch().await) };
        self.fetching.push(Box::pin(fetch));
    }

    fn poll_entry(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ScanEntry>>> {
        while let Some((place, fetched)) = ready!(Pin::new(&mut self.fetching).poll_next(context)) {
            match fetched {
                Ok(scan) => self.fetched(place, scan),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(self.pop().map(Ok))
    }

    fn fetched(&mut self, place: usize, mut scan: Box<ShardScan>) {
        if let Some(entry) = scan.pop() {
            self.heads.push(Head {
                entry,
                place,
                reverse: self.reverse,
            });
            self.shards[place] = Some(scan);
        }
    }

    /// Takes the first entry; its shard's next one takes its place.
    fn pop(&mut self) -> Option<ScanEntry> {
        let mut first = self.heads.peek_mut()?;
        let place = first.place;
        if let Some(next) = self.shards[place].as_mut().and_then(|scan| scan.pop()) {
            return Some(std::mem::replace(&mut first.entry, next));
        }
        let entry = PeekMut::pop(first).entry;
        if let Some(scan) = self.shards[place].take() {
            self.fetch(place, scan);
        }
        Some(entry)
    }
}

/// The next entry of a shard; the greatest is the one to leave first.
struct Head {
    entry: ScanEntry,
    place: usize,
    reverse: bool,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.entry.key.cmp(&other.entry.key);
        match self.reverse {
            true => order,
            false => order.reverse(),
        }
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}
