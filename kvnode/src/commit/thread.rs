//! The loop of the commit thread: gather, decide, append, sync, publish, answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvclient::{
    faults::{self, Guarantee},
    position::{Epoch, Position},
    wire::{
        MAX_BATCH_OPS,
        log::{Effect, Frame, Link, Record},
    },
};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::oneshot;

use super::{
    command::{AppendError, Command, SMALL_OPS},
    group::{Group, Refusal, Waiting},
    remembered::Remembered,
};
use crate::{
    clock::ShardClock,
    log::{LogError, LogWriter},
    store::{Store, StoreError},
};

/// Bounds of the buckets for append and sync: 50 us, each twice the one before, 16 of them, up to 1.6 s.
const SYNC_SECONDS: (f64, f64, u16) = (50e-6, 2.0, 16);

/// Syncs that take less than this on average are waited for by who asks. It is what a worker may lose to one write:
/// as much as it takes to serve some fifty reads. Slower syncs are left to the thread: beside them the way through
/// it costs little.
///
/// Tests do not depend on how fast the disk is.
const SWIFT: Duration = match cfg!(test) {
    true => Duration::from_secs(3_600),
    false => Duration::from_micros(500),
};

/// After so many small groups in a row there are few who write. Where there are many, the next writes gather during the
/// sync of those before, and a group is small by chance.
pub(super) const QUIET_AFTER: u32 = 4;

/// Room that the segment must have, in bytes: more than a small group takes. To begin the next takes three syncs.
const SWIFT_ROOM_BYTES: u64 = 256 << 10;

/// Remembered requests that are read at once when a reign begins.
const RECALL_PAGE: usize = 4_096;

/// Counts of the commit thread, for metrics.
#[derive(Debug)]
pub struct CommitStats {
    /// Frames appended and synced.
    pub frames: AtomicU64,
    /// Records in them.
    pub records: AtomicU64,
    /// Bytes of them.
    pub bytes: AtomicU64,
    /// Seconds that each append with its sync took. Its lock is taken once a group and contended by scrapes only.
    pub sync_seconds: Histogram,
    /// Records that each of them made durable. As above.
    pub group_records: Histogram,
}

impl Default for CommitStats {
    fn default() -> Self {
        let (first, factor, count) = SYNC_SECONDS;
        Self {
            frames: AtomicU64::default(),
            records: AtomicU64::default(),
            bytes: AtomicU64::default(),
            sync_seconds: Histogram::new(exponential_buckets(first, factor, count)),
            // From a lone write to a full group.
            group_records: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
        }
    }
}

/// What the thread and its callers both see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Whether this node takes writes: set by a reign, cleared by a fence, looked at for every op.
    pub(super) reigns: AtomicBool,
    pub(super) stats: CommitStats,
}

/// Whether anything can be written afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    End,
}

/// Storage failed: whether the group at hand is durable is unknown.
pub(super) struct Failed(pub(super) String);

pub(super) struct Committer {
    pub(super) log: LogWriter,
    pub(super) store: Store,
    pub(super) clock: Arc<ShardClock>,
    pub(super) max_frame_bytes: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) epoch: Epoch,
    /// Of this reign; whatever it says while another node reigns is not asked for.
    pub(super) remembered: Remembered,
    /// Where outcomes are encoded, kept so that it is not allocated for each.
    pub(super) scratch: Vec<u8>,
    /// Moving average of what an append with its sync took.
    pub(super) recent_sync: Duration,
    /// What the last one took.
    pub(super) last_sync: Duration,
    /// Groups in a row that were small.
    pub(super) small_groups: u32,
}

impl Committer {
    /// Does a command and those that `next` gives behind it, as one group or, if one of them has to go alone, several.
    pub(super) fn run(
        &mut self,
        first: Command,
        mut next: impl FnMut() -> Option<Command>,
    ) -> Result<Then, Failed> {
        let mut at_hand = Some(first);
        while let Some(command) = at_hand.take() {
            match command {
                Command::Frames { frames, reply } => {
                    let outcome = self.append_frames(&frames)?;
                    let _ = reply.send(outcome);
                }
                Command::Stop => return Ok(Then::End),
                first => at_hand = self.commit_group(first, &mut next)?,
            }
        }
        Ok(Then::GoOn)
    }

    /// Whether a small group will be over soon: syncs are fast, nothing else is there to wait for, and more writes are
    /// hardly on their way.
    pub(super) fn is_swift(&self) -> bool {
        self.recent_sync < SWIFT
            && self.small_groups >= QUIET_AFTER
            && self.log.room_bytes() > SWIFT_ROOM_BYTES
            && self.store.has_room()
    }

