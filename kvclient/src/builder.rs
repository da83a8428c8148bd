//! How a [`Client`] comes about: from a file, from a running cluster, or from a map with settings of one's own.
//!
//! Nothing here spawns: a client can be made before there is a runtime. What it does in the background (a refresh
//! of the map, a batch of concurrent ops) runs as a short task on the runtime of the op that causes it, and ends
//! by itself.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    attempt::AttemptError,
    client::Client,
    error::{Error, ErrorKind, Result, classify},
    intent::LONGEST,
    node_client::{NodeClient, NodeClientOptions},
    options::{ClientOptions, Hedging, Identity},
    policy::{Consistency, ReadPolicy},
    refresh::Refresher,
    router::Router,
    routes::Origin,
    scheme::Scheme,
    shard_map::{Address, AddressError, ShardMap, toml},
    token::Token,
    wire::batch::Ack,
};

impl Client {
    /// A client for the map in a file (`sharding.toml`). The file is only the seed: nodes of the cluster know the
    /// map in force, and theirs wins.
    ///
    /// Reads the file and nothing else: needs no runtime, and reaches no node before the first op.
    ///
    /// ```
    /// # fn main() -> kvclient::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("sharding-{}.toml", std::process::id()));
    /// # let written = std::fs::write(&path, "[[shards]]\nname = \"all\"\nidx = 0\naddress = \"localhost:8080\"\n");
    /// # written.expect("a file");
    /// use kvclient::{Client, ErrorKind};
    ///
    /// let kv = Client::from_file(&path)?;
    /// let error = Client::from_file("no-such-file.toml").expect_err("it is not there");
    /// assert_eq!(error.kind(), ErrorKind::Invalid);
    /// # std::fs::remove_file(&path).expect("it was there");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: the file cannot be read or is not a map; the source says where.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        ClientBuilder::from_file(path)?.build()
    }

    /// A client for the cluster that these nodes belong to (`http://host:port` or `host:port`). They are asked for
    /// the map in turn until one answers. For nodes with TLS see [`ClientBuilder::connect_with`].
    ///
    /// ```no_run
    /// # async fn example() -> kvclient::Result<()> {
    /// use kvclient::Client;
    ///
    /// // Any nodes of the cluster will do; with two, one may be away. The rest of them is in the map.
    /// let kv = Client::connect(["http://localhost:8080", "localhost:8081"]).await?;
    /// println!("{} shards", kv.map().shards().len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: not an address. [`ErrorKind::Unavailable`]: none of them answered; retry later, or
    /// name more nodes.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn connect<S: AsRef<str>>(seeds: impl IntoIterator<Item = S>) -> Result<Self> {
        ClientBuilder::connect(seeds).await?.build()
    }

    /// A client for a map, with settings of its own. [`ClientBuilder::from_file`] and [`ClientBuilder::connect`] start
    /// from a file and from a running cluster.
    ///
    /// ```no_run
    /// # fn main() -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::{ClientBuilder, Consistency};
    ///
    /// let kv = ClientBuilder::from_file("sharding.toml")?
    ///     .timeout(Duration::from_secs(1))
    ///     .consistency(Consistency::Eventual)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(map: ShardMap) -> ClientBuilder {
        ClientBuilder::new(map)
    }
}

/// Settings of a client to be.
///
/// Every one of them has a default, and most programs need none. All of them at once, which nobody needs:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use kvclient::{Ack, ClientBuilder, Consistency, node_client::NodeClientOptions, policy::StickyByKey};
///
/// # let text = "[[shards]]\nname = \"all\"\nidx = 0\naddress = \"localhost:8080\"\n";
/// # let map = kvclient::shard_map::toml::parse(text, "sharding.toml").expect("a map");
///
/// let mut nodes = NodeClientOptions::default();
/// nodes.connect_timeout = Duration::from_millis(200);
/// let kv = ClientBuilder::new(map)
///     .timeout(Duration::from_secs(2)) // of an op, all attempts and pauses included
///     .attempt_timeout(Duration::from_millis(200)) // of one attempt of a read
///     .write_attempt_timeout(Duration::from_millis(800)) // of one attempt of a write
///     .consistency(Consistency::MaxLag(Duration::from_secs(1)))
///     .catch_up_wait(Duration::from_millis(5))
///     .read_policy(StickyByKey)
///     .zone("eu-1a")
///     .without_hedging()
///     .ack(Ack::Majority) // of each write, unless it says otherwise
///     .without_request_ids() // a write that may have been applied is not sent again
///     .pauses(Duration::from_millis(10), Duration::from_millis(200))
///     .refresh_interval(Duration::from_secs(5))
///     .batches_in_flight(2)
///     .alone_bytes(16 << 10)
///     .node_client(nodes)
///     .token("kv_n5XZ0s".parse()?) // who this client is, to nodes that ask
///     .build()?;
/// assert_eq!(kv.map().shards().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    map: ShardMap,
    origin: Origin,
    options: ClientOptions,
}

