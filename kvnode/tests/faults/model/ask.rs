//! Ops, one by one and together: asked of the shard, done to the model, and answered alike.

use kvclient::{
    key::Key,
    position::Position,
    wire::batch::{Action, Condition, Op, OpResult, RequestId},
};
use kvnode::commit::{AtomicOps, WriteOp};
use proptest::{prop_assert, prop_assert_eq};

use super::{
    compare::key,
    node::failed,
    plain::{Answer, Request},
    run::{Outcome, Run},
    steps::{Asked, Caller, OnlyIf, What},
};

/// Requests that a tidy caller still waits for.
const WAITED_FOR: u64 = 4;

impl Run {
    fn op(&mut self, asked: &Asked) -> Op {
        let key = Key::new(key(asked.key)).expect("a key");
        let action = match &asked.what {
            What::Get => Action::Get,
            What::Put { value, ttl_ms } => Action::Put {
                value: value.clone(),
                ttl_ms: *ttl_ms,
            },
            What::Delete => Action::Delete,
            What::Incr(delta) => Action::Incr { delta: *delta },
            What::Expire(ttl_ms) => Action::Expire { ttl_ms: *ttl_ms },
            What::Persist => Action::Persist,
        };
        let mut op = Op::new(key, action);
        op.terms.condition = asked
            .only_if
            .map(|only_if| self.condition(asked.key, only_if));
        if op.action == Action::Get {
            let differs = |condition: &Condition| matches!(condition, Condition::Differs(_));
            op.terms.condition = op.terms.condition.filter(differs);
        }
        op.terms.request_id = self.request_id(asked.caller);
        op
    }

    fn condition(&self, of: usize, only_if: OnlyIf) -> Condition {
        let stored = self.model.entries.get(&key(of)).map(|entry| entry.position);
        let current = stored.unwrap_or(Position::new(1, 1));
        let other = Position {
            seq: current.seq.saturating_sub(1),
            ..current
        };
        match only_if {
            OnlyIf::Absent => Condition::Absent,
            OnlyIf::Exists => Condition::Exists,
            OnlyIf::IsCurrent => Condition::Is(current),
            OnlyIf::IsOther => Condition::Is(other),
            OnlyIf::DiffersFromCurrent => Condition::Differs(current),
            OnlyIf::DiffersFromOther => Condition::Differs(other),
        }
    }

    fn request_id(&mut self, caller: Caller) -> Option<RequestId> {
        self.requests += 1;
        let n = self.requests;
        let (client, floor) = match caller {
            Caller::Nobody => return None,
            Caller::Forgetful => (1, 0),
            Caller::Tidy => (2, n.saturating_sub(WAITED_FOR).max(1)),
        };
        Some(RequestId { client, n, floor })
    }

    pub(super) fn ops(&mut self, asked: &[Asked]) -> Vec<Op> {
        asked.iter().map(|asked| self.op(asked)).collect()
    }

    pub(super) fn send(&self, ops: Vec<Op>) -> Vec<OpResult> {
        let writes = ops.into_iter().map(|op| WriteOp::new(op, None)).collect();
        self.runtime
            .block_on(self.primary().storage.commit.write(writes))
    }

    fn send_atomic(
        &self,
        ops: Vec<Op>,
        id: Option<RequestId>,
    ) -> Result<Vec<OpResult>, Box<OpResult>> {
        let batch = AtomicOps::new(ops, id, None);
        self.runtime
            .block_on(self.primary().storage.commit.write_atomic(batch))
            .map_err(Box::new)
    }

    pub(super) fn write(&mut self, asked: &[Asked]) -> Outcome {
        let ops = self.ops(asked);
        let wanted: Vec<_> = ops.iter().map(|op| self.model.write(op)).collect();
        let got = self.send(ops);
        prop_assert_eq!(brief(&got), wanted);
        self.tell(&got)
    }

    pub(super) fn atomic(&mut self, asked: &[Asked]) -> Outcome {
        let ops = self.ops(asked);
        let id = ops[0].terms.request_id;
        let wanted = self.model.atomic(&ops, id);
        let got = self.send_atomic(ops, id);
        let answers = got
            .as_ref()
            .map(|got| brief(got))
            .map_err(|refusal| Answer::from(&**refusal));
        prop_assert_eq!(answers, wanted);
        let changed = got.unwrap_or_default();
        let changed: Vec<_> = changed
            .into_iter()
            .filter(|one| one.applied.is_some())
            .collect();
        self.tell(&changed)
    }

    /// No position is told of two writes, and each is later than all before.
    pub(super) fn tell(&mut self, fresh: &[OpResult]) -> Outcome {
        for position in fresh.iter().filter_map(|result| result.position) {
            let newest = self.told.last().copied().unwrap_or_default();
            prop_assert!(position > newest, "{} after {}", position, newest);
            self.told.insert(position);
        }
        Ok(())
    }

    pub(super) fn twice(&mut self, asked: &Asked) -> Outcome {
        let op = self.op(asked);
        let first = self.model.write(&op);
        let is_known = op.terms.request_id.is_some() && first.position.is_some();
        let second = match is_known {
            true => first.clone(),
            false => self.model.write(&op),
        };
        let got = self.send(vec![op.clone(), op]);
        prop_assert_eq!(brief(&got), [first, second]);
        self.tell(&got[..1])?;
        self.tell(if is_known { &[] } else { &got[1..] })
    }

    pub(super) fn again(&mut self, nth: usize) -> Outcome {
        let Some(done) = self.model.done_before(nth).cloned() else {
            return Ok(());
        };
        let forgotten = self.model.is_forgotten(done.id);
        match done.request {
            Request::Op(op, first) => {
                let got = self.send(vec![*op]);
                match forgotten {
                    true => prop_assert_eq!(got[0].status, 504, "{:?}", got),
                    false => prop_assert_eq!(brief(&got), [first]),
                }
            }
            Request::Atomic(ops, first) => {
                let got = self.send_atomic(ops, Some(done.id));
                match (forgotten, got) {
                    (true, Err(got)) => prop_assert_eq!(got.status, 504, "{:?}", got),
                    (false, Ok(got)) => prop_assert_eq!(brief(&got), first),
                    (_, got) => prop_assert!(false, "{:?}", got),
                }
            }
        }
        Ok(())
    }

    pub(super) fn reused(&mut self, nth: usize) -> Outcome {
        let Some(done) = self.model.done_before(nth).cloned() else {
            return Ok(());
        };
        let status = match self.model.is_forgotten(done.id) {
            true => 504,
            false => 422,
        };
        let mut other = Op::new(
            Key::new("another").expect("a key"),
            Action::Incr { delta: 1 },
        );
        other.terms.request_id = Some(done.id);
        let got = self.send(vec![other]);
        prop_assert_eq!(got[0].status, status, "{:?}", got);
        Ok(())
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.model.now_ms += ms;
        for node in self.primary.iter().chain(&self.replica) {
            node.clock.saw_frame(self.model.now_ms);
        }
    }

    pub(super) fn sweep(&mut self, meanwhile: &[Asked]) -> Outcome {
        let due = self
            .primary()
            .storage
            .store
            .expired(self.model.now_ms, 100)
            .map_err(failed)?;
        self.write(meanwhile)?;
        let wanted = self.model.sweep(&due);
        let deleting = self.primary().storage.commit.delete_expired(due);
        prop_assert_eq!(self.runtime.block_on(deleting), wanted);
        Ok(())
    }
}

/// Answers without their words.
pub(super) fn brief(results: &[OpResult]) -> Vec<Answer> {
    results.iter().map(Answer::from).collect()
}
