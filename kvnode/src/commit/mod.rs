//! The commit thread: the only writer of the log's tail.
//!
//! It takes what waits in the queue (at most 1,000 ops or one frame's bytes), decides each op in order against what
//! is decided already, appends one frame, syncs once, makes the frame visible, and then answers. While it syncs,
//! the next group gathers; no timer delays a lone write. On a replica it appends the primary's frames as they are.
//!
//! A write that carries a request id is done once: what it did goes into its record, is remembered while this node
//! reigns and read back when the next reign begins, here or elsewhere. A repeat is answered with it.
//!
//! An atomic batch is drafted whole and joins the group only if all of it can be done in one frame.
//!
//! Invariant: no answer of a group that holds a record leaves before that record is synced. If the sync fails, all
//! of the group are unknown, nothing is published, and the thread ends: the node then exits.
//!
//! It is one OS thread and never touches an async runtime; callers wait on oneshot channels. A caller that goes
//! away changes nothing: its ops are decided all the same.

mod atomic;
mod command;
mod decide;
mod group;
mod identity;
mod remembered;
mod thread;
mod writes;

#[cfg(test)]
mod tests;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use bytes::Bytes;
use kvclient::{
    position::{Epoch, Position},
    wire::{
        batch::OpResult,
        error::{Applied, ErrorCode},
        log::Frame,
    },
};
use tokio::sync::{mpsc, oneshot};

pub use atomic::{MAX_ANSWER_BYTES, named};
pub use command::{AppendError, AtomicAnswer, AtomicOps, WriteOp};
pub use decide::read_result;
pub use thread::CommitStats;

use command::Command;
use remembered::Remembered;
use thread::{Committer, Failed, Shared};

use crate::{clock::ShardClock, log::LogWriter, store::Store};

/// How many commands may wait. Each holds at most a batch; what a queue this long means is that the disk is slower
/// than the callers, and they must feel it.
const QUEUE_COMMANDS: usize = 1_024;

/// The way in: cheap to clone, shared by all handlers.
#[derive(Debug, Clone)]
pub struct Commit {
    queue: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// The commit thread and how it ended.
#[derive(Debug)]
pub struct CommitThread {
    thread: JoinHandle<LogWriter>,
}

/// What the commit thread works on.
pub struct CommitParts {
    /// The tail of the log.
    pub log: LogWriter,
    /// Where frames become visible.
    pub store: Store,
    /// What decides about expiry.
    pub clock: Arc<ShardClock>,
    /// Largest frame that it makes, in bytes; those of a primary are bounded by the log alone.
    pub max_frame_bytes: usize,
    /// Called once if storage fails or the thread panics: the node must exit. Nothing is written after it.
    pub on_failure: Box<dyn FnOnce(String) + Send>,
}

/// Starts the thread.
///
/// # Errors
/// The operating system gave no thread.
pub fn start(parts: CommitParts) -> std::io::Result<(Commit, CommitThread)> {
    let (queue, commands) = mpsc::channel(QUEUE_COMMANDS);
    let shared = Arc::new(Shared::default());
    let mut committer = Committer {
        log: parts.log,
        store: parts.store,
        clock: parts.clock,
        max_frame_bytes: parts.max_frame_bytes,
        shared: Arc::clone(&shared),
        epoch: 0,
        remembered: Remembered::default(),
        scratch: Vec::new(),
    };
    let on_failure = parts.on_failure;
    let thread = std::thread::Builder::new()
        .name("commit".into())
        .spawn(move || {
            // Whatever a panic left half done is not used again, but for the log's end, which moves last.
            let ran = catch_unwind(AssertUnwindSafe(|| committer.run(commands)));
            let failure = match ran {
                Ok(Ok(())) => None,
                Ok(Err(Failed(why))) => Some(why),
                Err(panic) => Some(format!("the commit thread panicked: {}", said(&*panic))),
            };
            if let Some(why) = failure {
                committer.shared.reigns.store(false, Ordering::Release);
                on_failure(why);
            }
            committer.log
        })?;
    Ok((Commit { queue, shared }, CommitThread { thread }))
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        (None, None) => "it did not say why",
    }
}

