//! Wires a node together, owns every task, and stops them in order.
//!
//! Start: lock the directory, bind, answer health checks, recover, then either begin a reign or begin to pull.
//! Stop: no longer ready, running requests finish, tasks end, the commit queue is worked off, the floor is written.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use actix_web::{App, HttpServer, dev::ServerHandle, web};
use arc_swap::{ArcSwap, ArcSwapOption};
use kvclient::{
    error::Error as ClientError,
    faults::{self, Guarantee},
    node_client::NodeClientOptions,
    position::Epoch,
    shard_map::{Address, Role},
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Admission, Certificates},
    asker::Asker,
    clock::ShardClock,
    config::NodeConfig,
    data_dir::DataDir,
    descriptors::room_for_connections,
    durable::DataError,
    home::{Home, HomeError},
    http,
    marker::{Marker, Order, State},
    metrics::Metrics,
    ownership::own_shard,
    readiness::Readiness,
    replication::{
        Progress, diverged,
        puller::Puller,
        reign::{self, Standing, Start},
    },
    sampler,
    service::Service,
    stalled,
    storage::StorageError,
    sweeper,
    vitals::Vitals,
};

/// Longest time for running requests to finish. Longer than the longest wait of a request (5 s).
const DRAIN: Duration = Duration::from_secs(10);

/// Longest time for replicas to acknowledge what was written when the node begins to stop: replicas that keep up need
/// some milliseconds.
const ACK_GRACE: Duration = Duration::from_millis(500);

/// How long answers tell clients to close their connections before the idle ones are closed. A request that is on
/// its way to a connection that is being closed is cut off, and its sender cannot tell whether it was done.
const FAREWELL: Duration = Duration::from_millis(250);

/// Time for the thread that accepts connections to stop doing so: it wakes up and looks at its queue.
const PAUSE_ACCEPT: Duration = Duration::from_millis(20);

/// Idle connections are closed after this; clients close theirs after 20 s, so that they never race.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Time for a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// Time for the handshake of a connection with TLS.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Connections where a test switches their bound off.
const ANY_NUMBER: usize = 1 << 20;

/// Pause before a primary without room tries again to begin its reign.
const REIGN_PAUSE: Duration = Duration::from_secs(1);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen: exit 2.
    #[error("cannot listen at {address}: {error}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The data directory is not to be used: exit 3, 4 or 5.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The data in it is not to be used: exit 3 or 5.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The client with which it asks other nodes.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system gave no thread or socket.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl From<HomeError> for StartError {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Data(error) => Self::Data(error),
            HomeError::Storage(error) => Self::Storage(error),
        }
    }
}

/// A node that runs until it is stopped.
#[derive(Debug)]
pub struct RunningNode {
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// What handlers see.
    pub service: Arc<Service>,
    home: Arc<Home>,
    http: ServerHandle,
    listeners: Vec<TcpListener>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    failures: mpsc::Receiver<String>,
}

/// Starts a node. Must run on a multi-threaded runtime.
///
/// # Errors
/// [`StartError`]: nothing is left running.
pub async fn start(config: NodeConfig) -> Result<RunningNode, StartError> {
    let listeners = bind(&config.listen)?;
    start_on(config, listeners).await
}

