//! The shard as handlers see it: what is in force now, and the one path that every op takes.
//!
//! An op goes: ownership, limits, then either the commit queue or a read of the store. Handlers only translate
//! between HTTP and [`Op`]s. Atomic batches go the same way as a whole (`atomic.rs`). Reads run inline on the worker
//! that asks; see `store/read.rs` for why.

use std::{
    sync::{Arc, Weak, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use kvclient::{
    key::Key,
    position::{Epoch, Position},
    shard_map::{Address, Role, ShardMap},
    wire::{
        MAX_WAIT_MS,
        batch::{Action, Op, OpResult, Terms},
        error::{Applied, ErrorCode},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    access::Admission,
    acknowledge::Acknowledge,
    asker::Asker,
    clock::ShardClock,
    commit::read_result,
    config::NodeConfig,
    metrics::{Metrics, OpOutcome},
    ownership::{self, Access, Decision, Place},
    pending::{PendingReads, PendingWrites},
    readiness::{MapConflict, Readiness},
    replication::progress::Progress,
    storage::Storage,
    store::{StoreError, TOGETHER},
    timing::{Part, Timing},
    vitals::Vitals,
};

/// Everything handlers need; one per node.
#[derive(Debug)]
pub struct Service {
    /// The node's configuration, as it started.
    pub config: NodeConfig,
    /// Who may do what.
    pub admission: Admission,
    /// Random id of the data directory.
    pub node_id: u64,
    /// The map in force.
    pub map: ArcSwap<ShardMap>,
    /// A node that goes by another map of this version.
    pub map_conflict: ArcSwapOption<MapConflict>,
    /// The generation in force; none on a replica that has nothing yet.
    pub storage: ArcSwapOption<Storage>,
    /// Whether data is there that is not open yet.
    pub recovering: AtomicBool,
    /// Whether it serves.
    pub readiness: ArcSwap<Readiness>,
    /// Shard time.
    pub clock: Arc<ShardClock>,
    /// How far a replica has come; what a primary knows of its replicas.
    pub progress: Progress,
    /// Counters.
    pub metrics: Metrics,
    /// The last minutes.
    pub vitals: Vitals,
    /// When the node started.
    pub started: Instant,
    /// The same by the wall clock, as it was then.
    pub started_at: SystemTime,
    /// Ends what would otherwise never end, such as a watch, when the node begins to stop.
    pub stopping: CancellationToken,
    /// Ends the waits of writes for replicas, a moment after the node began to stop.
    pub no_more_acks: CancellationToken,
    /// How this node asks others.
    pub asker: Asker,
    /// Where a newer reign is told; the node remembers it and ends its own.
    pub fences: mpsc::Sender<Epoch>,
}

impl Service {
    /// This node's place in the map.
    pub fn place(&self) -> &Place {
        &self.config.place
    }

    /// What it is to its shard.
    pub fn role(&self) -> Role {
        self.config.place.role
    }

    /// Milliseconds behind the primary; 0 on a primary that reigns; `None` if this node cannot know: a replica that
    /// was never level, or a primary that was replaced.
    pub fn lag_ms(&self) -> Option<u64> {
        match self.role() {
            Role::Primary => {
                let reigns = self
                    .storage
                    .load()
                    .as_ref()
                    .is_some_and(|storage| storage.commit.reigns());
                reigns.then_some(0)
            }
            Role::Replica => self.progress.lag_ms(),
        }
    }

    /// Who answers for a key.
    pub fn route<'a>(&self, key: &Key, access: Access, map: &'a ShardMap) -> Decision<'a> {
        ownership::decide(key, access, map, self.place())
    }

    /// Does ops in order, one result each. Ops on one key act in the order given.
    ///
    /// # Cancel safety
    /// Writes that were queued are decided, whether or not the caller still waits.
    pub async fn execute(&self, ops: Vec<Op>) -> Vec<OpResult> {
        let arrived = Instant::now();
        let counting = self.metrics.begin_ops(&ops, arrived);
        let results = self.execute_each(ops, arrived, None).await;
        counting.end(results.iter().map(OpOutcome::of));
        results
    }

    /// As [`Self::execute`] for one op, whose times are written down.
    ///
    /// # Cancel safety
    /// That of [`Self::execute`].
    pub async fn execute_timed(&self, op: Op, timing: &Arc<Timing>) -> OpResult {
        let (arrived, ops) = (Instant::now(), vec![op]);
        let counting = self.metrics.begin_ops(&ops, arrived);
        let results = self.execute_each(ops, arrived, Some(timing)).await;
        counting.end(results.iter().map(OpOutcome::of));
        results.into_iter().next().unwrap_or_default()
    }

    async fn execute_each(
        &self,
        ops: Vec<Op>,
        arrived: Instant,
        timing: Option<&Arc<Timing>>,
    ) -> Vec<OpResult> {
        let map = self.map.load();
        let storage = self.storage.load_full();
        let mut results: Vec<OpResult> = Vec::with_capacity(ops.len());
        let mut reads = PendingReads::default();
        let mut writes = PendingWrites::default();
        let are_writes = |op: &&Op| op.action.is_write();
        writes.reserve(ops.iter().take_while(are_writes).count());
        for (index, op) in ops.into_iter().enumerate() {
            let is_write = op.action.is_write();
            let applied = is_write.then_some(Applied::No);
            let access = if is_write {
                Access::Write
            } else {
                Access::Read
            };
            let refusal = match self.route(&op.key, access, &map) {
                Decision::Serve if is_write => self.refuse_write(&op),
                decision => turned_away(&decision, applied),
            };
            let Some(storage) = &storage else {
                results.push(refusal.unwrap_or_else(|| self.not_ready(applied)));
                continue;
            };
            let result = match refusal {
                Some(refusal) => refusal,
                None if is_write => {
                    writes.push(index, op, arrived, self.acknowledge());
                    OpResult::default()
                }
                None => {
                    if !writes.is_flushed() {
                        // Those before the writes do not see them, those behind them do.
                        self.read(storage, &mut reads, arrived, &mut results, timing)
                            .await;
                        writes.flush(&storage.commit, &mut results, timing).await;
                    }
                    reads.push(index, op);
                    OpResult::default()
                }
            };
            results.push(result);
        }
        if let Some(storage) = &storage {
            self.read(storage, &mut reads, arrived, &mut results, timing)
                .await;
            writes.flush(&storage.commit, &mut results, timing).await;
            let settled = writes.settle(&storage.commit, self.acknowledge(), &mut results, timing);
            settled.await;
        }
        results
    }

    /// What decides whether a write has reached enough replicas.
    pub fn acknowledge(&self) -> Acknowledge<'_> {
        Acknowledge {
            map: &self.map,
            place: self.place(),
            progress: &self.progress,
            no_more: &self.no_more_acks,
            metrics: &self.metrics,
        }
    }

    /// Says whether the node serves from now on; true if that is a change. That it is damaged, or stops, stays.
    pub fn set_readiness(&self, readiness: Readiness) -> bool {
        let readiness = Arc::new(readiness);
        let stays = |now: &Readiness| matches!(now, Readiness::Damaged(_) | Readiness::Stopping);
        let before = self.readiness.rcu(|now| match stays(now) {
            true => Arc::clone(now),
            false => Arc::clone(&readiness),
        });
        !stays(&before) && before != readiness
    }

    /// Another node of the shard has said which map it goes by. One version with two contents is a mistake that
    /// only a person can mend; it is told by `/readyz` until that node goes by this map too.
    pub fn saw_map(&self, node: &Address, identity: &str) {
        let map = self.map.load();
        let version = |identity: &str| identity.split('-').next().map(str::to_owned);
        let conflicts = identity != map.identity() && version(identity) == version(map.identity());
        let known = self.map_conflict.load();
        let told_by_node = known
            .as_ref()
            .is_some_and(|conflict| conflict.node == *node);
        match (conflicts, told_by_node) {
            (true, false) => {
                let conflict = MapConflict {
                    node: node.clone(),
                    identity: identity.to_owned(),
                };
                tracing::error!("{}", conflict.to_text(&map));
                self.map_conflict.store(Some(Arc::new(conflict)));
            }
            (false, true) => self.map_conflict.store(None),
            (true, true) | (false, false) => {}
        }
    }

    /// What `/readyz` says: whether requests may be sent here, and if not, why.
    pub fn ready(&self) -> Result<(), String> {
        let readiness = self.readiness.load();
        if **readiness != Readiness::Ready {
            return Err(readiness.to_text());
        }
        if self.storage.load().is_none() {
            return Err("not ready: no data is open".into());
        }
        if let Some(conflict) = &*self.map_conflict.load() {
            return Err(conflict.to_text(&self.map.load()));
        }
        // Whoever is sent here would refuse it. Files that could not be read anew are only told: the old ones serve.
        let ended = self.config.tls.as_ref().and_then(|tls| tls.ended());
        ended.map_or(Ok(()), Err)
    }

    /// Serves no longer: running requests are finished, and streams that have no end of their own end now.
    pub fn begin_stop(&self) {
        let before = self.readiness.swap(Arc::new(Readiness::Stopping));
        if let (true, Some(storage)) = (*before != Readiness::Ready, &*self.storage.load()) {
            // It took no writes before, and does not begin to now.
            storage.commit.end_reign();
        }
        self.stopping.cancel();
    }

    /// Another node reigns in a newer epoch: takes no more writes, and has it remembered.
    pub fn fence(&self, newer: Epoch) {
        self.progress.saw_epoch(newer);
        if let Some(storage) = &*self.storage.load() {
            storage.commit.end_reign();
        }
        self.progress.wake_waiting();
        // What was found out at start says more: which node is ahead, and what is lost with --promote.
        if **self.readiness.load() == Readiness::Ready {
            self.set_readiness(Readiness::NotReady(format!(
                "a replica knows of epoch {newer}, newer than this node's: another node was made the primary. If \
                 this one is to take writes again, start it with --promote"
            )));
        }
        let _ = self.fences.try_send(newer);
    }

    /// The refusal while there is nothing to serve from.
    pub fn not_ready(&self, applied: Option<Applied>) -> OpResult {
        OpResult::refused(
            ErrorCode::NotReady,
            self.readiness.load().to_text(),
            applied,
        )
    }

    /// What can be refused of a write without asking the commit thread.
    pub fn refuse_write(&self, op: &Op) -> Option<OpResult> {
        let refuse =
            |code, message: String| Some(OpResult::refused(code, message, Some(Applied::No)));
        match &op.action {
            Action::Put { value, .. } if value.len() > self.config.sizes.max_value_bytes => refuse(
                ErrorCode::TooLarge,
                too_large(value.len(), self.config.sizes.max_value_bytes),
            ),
            // Requests that run when the node stops are finished, writes too.
            _ => match **self.readiness.load() {
                Readiness::Ready | Readiness::Stopping => None,
                Readiness::NotReady(_)
                | Readiness::Copying
                | Readiness::Diverged(_)
                | Readiness::Damaged(_) => Some(self.not_ready(Some(Applied::No))),
            },
        }
    }

    /// The generation that reads see now, once it holds what the terms of a read that came at `arrived` ask for.
    /// For what reads more than one key; ops on keys go through [`Self::execute`].
    ///
    /// # Errors
    /// The refusal to answer with.
    pub async fn readable(
        &self,
        terms: &Terms,
        arrived: Instant,
    ) -> Result<Arc<Storage>, OpResult> {
        let storage = self.storage.load_full();
        let storage = storage.ok_or_else(|| self.not_ready(None))?;
        self.may_read(&storage, terms, arrived).await?;
        Ok(storage)
    }

    /// Whether reads still see this generation: a replica may have changed to another, or have to be silent.
    pub fn still_reads(&self, storage: &Weak<Storage>) -> bool {
        let now = self.storage.load();
        let is_current = now
            .as_ref()
            .is_some_and(|now| std::ptr::eq(Arc::as_ptr(now), storage.as_ptr()));
        is_current
            && !matches!(
                **self.readiness.load(),
                Readiness::Copying | Readiness::Diverged(_)
            )
    }

    async fn may_read(
        &self,
        storage: &Storage,
        terms: &Terms,
        arrived: Instant,
    ) -> Result<(), OpResult> {
        if terms.ack.is_some() {
            // Ignored, it would seem to promise that what is read cannot be lost.
            let message = "Kv-Ack goes with writes: a read waits for nobody's sync";
            return Err(OpResult::refused(ErrorCode::BadParameter, message, None));
        }
        match &**self.readiness.load() {
            Readiness::Diverged(why) => {
                return Err(OpResult::refused(
                    ErrorCode::ReplicaDiverged,
                    why.clone(),
                    None,
                ));
            }
            // What it does not have yet is not absent.
            Readiness::Copying => return Err(self.not_ready(None)),
            Readiness::Ready
            | Readiness::NotReady(_)
            | Readiness::Damaged(_)
            | Readiness::Stopping => {}
        }
        if let Some(min_position) = terms.min_position {
            let wait = u64::from(terms.wait_ms.unwrap_or(0)).min(MAX_WAIT_MS);
            reach(storage, min_position, arrived + Duration::from_millis(wait)).await?;
        }
        match terms.max_lag_ms {
            Some(limit) => self.refuse_lag(storage, limit).map_or(Ok(()), Err),
            None => Ok(()),
        }
    }

    /// Looks up all reads that wait, a few together.
    async fn read(
        &self,
        storage: &Storage,
        reads: &mut PendingReads,
        arrived: Instant,
        results: &mut [OpResult],
        timing: Option<&Arc<Timing>>,
    ) {
        while !reads.is_answered() {
            let ops = reads.next(TOGETHER);
            let refusals = self.refuse_reads(storage, ops.clone(), arrived).await;
            let keys = ops.map(|op| op.key.as_bytes());
            let before = timing.map(|timing| timing.elapsed());
            let found = storage.store.get_each(keys, reads.room_bytes());
            if let (Some(timing), Some(before)) = (timing, before) {
                timing.took(Part::Lmdb, timing.elapsed() - before);
            }
            // Loaded after the lookup: it may say more than was seen, never less.
            let (now_ms, position) = (self.clock.now_ms(), storage.store.visible());
            for (entry, refusal) in found.into_iter().zip(refusals) {
                reads.answer_next(results, |op| match (refusal, entry) {
                    (Some(refusal), _) => refusal,
                    (None, Ok(entry)) => read_result(op, entry, now_ms, position),
                    (None, Err(error)) => read_failed(&error),
                });
            }
        }
    }

    /// The refusal of each read that is not answered now; waits for positions that some of them ask for.
    async fn refuse_reads(
        &self,
        storage: &Storage,
        ops: impl Iterator<Item = &Op>,
        arrived: Instant,
    ) -> Vec<Option<OpResult>> {
        let held = storage.store.held();
        let is_ready = **self.readiness.load() == Readiness::Ready;
        let mut refusals = Vec::with_capacity(TOGETHER);
        for Op { terms, .. } in ops {
            // Most ask for what is here.
            let may = is_ready
                && terms.ack.is_none()
                && terms.max_lag_ms.is_none()
                && terms
                    .min_position
                    .is_none_or(|wanted| held.contains(wanted));
            refusals.push(match may {
                true => None,
                false => self.may_read(storage, terms, arrived).await.err(),
            });
        }
        refusals
    }

    fn refuse_lag(&self, storage: &Storage, limit: u64) -> Option<OpResult> {
        let lag = self.lag_ms();
        if lag.is_some_and(|lag| lag <= limit) {
            return None;
        }
        let lag = lag.map_or("unknown".to_owned(), |lag| format!("{lag} ms"));
        Some(behind(
            storage,
            format!("this replica's lag is {lag}, more than the {limit} ms allowed"),
        ))
    }
}

