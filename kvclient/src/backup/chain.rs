//! Frames of a shard's log as they arrive or are read back: each must follow the one before.

use bytes::Bytes;

use crate::{
    position::{Lineage, Position},
    wire::{
        bytes::DecodeError,
        log::{Frame, Link, Record},
    },
};

/// Where a chain of frames has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// What the next frame has to follow.
    pub end: Link,
    /// Reigns up to there.
    pub lineage: Lineage,
    /// Shard time of the last frame, 0 if there was none, Unix milliseconds.
    pub time_ms: u64,
}

/// A record, and where it stands in the bytes of its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedRecord {
    /// Its position in the log.
    pub position: Position,
    /// The record.
    pub record: Record,
    /// Where the value begins, in bytes behind the start of the frame.
    pub value_at: usize,
}

impl Chain {
    /// Takes the next frame off `bytes`, and its records.
    ///
    /// # Errors
    /// [`DecodeError`]: what stands there is no whole frame, or not the next one. Nothing of it was taken in.
    pub fn take(&mut self, bytes: &mut Bytes) -> Result<(Frame, Vec<PlacedRecord>), DecodeError> {
        let frame = Frame::split_from(bytes)?;
        let wrong = |error: &dyn ToString| DecodeError::new("log frame", error.to_string());
        let follows = frame.header.check_follows(&self.end);
        follows.map_err(|error| wrong(&error))?;
        let records = placed(&frame)?;
        let mut lineage = self.lineage.clone();
        for placed in &records {
            if let Some(reign) = placed.record.reign_at(placed.position) {
                lineage.push(reign).map_err(|error| wrong(&error))?;
            }
        }
        self.lineage = lineage;
        self.end = frame.header.link();
        self.time_ms = self.time_ms.max(frame.header.time_ms);
        Ok((frame, records))
    }

    /// Takes all of `bytes`, which must be whole frames.
    ///
    /// # Errors
    /// As [`Self::take`]; the frames before are taken in.
    pub fn take_all(&mut self, mut bytes: Bytes) -> Result<(), DecodeError> {
        while !bytes.is_empty() {
            self.take(&mut bytes)?;
        }
        Ok(())
    }
}

/// Kind, flags and the two lengths before a record's key.
const RECORD_HEAD_BYTES: usize = 8;

/// The records of a frame, and where they stand.
pub(crate) fn placed(frame: &Frame) -> Result<Vec<PlacedRecord>, DecodeError> {
    let mut at = crate::wire::log::FRAME_HEADER_BYTES;
    let records = frame.records()?.into_iter().map(|(position, record)| {
        let value_at = at + RECORD_HEAD_BYTES + record.key.len();
        at += record.encoded_bytes();
        PlacedRecord {
            position,
            record,
            value_at,
        }
    });
    Ok(records.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::log::{Effect, FrameBuilder};

    fn put(key: &'static str, value: &'static str) -> Record {
        let effect = Effect::Put {
            value: Bytes::from_static(value.as_bytes()),
            expires_at_ms: Some(9),
        };
        Record::new(Bytes::from_static(key.as_bytes()), effect)
    }

    fn start() -> Chain {
        Chain {
            end: Link::default(),
            lineage: Lineage::new(),
            time_ms: 0,
        }
    }

    fn frames() -> Bytes {
        let mut chain = start();
        let mut all = Vec::new();
        for records in [
            vec![Record::epoch_start(7, "a:1")],
            vec![put("a", "one"), put("b", "second")],
        ] {
            let mut builder = FrameBuilder::new();
            records.iter().for_each(|record| builder.push(record));
            let frame = builder.finish(&chain.end, 1, 70);
            chain.end = frame.header.link();
            all.extend_from_slice(&frame.bytes);
        }
        all.into()
    }

    #[test]
    fn values_are_found_where_they_stand() {
        let mut chain = start();
        let mut rest = frames();
        chain.take(&mut rest).expect("the reign");
        let (frame, records) = chain.take(&mut rest).expect("the writes");
        for (placed, value) in records.iter().zip(["one", "second"]) {
            let bytes = &frame.bytes[placed.value_at..][..value.len()];
            assert_eq!(bytes, value.as_bytes());
        }
        assert_eq!(chain.end.position, Position::new(1, 3));
        assert_eq!((chain.lineage.epoch(), chain.time_ms), (1, 70));
    }

    #[test]
    fn cut_anywhere_it_is_noticed_unless_between_frames() {
        let all = frames();
        let mut whole = Vec::new();
        for len in 1..=all.len() {
            if start().take_all(all.slice(..len)).is_ok() {
                whole.push(len);
            }
        }
        assert_eq!(whole.len(), 2, "{whole:?}");
        let second = all.slice(whole[0]..);
        assert!(start().take_all(second).is_err(), "the first is missing");
    }
}