impl ClientBuilder {
    /// Starts with a map; all settings are the defaults. The map is only the seed, as in [`Client::from_file`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use kvclient::{ClientBuilder, shard_map::toml};
    ///
    /// let text = "version = 3\n[[shards]]\nname = \"all\"\nidx = 0\naddress = \"10.0.0.7:8080\"\n";
    /// let map = toml::parse(text, "built in")?; // no file: the map comes with the program
    /// let kv = ClientBuilder::new(map).build()?;
    /// assert_eq!(kv.map().version(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(map: ShardMap) -> Self {
        Self {
            map,
            origin: Origin::Seed,
            options: ClientOptions::default(),
        }
    }

    /// Starts with the map in a file.
    ///
    /// ```no_run
    /// # fn main() -> kvclient::Result<()> {
    /// use kvclient::{ClientBuilder, policy::StickyByKey};
    ///
    /// let kv = ClientBuilder::from_file("sharding.toml")?.read_policy(StickyByKey).build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::from_file`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let invalid = || Error::new(ErrorKind::Invalid, "read the map");
        let text = std::fs::read_to_string(path)
            .map_err(|error| invalid().with_source(format!("{name}: {error}")))?;
        let map = toml::parse(&text, &name).map_err(|error| invalid().with_source(error))?;
        Ok(Self::new(map))
    }

    /// Starts with the map of a running cluster, as in [`Client::connect`].
    ///
    /// ```no_run
    /// # async fn example() -> kvclient::Result<()> {
    /// use kvclient::ClientBuilder;
    ///
    /// let seeds = std::env::var("KV_NODES").unwrap_or("localhost:8080".to_owned());
    /// let kv = ClientBuilder::connect(seeds.split(',')).await?.zone("eu-1a").build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::connect`].
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn connect<S: AsRef<str>>(seeds: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::connect_with(seeds, NodeClientOptions::default()).await
    }

    /// As [`Self::connect`], with settings that the first question needs already: nodes with TLS
    /// (`https://host:port`, or `host:port`) are asked through it. The settings are kept, as by [`Self::node_client`].
    ///
    /// ```no_run
    /// # async fn example() -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::{ClientBuilder, node_client::NodeClientOptions};
    ///
    /// let mut nodes = NodeClientOptions::default();
    /// nodes.connect_timeout = Duration::from_secs(2);
    /// let kv = ClientBuilder::connect_with(["http://db.example:8080"], nodes).await?.build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::connect`]. [`ErrorKind::Invalid`] also for a seed of the other scheme; [`ErrorKind::Denied`]: a node
    /// that answered wants another token.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn connect_with<S: AsRef<str>>(
        seeds: impl IntoIterator<Item = S>,
        settings: NodeClientOptions,
    ) -> Result<Self> {
        let scheme = settings.scheme();
        let options = ClientOptions {
            nodes: settings,
            ..ClientOptions::default()
        };
        let nodes = NodeClient::new(options.nodes.clone())?;
        let mut failed = Error::new(ErrorKind::Invalid, "connect").with_source("no node is named");
        let seeds: Vec<Address> = seeds
            .into_iter()
            .map(|seed| seed_address(scheme, seed.as_ref()))
            .collect::<Result<_, _>>()
            .map_err(|error| Error::new(ErrorKind::Invalid, "connect").with_source(error))?;
        for seed in seeds {
            let answer = nodes
                .cluster_map(&seed, None, options.attempt_timeout)
                .await;
            let missing = || Err(AttemptError::Undecodable("no map".to_owned()));
            match answer.and_then(|map| map.map_or_else(missing, Ok)) {
                Ok(map) => {
                    return Ok(Self {
                        map,
                        origin: Origin::Node,
                        options,
                    });
                }
                Err(error) => {
                    let kind = match classify(&error).0 {
                        ErrorKind::Denied => ErrorKind::Denied,
                        _ => ErrorKind::Unavailable,
                    };
                    failed = Error::new(kind, "connect")
                        .with_node(seed)
                        .with_source(error);
                }
            }
        }
        Err(failed)
    }

    /// Longest time an op may take, all attempts and pauses included. Default 5 s: a node restarts in less, so a
    /// rolling restart is a pause and not an error.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self.options.lanes.longest_turn = timeout;
        self
    }

    /// Longest time one attempt of a read may take before another node is asked; half of the time its op has left, if
    /// that is less and there is another node. Default 500 ms: a node that is gone without a word costs a read no more
    /// than that, once; one that is only busy answers sooner. A value too large to come with others is asked for again,
    /// alone, and then given all the time of its op. What takes longer than this no longer keeps other ops to the same
    /// node waiting.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.attempt_timeout = timeout;
        self.options.lanes.late_after = timeout;
        self
    }

    /// Longest time one attempt of a write may take before it is repeated under its request id. Default 1.5 s: longer
    /// than a slow sync, and a write is sent twice more before its time is over. Large values have a second more for each
    /// MiB. Not looked at [without request ids](Self::without_request_ids): a write that was
    /// sent then has all the time of its op.
    pub fn write_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.write_attempt_timeout = timeout;
        self
    }

    /// How new reads are that do not say. Default [`Consistency::ReadYourWrites`].
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.options.consistency = consistency;
        self
    }

    /// How long a node may wait to reach what this session has seen, before another one is asked; in whole
    /// milliseconds, at most 5 s. Default 10 ms: a replica is a few ms behind, and one that needs more is better left
    /// alone; reads that came in one batch with this one wait with it.
    pub fn catch_up_wait(mut self, wait: Duration) -> Self {
        self.options.catch_up_wait = wait;
        self
    }

    /// Which node answers a read, among those that may. Default [`LeastBusy`](crate::policy::LeastBusy): of two
    /// random nodes the one with fewer ops in flight. [`StickyByKey`](crate::policy::StickyByKey) keeps each key with
    /// one node; anything else is a [`ReadPolicy`] of one's own.
    pub fn read_policy(mut self, policy: impl ReadPolicy + 'static) -> Self {
        self.options.read_policy = Arc::new(policy);
        self
    }

    /// Reads ask nodes of this zone of the map, as long as one of them may be asked; then any. Default: no zone is
    /// preferred.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.options.zone = Some(zone.into());
        self
    }

    /// Never sends a second copy of a read that takes long. By default one leaves after twice the time within which
    /// 95 of 100 reads were answered lately (at least 1 ms; 50 ms while too few were seen), for at most one read in
    /// twenty: a node that stalls now and then is not noticed, at the price of at most 5 % more reads for the nodes.
    pub fn without_hedging(mut self) -> Self {
        self.options.hedging = Hedging::Off;
        self
    }

    /// Sends writes without request ids, which by default they have. Then the nodes remember nothing of them, which
    /// spares about a hundred bytes of log a write; and a write whose connection breaks is not repeated but fails with
    /// [`Outcome::Unknown`](crate::Outcome::Unknown).
    pub fn without_request_ids(mut self) -> Self {
        self.options.identity = Identity::Omitted;
        self
    }

    /// Who must have synced a write that does not say. Default: the primary (`None`), that is one disk: the fastest, and
    /// the only one that no replica's absence can stop. What a write is worth is known to the program that makes it; see
    /// [`Client::with_ack`] and [`PutOptions::ack`](crate::PutOptions::ack).
    pub fn ack(mut self, ack: impl Into<Option<Ack>>) -> Self {
        self.options.ack = ack.into();
        self
    }

    /// Ceilings of the random pauses between attempts: the first, which then doubles, and the longest. Default
    /// 20 ms and 500 ms: a node that is back is noticed soon, and a thousand clients do not keep it from starting.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.options.first_pause = first.min(LONGEST);
        self.options.longest_pause = longest.min(LONGEST);
        self
    }

    /// Least time between two refreshes of the map that nobody waits for; a quarter of it is added at random.
    /// Default 1 s: a map changes seldom, and while it does, a thousand clients ask at most a thousand times a second.
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.options.refresh_interval = interval.min(LONGEST);
        self
    }

    /// Batches under way at once per node, reads and writes apart. Default 1: it gathers best, and was
    /// fastest when measured (six nodes and 256 tasks on two cores): 338 k GET/s, against 224 k with 2 and 202 k with 4;
    /// for SET it made no difference. At least 1.
    pub fn batches_in_flight(mut self, batches: usize) -> Self {
        self.options.lanes.batches_in_flight = batches.max(1);
        self
    }

    /// A put whose value has more than this many bytes travels alone, so that small ops do not wait behind it. Default
    /// 64 KiB, half a millisecond of a 1 Gbit/s network; at most 1 MiB.
    pub fn alone_bytes(mut self, bytes: usize) -> Self {
        self.options.lanes.alone_bytes = bytes.min(1 << 20);
        self
    }

    /// How nodes are reached: time to connect, idle connections, the token. Default: 500 ms, 16 a node for 20 s, none;
    /// the reasons stand at [`NodeClientOptions`].
    pub fn node_client(mut self, options: NodeClientOptions) -> Self {
        self.options.nodes = options.over(self.options.nodes);
        self
    }

    /// Speaks to nodes through TLS only: whom to trust, and who to be. Default: in the clear. Needs the feature `tls`.
    ///
    /// ```no_run
    /// # fn main() -> kvclient::Result<()> {
    /// use kvclient::{ClientBuilder, Tls};
    ///
    /// let tls = Tls::trusting_file("ca.pem")?;
    /// let kv = ClientBuilder::from_file("sharding.toml")?.tls(tls).build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::tls::Tls) -> Self {
        self.options.nodes.tls = Some(tls);
        self
    }

    /// Who this client is, to nodes that ask for it: sent to the nodes of the map with every request, and to nobody else.
    /// Default none.
    pub fn token(mut self, token: Token) -> Self {
        self.options.nodes.token = Some(token);
        self
    }

    /// The client. Needs no runtime and reaches no node.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use kvclient::ClientBuilder;
    ///
    /// # let text = "[[shards]]\nname = \"all\"\nidx = 0\naddress = \"localhost:8080\"\n";
    /// # let map = kvclient::shard_map::toml::parse(text, "sharding.toml").expect("a map");
    ///
    /// let kv = ClientBuilder::new(map).zone("eu-1a").build()?; // in `fn main`, before there is a runtime
    /// assert_eq!(kv.stats().ops, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// None today; settings that contradict each other would be one.
    pub fn build(self) -> Result<Client> {
        let nodes = NodeClient::new(self.options.nodes.clone())?;
        let refresher = Refresher::new(self.map, self.origin, nodes, &self.options);
        Ok(Client::new(Router::new(refresher, self.options)))
    }
}

