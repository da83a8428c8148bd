//! Keeps the map in force up to date: one refresh at a time, started by what ops notice.
//!
//! A redirect, a node that is away or fails, or a newer version in an answer calls [`Refresher::trigger`], which
//! never waits. The refresh itself is a short task: it pauses until the last one is long enough ago (plus jitter, so
//! that many clients do not ask at once), asks nodes for their map, and swaps it in if it is newer. Only an op that
//! cannot go on without it (a redirect to a node that the map does not know) waits, by [`Refresher::refresh`];
//! then there is no pause.
//!
//! Invariant: a map older than the one in force is never adopted. A client's own file is only a seed: a node's map
//! of the same version replaces it, too.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    attempt::AttemptError,
    coalesce::NodeLanes,
    node_client::NodeClient,
    options::ClientOptions,
    routes::{Origin, Reach, Routes},
    shard_map::{Address, ShardMap},
};

/// Holds the map in force and replaces it.
pub(crate) struct Refresher {
    routes: ArcSwap<Routes>,
    reach: Reach,
    interval: Duration,
    timeout: Duration,
    /// Std lock: never held over an await.
    state: Mutex<State>,
    /// Number of the newest request that somebody waits for. Changes under the lock of `state`.
    wanted: watch::Sender<u64>,
    /// Number of the newest request that is served.
    served: watch::Sender<u64>,
    /// The map in force, for those who want to know of changes.
    maps: watch::Sender<Arc<ShardMap>>,
    /// Times nodes were asked.
    refreshes: AtomicU64,
    this: Weak<Self>,
}

#[derive(Default)]
struct State {
    is_running: bool,
    last_end: Option<Instant>,
    /// A node that is likely to have a newer map: asked first.
    hint: Option<Address>,
    last_error: Option<AttemptError>,
}