impl Commit {
    /// Queues writes that belong together in order, and waits for their answers, one per op.
    ///
    /// # Cancel safety
    /// Once queued the ops are decided, whether or not the caller still waits.
    pub async fn write(&self, ops: Vec<WriteOp>) -> Vec<OpResult> {
        let count = ops.len();
        let answers = self.ask(|reply| Command::Writes { ops, reply }).await;
        answers.unwrap_or_else(|failed| vec![failed; count])
    }

    /// Queues ops of which all are done or none, and waits for their answer.
    ///
    /// # Cancel safety
    /// As [`Self::write`].
    pub async fn write_atomic(&self, batch: AtomicOps) -> AtomicAnswer {
        self.ask(|reply| Command::Atomic { batch, reply }).await?
    }

    /// Asks for a write; if there is no answer, what to say of it.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, OpResult> {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(command(reply)).await.is_err() {
            return Err(OpResult::refused(
                ErrorCode::NotReady,
                "this node stops; ask again later",
                Some(Applied::No),
            ));
        }
        answer.await.map_err(|_| {
            let message =
                "storage failed while this was written; it may or may not have been stored";
            OpResult::refused(ErrorCode::StorageFailed, message, Some(Applied::Unknown))
        })
    }

    /// Appends a primary's frames as they are, syncs and publishes them.
    ///
    /// # Errors
    /// [`AppendError`]; nothing of them was stored unless it is [`AppendError::Ended`].
    ///
    /// # Cancel safety
    /// Once queued they are appended, whether or not the caller still waits.
    pub async fn append(&self, frames: Vec<Frame>) -> Result<(), AppendError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Command::Frames { frames, reply })
            .await
            .map_err(|_| AppendError::Ended)?;
        answer.await.map_err(|_| AppendError::Ended)?
    }

    /// Begins a reign: from the moment its record is synced this node takes writes.
    ///
    /// # Errors
    /// [`AppendError`]; no reign has begun.
    pub async fn begin_reign(
        &self,
        epoch: Epoch,
        reign_id: u64,
        node: String,
    ) -> Result<(), AppendError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Reign {
            epoch,
            reign_id,
            node,
            reply,
        };
        self.queue
            .send(command)
            .await
            .map_err(|_| AppendError::Ended)?;
        answer.await.map_err(|_| AppendError::Ended)?
    }

    /// Deletes entries whose time has come, each only if it still is the entry of that position. Returns how many
    /// were deleted.
    pub async fn delete_expired(&self, entries: Vec<(Bytes, Position)>) -> usize {
        let (reply, answer) = oneshot::channel();
        if self
            .queue
            .send(Command::Expired { entries, reply })
            .await
            .is_err()
        {
            return 0;
        }
        answer.await.unwrap_or(0)
    }

    /// Takes no more writes, from the next op on: another node reigns.
    pub fn end_reign(&self) {
        self.shared.reigns.store(false, Ordering::Release);
    }

    /// Ends the thread once what is queued is worked off; later commands are refused. Blocks until it is queued.
    pub fn stop(&self) {
        self.end_reign();
        let _ = self.queue.blocking_send(Command::Stop);
    }

    /// Whether this node takes writes.
    pub fn reigns(&self) -> bool {
        self.shared.reigns.load(Ordering::Acquire)
    }

    /// Does something on the thread, between its commands.
    #[cfg(test)]
    pub(crate) fn run_on_thread(&self, work: impl FnOnce() + Send + 'static) {
        let queued = self.queue.try_send(Command::Run(Box::new(work)));
        assert!(queued.is_ok(), "the thread runs and its queue is not full");
    }

    /// Commands that wait in the queue.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Counts since start.
    pub fn stats(&self) -> &CommitStats {
        &self.shared.stats
    }
}

impl CommitThread {
    /// Waits until the thread has ended, see [`Commit::stop`]; its part of the log.
    pub fn join(self) -> Option<LogWriter> {
        self.thread.join().ok()
    }
}
