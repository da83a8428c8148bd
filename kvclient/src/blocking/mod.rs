//! The client for programs without async. Feature `blocking`.
//!
//! Each method waits for its result and means what its namesake of [`kvclient::Client`](crate::Client) means, its errors
//! included. The work is done by one thread that a client starts and shares with its clones; it ends with the last of
//! them. Any number of threads may use a client at once: their ops travel together, as those of tasks do.
//!
//! ```no_run
//! use kvclient::blocking::Client;
//!
//! # fn main() -> kvclient::Result<()> {
//! let kv = Client::from_file("sharding.toml")?;
//! kv.put("user:1", "Ada")?;
//! let ada = kv.get("user:1")?;
//! for user in kv.scan("user:") {
//!     println!("{}", user?.key);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Inside of an async runtime it works too and does not panic, but keeps a thread of that runtime from doing anything
//! else meanwhile: [`kvclient::Client`](crate::Client) is the one to use there. The two share nothing, since a connection
//! is served by the runtime that made it, and that one might be what waits.

mod runtime;

use std::{
    collections::VecDeque, fmt, future::Future, iter::FusedIterator, path::Path, sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

use self::runtime::Runtime;
use crate::{
    builder::ClientBuilder,
    entry::{Entry, Route, Written},
    error::Result,
    node_client::NodeClientOptions,
    options::{DeleteOptions, GetOptions, PutOptions},
    scan::ScannedEntry,
    session::Session,
    update::Rounds,
    wire::batch::Ack,
};

/// Entries that a [`Scan`] takes over at once: enough that going to the other thread does not count.
const CHUNK_ENTRIES: usize = 1_000;

/// Bytes of keys and values at which it takes no more.
const CHUNK_BYTES: usize = 256 << 10;

/// A smart router over all nodes of a cluster, whose methods wait for their results.
///
/// Cheap to clone; clones share connections, the map, the session, and the thread that does the work.
///
/// ```no_run
/// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
/// use std::thread;
///
/// thread::scope(|scope| {
///     for worker in 0..4 {
///         let kv = kv.clone(); // one thread does the work of all of them, in common requests
///         scope.spawn(move || kv.incr(format!("jobs:{worker}"), 1));
///     }
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    client: crate::Client,
    runtime: Arc<Runtime>,
}

