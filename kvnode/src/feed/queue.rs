//! What one watcher was fed and has not taken yet: text, bounded.
//!
//! Whoever takes too slowly is left behind: what lies here is thrown away, and he reads the log by himself from where
//! he was. So nothing is lost and nothing piles up.
//!
//! Invariant: between the position it was made for and the last event in it no wanted event is missing, and none is
//! in it twice; or it says that its watcher is behind.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kvclient::position::Position;
use tokio::sync::Notify;

use super::{
    batch::{Batch, Span},
    pieces::Pieces,
};
use crate::in_flight::InFlight;

/// What may lie in the queues of one generation.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) taken: InFlight,
    /// The most for one watcher.
    pub(super) queue_bytes: usize,
    /// The most for all of them together.
    pub(super) all_bytes: usize,
    /// From so much text on, watchers of everything share one copy of it.
    pub(super) shared_bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            taken: InFlight::default(),
            // Some 50 ms of everything that a busy shard writes.
            queue_bytes: 1 << 20,
            // Most watchers have nothing waiting.
            all_bytes: 32 << 20,
            // Below, a copy costs less than one more piece.
            shared_bytes: 4 << 10,
        }
    }
}

/// So much is worth a wake-up of its own.
const PLENTY_BYTES: usize = 64 << 10;

/// The most room that is made ahead of events: it is counted only once they fill it.
const AHEAD_BYTES: usize = 4 << 10;

/// One watcher's queue.
#[derive(Debug)]
pub(super) struct Queue {
    // std mutex: held to copy an event, never over an await.
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    events: Pieces,
    /// Length of their text.
    bytes: usize,
    /// What was taken last: up to [`AHEAD_BYTES`] as much room is made for what comes next, in one piece.
    taken_bytes: usize,
    /// The last event that is or was in it; before the first, where the watcher began.
    last: Position,
    /// Whether the feeder will wake the watcher.
    is_listed: bool,
    condition: Condition,
}

/// How it is with a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// What it wants is put here.
    Fed,
    /// It has to read the log by itself.
    Behind,
    /// There is nothing more to come, here or in the log.
    Closed,
}

/// What adding an event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// There is something for a watcher that the feeder does not have on its list of those to be woken.
    ToBeWoken,
    /// Nothing more to do.
    Done,
}

/// What a watcher finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Text of events, maybe none, and where they end.
    Events(Pieces, Position),
    /// It was too slow, and has to read the log from where it was.
    Behind,
    /// Nobody feeds it any more.
    Closed,
}

impl Queue {
    /// An empty queue of a watcher that has everything up to `at`.
    pub(super) fn new(at: Position) -> Self {
        Self {
            state: Mutex::new(State {
                events: Pieces::default(),
                bytes: 0,
                taken_bytes: 0,
                last: at,
                is_listed: false,
                condition: Condition::Fed,
            }),
            wake: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what the watcher wants of a batch and does not have yet.
    pub(super) fn push(&self, batch: &Batch, wanted: &[Span], room: &Room) -> Pushed {
        let mut state = self.lock();
        let wanted = Batch::behind(wanted, state.last);
        let Some(last) = wanted.last().filter(|_| state.condition == Condition::Fed) else {
            return Pushed::Done;
        };
        let (before, bytes) = (state.bytes, batch.bytes(wanted));
        let all_fit = room.taken.take(bytes, room.all_bytes).is_ok();
        if !all_fit || before + bytes > room.queue_bytes {
            room.taken.give_back(bytes);
            state.end(Condition::Behind, room);
            self.wake.notify_one();
            return Pushed::Done;
        }
        match batch.shared(wanted, room.shared_bytes) {
            Some(text) => state.events.push(text),
            None => state.copy(batch, wanted, bytes),
        }
        state.bytes += bytes;
        state.last = last.position();
        if before < PLENTY_BYTES && state.bytes >= PLENTY_BYTES {
            self.wake.notify_one();
        }
        match mem::replace(&mut state.is_listed, true) {
            true => Pushed::Done,
            false => Pushed::ToBeWoken,
        }
    }

    /// Takes what is there.
    pub(super) fn take(&self, room: &Room) -> Taken {
        let mut state = self.lock();
        match state.condition {
            Condition::Fed => {
                let bytes = mem::take(&mut state.bytes);
                room.taken.give_back(bytes);
                if bytes > 0 {
                    state.taken_bytes = bytes;
                }
                Taken::Events(mem::take(&mut state.events), state.last)
            }
            Condition::Behind => Taken::Behind,
            Condition::Closed => Taken::Closed,
        }
    }

    /// Ends it: what is in it is thrown away, and nothing is added any more.
    pub(super) fn end(&self, condition: Condition, room: &Room) {
        self.lock().end(condition, room);
        self.wake.notify_one();
    }

    /// Wakes the watcher; what comes from now on needs another call.
    pub(super) fn wake(&self) {
        let mut state = self.lock();
        state.is_listed = false;
        if state.bytes > 0 {
            self.wake.notify_one();
        }
    }

    /// Returns when there may be something to take.
    pub(super) async fn ready(&self) {
        self.wake.notified().await;
    }
}

impl State {
    /// Adds text of this watcher alone.
    fn copy(&mut self, batch: &Batch, wanted: &[Span], bytes: usize) {
        let end = self.events.end();
        if end.is_empty() {
            let usual = self.taken_bytes.min(AHEAD_BYTES);
            end.reserve_exact(usual.max(bytes));
        }
        batch
            .texts(wanted)
            .for_each(|text| end.extend_from_slice(text));
    }

    fn end(&mut self, condition: Condition, room: &Room) {
        room.taken.give_back(mem::take(&mut self.bytes));
        self.events = Pieces::default();
        self.condition = condition;
    }
}
