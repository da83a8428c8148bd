//! Deciding writes one by one, each against what is decided already: the entries and the requests.

use std::{sync::atomic::Ordering, time::Instant};

use bytes::Bytes;
use kvclient::{
    faults::{self, Guarantee},
    position::Position,
    wire::{
        batch::{Op, OpResult, RequestId},
        bytes::{DecodeError, Reader},
        error::{Applied, ErrorCode},
        log::{Record, RequestMark},
        short_bytes::ShortBytes,
    },
};
use tokio::sync::oneshot;

use super::{
    command::WriteOp,
    decide,
    group::{Answers, Group, Rests, Waiting},
    identity::Identity,
    remembered::Known,
    thread::{Committer, Failed, RECORD_OVERHEAD_BYTES},
};
use crate::{
    store::{Entry, StoreError},
    timing::Queued,
};

impl Committer {
    /// Decides the writes of one command and has their answers wait for the frame.
    pub(super) fn decide_writes(
        &mut self,
        group: &mut Group,
        writes: Vec<WriteOp>,
        reply: oneshot::Sender<Vec<OpResult>>,
        timed: Option<Queued>,
    ) -> Result<(), Failed> {
        if let Some(timed) = &timed {
            timed.taken();
        }
        // A batch may fill more than one frame. Answers share the fate of the frame whose records they may rest on:
        // those since its first record.
        let mut answers = Answers::with_capacity(writes.len());
        let record_bytes = writes.iter().map(|write| at_most_record_bytes(&write.op));
        let room_bytes = self
            .max_frame_bytes
            .saturating_sub(group.builder.frame_bytes());
        group.reserve(writes.len(), room_bytes.min(record_bytes.sum()));
        let mut now = Instant::now();
        for write in writes {
            let record_bytes = at_most_record_bytes(&write.op);
            if !self.fits(group, record_bytes) {
                let refusal = self.close(group)?;
                answers.settle(refusal.as_ref());
                now = Instant::now();
            }
            // Even alone in a frame.
            if !self.fits(group, record_bytes) {
                answers.push(self.larger_than_a_frame(record_bytes), Rests::OnFrame);
            } else {
                let (result, rests) = self.decide_one(group, write, now)?;
                answers.push(result, rests);
            }
            if group.builder.is_empty() {
                answers.settle(None);
            }
        }
        group.waiting.push(Waiting::Writes {
            answers,
            reply,
            timed,
        });
        Ok(())
    }

    /// Whether a record of so many bytes fits the frame at hand.
    pub(super) fn fits(&self, group: &Group, record_bytes: usize) -> bool {
        group.builder.frame_bytes() + record_bytes <= self.max_frame_bytes
    }

    fn larger_than_a_frame(&self, record_bytes: usize) -> OpResult {
        let message = format!(
            "the entry takes up to {record_bytes} bytes in the log, and a frame of this node's has at most {} \
             (--max-value-size, --log-segment-size); nothing was written",
            self.max_frame_bytes
        );
        OpResult::refused(ErrorCode::TooLarge, message, Some(Applied::No))
    }

    fn decide_one(
        &mut self,
        group: &mut Group,
        write: WriteOp,
        now: Instant,
    ) -> Result<(OpResult, Rests), Failed> {
        if let Some(refusal) = self.refuse_without_reign() {
            return Ok((refusal, Rests::OnFrame));
        }
        // Before the deadline: what was done is told, however late.
        let identity = write.identity();
        let repeat = identity.and_then(|identity| self.repeat(group, &identity));
        if let Some((first, rests)) = repeat {
            return Ok((first.map_or_else(|refusal| refusal, first_result), rests));
        }
        let late = || refuse_late(write.deadline, now);
        let result = match write.refusal.map(|refusal| *refusal).or_else(late) {
            Some(refusal) => refusal,
            None => self.decide_new(group, write.op, identity)?,
        };
        Ok((result, Rests::OnFrame))
    }

    fn decide_new(
        &mut self,
        group: &mut Group,
        op: Op,
        identity: Option<Identity>,
    ) -> Result<OpResult, Failed> {
        let needs_current = decide::needs_current(&op);
        // Taken, not cloned: their memory is counted in one place for the whole request, and another thread counts too.
        let key = Bytes::from(op.key);
        let current = match needs_current {
            false => None,
            true => match self.current(group, &key) {
                Ok(current) => current,
                Err(error) => return refuse_read(error),
            },
        };
        let next = self.next_position(group);
        let decision = decide::decide(
            op.action,
            op.terms.condition,
            current.as_ref(),
            group.time_ms,
            next,
        );
        if let Some(effect) = decision.effect {
            let mut record = Record::new(key, effect);
            if let Some(identity) = &identity {
                self.scratch.clear();
                decision.result.encode(&mut self.scratch);
                record.mark = Some(self.mark(identity, &self.scratch));
            }
            group.push(next, record, current);
        }
        Ok(decision.result)
    }

