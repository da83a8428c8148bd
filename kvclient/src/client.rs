//! [`Client`]: what programs use. Everything below it is put together here, and nothing below it knows it.
//!
//! Each method makes an op, has it carried out by `execute`, and gives the result the type that its caller wants.
//! A client owns no task: refreshes of the map and batches of concurrent ops run as short tasks on the runtime of
//! whoever causes them. How a client comes about is [`builder`](crate::builder)'s.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    entry::{
        Entry, Route, Written, checked, counter, delete_op, entry, put_op, ttl_ms, written,
        written_if_there,
    },
    error::{Error, ErrorKind, Result},
    execute::Walk,
    history::CallHistory,
    intent::{Intent, LONGEST, Scope, SharedSession},
    map_changes::MapChanges,
    options::{DeleteOptions, GetOptions, PutOptions},
    router::Router,
    scan::Scan,
    session::Session,
    shard_map::ShardMap,
    slot::Slot,
    stats::Stats,
    watch::Watch,
    wire::batch::{Ack, Action, Op},
};

/// A smart router over all nodes of a cluster.
///
/// Made by [`Self::from_file`], [`Self::connect`], or [`Self::builder`] if settings are to be changed. Cheap to clone;
/// clones share connections, the map, and the session.
///
/// Unless told otherwise, its reads never show less than this client or a clone of it wrote or read before, whichever
/// node answers; see [`Consistency`](crate::Consistency). What other clients write shows up when it has reached the
/// node that answers, some milliseconds later. For users who should not wait for each other's writes:
/// [`Self::with_session`].
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use tokio::task::JoinSet;
///
/// let mut workers = JoinSet::new();
/// for _ in 0..4 {
///     let kv = kv.clone(); // a clone per task: same connections, same map, same session
///     workers.spawn(async move { kv.incr("jobs:done", 1).await });
/// }
/// for done in workers.join_all().await {
///     println!("{} jobs are done", done?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    router: Arc<Router>,
    session: SharedSession,
    history: Option<CallHistory>,
    /// Who must have synced a write that does not say.
    ack: Option<Ack>,
}

impl Client {
    pub(crate) fn new(router: Router) -> Self {
        Self {
            ack: router.options.ack,
            router: Arc::new(router),
            session: SharedSession::default(),
            history: None,
        }
    }

