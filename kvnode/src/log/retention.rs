//! How long frames stay: what LMDB still lacks, what somebody holds, and a measure before that.

use std::sync::Arc;

use kvclient::position::Seq;

use super::{
    error::LogError,
    files::locked,
    segment::Segment,
    state::{Shared, State},
};

/// Keeps the frames after a seq in the log for as long as it lives.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
    id: u64,
    seq: Seq,
}

impl Hold {
    pub(super) fn new(shared: Arc<Shared>, seq: Seq) -> Self {
        let id = {
            let holds = &mut shared.state().holds;
            let id = holds.last_key_value().map_or(0, |(newest, _)| newest + 1);
            holds.insert(id, seq);
            id
        };
        Self { shared, id, seq }
    }

    /// The seq behind which everything is kept.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Length of the segments from the held seq to the end: what this hold may cost on disk.
    pub fn held_bytes(&self) -> u64 {
        let state = self.shared.state();
        state.bytes_from(state.segment_after(self.seq))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.state().holds.remove(&self.id);
    }
}

impl Shared {
    /// Removes segments that are not needed, oldest first, each durably before the next: a crash never leaves a
    /// hole in the numbers.
    pub(super) fn release(&self, applied: Seq) -> Result<(), LogError> {
        let _one_at_a_time = locked(&self.releasing);
        loop {
            let popped = self
                .state()
                .pop_unneeded(applied, self.home.options.retention_bytes);
            match popped {
                Some(segment) => self.spares.recycle(segment)?,
                None => return Ok(()),
            }
        }
    }
}

impl State {
    fn pop_unneeded(&mut self, applied: Seq, retention_bytes: u64) -> Option<Arc<Segment>> {
        let keep_after = self.holds.values().copied().fold(applied, Seq::min);
        // Everything before the segment that holds the next seq is done with. The last one is never among them.
        let done = self.segment_after(keep_after);
        let done_bytes: u64 = self.segments.iter().take(done).map(|s| s.bytes).sum();
        if done_bytes > retention_bytes {
            self.segments.pop_front()
        } else {
            None
        }
    }
}
