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
//! away changes nothing: its ops are decided all the same. A lone small write on a fast disk is committed by its
//! caller in the thread's place (`turn.rs`), in the same way: of all that is said here of the thread, nothing changes.

mod ages;
mod atomic;
mod command;
mod decide;
mod group;
mod identity;
mod marks;
mod remembered;
mod thread;
mod turn;
mod writes;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
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
use thread::{Committer, QUIET_AFTER, Shared, Then};
use turn::{Asked, Turns, Waits, only_writes_here};

use crate::{clock::ShardClock, log::LogWriter, store::Store, timing::Queued};

/// How many commands may wait. Each holds at most a batch; what a queue this long means is that the disk is slower
/// than the callers, and they must feel it.
const QUEUE_COMMANDS: usize = 1_024;

/// The way in: cheap to clone, shared by all handlers.
#[derive(Debug, Clone)]
pub struct Commit {
    queue: mpsc::Sender<Asked>,
    turns: Arc<Turns>,
    shared: Arc<Shared>,
}

/// The commit thread and how it ended.
#[derive(Debug)]
pub struct CommitThread {
    thread: JoinHandle<Option<LogWriter>>,
}

/// Nothing is written any more; the command was not taken.
struct Stopped;

impl From<Stopped> for AppendError {
    fn from(_: Stopped) -> Self {
        Self::Ended
    }
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
    /// Called once, by the thread, if storage fails or a commit panics: the node must exit. Nothing is written after it.
    pub on_failure: Box<dyn FnOnce(String) + Send>,
}

/// Starts the thread.
///
/// # Errors
/// The operating system gave no thread.
pub fn start(parts: CommitParts) -> std::io::Result<(Commit, CommitThread)> {
    let (queue, commands) = mpsc::channel(QUEUE_COMMANDS);
    let shared = Arc::new(Shared::default());
    let committer = Committer {
        log: parts.log,
        store: parts.store,
        clock: parts.clock,
        max_frame_bytes: parts.max_frame_bytes,
        shared: Arc::clone(&shared),
        epoch: 0,
        remembered: Remembered::default(),
        scratch: Vec::new(),
        recent_sync: Duration::ZERO,
        last_sync: Duration::ZERO,
        small_groups: QUIET_AFTER,
    };
    let turns = Arc::new(Turns::new(committer));
    let (taking, on_failure) = (Arc::clone(&turns), parts.on_failure);
    let thread = std::thread::Builder::new()
        .name("commit".into())
        .spawn(move || {
            take_turns(&taking, commands);
            let (log, failure) = taking.end()?;
            if let Some(why) = failure {
                on_failure(why);
            }
            Some(log)
        })?;
    let commit = Commit {
        queue,
        turns,
        shared,
    };
    Ok((commit, CommitThread { thread }))
}

/// Does what waits until nothing can be written any more, or nobody is left who could ask.
fn take_turns(turns: &Turns, mut commands: mpsc::Receiver<Asked>) {
    while let Some(first) = commands.blocking_recv()
        && turns.take(first, || commands.try_recv().ok()) == Then::GoOn
    {}
}

impl Commit {
    /// Queues writes that belong together in order, and waits for their answers, one per op.
    ///
    /// # Cancel safety
    /// Once queued the ops are decided, whether or not the caller still waits.
    pub async fn write(&self, ops: Vec<WriteOp>) -> Vec<OpResult> {
        self.write_timed(ops, None).await
    }

    /// As [`Self::write`]; the times go where `timed` says.
    ///
    /// # Cancel safety
    /// As [`Self::write`].
    pub async fn write_timed(&self, ops: Vec<WriteOp>, timed: Option<Queued>) -> Vec<OpResult> {
        let count = ops.len();
        let command = |reply| Command::Writes { ops, reply, timed };
        let answers = self.ask(command).await;
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
        if self.have_done(command(reply)).await.is_err() {
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

    /// Has a write committed, and answered: here if it is alone, else by the thread.
    async fn have_done(&self, command: Command) -> Result<(), Stopped> {
        let waits = self.turns.wait();
        if !only_writes_here() || !waits.alone() || !command.is_small() {
            return self.queue(command, waits).await;
        }
        // What else has arrived on this thread gets as far as this.
        tokio::task::yield_now().await;
        if !waits.alone() {
            return self.queue(command, waits).await;
        }
        match self.turns.try_take(command) {
            Ok(Then::GoOn) => Ok(()),
            Ok(Then::End) => {
                // The thread has to end. If the queue is full, it is awake and finds out by itself.
                let _ = self.queue.try_send(Asked::new(Command::Stop, waits));
                Ok(())
            }
            Err(command) => self.queue(command, waits).await,
        }
    }

    /// Queues a command for the thread.
    async fn queue(&self, command: Command, waits: Waits) -> Result<(), Stopped> {
        let queued = self.queue.send(Asked::new(command, waits)).await;
        queued.map_err(|_| Stopped)
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
        self.queue(Command::Frames { frames, reply }, self.turns.wait())
            .await?;
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
        self.queue(command, self.turns.wait()).await?;
        answer.await.map_err(|_| AppendError::Ended)?
    }

    /// Deletes entries whose time has come, each only if it still is the entry of that position. Returns how many
    /// were deleted.
    pub async fn delete_expired(&self, entries: Vec<(Bytes, Position)>) -> usize {
        let (reply, answer) = oneshot::channel();
        let command = Command::Expired { entries, reply };
        if self.queue(command, self.turns.wait()).await.is_err() {
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
        let _ = self
            .queue
            .blocking_send(Asked::new(Command::Stop, self.turns.wait()));
    }

    /// Whether this node takes writes.
    pub fn reigns(&self) -> bool {
        self.shared.reigns.load(Ordering::Acquire)
    }

    /// Does something on the thread, between its commands.
    #[cfg(test)]
    pub(crate) fn run_on_thread(&self, work: impl FnOnce() + Send + 'static) {
        let queued = self
            .queue
            .try_send(Asked::new(Command::Run(Box::new(work)), self.turns.wait()));
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
        self.thread.join().ok().flatten()
    }
}
