//! What the log does to each key in the end, in a table of bounded size.
//!
//! Values are not in it, only where they stand in files. Keys that do not fit are left out from the largest on, so that
//! what is there is complete up to one key, and the log can be read again for those from there on.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{chain::placed, until::Until};
use crate::{
    position::{Position, Seq},
    wire::{
        bytes::DecodeError,
        log::{Effect, Frame},
    },
};

/// What a key costs in the table beside its own bytes.
const KEY_COST_BYTES: usize = 128;

/// What the log does to a key in the end.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// The last put or delete.
    pub(super) base: Option<(Seq, Base)>,
    /// The last change of the expiry behind that.
    pub(super) expire: Option<(Seq, Option<u64>)>,
}

#[derive(Debug)]
pub(super) enum Base {
    Put {
        place: Place,
        expires_at_ms: Option<u64>,
    },
    Delete,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) at: u64,
    pub(super) bytes: usize,
}

/// A table that is being filled.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) until: Until,
    pub(super) from: Bytes,
    pub(super) limit_bytes: usize,
    pub(super) bytes: usize,
    pub(super) table: BTreeMap<Bytes, Folded>,
    pub(super) left_out: Option<Bytes>,
    pub(super) reached: Position,
    /// A frame came that does not belong to it: none behind that does, whatever its time.
    is_over: bool,
}

impl Fill {
    /// An empty table for keys from one on, of about so many bytes; `first` is the state before any frame.
    pub(super) fn new(until: Until, from: Bytes, limit_bytes: usize, first: Position) -> Self {
        Self {
            until,
            from,
            limit_bytes,
            bytes: 0,
            table: BTreeMap::new(),
            left_out: None,
            reached: first,
            is_over: false,
        }
    }

    /// Takes the next frame off `bytes`; it stands there in a file.
    pub(super) fn frame(
        &mut self,
        bytes: &mut Bytes,
        file: usize,
        at: u64,
    ) -> Result<(), DecodeError> {
        let frame = Frame::split_from(bytes)?;
        self.is_over |= !self.until.takes(&frame.header);
        if self.is_over {
            return Ok(());
        }
        self.reached = frame.header.link().position;
        for placed in placed(&frame)? {
            let seq = placed.position.seq;
            let base = match placed.record.effect {
                Effect::Put {
                    value,
                    expires_at_ms,
                } => {
                    let place = Place {
                        file,
                        at: at + placed.value_at as u64,
                        bytes: value.len(),
                    };
                    Base::Put {
                        place,
                        expires_at_ms,
                    }
                }
                Effect::Delete { .. } => Base::Delete,
                Effect::Expire { expires_at_ms } => {
                    self.fold(&placed.record.key, |folded| {
                        folded.expire = Some((seq, expires_at_ms));
                    });
                    continue;
                }
                Effect::EpochStart { .. } => continue,
            };
            self.fold(&placed.record.key, |folded| {
                *folded = Folded {
                    base: Some((seq, base)),
                    expire: None,
                };
            });
        }
        Ok(())
    }

    fn fold(&mut self, key: &Bytes, change: impl FnOnce(&mut Folded)) {
        if *key < self.from || self.left_out.as_ref().is_some_and(|end| key >= end) {
            return;
        }
        if let Some(folded) = self.table.get_mut(key) {
            return change(folded);
        }
        // A copy: the key alone would keep the memory of its whole frame.
        let key = Bytes::copy_from_slice(key);
        self.bytes += key.len() + KEY_COST_BYTES;
        change(self.table.entry(key).or_default());
        while self.bytes > self.limit_bytes && self.table.len() > 1 {
            if let Some((last, _)) = self.table.pop_last() {
                self.bytes -= last.len() + KEY_COST_BYTES;
                self.left_out = Some(last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::log::{FrameBuilder, Link, Record};

    /// A shard's time never goes back, whatever its clock does. Were it otherwise, a later frame is not taken without
    /// the ones before it: that would be a state that never was.
    #[test]
    fn frames_whose_times_go_back_are_taken_from_the_first_on() {
        let mut end = Link::default();
        let mut all = Vec::new();
        for time_ms in [10, 30, 20, 40] {
            let mut builder = FrameBuilder::new();
            let effect = Effect::Delete { by_expiry: false };
            builder.push(&Record::new(Bytes::from_static(b"k"), effect));
            let frame = builder.finish(&end, 1, time_ms);
            end = frame.header.link();
            all.extend_from_slice(&frame.bytes);
        }
        for (until_ms, reached) in [(9, 0), (10, 1), (25, 1), (30, 3), (39, 3), (40, 4)] {
            let until = Until::TimeMs(until_ms);
            let mut fill = Fill::new(until, Bytes::new(), 1_000, Position::ZERO);
            let mut rest = Bytes::from(all.clone());
            while !rest.is_empty() {
                fill.frame(&mut rest, 0, 0).expect("decodes");
            }
            assert_eq!(fill.reached.seq, reached, "until {until_ms}");
        }
    }
}