/// Starts a node on sockets that are bound already.
///
/// # Errors
/// As [`start`].
pub async fn start_on(
    config: NodeConfig,
    listeners: Vec<TcpListener>,
) -> Result<RunningNode, StartError> {
    let dir = DataDir::open(&config.data, config.shard(), config.role(), config.order)?;
    let (failure_sender, failures) = mpsc::channel(8);
    let (fence_sender, fences) = mpsc::channel(8);
    let nodes = towards_nodes(&config);
    let service = Arc::new(Service {
        admission: Admission::new(config.tokens.clone(), certificates(&config)),
        node_id: dir.node_id(),
        map: ArcSwap::from_pointee(config.map.clone()),
        map_conflict: ArcSwapOption::empty(),
        storage: ArcSwapOption::empty(),
        recovering: AtomicBool::new(dir.marker().state != State::Creating),
        readiness: ArcSwap::from_pointee(Readiness::NotReady("recovering the log".into())),
        clock: Arc::new(ShardClock::start(0)),
        progress: Progress::default(),
        metrics: Metrics::default(),
        vitals: Vitals::default(),
        started: Instant::now(),
        started_at: SystemTime::now(),
        stopping: CancellationToken::new(),
        no_more_acks: CancellationToken::new(),
        asker: Asker::new(nodes)?,
        fences: fence_sender,
        config,
    });
    let home = Arc::new(Home::new(
        dir,
        failure_sender,
        tokio::runtime::Handle::current(),
    ));
    let mut tasks = JoinSet::new();
    let held: io::Result<Vec<_>> = listeners.iter().map(TcpListener::try_clone).collect();
    let (http, addresses) = serve(&service, listeners, &mut tasks)?;
    let mut node = RunningNode {
        addresses,
        service,
        home,
        http,
        listeners: held?,
        tasks,
        stop: CancellationToken::new(),
        failures,
    };
    node.tasks
        .spawn(remember_fences(Arc::clone(&node.home), fences));
    let (sampled, stop) = (Arc::clone(&node.service), node.stop.clone());
    node.tasks.spawn(async move {
        stop.run_until_cancelled(sampler::run(sampled)).await;
    });
    match node.begin().await {
        Ok(()) => Ok(node),
        Err(error) => {
            // The reason to stop is told; what else fails on the way adds nothing to it.
            let _ = node.stop().await;
            Err(error)
        }
    }
}