    /// The refusal of every write while another node reigns.
    pub(super) fn refuse_without_reign(&self) -> Option<OpResult> {
        if self.shared.reigns.load(Ordering::Acquire) {
            return None;
        }
        let message = "this node does not take writes now; /readyz says why";
        Some(OpResult::refused(
            ErrorCode::NotReady,
            message,
            Some(Applied::No),
        ))
    }

    /// What a request that is not new is answered with: the outcome of the first, or a refusal.
    pub(super) fn repeat(
        &mut self,
        group: &mut Group,
        identity: &Identity,
    ) -> Option<(Result<ShortBytes, OpResult>, Rests)> {
        if faults::is_off(Guarantee::Deduplication) {
            return None;
        }
        let (known, rests) = match group.look_up(identity) {
            Known::New => (
                self.remembered.look_up(identity, group.time_ms),
                Rests::OnDurable,
            ),
            known => (known, Rests::OnFrame),
        };
        let first = match known {
            Known::New => return None,
            Known::First(outcome) => Ok(outcome),
            Known::Reused => Err(reused(&identity.id)),
            Known::Forgotten => Err(forgotten(&identity.id)),
        };
        Some((first, rests))
    }

    /// What a record says of the request that made it.
    pub(super) fn mark(&self, identity: &Identity, outcome: &[u8]) -> RequestMark {
        RequestMark {
            client: identity.id.client,
            n: identity.id.n,
            floor: self.remembered.floor_of(&identity.id),
            digest: identity.digest,
            outcome: outcome.into(),
        }
    }

    /// The live entry as the group leaves it so far.
    pub(super) fn current(
        &self,
        group: &mut Group,
        key: &Bytes,
    ) -> Result<Option<Entry>, StoreError> {
        let entry = match group.changed(key) {
            Some(changed) => changed.clone(),
            None => self.store.get(key)?,
        };
        Ok(entry.filter(|entry| !entry.is_expired(group.time_ms)))
    }

    pub(super) fn next_position(&self, group: &Group) -> Position {
        let end = self.log.end().position;
        Position {
            epoch: self.epoch,
            seq: end.seq + 1 + u64::from(group.builder.count()),
        }
    }
}

/// The first outcome of an op, read back.
fn first_result(outcome: ShortBytes) -> OpResult {
    let outcome = Bytes::copy_from_slice(&outcome);
    OpResult::decode(&mut Reader::new("remembered outcome", outcome)).unwrap_or_else(unreadable)
}

/// An outcome that does not decode: it passed every checksum, so another version wrote it.
pub(super) fn unreadable(error: DecodeError) -> OpResult {
    let message = format!("this was done before, but what was answered cannot be read: {error}");
    OpResult::refused(ErrorCode::Damaged, message, Some(Applied::Unknown))
}

fn reused(id: &RequestId) -> OpResult {
    let message = format!(
        "another op came under the request id {:032x}.{} before; nothing was written. Give every op a number of its own",
        id.client, id.n
    );
    OpResult::refused(ErrorCode::RequestIdReused, message, Some(Applied::No))
}

fn forgotten(id: &RequestId) -> OpResult {
    let message = format!(
        "what became of the request id {:032x}.{} is forgotten, so nothing was done now; it may have been done before. \
         Read, then decide anew under a larger number",
        id.client, id.n
    );
    OpResult::refused(ErrorCode::RequestIdExpired, message, Some(Applied::Unknown))
}

/// The refusal of what nobody waits for any more.
pub(super) fn refuse_late(deadline: Option<Instant>, now: Instant) -> Option<OpResult> {
    if deadline.is_none_or(|deadline| deadline > now) {
        return None;
    }
    let message = "the request's time was over before its turn came; nothing was written";
    Some(OpResult::refused(
        ErrorCode::DeadlineExceeded,
        message,
        Some(Applied::No),
    ))
}

/// Length of the record of an op is at most this.
pub(super) fn at_most_record_bytes(op: &Op) -> usize {
    op.weight_bytes() + RECORD_OVERHEAD_BYTES
}

/// The current entry cannot be read: the op is refused, or the node has to stop.
pub(super) fn refuse_read(error: StoreError) -> Result<OpResult, Failed> {
    let code = match &error {
        StoreError::Damaged { .. } => ErrorCode::Damaged,
        StoreError::Busy => ErrorCode::Overloaded,
        StoreError::Full(_) => ErrorCode::NoSpace,
        StoreError::Refused(_) | StoreError::Fatal(_) => {
            return Err(Failed(format!("LMDB cannot be read: {error}")));
        }
    };
    Ok(OpResult::refused(
        code,
        error.to_string(),
        Some(Applied::No),
    ))
}