impl Refresher {
    pub(crate) fn new(
        map: ShardMap,
        origin: Origin,
        nodes: NodeClient,
        options: &ClientOptions,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let listener = this.clone();
            let reach = Reach {
                nodes,
                options: options.lanes,
                map_heard: Arc::new(move |from, identity| {
                    if let Some(refresher) = listener.upgrade() {
                        refresher.heard(from, identity);
                    }
                }),
            };
            let routes = Routes::new(map, origin, None, &reach);
            Self {
                maps: watch::Sender::new(routes.map().clone()),
                refreshes: AtomicU64::new(0),
                routes: ArcSwap::from_pointee(routes),
                reach,
                interval: options.refresh_interval,
                timeout: options.refresh_timeout,
                state: Mutex::default(),
                wanted: watch::Sender::new(0),
                served: watch::Sender::new(0),
                this: this.clone(),
            }
        })
    }

    /// The map in force, with the way to its nodes.
    pub(crate) fn routes(&self) -> arc_swap::Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// Tells of every map from the one in force on; of several at once only the last.
    pub(crate) fn maps(&self) -> watch::Receiver<Arc<ShardMap>> {
        let mut maps = self.maps.subscribe();
        maps.mark_changed();
        maps
    }

    /// Times nodes were asked for their map.
    pub(crate) fn refreshes(&self) -> u64 {
        self.refreshes.load(Ordering::Relaxed)
    }

    /// Talks to single nodes, for what does not travel in lanes.
    pub(crate) fn nodes(&self) -> &NodeClient {
        &self.reach.nodes
    }

    /// A node has said which map it has.
    pub(crate) fn heard(&self, from: &Address, identity: &str) {
        let routes = self.routes.load();
        if identity == routes.map().identity() {
            return;
        }
        let version = identity.split_once('-').and_then(|(v, _)| v.parse().ok());
        if version.is_some_and(|version| routes.gives_way_to(version, identity)) {
            self.trigger(Some(from));
        }
    }

    /// Starts a refresh unless one is under way, and returns at once. `hint` is asked first.
    pub(crate) fn trigger(&self, hint: Option<&Address>) {
        let mut state = self.lock();
        if state.is_running {
            return;
        }
        state.hint = hint.cloned();
        self.start(state);
    }

    /// Refreshes now and waits for it. Asks for a map at least as new as this call, whatever is under way.
    ///
    /// Returns why no node could be asked, if none could.
    pub(crate) async fn refresh(
        &self,
        hint: Option<&Address>,
        deadline: Instant,
    ) -> Result<(), AttemptError> {
        let mut served = self.served.subscribe();
        let mine = {
            let mut state = self.lock();
            let mine = *self.wanted.borrow() + 1;
            self.wanted.send_replace(mine);
            state.hint = hint.cloned().or(state.hint.take());
            if !state.is_running {
                self.start(state);
            }
            mine
        };
        let waited = timeout_at(deadline, served.wait_for(|served| *served >= mine)).await;
        if waited.is_err() {
            return Err(AttemptError::TimedOut);
        }
        self.lock().last_error.clone().map_or(Ok(()), Err)
    }

    /// Starts the task. It pauses first unless somebody waits for it.
    fn start(&self, mut state: MutexGuard<'_, State>) {
        state.is_running = true;
        let since_last = state.last_end.map_or(Duration::MAX, |end| end.elapsed());
        drop(state);
        let jitter = self.interval.mul_f64(fastrand::f64() / 4.0);
        let pause = match self.interval.saturating_sub(since_last) {
            Duration::ZERO => Duration::ZERO,
            rest => rest + jitter,
        };
        let running = Running {
            refresher: self.this.clone(),
            is_finished: false,
        };
        // Ends by itself: a pause, then each node is asked once with a time limit.
        tokio::spawn(running.run(pause));
    }

    /// Asks nodes until one answers, and adopts its map if it is newer.
    async fn ask(&self, hint: Option<Address>) -> Result<(), AttemptError> {
        self.refreshes.fetch_add(1, Ordering::Relaxed);
        let (map, order) = {
            let routes = self.routes.load();
            (routes.map().clone(), order(&routes, hint))
        };
        let mut last_error = AttemptError::NotSent;
        for address in order {
            let asked = self
                .reach
                .nodes
                .cluster_map(&address, Some(map.identity()), self.timeout);
            match asked.await {
                Ok(Some(newer)) => {
                    self.adopt(newer, &address);
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::debug!(node = %address, %error, "no map from this node");
                    last_error = error;
                }
            }
        }
        Err(last_error)
    }

    fn adopt(&self, map: ShardMap, from: &Address) {
        let before = self.routes.load();
        if !before.gives_way_to(map.version(), map.identity()) {
            return;
        }
        tracing::info!(before = before.map().identity(), now = map.identity(), node = %from, "shard map changed");
        let routes = Routes::new(map, Origin::Node, Some(&before), &self.reach);
        let map = routes.map().clone();
        self.routes.store(Arc::new(routes));
        self.maps.send_replace(map);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hint, then all nodes in random order, each once; last those that were ejected, each of which may take all of
/// a request's time.
fn order(routes: &Routes, hint: Option<Address>) -> Vec<Address> {
    let is_hint = |address: &Address| Some(address) == hint.as_ref();
    let mut others: Vec<&Arc<NodeLanes>> = routes
        .all()
        .map(|(_, _, lanes)| lanes)
        .filter(|lanes| !is_hint(lanes.address()))
        .collect();
    fastrand::shuffle(&mut others);
    others.sort_by_key(|lanes| lanes.health().is_ejected());
    let others = others.into_iter().map(|lanes| lanes.address().clone());
    let others: Vec<Address> = others.collect();
    hint.into_iter().chain(others).collect()
}

/// A refresh task. Keeps no client alive while it pauses; dropped early, it lets the next one start.
struct Running {
    refresher: Weak<Refresher>,
    is_finished: bool,
}

impl Running {
    async fn run(mut self, pause: Duration) {
        self.pause(pause).await;
        while let Some(refresher) = self.refresher.upgrade() {
            let serving = *refresher.wanted.borrow();
            let hint = refresher.lock().hint.take();
            let asked = refresher.ask(hint).await;
            let mut state = refresher.lock();
            state.last_error = asked.err();
            refresher.served.send_replace(serving);
            if *refresher.wanted.borrow() == serving {
                self.end(&mut state);
                return;
            }
        }
    }

    /// Waits, unless somebody is in a hurry or the client has gone.
    async fn pause(&self, pause: Duration) {
        let Some(refresher) = self.refresher.upgrade() else {
            return;
        };
        let mut wanted = refresher.wanted.subscribe();
        let served = *refresher.served.borrow();
        drop(refresher);
        // Over in time, early, or with an error when the client has gone: all the same here.
        let _ = timeout(pause, wanted.wait_for(|wanted| *wanted > served)).await;
    }

    fn end(&mut self, state: &mut State) {
        state.is_running = false;
        state.last_end = Some(Instant::now());
        self.is_finished = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        if let Some(refresher) = self.refresher.upgrade() {
            self.end(&mut refresher.lock());
        }
    }
}
