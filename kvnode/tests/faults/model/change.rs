//! What becomes of nodes: stopped, killed, copied, and in each other's place. To the model that is a new reign at most.

use kvclient::{
    key::Key,
    wire::batch::{Action, Op},
};
use kvnode::commit::WriteOp;
use proptest::{prop_assert, prop_assert_eq};

use super::{
    ask::brief,
    node::{Node, failed},
    plain::Answer,
    run::{Outcome, Run},
    steps::{Asked, Tear, Who},
};

impl Run {
    pub(super) fn flush(&mut self) -> Outcome {
        self.primary().flush()?;
        let entries = self.primary().storage.store.stats().entries;
        prop_assert_eq!(entries, self.model.entries.len() as u64);
        self.replica.as_ref().map_or(Ok(()), Node::flush)
    }

    pub(super) fn restart(&mut self, who: Who) -> Outcome {
        let now_ms = self.model.now_ms;
        match who {
            Who::Primary => {
                let dir = self.primary.take().expect("it is open").close()?;
                self.take_over(Node::open(dir, now_ms)?)
            }
            Who::Replica => {
                let Some(replica) = self.replica.take() else {
                    return Ok(());
                };
                self.replica = Some(Node::open(replica.close()?, now_ms)?);
                Ok(())
            }
        }
    }

    /// Shard time goes back as far as nobody can notice: to the last frame.
    pub(super) fn restart_in_the_past(&mut self) -> Outcome {
        let dir = self.primary.take().expect("it is open").close()?;
        let node = Node::open(dir, 0)?;
        prop_assert_eq!(node.clock.now_ms(), self.model.last_ms);
        self.take_over(node)
    }

    pub(super) fn crash(&mut self, who: Who) -> Outcome {
        let (dir, now_ms) = (self.new_dir(), self.model.now_ms);
        match who {
            Who::Primary => {
                let primary = self.primary.take().expect("it is open");
                self.take_over(primary.crash(dir, now_ms)?)
            }
            Who::Replica => {
                if let Some(replica) = self.replica.take() {
                    self.replica = Some(replica.crash(dir, now_ms)?);
                }
                Ok(())
            }
        }
    }

    /// Nobody was told of these writes, so any number of them may be there: from the first on, without a gap.
    pub(super) fn torn(&mut self, asked: &[Asked], tear: Tear) -> Outcome {
        let (dir, now_ms) = (self.new_dir(), self.model.now_ms);
        let before = self.model.end;
        let ops = self.ops(asked);
        let index = self.primary().index();
        self.send(ops.clone());
        let primary = self.primary.take().expect("it is open");
        let node = primary.tear(index, before.seq, tear, dir, now_ms)?;
        let kept = node.storage.log.durable();
        prop_assert!(kept >= before, "{} of {}", kept, before);
        for op in &ops {
            if self.model.end == kept {
                break;
            }
            self.model.write(op);
        }
        prop_assert_eq!(self.model.end, kept);
        self.take_over(node)
    }

    pub(super) fn pull(&mut self) -> Outcome {
        let Some(replica) = &self.replica else {
            if self.primary().storage.log.truncated() > 0 {
                return self.snapshot(&[]);
            }
            let dir = self.new_dir();
            self.replica = Some(Node::create(dir, self.model.now_ms)?);
            return self.pull();
        };
        let held = replica.storage.log.durable().seq;
        if self.primary().storage.log.truncated() > held {
            return self.snapshot(&[]);
        }
        let frames = self.primary().frames_after(held)?;
        let appending = replica.storage.commit.append(frames);
        self.runtime.block_on(appending).map_err(failed)?;
        self.compare(replica)?;
        self.compare_sums(replica)
    }

    pub(super) fn snapshot(&mut self, meanwhile: &[Asked]) -> Outcome {
        if let Some(replica) = self.replica.take() {
            replica.close()?;
        }
        let dir = self.new_dir();
        let ops = self.ops(meanwhile);
        let wanted: Vec<_> = ops.iter().map(|op| self.model.write(op)).collect();
        let mut got = Vec::new();
        let copy = self.primary().copy_to(&self.runtime, dir, || {
            got = self.send(ops);
            Ok(())
        })?;
        prop_assert_eq!(brief(&got), wanted);
        self.tell(&got)?;
        self.replica = Some(copy);
        self.pull_rest()
    }

    /// What came after the copy was complete.
    fn pull_rest(&mut self) -> Outcome {
        let replica = self.replica.as_ref().expect("it was made just now");
        let frames = self
            .primary()
            .frames_after(replica.storage.log.durable().seq)?;
        let appending = replica.storage.commit.append(frames);
        self.runtime.block_on(appending).map_err(failed)?;
        self.compare(replica)
    }

    pub(super) fn promote(&mut self) -> Outcome {
        self.pull()?;
        let (old, new) = (self.primary.take(), self.replica.take());
        let old = old.expect("it is open");
        old.storage.commit.end_reign();
        self.take_over(new.expect("it was pulled"))?;
        let late = Op::new(Key::new("late").expect("a key"), Action::Incr { delta: 1 });
        let refused = old.storage.commit.write(vec![WriteOp::new(late, None)]);
        let refused = self.runtime.block_on(refused);
        prop_assert_eq!(brief(&refused), [Answer::refused(503)]);
        self.replica = Some(old);
        self.pull()
    }
}
