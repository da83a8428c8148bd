//! What one look at the log has found, and who wants it.
//!
//! An event's text is made when the first that wants it is found, and only then.

use std::{io, sync::Arc};

use kvclient::wire::log::Frame;

use super::{
    batch::{Batch, Span},
    event::record_event,
    index::Index,
    queue::Queue,
};

/// So many events of a group find room made already.
const KEPT_SPANS: usize = 128;

/// The watchers of one prefix.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) queues: Vec<Arc<Queue>>,
    /// What they want of the look at hand.
    pub(super) wanted: Vec<Span>,
}

/// What the look at hand has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) batch: Batch,
    /// Numbers of the groups that want some of it.
    pub(super) groups: Vec<usize>,
}

impl Group {
    /// Forgets what they want.
    pub(super) fn clear(&mut self) {
        self.wanted.clear();
        self.wanted.shrink_to(KEPT_SPANS);
    }
}

impl Found {
    /// Adds the events of a frame that somebody wants.
    pub(super) fn add(&mut self, frame: &Frame, index: &mut Index<Group>) -> io::Result<()> {
        let Self { batch, groups } = self;
        for (position, record) in frame.records().map_err(io::Error::other)? {
            let mut event = None;
            index.visit_matching(&record.key, |nth, group| {
                let make = |out: &mut Vec<u8>| {
                    record_event(out, position, frame.header.time_ms, &record);
                };
                let made = event.get_or_insert_with(|| batch.push(position, make));
                // None: the start of a reign.
                let Some(span) = *made else {
                    return;
                };
                if group.wanted.is_empty() {
                    groups.push(nth);
                }
                group.wanted.push(span);
            });
        }
        Ok(())
    }
}
