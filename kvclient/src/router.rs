//! What all ops of a client and its clones share: the way to the nodes, the settings, and what extra attempts may cost.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    coalesce::{Latency, NodeLanes},
    key::Key,
    options::{ClientOptions, Hedging},
    plan::{Plan, View},
    policy::{ReadRequest, budget::Budget, hedge, retry},
    refresh::Refresher,
    request_ids::RequestIds,
    routes::RoutedShard,
    shard_map::{Role, Shard},
    stats::{NodeStats, Stats},
};

/// Lag-bound reads that may go on to another node at once, per thousand; the most in one burst.
const LAG_SHARE_PERMILLE: u16 = 200;
const LAG_BURST: u32 = 100;

/// Carries out ops.
pub(crate) struct Router {
    pub(crate) refresher: Arc<Refresher>,
    pub(crate) options: ClientOptions,
    pub(crate) ids: RequestIds,
    pub(crate) budgets: Budgets,
    pub(crate) counts: Counts,
    /// What reads take, over all nodes and attempts.
    pub(crate) reads: Latency,
}

/// Bounds on extra attempts.
#[derive(Debug)]
pub(crate) struct Budgets {
    /// Repeats without a long pause.
    pub(crate) retry: Budget,
    /// Second copies of reads.
    pub(crate) hedge: Budget,
    /// Lag-bound reads that go on from a replica that lags.
    pub(crate) lag: Budget,
}

/// Counts over all nodes.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ops: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) held_back: AtomicU64,
    pub(crate) redirects: AtomicU64,
    pub(crate) hedges: AtomicU64,
    pub(crate) hedges_won: AtomicU64,
}

impl Router {
    pub(crate) fn new(refresher: Arc<Refresher>, options: ClientOptions) -> Self {
        Self {
            refresher,
            options,
            ids: RequestIds::new(),
            budgets: Budgets {
                retry: Budget::new(retry::SHARE_PERMILLE, retry::BURST, retry::BURST),
                hedge: Budget::new(hedge::SHARE_PERMILLE, hedge::BURST, 0),
                lag: Budget::new(LAG_SHARE_PERMILLE, LAG_BURST, LAG_BURST),
            },
            counts: Counts::default(),
            reads: Latency::new(),
        }
    }

    /// The place in its shard of the node that a plan names next. `wants_level`: a replica may be too far behind.
    pub(crate) fn next_place(
        &self,
        plan: &mut Plan,
        routed: &RoutedShard<'_>,
        key: Option<&Key>,
        wants_level: bool,
        asked: u32,
    ) -> Option<usize> {
        let zone = self.options.zone.as_deref();
        plan.next(&View {
            standing: &|place| routed.standing(place, zone, wants_level),
            node: &|place| routed.candidate(place),
            policy: &*self.options.read_policy,
            read: ReadRequest { key, asked },
        })
    }

    pub(crate) fn hedges(&self) -> bool {
        self.options.hedging == Hedging::On
    }

    pub(crate) fn stats(&self) -> Stats {
        let routes = self.refresher.routes();
        let counts = &self.counts;
        Stats {
            map: routes.map().identity().to_owned(),
            ops: counts.ops.load(Relaxed),
            retries: counts.retries.load(Relaxed),
            retries_held_back: counts.held_back.load(Relaxed),
            redirects: counts.redirects.load(Relaxed),
            hedges: counts.hedges.load(Relaxed),
            hedges_won: counts.hedges_won.load(Relaxed),
            refreshes: self.refresher.refreshes(),
            read_latency: self.reads.percentiles(),
            nodes: routes.all().map(node_stats).collect(),
        }
    }
}

fn node_stats((shard, role, lanes): (&Shard, Role, &Arc<NodeLanes>)) -> NodeStats {
    let counts = lanes.counts();
    NodeStats {
        address: lanes.address().clone(),
        shard: shard.name.clone(),
        role,
        ops: counts.ops.load(Relaxed),
        errors: counts.errors.load(Relaxed),
        requests: lanes.requests(),
        in_flight: lanes.in_flight(),
        latency: lanes.latency().percentiles(),
        is_ejected: lanes.health().is_ejected(),
        ejections: lanes.health().ejections(),
        hedges: counts.hedges.load(Relaxed),
        hedges_won: counts.hedges_won.load(Relaxed),
    }
}