impl Client {
    /// A client for the map in a file, as [`crate::Client::from_file`].
    ///
    /// ```no_run
    /// # fn main() -> kvclient::Result<()> {
    /// let kv = kvclient::blocking::Client::from_file("sharding.toml")?;
    /// println!("{:?}", kv.get("greeting")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As that; also [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if no thread can be started.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(ClientBuilder::from_file(path)?)
    }

    /// A client for the cluster that these nodes belong to, as [`crate::Client::connect`].
    ///
    /// ```no_run
    /// # fn main() -> kvclient::Result<()> {
    /// let kv = kvclient::blocking::Client::connect(["localhost:8080", "localhost:8081"])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As that, and as [`Self::from_file`].
    pub fn connect<S: AsRef<str>>(seeds: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::connect_with(seeds, NodeClientOptions::default())
    }

    /// The same for nodes that are to be shown a token, as [`ClientBuilder::connect_with`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use kvclient::{blocking::Client, node_client::NodeClientOptions};
    ///
    /// let mut nodes = NodeClientOptions::default();
    /// nodes.token = Some(std::env::var("KV_TOKEN")?.parse()?);
    /// let kv = Client::connect_with(["localhost:8080"], nodes)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As that, and as [`Self::from_file`].
    pub fn connect_with<S: AsRef<str>>(
        seeds: impl IntoIterator<Item = S>,
        nodes: NodeClientOptions,
    ) -> Result<Self> {
        let seeds = seeds.into_iter().map(|seed| seed.as_ref().to_owned());
        let seeds: Vec<String> = seeds.collect();
        let runtime = Runtime::start()?;
        let connecting = async move { ClientBuilder::connect_with(seeds, nodes).await?.build() };
        let client = runtime.run(connecting)??;
        Ok(Self {
            client,
            runtime: Arc::new(runtime),
        })
    }

    /// A client with settings of its own.
    ///
    /// ```no_run
    /// # fn main() -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::{ClientBuilder, blocking::Client};
    ///
    /// let patient = ClientBuilder::from_file("sharding.toml")?.timeout(Duration::from_secs(60));
    /// let kv = Client::new(patient)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`ClientBuilder::build`], and as [`Self::from_file`].
    pub fn new(builder: ClientBuilder) -> Result<Self> {
        Ok(Self {
            client: builder.build()?,
            runtime: Arc::new(Runtime::start()?),
        })
    }

    /// Reads a value; `None` if the key is absent or has expired.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// let greeting = kv.get("greeting")?;
    /// println!("{}", String::from_utf8_lossy(greeting.as_deref().unwrap_or(b"no greeting")));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let key = owned(key);
        self.run(|kv| async move { kv.get(key).await })
    }

    /// Reads an entry under terms of its own.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// use kvclient::{Consistency, GetOptions};
    ///
    /// let newest = GetOptions::new().consistency(Consistency::Primary);
    /// if let Some(entry) = kv.get_with("config", newest)? {
    ///     println!("as of {}", entry.position);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::get_with`].
    pub fn get_with(&self, key: impl AsRef<[u8]>, options: GetOptions) -> Result<Option<Entry>> {
        let key = owned(key);
        self.run(|kv| async move { kv.get_with(key, options).await })
    }

    /// Stores a value, whether or not the key was there.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// let written = kv.put("backup:last", "2026-03-01")?;
    /// println!("on disk, at {}", written.position);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::put`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written> {
        self.put_with(key, value, PutOptions::new())
    }

    /// Stores a value under terms of its own.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::{ErrorKind, PutOptions};
    ///
    /// let only_once = PutOptions::new().if_absent().ttl(Duration::from_secs(3_600));
    /// match kv.put_with("mail:12:sent", "", only_once) {
    ///     Ok(_) => println!("sending it"),
    ///     Err(error) if error.kind() == ErrorKind::Conflict => println!("sent within the last hour"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::put_with`].
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<Written> {
        let (key, value) = (owned(key), value.into());
        self.run(|kv| async move { kv.put_with(key, value, options).await })
    }

    /// Removes a key; says whether it was there.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// println!("{}", if kv.delete("job:12")? { "cancelled" } else { "no such job" });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::delete`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = owned(key);
        self.run(|kv| async move { kv.delete(key).await })
    }

    /// Removes a key under terms of its own; `None` if it was not there.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// use kvclient::DeleteOptions;
    ///
    /// let mark = kv.put("build:running", "commit 8f31")?;
    /// // ... and when it is done: this mark, not that of the next build.
    /// kv.delete_with("build:running", DeleteOptions::new().if_match(mark.position))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::delete_with`].
    pub fn delete_with(
        &self,
        key: impl AsRef<[u8]>,
        options: DeleteOptions,
    ) -> Result<Option<Written>> {
        let key = owned(key);
        self.run(|kv| async move { kv.delete_with(key, options).await })
    }

    /// Adds to a counter and returns its new value.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// let number = kv.incr("invoice:last", 1)?;
    /// println!("invoice {number}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::incr`].
    pub fn incr(&self, key: impl AsRef<[u8]>, delta: i64) -> Result<i64> {
        let key = owned(key);
        self.run(|kv| async move { kv.incr(key, delta).await })
    }

    /// Sets how long an entry lives from now on; says whether it was there.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    ///
    /// let is_there = kv.touch("upload:7", Duration::from_secs(600))?; // ten more minutes
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::touch`].
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        let key = owned(key);
        self.run(|kv| async move { kv.touch(key, ttl).await })
    }

    /// Removes an entry's expiry; says whether the entry was there.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// assert!(kv.persist("upload:7")?, "it has expired before it was confirmed");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::persist`].
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = owned(key);
        self.run(|kv| async move { kv.persist(key).await })
    }

    /// Changes a value by what it is; see [`crate::Client::update`]. `change` runs on the thread that calls this.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// let written = kv.update("names", |old| {
    ///     let mut names = old.map_or(Vec::new(), |entry| entry.value.to_vec());
    ///     names.extend_from_slice(b"ada\n");
    ///     Some(names)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As that.
    pub fn update<V: Into<Bytes>>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&Entry>) -> Option<V>,
    ) -> Result<Option<Written>> {
        self.update_with(key, PutOptions::new(), change)
    }

    /// Changes a value under terms of its own; see [`crate::Client::update_with`].
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::PutOptions;
    ///
    /// let impatient = PutOptions::new().timeout(Duration::from_millis(500)); // all rounds together
    /// kv.update_with("highscore", impatient, |old| {
    ///     let best = old.and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok());
    ///     (best.unwrap_or(0) < 4_711).then_some("4711")
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As that.
    pub fn update_with<V: Into<Bytes>>(
        &self,
        key: impl AsRef<[u8]>,
        options: PutOptions,
        mut change: impl FnMut(Option<&Entry>) -> Option<V>,
    ) -> Result<Option<Written>> {
        let mut rounds = Rounds::new(&self.client, key.as_ref(), options)?;
        loop {
            let read = async move { rounds.read().await.map(|old| (rounds, old)) };
            let (mut reading, old) = self.runtime.run(read)??;
            let Some(new) = change(old.as_ref()).map(Into::into) else {
                return Ok(None);
            };
            let store = async move {
                let stored = reading.store(old.as_ref(), new).await;
                stored.map(|written| (reading, written))
            };
            let (stored, written) = self.runtime.run(store)??;
            if written.is_some() {
                return Ok(written);
            }
            rounds = stored;
        }
    }

    /// Reads many values: one per key, in order.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// let keys = ["host:a", "host:b"];
    /// for (key, value) in keys.iter().zip(kv.get_many(keys)?) {
    ///     println!("{key}: {} bytes", value.map_or(0, |value| value.len()));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::get_many`].
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>> {
        let keys = all_owned(keys);
        self.run(|kv| async move { kv.get_many(keys).await })
    }

    /// Stores many values: one result per item, in order.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// let lines = ["host:a\t10.0.0.1", "host:b\t10.0.0.2"]; // of a file, say
    /// kv.put_many(lines.iter().filter_map(|line| line.split_once('\t')))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::put_many`].
    pub fn put_many<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Vec<Written>> {
        let items = items.into_iter();
        let items: Vec<_> = items
            .map(|(key, value)| (owned(key), value.into()))
            .collect();
        self.run(|kv| async move { kv.put_many(items).await })
    }

    /// Removes many keys: for each, in order, whether it was there.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// let were_there = kv.delete_many(["host:a", "host:z"])?;
    /// println!("host:a was {}", if were_there[0] { "removed" } else { "not there" });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::delete_many`].
    pub fn delete_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<bool>> {
        let keys = all_owned(keys);
        self.run(|kv| async move { kv.delete_many(keys).await })
    }

    /// Removes all keys that begin with a prefix; how many there were.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// println!("{} entries of the last test removed", kv.delete_prefix("test:")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::delete_prefix`].
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        let prefix = owned(prefix);
        self.run(|kv| async move { kv.delete_prefix(prefix).await })
    }

    /// All entries whose keys begin with a prefix, in the order of their keys; see [`crate::Client::scan`].
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// let total: usize = kv
    ///     .scan("file:")
    ///     .map(|entry| Ok(entry?.value.map_or(0, |value| value.len())))
    ///     .sum::<kvclient::Result<usize>>()?;
    /// println!("{total} bytes");
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Scan {
        self.scan_with(prefix, |scan| scan)
    }

    /// The entries of a scan with settings of its own.
    ///
    /// ```no_run
    /// # fn newest(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// for entry in kv.scan_with("log:", |scan| scan.reverse().limit(10)) {
    ///     println!("{}", entry?.key);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan_with(
        &self,
        prefix: impl AsRef<[u8]>,
        settings: impl FnOnce(crate::Scan) -> crate::Scan,
    ) -> Scan {
        Scan {
            runtime: self.runtime.clone(),
            scan: Some(settings(self.client.scan(prefix))),
            ready: VecDeque::new(),
        }
    }

    /// Who owns a key, by the map in force. Asks nobody.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// let route = kv.route("user:1")?;
    /// println!("{}, read from {} nodes", route.shard, 1 + route.replicas.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::route`].
    pub fn route(&self, key: impl AsRef<[u8]>) -> Result<Route> {
        self.client.route(key)
    }

    /// A copy of what this client has seen so far.
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// kv.put("cart:7", "3 pears")?;
    /// let token = kv.session().to_token(); // the next program goes on from here, see `with_session`
    /// # Ok(())
    /// # }
    /// ```
    pub fn session(&self) -> Session {
        self.client.session()
    }

    /// A client like this one whose reads and writes belong to a session of their own; see
    /// [`crate::Client::with_session`].
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// use kvclient::Session;
    ///
    /// let token = std::env::args().nth(1).unwrap_or_default();
    /// let kv = kv.with_session(Session::from_token(&token).unwrap_or_default());
    /// let cart = kv.get("cart:7")?; // at least as new as what the program saw that wrote the token
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_session(&self, session: Session) -> Self {
        Self {
            client: self.client.with_session(session),
            runtime: self.runtime.clone(),
        }
    }

    /// A client like this one whose writes wait for others than the primary too; see [`crate::Client::with_ack`].
    ///
    /// ```no_run
    /// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
    /// use kvclient::Ack;
    ///
    /// kv.with_ack(Ack::All).put("keys:7", "on every node of the shard")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_ack(&self, ack: impl Into<Option<Ack>>) -> Self {
        Self {
            client: self.client.with_ack(ack),
            runtime: self.runtime.clone(),
        }
    }

    /// Lets the thread carry out an op.
    fn run<T, F>(&self, op: impl FnOnce(crate::Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.runtime.run(op(self.client.clone()))?
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocking::{:?}", self.client)
    }
}