    /// Reads a value; `None` if the key is absent or has expired.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// match kv.get("greeting").await? {
    ///     Some(value) => println!("{}", String::from_utf8_lossy(&value)), // a value is bytes
    ///     None => println!("nobody has said anything yet"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: change the key. [`ErrorKind::Unavailable`]: no node answered in time; retry later.
    /// [`ErrorKind::Conflict`]: a position this session had seen is lost, see [`Error::lost_position`]; it is said
    /// once, and the next read goes through. [`ErrorKind::Corrupt`]: the entry is damaged.
    /// [`ErrorKind::Misrouted`]: nodes and client have maps that contradict each other; check them.
    /// [`ErrorKind::Denied`]: the nodes do not admit this program.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let walk = self.read(key.as_ref(), GetOptions::new())?;
        Ok(walk.run().await?.value)
    }

    /// Reads an entry, that is the value with its position and expiry, under terms of its own; `None` if the key is
    /// absent or has expired.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::{Consistency, GetOptions};
    ///
    /// let lenient = GetOptions::new().consistency(Consistency::MaxLag(Duration::from_secs(2)));
    /// if let Some(entry) = kv.get_with("weather:oslo", lenient).await? {
    ///     println!("{} bytes, written at {}, gone in {:?}", entry.value.len(), entry.position, entry.ttl);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`]; also [`ErrorKind::Invalid`] if [`GetOptions::node`] is no node of the key's shard.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn get_with(
        &self,
        key: impl AsRef<[u8]>,
        options: GetOptions,
    ) -> Result<Option<Entry>> {
        let walk = self.read(key.as_ref(), options)?;
        entry(walk.run().await?)
    }

    /// Stores a value, whether or not the key was there. It is synced to the primary's disk when this returns, and
    /// has no expiry, even if the entry before had one.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// let written = kv.put("notice", "Back at noon").await?;
    /// println!("on the primary's disk, at {} of its shard's log", written.position);
    /// let photo: Vec<u8> = vec![0xff; 100_000];
    /// kv.put("photo:7", photo).await?; // taken over, not copied
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: key or value over its limit. [`ErrorKind::Full`]: the shard takes no more.
    /// [`ErrorKind::Unavailable`]: retry later, but look at [`Error::outcome`] first: `Unknown` means that it may
    /// have been stored. [`ErrorKind::Misrouted`] and [`ErrorKind::Denied`]: as for [`Self::get`]; not stored.
    /// [`ErrorKind::Corrupt`]: the answer does not decode; it may have been stored.
    ///
    /// # Cancel safety
    /// The value may be stored, now or later.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written> {
        self.put_with(key, value, PutOptions::new()).await
    }

    /// Stores a value under terms of its own.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::{ErrorKind, PutOptions};
    ///
    /// // A lock: whoever stores it first has it, and it ends by itself.
    /// let lease = PutOptions::new().if_absent().ttl(Duration::from_secs(30));
    /// match kv.put_with("lock:report", "worker 3", lease).await {
    ///     Ok(lock) => println!("ours since {}", lock.position),
    ///     Err(error) if error.kind() == ErrorKind::Conflict => println!("somebody else has it"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::put`]; also [`ErrorKind::Conflict`] if the condition does not hold: [`Error::position`] is the
    /// current entry's, if there is one. Read again, decide again.
    ///
    /// # Cancel safety
    /// As [`Self::put`].
    pub async fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<Written> {
        let op = put_op(key.as_ref(), value.into(), &options)?;
        let walk = self.write(op, options.timeout, options.ack)?;
        written(walk.run().await?)
    }

    /// Removes a key; says whether it was there.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// if !kv.delete("login:9f3").await? {
    ///     println!("was logged out already");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::put`].
    ///
    /// # Cancel safety
    /// The key may be removed, now or later.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let removed = self.delete_with(key, DeleteOptions::new()).await?;
        Ok(removed.is_some())
    }

    /// Removes a key under terms of its own; `None` if it was not there. With a condition, a key that is not there is
    /// an [`ErrorKind::Conflict`].
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use kvclient::{DeleteOptions, PutOptions};
    ///
    /// let lock = kv.put_with("lock:report", "worker 3", PutOptions::new().if_absent()).await?;
    /// // ... and when the work is done: only that lock. If somebody else has it by now, ErrorKind::Conflict.
    /// let ours = DeleteOptions::new().if_match(lock.position);
    /// kv.delete_with("lock:report", ours).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::put_with`].
    ///
    /// # Cancel safety
    /// As [`Self::delete`].
    pub async fn delete_with(
        &self,
        key: impl AsRef<[u8]>,
        options: DeleteOptions,
    ) -> Result<Option<Written>> {
        let op = delete_op(key.as_ref(), &options)?;
        let walk = self.write(op, options.timeout, options.ack)?;
        written_if_there(walk.run().await?)
    }

    /// Adds to a counter, in one step on the node, and returns its new value. An absent key counts as 0; the expiry
    /// is kept. A counter is a value like any other: an i64 as decimal text.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// let ticket = kv.incr("tickets", 1).await?; // 1, 2, 3 ...: no two callers get the same
    /// let left = kv.incr("stock:pears", -3).await?;
    /// println!("ticket {ticket}, {left} pears left");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::put`]; also [`ErrorKind::Conflict`] if the value is no decimal i64 or would leave its range. After
    /// an outcome of `Unknown`, adding again may count twice.
    ///
    /// # Cancel safety
    /// It may be added, now or later.
    pub async fn incr(&self, key: impl AsRef<[u8]>, delta: i64) -> Result<i64> {
        let key = checked(key.as_ref(), "incr")?;
        let walk = self.change(Op::new(key, Action::Incr { delta }))?;
        let result = walk.run().await?;
        counter(&result)
    }

    /// Sets how long an entry lives from now on, in whole milliseconds; says whether it was there.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    ///
    /// // A login that ends after half an hour without a request.
    /// if !kv.touch("login:9f3", Duration::from_secs(30 * 60)).await? {
    ///     println!("please log in again");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::put`]; also [`ErrorKind::Invalid`] if `ttl` is less than 1 ms.
    ///
    /// # Cancel safety
    /// The expiry may be set, now or later.
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        let key = checked(key.as_ref(), "touch")?;
        let ttl_ms = ttl_ms("touch", ttl)?;
        let walk = self.change(Op::new(key, Action::Expire { ttl_ms }))?;
        let result = walk.run().await?;
        Ok(result.status != 404)
    }

    /// Removes an entry's expiry; says whether the entry was there.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::PutOptions;
    ///
    /// kv.put_with("draft:7", "Dear", PutOptions::new().ttl(Duration::from_secs(3_600))).await?;
    /// if kv.persist("draft:7").await? {
    ///     println!("saved: it stays for ever");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::put`].
    ///
    /// # Cancel safety
    /// The expiry may be removed, now or later.
    pub async fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = checked(key.as_ref(), "persist")?;
        let walk = self.change(Op::new(key, Action::Persist))?;
        let result = walk.run().await?;
        Ok(result.status != 404)
    }

    /// All entries whose keys begin with a prefix, over all shards in the order of their keys: a stream, see [`Scan`]
    /// for its settings and its errors. An empty prefix: all entries.
    ///
    /// ```no_run
    /// # async fn users(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use futures_util::TryStreamExt;
    ///
    /// let mut users = kv.scan("user:");
    /// while let Some(user) = users.try_next().await? {
    ///     println!("{}: {:?}", user.key, user.value);
    /// }
    /// let newest: Vec<_> = kv.scan("log:").reverse().keys_only().limit(10).try_collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::new(self.router.clone(), self.session.clone(), prefix.as_ref())
    }

    /// All changes of keys that begin with a prefix, over all shards: a stream, see [`Watch`] for its settings and its
    /// errors. An empty prefix: all changes.
    ///
    /// ```no_run
    /// # async fn follow(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use futures_util::TryStreamExt;
    /// use kvclient::{Change, Session};
    ///
    /// let mut changes = kv.watch("user:");
    /// changes.ready().await?; // it listens: what is written from here on is told
    /// kv.put("user:1", "Ada").await?;
    /// while let Some(event) = changes.try_next().await? {
    ///     match event.change {
    ///         Change::Put { value, .. } => println!("{} is {value:?} now", event.key),
    ///         Change::Delete { .. } => println!("{} is gone", event.key),
    ///         _ => {}
    ///     }
    ///     let token = changes.position().to_token(); // keep it, to go on here another time:
    ///     let _later = kv.watch("user:").from(Session::from_token(&token).unwrap_or_default());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, prefix: impl AsRef<[u8]>) -> Watch {
        Watch::new(self.router.clone(), self.session.clone(), prefix.as_ref())
    }

    /// Who owns a key, by the map in force. Asks nobody.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use kvclient::Client;
    ///
    /// # let text = "[[shards]]\nname = \"all\"\nidx = 0\naddress = \"localhost:8080\"\n";
    /// # let map = kvclient::shard_map::toml::parse(text, "sharding.toml").expect("a map");
    ///
    /// let kv = Client::builder(map).build()?;
    /// let route = kv.route("user:1")?;
    /// assert_eq!((route.shard.as_str(), route.primary.port()), ("all", 8080));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: change the key.
    pub fn route(&self, key: impl AsRef<[u8]>) -> Result<Route> {
        let slot = Slot::of(&checked(key.as_ref(), "route")?);
        let map = self.map();
        let shard = map.shard_of_slot(slot);
        let replicas = shard.replicas.iter().map(|node| node.address.clone());
        Ok(Route {
            slot,
            shard: shard.name.clone(),
            primary: shard.primary.address.clone(),
            replicas: replicas.collect(),
        })
    }

    /// The map in force.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use kvclient::Client;
    ///
    /// # let text = "[[shards]]\nname = \"all\"\nidx = 0\naddress = \"localhost:8080\"\n";
    /// # let map = kvclient::shard_map::toml::parse(text, "sharding.toml").expect("a map");
    ///
    /// let kv = Client::builder(map).build()?;
    /// for shard in kv.map().shards() {
    ///     println!("{}: slots {}, primary {}", shard.name, shard.slots_text(), shard.primary.address);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn map(&self) -> Arc<ShardMap> {
        self.router.refresher.routes().map().clone()
    }

    /// The map in force, then each newer one as this client adopts it: a stream that ends with the last clone of this
    /// client and holds nothing back. Of several changes between two looks only the last one shows.
    pub fn map_changes(&self) -> MapChanges {
        MapChanges::new(self.router.refresher.maps())
    }

    /// Asks nodes for their map now and adopts it if it is newer. Nobody needs to: ops notice a newer map.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// kv.refresh().await?; // the nodes have been given a new map just now
    /// println!("from here on: map {}", kv.map().identity());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: no node answered; the map in force stays.
    ///
    /// # Cancel safety
    /// May be dropped; the refresh goes on.
    pub async fn refresh(&self) -> Result<()> {
        let deadline = Instant::now() + self.router.options.timeout.min(LONGEST);
        let refreshed = self.router.refresher.refresh(None, deadline).await;
        refreshed.map_err(|error| Error::new(ErrorKind::Unavailable, "refresh").with_source(error))
    }

    /// A copy of what this client has seen so far: to be resumed elsewhere, by [`Self::with_session`]. As text:
    /// [`Session::to_token`].
    pub fn session(&self) -> Session {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.clone()
    }

    /// A client like this one whose reads and writes belong to a session of their own, which starts as given:
    /// empty for a new user, or one read from a token. Shares this client's connections, so it costs next to nothing.
    ///
    /// ```no_run
    /// # async fn request(kv: kvclient::Client, cookie: &str) -> kvclient::Result<String> {
    /// use kvclient::Session;
    ///
    /// // One request of a web application: the user sees at least what their last request saw.
    /// let session = Session::from_token(cookie).unwrap_or_default();
    /// let kv = kv.with_session(session);
    /// kv.put("cart:7", "3 apples").await?;
    /// Ok(kv.session().to_token()) // for the next request
    /// # }
    /// ```
    pub fn with_session(&self, session: Session) -> Self {
        Self {
            session: Arc::new(session.into()),
            ..self.clone()
        }
    }

    /// A client like this one that knows what this one has seen so far; from here on neither learns what the other
    /// sees. (A clone shares its session.)
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// kv.put("rate", "7").await?;
    /// let report = kv.fork(); // sees that rate at least, and waits for nothing that `kv` writes later
    /// println!("{:?}", report.get("rate").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fork(&self) -> Self {
        self.with_session(self.session())
    }

    /// Makes this client's reads show at least what another session has seen, too.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use kvclient::Session;
    ///
    /// // A message from another service carries what that one had seen when it sent it.
    /// let theirs = Session::from_token("kv1_0.3.1207_2.1.9").unwrap_or_default();
    /// kv.merge_session(&theirs);
    /// let order = kv.get("order:12").await?; // at least as new as what they read or wrote
    /// # Ok(())
    /// # }
    /// ```
    pub fn merge_session(&self, other: &Session) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.merge(other);
    }

    /// A client like this one whose ops write down every attempt: which node, why that one, how long, how it ended.
    /// Shares this client's session and connections.
    pub fn with_history(&self, history: &CallHistory) -> Self {
        Self {
            history: Some(history.clone()),
            ..self.clone()
        }
    }

    /// A client like this one whose writes wait for others than the primary too, but for those that say otherwise:
    /// counters, [`Self::touch`], [`Self::update`] and whatever else has no options of its own. `None`: for the primary
    /// alone. Shares this client's session and connections.
    ///
    /// With too few replicas there, a write is tried again until its time is over and then fails as "not applied", the
    /// source naming those that are away. A write that reached the primary and not enough replicas is
    /// [`Outcome::Unknown`](crate::Outcome::Unknown), after its repeats under its request id: readers see it, and the
    /// replicas may have it yet.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use kvclient::{Ack, PutOptions};
    ///
    /// let safe = kv.with_ack(Ack::Majority);
    /// safe.incr("account:7", -30).await?; // the primary's disk may be lost now: the shard's other nodes have it
    /// kv.put_with("order:12", "3 pears", PutOptions::new().ack(Ack::Replicas(1))).await?; // this write alone
    /// safe.put_with("seen:7", "today", PutOptions::new().ack(None)).await?; // not worth the wait
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_ack(&self, ack: impl Into<Option<Ack>>) -> Self {
        Self {
            ack: ack.into(),
            ..self.clone()
        }
    }

    /// What this client and its clones have done so far, by node.
    pub fn stats(&self) -> Stats {
        self.router.stats()
    }

    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    // None of these is async: what they make is all that an op's future holds.

    fn read(&self, key: &[u8], options: GetOptions) -> Result<Walk<'_>> {
        let op = Op::new(checked(key, "get")?, Action::Get);
        let intent = self.intent(&op, options.timeout);
        let intent = intent.read_from(options.consistency, options.node);
        self.router.plan(intent, op)
    }

    fn write(
        &self,
        op: Op,
        timeout: Option<Duration>,
        ack: Option<Option<Ack>>,
    ) -> Result<Walk<'_>> {
        let intent = self.intent(&op, timeout).acked_by(ack);
        self.router.plan(intent, op)
    }

    /// A write that has no terms of its own.
    fn change(&self, op: Op) -> Result<Walk<'_>> {
        self.write(op, None, None)
    }

    pub(crate) fn intent(&self, op: &Op, timeout: Option<Duration>) -> Intent<'_> {
        let scope = Scope {
            session: &self.session,
            history: self.history.as_ref(),
            ack: self.ack,
            options: &self.router.options,
        };
        Intent::new(op, timeout, scope)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(map {})", self.map().identity())
    }
}
