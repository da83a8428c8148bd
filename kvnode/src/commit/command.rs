//! What is asked of the commit thread, and where the answers go.

use std::time::Instant;

use bytes::Bytes;
use kvclient::{
    position::{Epoch, Position},
    wire::{
        batch::{Op, OpResult, RequestId},
        log::Frame,
    },
};
use tokio::sync::oneshot;

use super::identity::Identity;
use crate::timing::Queued;

/// A write with the time at which its caller stops waiting.
#[derive(Debug)]
pub struct WriteOp {
    pub(super) op: Op,
    /// After this moment it must not be begun.
    pub(super) deadline: Option<Instant>,
    /// Of [`Identity`], if it has one.
    digest: u64,
    /// What to answer unless it was done before.
    pub(super) refusal: Option<Box<OpResult>>,
}

impl WriteOp {
    /// An op that must not be begun after `deadline`.
    pub fn new(op: Op, deadline: Option<Instant>) -> Self {
        let digest = Identity::of_op(&op).map_or(0, |identity| identity.digest);
        Self {
            op,
            deadline,
            digest,
            refusal: None,
        }
    }

    /// Its identity, if it has a request id. Not kept: writes are moved by the hundred, and it is in the op but for the
    /// digest.
    pub(super) fn identity(&self) -> Option<Identity> {
        Some(Identity {
            id: self.op.terms.request_id?,
            digest: self.digest,
        })
    }

    /// With a refusal, it is not begun: only if it was done before, it is answered with what the first was.
    pub fn refused_if_new(self, refusal: Option<OpResult>) -> Self {
        Self {
            refusal: refusal.map(Box::new),
            ..self
        }
    }
}

/// Ops of which all are done or none.
#[derive(Debug)]
pub struct AtomicOps {
    pub(super) ops: Vec<Op>,
    /// After this moment they must not be begun.
    pub(super) deadline: Option<Instant>,
    pub(super) identity: Option<Identity>,
    /// What to answer unless they were done before.
    pub(super) refusal: Option<Box<OpResult>>,
}

/// One result per op, or why nothing was done.
pub type AtomicAnswer = Result<Vec<OpResult>, OpResult>;

impl AtomicOps {
    /// Ops that must not be begun after `deadline`, under one request id; those of the ops themselves count for nothing.
    pub fn new(ops: Vec<Op>, id: Option<RequestId>, deadline: Option<Instant>) -> Self {
        let identity = id.map(|id| Identity::of_batch(id, &ops));
        Self {
            ops,
            deadline,
            identity,
            refusal: None,
        }
    }

    /// As [`WriteOp::refused_if_new`].
    pub fn refused_if_new(self, refusal: Option<OpResult>) -> Self {
        Self {
            refusal: refusal.map(Box::new),
            ..self
        }
    }
}

/// Why frames of another node were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The frames are not what the protocol says; nothing was stored.
    #[error("the frames cannot be used: {0}")]
    Malformed(String),
    /// No space; nothing was stored; try again later.
    #[error("no space: {0}")]
    NoSpace(String),
    /// What a reign has to know first cannot be read; none has begun.
    #[error("cannot begin to take writes: {0}")]
    Unreadable(String),
    /// The commit thread has ended; the node stops.
    #[error("the commit thread has ended")]
    Ended,
}

/// One message to the thread.
pub(super) enum Command {
    Writes {
        ops: Vec<WriteOp>,
        reply: oneshot::Sender<Vec<OpResult>>,
        /// Where their times are written down, if somebody wants to know.
        timed: Option<Queued>,
    },
    Atomic {
        batch: AtomicOps,
        reply: oneshot::Sender<AtomicAnswer>,
    },
    Frames {
        frames: Vec<Frame>,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    Reign {
        epoch: Epoch,
        reign_id: u64,
        node: String,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    Expired {
        entries: Vec<(Bytes, Position)>,
        reply: oneshot::Sender<usize>,
    },
    /// The thread ends once the commands before are worked off.
    Stop,
    /// Lets a test do something on the thread, such as panic.
    #[cfg(test)]
    Run(Box<dyn FnOnce() + Send>),
}

/// Most ops of a small command. Many ops in one come from many callers, whose next ones are on their way: with 64
/// here, 256 callers got 4 to 9 % fewer writes a second than through the thread.
pub(super) const SMALL_OPS: usize = 4;

/// Most bytes of keys and values of a small command.
const SMALL_BYTES: usize = 64 << 10;

impl Command {
    /// Whether it takes little beside its sync.
    pub(super) fn is_small(&self) -> bool {
        match self {
            Self::Writes { ops, .. } => is_small(ops.iter().map(|write| &write.op)),
            Self::Atomic { batch, .. } => is_small(batch.ops.iter()),
            Self::Frames { .. } | Self::Reign { .. } | Self::Expired { .. } | Self::Stop => false,
            #[cfg(test)]
            Self::Run(_) => true,
        }
    }
}

fn is_small<'a>(ops: impl ExactSizeIterator<Item = &'a Op>) -> bool {
    ops.len() <= SMALL_OPS && ops.map(Op::weight_bytes).sum::<usize>() <= SMALL_BYTES
}