/// The entries of a range of keys, in the order of their bytes, over all shards: an iterator.
///
/// Made by [`Client::scan`]. As [`crate::Scan`], whose stream it is, it ends with an error if it cannot go on. Entries
/// are taken over from the other thread in small parts; an entry's [`token`](ScannedEntry::token) lets a later scan go
/// on behind it.
///
/// ```no_run
/// # fn example(kv: kvclient::blocking::Client) -> kvclient::Result<()> {
/// let mut users = kv.scan("user:");
/// let first: Vec<_> = users.by_ref().take(100).collect::<Result<_, _>>()?;
/// let rest = users.count(); // the same scan goes on
/// # Ok(())
/// # }
/// ```
pub struct Scan {
    runtime: Arc<Runtime>,
    /// `None` at its end.
    scan: Option<crate::Scan>,
    ready: VecDeque<Result<ScannedEntry>>,
}

impl Iterator for Scan {
    type Item = Result<ScannedEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            let scan = self.scan.take()?;
            match self.runtime.run(part(scan)) {
                Ok((scan, part)) => (self.scan, self.ready) = (scan, part),
                Err(error) => return Some(Err(error)),
            }
        }
        self.ready.pop_front()
    }
}

impl FusedIterator for Scan {}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocking::{:?}", self.scan)
    }
}

/// The next entry, with those behind it that have arrived already; and the scan, if it has not ended.
async fn part(mut scan: crate::Scan) -> (Option<crate::Scan>, VecDeque<Result<ScannedEntry>>) {
    let mut part = VecDeque::new();
    let mut part_bytes = 0;
    let mut next = scan.next().await;
    loop {
        let Some(entry) = next else {
            return (None, part);
        };
        part_bytes += entry.as_ref().map_or(0, weight_bytes);
        part.push_back(entry);
        if part.len() >= CHUNK_ENTRIES || part_bytes >= CHUNK_BYTES {
            return (Some(scan), part);
        }
        match scan.next().now_or_never() {
            Some(entry) => next = entry,
            None => return (Some(scan), part),
        }
    }
}

fn weight_bytes(entry: &ScannedEntry) -> usize {
    let value_bytes = entry.value.as_ref().map_or(0, Bytes::len);
    entry.key.as_bytes().len() + value_bytes
}

fn owned(key: impl AsRef<[u8]>) -> Vec<u8> {
    key.as_ref().to_vec()
}

fn all_owned<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Vec<Vec<u8>> {
    keys.into_iter().map(owned).collect()
}