fn seed_address(scheme: Scheme, seed: &str) -> Result<Address, SeedError> {
    let address = match (scheme, scheme.strip(seed)) {
        (_, Some(address)) => address,
        (Scheme::Http, None) if seed.starts_with("https://") => {
            return Err(SeedError::Untrusted(seed.to_owned()));
        }
        (Scheme::Https, None) if seed.starts_with("http://") => {
            return Err(SeedError::InTheClear(seed.to_owned()));
        }
        _ => seed,
    };
    Ok(address.strip_suffix('/').unwrap_or(address).parse()?)
}

/// Why a node cannot be asked for the map.
#[derive(Debug, thiserror::Error)]
enum SeedError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[cfg(feature = "tls")]
    #[error(
        "{0}: for TLS it must be said whose certificates are trusted (`Tls`; of the tool: --ca FILE)"
    )]
    Untrusted(String),
    #[cfg(not(feature = "tls"))]
    #[error("{0}: this program was built without TLS, the feature `tls` of kvclient")]
    Untrusted(String),
    #[error("{0}: this client speaks TLS only, and would be in the clear there; write https://")]
    InTheClear(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_urls_or_addresses() {
        use Scheme::{Http, Https};
        for (scheme, seed) in [
            (Http, "h:1"),
            (Http, "http://h:1"),
            (Http, "http://h:1/"),
            (Https, "h:1"),
            (Https, "https://h:1/"),
        ] {
            let address = seed_address(scheme, seed).expect("an address");
            assert_eq!(address.to_string(), "h:1");
        }
        for (scheme, bad) in [
            (Http, "https://h:1"),
            (Http, "http://h"),
            (Http, "http://h:1/kv"),
            (Http, ""),
            (Https, "http://h:1"),
            (Https, "https://h"),
        ] {
            assert!(seed_address(scheme, bad).is_err(), "{scheme} {bad}");
        }
    }
}
