//! One watcher: reads the log by itself until it is at its end, then is fed, and reads again when it was too slow.
//!
//! Invariant: every event of its prefix behind the position that it began with is given out once, in order, until it
//! says that it is over or fails. [`Follow::at`] is the position up to which all was given out.

use std::{io, sync::Arc};

use bytes::Bytes;
use kvclient::position::Position;

use super::{
    hub::{Hub, Refused, Seat},
    pieces::Pieces,
    queue::Taken,
    reader::{Reader, Step},
};

/// A watcher at most so many records behind reads inline: that is the last group or two, still in the page cache. A
/// hand-over to another thread would cost more, and thousands of watchers that begin at once would need as many.
const INLINE_RECORDS: u64 = 1_000;

/// One watcher of a prefix.
#[derive(Debug)]
pub struct Follow {
    hub: Arc<Hub>,
    reader: Reader,
    at: Position,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Reads by itself.
    Behind,
    /// Is fed.
    Fed(Seat),
    /// Has nothing more to come.
    Over,
}

impl Follow {
    pub(super) fn new(hub: Arc<Hub>, prefix: Bytes, at: Position) -> Self {
        let log = hub.log.clone();
        Self {
            hub,
            reader: Reader { log, prefix },
            at,
            place: Place::Behind,
        }
    }

    /// All up to here was given out, as far as it is wanted.
    pub fn at(&self) -> Position {
        self.at
    }

    /// How far the node's readers see: as far as there are events now.
    pub fn visible(&self) -> Position {
        self.hub.visible()
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        matches!(self.place, Place::Over)
    }

    /// What it was fed, without reading: text of events, maybe none.
    pub fn take(&mut self) -> Pieces {
        let Place::Fed(seat) = &self.place else {
            return Pieces::default();
        };
        match seat.take() {
            Taken::Events(events, at) => {
                self.at = at;
                return events;
            }
            Taken::Behind => self.place = Place::Behind,
            Taken::Closed => self.place = Place::Over,
        }
        Pieces::default()
    }

    /// The next events: what it was fed or, if it is behind, what the next piece of the log has. None: see
    /// [`Self::ready`].
    ///
    /// # Errors
    /// The log cannot be read; nothing may follow.
    ///
    /// # Cancel safety
    /// To be dropped together with the watcher only: what it has read would be lost.
    pub async fn next(&mut self) -> io::Result<Pieces> {
        let mut events = self.take();
        while let Place::Behind = self.place {
            let visible = self.hub.visible();
            // It reads before it joins, also when it has just lost its place: by what was too large for its queue.
            if self.at.seq < visible.seq {
                let step = self.read(visible).await?;
                events.push(step.events.into());
                self.at = step.at;
                if step.truncated {
                    self.place = Place::Over;
                }
                if self.at.seq < visible.seq {
                    // Not at the end: what there is leaves first.
                    break;
                }
            }
            match self.hub.join(&self.reader.prefix, self.at) {
                Ok(seat) => self.place = Place::Fed(seat),
                Err(Refused::Closed) => self.place = Place::Over,
                Err(Refused::Behind) => {}
            }
        }
        Ok(events)
    }

    /// Returns when there may be more.
    pub async fn ready(&self) {
        match &self.place {
            Place::Fed(seat) => seat.ready().await,
            Place::Behind | Place::Over => {}
        }
    }

    async fn read(&self, visible: Position) -> io::Result<Step> {
        let (reader, at) = (self.reader.clone(), self.at);
        let step = match visible.seq.saturating_sub(at.seq) <= INLINE_RECORDS {
            true => reader.step(at, visible),
            false => tokio::task::spawn_blocking(move || reader.step(at, visible))
                .await
                .unwrap_or_else(|gone| Err(io::Error::other(gone))),
        };
        step.inspect_err(|error| tracing::error!(%error, "a watch cannot read the log"))
    }
}