    /// Commits `first` and what waits behind it; gives back a command that has to go alone.
    fn commit_group(
        &mut self,
        first: Command,
        behind: &mut impl FnMut() -> Option<Command>,
    ) -> Result<Option<Command>, Failed> {
        let mut group = Group::new(self.clock.now_ms());
        self.remembered.forget_idle(group.time_ms);
        let mut ops = 0;
        let mut next = Some(first);
        while let Some(command) = next.take() {
            // Not the time at which the group began: who asks now may have read what had expired since.
            group.time_ms = self.clock.now_ms();
            match command {
                Command::Frames { .. } | Command::Stop => {
                    self.small_groups = match ops <= SMALL_OPS {
                        true => self.small_groups.saturating_add(1),
                        false => 0,
                    };
                    self.close(&mut group)?;
                    return Ok(Some(command));
                }
                #[cfg(test)]
                Command::Run(work) => work(),
                Command::Writes {
                    ops: writes,
                    reply,
                    timed,
                } => {
                    ops += writes.len();
                    self.decide_writes(&mut group, writes, reply, timed)?;
                }
                Command::Atomic { batch, reply } => {
                    ops += batch.ops.len();
                    self.decide_atomic(&mut group, batch, reply)?;
                }
                Command::Expired { entries, reply } => {
                    ops += entries.len();
                    self.decide_expired(&mut group, entries, reply)?;
                }
                Command::Reign {
                    epoch,
                    reign_id,
                    node,
                    reply,
                } => {
                    self.reign(
                        &mut group,
                        epoch,
                        Record::epoch_start(reign_id, node),
                        reply,
                    )?;
                }
            }
            if ops < MAX_BATCH_OPS {
                next = behind();
            }
        }
        self.close(&mut group)?;
        Ok(None)
    }

    fn decide_expired(
        &mut self,
        group: &mut Group,
        entries: Vec<(Bytes, Position)>,
        reply: oneshot::Sender<usize>,
    ) -> Result<(), Failed> {
        let (mut deleted, mut settled) = (0, 0);
        for (key, position) in entries {
            if !self.fits(group, key.len() + RECORD_OVERHEAD_BYTES) {
                match self.close(group)? {
                    None => settled = deleted,
                    Some(_) => deleted = settled,
                }
            }
            if !self.shared.reigns.load(Ordering::Acquire) {
                break;
            }
            let entry = match group.changed(&key) {
                Some(changed) => changed.clone(),
                None => self.store.get(&key).unwrap_or_default(),
            };
            let due =
                entry.filter(|entry| entry.position == position && entry.is_expired(group.time_ms));
            if due.is_some() {
                let next = self.next_position(group);
                group.push(
                    next,
                    Record::new(key, Effect::Delete { by_expiry: true }),
                    due,
                );
                deleted += 1;
            }
        }
        group.waiting.push(Waiting::Expired {
            deleted,
            settled,
            reply,
        });
        Ok(())
    }

    /// Closes the group, then begins a reign in a frame of its own, since all records of a frame are of one epoch.
    fn reign(
        &mut self,
        group: &mut Group,
        epoch: Epoch,
        start: Record,
        reply: oneshot::Sender<Result<(), AppendError>>,
    ) -> Result<(), Failed> {
        self.close(group)?;
        // Nobody else writes, so nothing is added between this and the reign's first record.
        if let Err(refusal) = self.recall_requests()? {
            let _ = reply.send(Err(refusal));
            return Ok(());
        }
        let before = std::mem::replace(&mut self.epoch, epoch);
        group.push(self.next_position(group), start, None);
        let outcome = match self.commit_records(group)? {
            None => {
                faults::point("reign.appended");
                self.shared.reigns.store(true, Ordering::Release);
                Ok(())
            }
            Some(refusal) => {
                self.epoch = before;
                Err(refusal.into())
            }
        };
        let _ = reply.send(outcome);
        Ok(())
    }

    /// Fills the index of requests from the store.
    fn recall_requests(&mut self) -> Result<Result<(), AppendError>, Failed> {
        let mut remembered = Remembered::default();
        let mut after = None;
        loop {
            let page = match self.store.requests(after, RECALL_PAGE) {
                Ok(page) => page,
                Err(error @ (StoreError::Refused(_) | StoreError::Fatal(_))) => {
                    return Err(Failed(format!("LMDB cannot be read: {error}")));
                }
                Err(error) => return Ok(Err(AppendError::Unreadable(error.to_string()))),
            };
            let Some(last) = page.last() else {
                self.remembered = remembered;
                return Ok(Ok(()));
            };
            after = Some(last.id());
            for request in page {
                remembered.keep(request.mark, request.position.seq, request.time_ms);
            }
        }
    }