impl RunningNode {
    async fn begin(&mut self) -> Result<(), StartError> {
        let marker = self.home.marker();
        self.service.progress.saw_epoch(marker.fenced_by);
        if matches!(marker.state, State::Ready | State::Copying) {
            self.blocking(|home, service| home.open(service)).await?;
        }
        self.service.recovering.store(false, Ordering::Release);
        match self.service.role() {
            Role::Replica => self.begin_replica(&marker),
            Role::Primary => self.begin_primary().await?,
        }
        Ok(())
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&Home, &Arc<Service>) -> Result<(), HomeError> + Send + 'static,
    ) -> Result<(), StartError> {
        let (home, service) = (Arc::clone(&self.home), Arc::clone(&self.service));
        match tokio::task::spawn_blocking(move || work(&home, &service)).await {
            Ok(done) => Ok(done?),
            Err(error) => {
                Err(StorageError::Failed(format!("opening the data panicked: {error}")).into())
            }
        }
    }

    fn begin_replica(&mut self, marker: &Marker) {
        let storage = self.service.storage.load_full();
        let parted = storage
            .as_ref()
            .and_then(|storage| diverged::saved_tail(&self.home.diverged_dir(), storage));
        self.service.set_readiness(match (storage, parted) {
            (None, _) => {
                Readiness::NotReady("waits for a first copy of the primary's data".into())
            }
            (Some(_), _) if !marker.distrust.is_empty() => Readiness::Diverged(marker.distrust.clone()),
            (Some(_), _) if marker.state == State::Copying => Readiness::Copying,
            (Some(_), None) => Readiness::Ready,
            // Until a pull passes, what was true before the restart is true now.
            (Some(_), Some(tail)) => Readiness::Diverged(format!(
                "before it was restarted, this replica's log was not a prefix of the primary's; what only this node \
                 has is kept in {}",
                tail.display()
            )),
        });
        let puller = Puller {
            service: Arc::clone(&self.service),
            home: Arc::clone(&self.home),
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(puller.run()).await;
        });
    }

    async fn begin_primary(&mut self) -> Result<(), StartError> {
        let others: Vec<Address> = {
            let map = self.service.map.load();
            own_shard(&map, self.service.place())
                .replicas
                .iter()
                .map(|node| node.address.clone())
                .collect()
        };
        self.service.set_readiness(Readiness::NotReady(
            "asks the shard's other nodes how far they are".into(),
        ));
        let answers = reign::ask(&self.service.asker.client(), &others).await;
        let promoted = self.service.config.order == Order::Promote;
        // Also what came while the others were asked, or stood in the marker.
        let heard_of = self.service.progress.largest_epoch();
        match reign::decide(&self.standing(), &answers, promoted) {
            Start::ReadOnly(why) => {
                // Remembered, so that the next start does not take writes just because that node is away.
                let newest = answers
                    .iter()
                    .map(|other| other.largest_epoch)
                    .max()
                    .unwrap_or(0);
                self.stay_read_only(why, newest.max(heard_of).max(self.own_epoch()) + 1)
                    .await
            }
            // A reign begun since then, by --promote, is newer and ends the fence.
            Start::Reign(_) if heard_of > self.own_epoch() && !promoted => {
                let why = format!(
                    "another node of this shard was found to be ahead, or reigns in epoch {heard_of} or before; \
                     start with --promote to take writes all the same"
                );
                self.stay_read_only(why, heard_of).await
            }
            Start::Reign(epoch) => {
                self.reign(epoch).await?;
                let (service, stop) = (Arc::clone(&self.service), self.stop.clone());
                self.tasks.spawn(async move {
                    stop.run_until_cancelled(sweeper::run(service)).await;
                });
                Ok(())
            }
        }
    }

    async fn stay_read_only(&self, why: String, fence: Epoch) -> Result<(), StartError> {
        tracing::error!(%why, "takes no writes");
        self.service.set_readiness(Readiness::NotReady(why));
        self.blocking(move |home, _| Ok(home.fence(fence)?)).await
    }

    fn own_epoch(&self) -> Epoch {
        let storage = self.service.storage.load();
        storage
            .as_ref()
            .map_or(0, |storage| storage.store.lineage().epoch())
    }

    fn standing(&self) -> Standing {
        let storage = self.service.storage.load();
        let durable = storage
            .as_ref()
            .map(|storage| storage.log.durable())
            .unwrap_or_default();
        Standing {
            address: self.service.config.address.to_string(),
            history: storage.as_ref().map(|storage| storage.history),
            durable,
            largest_epoch: self.service.progress.largest_epoch().max(durable.epoch),
        }
    }

    /// Begins to take writes; without room on the disk, reads are served until there is some.
    async fn reign(&mut self, epoch: Epoch) -> Result<(), StartError> {
        if self.service.storage.load().is_none() {
            let history = u128::from(fastrand::u64(1..)) << 64 | u128::from(fastrand::u64(..));
            self.blocking(move |home, service| home.begin(service, history, State::Ready))
                .await?;
        }
        let service = Arc::clone(&self.service);
        let begin = async move {
            let Some(storage) = service.storage.load_full() else {
                return;
            };
            let (reign_id, node) = (fastrand::u64(..), service.config.address.to_string());
            while let Err(error) = storage
                .commit
                .begin_reign(epoch, reign_id, node.clone())
                .await
            {
                tracing::warn!(%error, "cannot begin to take writes; reads are served, tried again each second");
                service.set_readiness(Readiness::NotReady(error.to_string()));
                tokio::time::sleep(REIGN_PAUSE).await;
            }
            // A newer reign may have been heard of while this one began.
            if service.progress.largest_epoch() > epoch {
                return storage.commit.end_reign();
            }
            tracing::info!(epoch, "takes writes");
            service.set_readiness(Readiness::Ready);
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(begin).await;
        });
        Ok(())
    }

    /// Waits until storage fails, and says how. Never returns otherwise.
    pub async fn failed(&mut self) -> String {
        match self.failures.recv().await {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Takes no more connections, and has answers tell the clients that are there to close theirs.
    async fn say_farewell(&self) {
        self.http.pause().await;
        // The thread that accepts is told, but has not done it yet; it would log the shut socket as an error.
        tokio::time::sleep(PAUSE_ACCEPT).await;
        for listener in &self.listeners {
            // Whoever connects from now on is refused, and knows that nothing was done.
            if let Err(error) = rustix::net::shutdown(listener, rustix::net::Shutdown::Read) {
                tracing::warn!(%error, "the listener could not be shut down");
            }
        }
        self.service.begin_stop();
        tracing::info!("stops: waits for running requests");
        tokio::time::sleep(FAREWELL).await;
    }

    /// Lets running requests finish. Writes that wait for replicas wait no longer than a moment: replicas find no way
    /// here any more.
    async fn drain(&self) {
        let mut drained = pin!(self.http.stop(true));
        if timeout(ACK_GRACE, &mut drained).await.is_err() {
            self.service.no_more_acks.cancel();
            drained.await;
        }
    }

    /// Stops everything in order. The data is synced and closed when it returns.
    ///
    /// # Errors
    /// What failed in storage on the way: the data is whole, but was not closed in order.
    pub async fn stop(mut self) -> Result<(), String> {
        if faults::is_off(Guarantee::Drain) {
            return Ok(());
        }
        self.say_farewell().await;
        if timeout(DRAIN, self.drain()).await.is_err() {
            tracing::warn!("some requests did not finish in time; their connections are closed");
            self.http.stop(false).await;
        }
        self.stop.cancel();
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        let closed = self.blocking(|home, service| {
            home.close(service);
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "closing the data failed");
        }
        if let Ok(why) = self.failures.try_recv() {
            return Err(why);
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Whether callers are asked for certificates.
fn certificates(config: &NodeConfig) -> Certificates {
    match &config.tls {
        Some(tls) if tls.asks_callers() => Certificates::Asked,
        _ => Certificates::NotAsked,
    }
}

/// How this node asks others.
fn towards_nodes(config: &NodeConfig) -> NodeClientOptions {
    let mut options = NodeClientOptions::default();
    options.token = config.node_token.clone();
    options.tls = config.tls.as_ref().map(|tls| tls.towards_nodes());
    options
}

fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let bind = |&address: &SocketAddr| {
        TcpListener::bind(address).map_err(|error| StartError::Bind { address, error })
    };
    addresses.iter().map(bind).collect()
}

fn serve(
    service: &Arc<Service>,
    listeners: Vec<TcpListener>,
    tasks: &mut JoinSet<()>,
) -> io::Result<(ServerHandle, Vec<SocketAddr>)> {
    let data = web::Data::from(Arc::clone(service));
    let counted = Arc::clone(service);
    let cluster_status = web::Data::new(http::ClusterStatus::default());
    let config = &service.config;
    let is_bounded = !faults::is_off(Guarantee::Bounds);
    let head_within = if is_bounded {
        HEAD_WITHIN
    } else {
        Duration::ZERO
    };
    let connections = match faults::is_off(Guarantee::OwnDescriptors) {
        true => config.max_connections,
        false if !is_bounded => ANY_NUMBER,
        false => room_for_connections(config.max_connections),
    };
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(cluster_status.clone())
            .configure(http::configure)
    })
    .on_connect(move |connection, kept| {
        kept.insert(counted.metrics.opened_connection());
        http::keep_peer(connection, counted.config.tls.as_ref(), kept);
    })
    .workers(config.workers)
    .max_connections(connections.div_ceil(config.workers))
    // Handshakes that hang hold up no others; there are never more of them than connections.
    .max_connection_rate(connections.div_ceil(config.workers))
    .tls_handshake_timeout(HANDSHAKE_WITHIN)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(head_within)
    .h1_allow_half_closed(false)
    // Off by default there; without it small answers wait up to 40 ms for an acknowledgement.
    .tcp_nodelay(true)
    .disable_signals()
    .shutdown_timeout(DRAIN.as_secs());
    for listener in listeners {
        listener.set_nonblocking(true)?;
        stalled::end_stalled(&listener)?;
        server = match &config.tls {
            None => server.listen(listener)?,
            Some(tls) => server.listen_rustls_0_23(listener, tls.server_config())?,
        };
    }
    let addresses = server.addrs();
    let server = server.run();
    let handle = server.handle();
    tasks.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the HTTP side ended");
        }
    });
    Ok((handle, addresses))
}

async fn remember_fences(home: Arc<Home>, mut fences: mpsc::Receiver<Epoch>) {
    while let Some(epoch) = fences.recv().await {
        let home = Arc::clone(&home);
        let remembered = tokio::task::spawn_blocking(move || home.fence(epoch)).await;
        if let Ok(Err(error)) = remembered {
            tracing::error!(%error, epoch, "a newer reign cannot be remembered");
        }
    }
}