/// Waits until a node holds a position, but not longer than to `until`.
async fn reach(storage: &Storage, wanted: Position, until: Instant) -> Result<(), OpResult> {
    // Most readers ask for what is here: no subscription for them.
    if storage.store.holds(wanted) {
        return Ok(());
    }
    let mut visible = storage.store.subscribe();
    loop {
        let reached = visible.borrow_and_update().seq;
        let lineage = storage.store.lineage();
        if lineage.holds(wanted, reached) {
            return Ok(());
        }
        if lineage.has_lost(wanted) {
            let message = format!("a newer reign began at or below {wanted}; it will never come");
            let mut lost = OpResult::refused(ErrorCode::PositionLost, message, None);
            lost.position = Some(storage.store.visible());
            return Err(lost);
        }
        let changed = tokio::time::timeout_at(until.into(), visible.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err(behind(
                storage,
                format!("this node does not hold {wanted} yet"),
            ));
        }
    }
}

/// The refusal of a node that has not come that far; it says how far it is.
pub fn behind(storage: &Storage, message: String) -> OpResult {
    let mut behind = OpResult::refused(ErrorCode::Behind, message, None);
    behind.position = Some(storage.store.visible());
    behind
}

/// How a store's failure is told to a reader.
pub fn read_failed(error: &StoreError) -> OpResult {
    let code = match error {
        StoreError::Damaged { .. } => ErrorCode::Damaged,
        StoreError::Busy => ErrorCode::Overloaded,
        _ => ErrorCode::StorageFailed,
    };
    tracing::error!(%error, "a read failed");
    OpResult::refused(code, error.to_string(), None)
}

/// How large a value may be, said to one whose value is larger.
pub fn too_large(len_bytes: usize, limit_bytes: usize) -> String {
    format!(
        "the value has {len_bytes} bytes; this node takes at most {limit_bytes} (--max-value-size)"
    )
}

/// The answer to an op on a key that this node does not serve; `None` if it does.
pub fn turned_away(decision: &Decision, applied: Option<Applied>) -> Option<OpResult> {
    match decision {
        Decision::Serve => None,
        Decision::Redirect(target) => Some(redirected(target, applied)),
        Decision::ReadOnly(primary) => Some(read_only(primary)),
    }
}

fn redirected(target: &Address, applied: Option<Applied>) -> OpResult {
    OpResult {
        status: 307,
        applied,
        target: Some(target.to_string().into()),
        ..OpResult::default()
    }
}

fn read_only(primary: &Address) -> OpResult {
    let message = format!(
        "this node is a replica and takes no writes; send them to the primary at {primary}"
    );
    let mut refused = OpResult::refused(ErrorCode::ReadOnlyReplica, message, Some(Applied::No));
    refused.target = Some(primary.to_string().into());
    refused
}
