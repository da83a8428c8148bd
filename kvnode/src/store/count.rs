//! Sees to it that what is contained at a seq becomes known; see `counting.rs`.

use kvclient::position::Seq;

use super::{
    core::Core,
    counting::{Count, CountAt},
    error::StoreError,
};

impl Core {
    /// What is contained at the first frame end at or behind `seq`.
    pub(super) fn count_at(&self, seq: Seq) -> Result<CountAt, StoreError> {
        // Who publishes holds it too: `visible` stands still.
        let mut state = self.lock();
        let visible = self.visible();
        if state.meta.applied.position.seq == seq {
            return Ok(CountAt::Counted(Count::new(seq, &state.meta)));
        }
        if let Some(known) = state.counting.known(seq) {
            return Ok(known);
        }
        if seq < visible.seq {
            return Ok(CountAt::Passed(visible));
        }
        state.check()?;
        if state.counting.is_busy() {
            // One after the other: each costs a flush of its own.
            return Ok(CountAt::Waiting);
        }
        state.counting.want(seq);
        if seq == visible.seq {
            self.freeze(&mut state);
        }
        Ok(CountAt::Waiting)
    }
}
