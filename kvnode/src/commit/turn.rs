//! Whose turn it is to write: one at a time has the committer, and nobody else touches the log's tail.
//!
//! Most groups are the commit thread's. A lone small write is committed by the thread that asks for it, which
//! saves waking the commit thread and being woken by it. Not so when other writes wait, nor on a thread that
//! has other requests to serve: these would wait for the sync, and writes among them would be synced one by one
//! instead of as one group (`Commit::have_done`).
//!
//! Whoever has the turn keeps it until the group is answered, so a command that waits is never overtaken.
//!
//! Invariant: after a failure or a panic, whoever had the turn, nothing is written any more.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    command::Command,
    thread::{Committer, Failed, Then},
};
use crate::{begun, log::LogWriter};

/// Hands out the turn.
pub(super) struct Turns {
    /// None once the commit thread has ended. Std mutex: never held over an await.
    seat: Mutex<Option<Seat>>,
    waiting: AtomicUsize,
}

/// What whoever has the turn works with.
struct Seat {
    committer: Committer,
    failure: Option<String>,
}

/// A command that waits for its turn; counted for as long.
pub(super) struct Asked {
    command: Command,
    _waits: Waits,
}

/// Counts its holder among those that wait.
pub(super) struct Waits(Arc<Turns>);

impl Turns {
    pub(super) fn new(committer: Committer) -> Self {
        Self {
            seat: Mutex::new(Some(Seat {
                committer,
                failure: None,
            })),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Counts one more that waits.
    pub(super) fn wait(self: &Arc<Self>) -> Waits {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Waits(Arc::clone(self))
    }

    /// Waits for the turn, then does what was asked for and what `next` gives behind it.
    pub(super) fn take(&self, first: Asked, mut next: impl FnMut() -> Option<Asked>) -> Then {
        match self.seat().as_mut() {
            Some(seat) => seat.work(first.command, || next().map(|asked| asked.command)),
            None => Then::End,
        }
    }

    /// Does a command at once if it is nobody's turn and will be over soon; else gives the command back.
    pub(super) fn try_take(&self, command: Command) -> Result<Then, Command> {
        let Ok(mut seat) = self.seat.try_lock() else {
            return Err(command);
        };
        match seat.as_mut() {
            Some(seat) if seat.failure.is_none() && seat.committer.is_swift() => {
                Ok(seat.work(command, || None))
            }
            _ => Err(command),
        }
    }

    /// Nobody gets the turn any more. The writer of the log, and what has failed.
    pub(super) fn end(&self) -> Option<(LogWriter, Option<String>)> {
        let seat = self.seat().take();
        seat.map(|seat| (seat.committer.log, seat.failure))
    }

    fn seat(&self) -> MutexGuard<'_, Option<Seat>> {
        self.seat.lock().expect("panics are caught inside")
    }
}

impl Seat {
    fn work(&mut self, first: Command, next: impl FnMut() -> Option<Command>) -> Then {
        if self.failure.is_some() {
            return Then::End;
        }
        // Whatever a panic left half done is not used again, but for the log's end, which moves last.
        let ran = catch_unwind(AssertUnwindSafe(|| self.committer.run(first, next)));
        let why = match ran {
            Ok(Ok(then)) => return then,
            Ok(Err(Failed(why))) => why,
            Err(panic) => format!("the commit thread panicked: {}", said(&*panic)),
        };
        self.committer.shared.reigns.store(false, Ordering::Release);
        self.failure = Some(why);
        Then::End
    }
}

impl Asked {
    pub(super) fn new(command: Command, waits: Waits) -> Self {
        Self {
            command,
            _waits: waits,
        }
    }
}

impl Waits {
    /// Whether nobody else waits.
    pub(super) fn alone(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire) == 1
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether this thread has begun no requests between its last write and the one at hand. Then there is hardly anybody
/// whom the sync of this one would keep waiting. To be asked once for every write.
pub(super) fn only_writes_here() -> bool {
    thread_local! {
        static AT_LAST_WRITE: Cell<u64> = const { Cell::new(0) };
    }
    let now = begun::here();
    now - AT_LAST_WRITE.replace(now) <= 1
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        (None, None) => "it did not say why",
    }
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}