    /// Commits what the group holds and sends all answers that wait for it.
    pub(super) fn close(&mut self, group: &mut Group) -> Result<Option<Refusal>, Failed> {
        if faults::is_off(Guarantee::AnswerAfterSync) {
            group.answer(None);
        }
        let refusal = self.commit_records(group)?;
        faults::point("commit.before_answer");
        group.answer(refusal.as_ref());
        Ok(refusal)
    }

    /// Appends the group's records as one frame, syncs, publishes. Answers are left to the caller.
    fn commit_records(&mut self, group: &mut Group) -> Result<Option<Refusal>, Failed> {
        let (builder, mut records) = group.take();
        if builder.is_empty() {
            return Ok(None);
        }
        if let Err(StoreError::Full(why)) = self.store.can_accept() {
            return Ok(Some(Refusal::NoSpace(why.to_string())));
        }
        let frame = builder.finish(&self.log.end(), self.epoch, group.time_ms);
        if let Some(refusal) = self.sync(std::slice::from_ref(&frame))? {
            return Ok(Some(refusal));
        }
        group.synced_in = Some(self.last_sync);
        faults::point("commit.before_publish");
        let time_ms = frame.header.time_ms;
        self.publish(frame.header.link(), time_ms, &records)?;
        for (position, record) in &mut records {
            if let Some(mark) = record.mark.take() {
                self.remembered.keep(mark, position.seq, time_ms);
            }
        }
        group.time_ms = self.clock.now_ms();
        Ok(None)
    }

    fn sync(&mut self, frames: &[Frame]) -> Result<Option<Refusal>, Failed> {
        let before = Instant::now();
        match self.log.append_synced(frames) {
            Ok(()) => {}
            Err(LogError::NoSpace(why)) => return Ok(Some(Refusal::NoSpace(why.to_string()))),
            // It is refused before a byte is written, so storage is as good as before.
            Err(LogError::Refused(why)) => {
                tracing::error!(%why, "the log refuses a frame; nothing of it was stored");
                return Ok(Some(Refusal::Unfit(why)));
            }
            Err(error) => return Err(Failed(format!("the log cannot be written: {error}"))),
        }
        let stats = &self.shared.stats;
        let add = |counter: &AtomicU64, value: u64| counter.fetch_add(value, Ordering::Relaxed);
        let took = before.elapsed();
        self.recent_sync = (self.recent_sync * 3 + took) / 4;
        self.last_sync = took;
        stats.sync_seconds.observe(took.as_secs_f64());
        add(&stats.frames, frames.len() as u64);
        let records = frames
            .iter()
            .map(|frame| u64::from(frame.header.count))
            .sum::<u64>();
        stats.group_records.observe(records as f64);
        add(&stats.records, records);
        add(
            &stats.bytes,
            frames.iter().map(|frame| frame.bytes.len() as u64).sum(),
        );
        Ok(None)
    }

    fn publish(
        &self,
        link: Link,
        time_ms: u64,
        records: &[(Position, Record)],
    ) -> Result<(), Failed> {
        self.clock.saw_frame(time_ms);
        self.store
            .publish(link, time_ms, records)
            .map_err(|error| Failed(format!("a durable frame cannot be made visible: {error}")))
    }

    fn append_frames(&mut self, frames: &[Frame]) -> Result<Result<(), AppendError>, Failed> {
        let mut decoded = Vec::with_capacity(frames.len());
        let mut end = self.log.end();
        for frame in frames {
            if let Err(error) = frame.header.check_follows(&end) {
                return Ok(Err(AppendError::Malformed(error.to_string())));
            }
            match frame.records() {
                Ok(records) => decoded.push(records),
                Err(error) => return Ok(Err(AppendError::Malformed(error.to_string()))),
            }
            end = frame.header.link();
        }
        if let Err(StoreError::Full(why)) = self.store.can_accept() {
            return Ok(Err(AppendError::NoSpace(why.to_string())));
        }
        match self.sync(frames)? {
            None => {}
            Some(Refusal::NoSpace(why)) => return Ok(Err(AppendError::NoSpace(why))),
            Some(Refusal::Unfit(why)) => {
                return Ok(Err(AppendError::Malformed(format!(
                    "{why}. Start this node with the --log-segment-size and --max-value-size of its primary"
                ))));
            }
        }
        for (frame, records) in frames.iter().zip(&decoded) {
            self.publish(frame.header.link(), frame.header.time_ms, records)?;
        }
        Ok(Ok(()))
    }
}

/// More bytes than a record's header, expiry and mark take, see [`kvclient::wire::log`].
pub(super) const RECORD_OVERHEAD_BYTES: usize = 128;
