//! Replica side of a snapshot: a stream becomes a new generation, checked and synced before it is put in force.
//!
//! Nothing of it is served before its end. Whatever goes wrong, the generation in force stays as it is, and what
//! was built is removed at the next try.

use std::path::Path;

use bytes::Bytes;
use kvclient::{
    position::Lineage,
    wire::{
        bytes::DecodeError,
        log::{Frame, Link},
        snapshot::{Chunk, Decoder, Header},
    },
};

use crate::{
    config::Sizes,
    log::{Log, LogError},
    storage::{log_options, store_options},
    store::{Entry, Request, Staging, StoreError},
};

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The stream is not what it should be: ask again.
    #[error("the snapshot cannot be used: {0}")]
    Stream(String),
    /// It cannot be stored here.
    #[error("the snapshot cannot be stored: {0}")]
    Storage(String),
}

impl From<DecodeError> for SinkError {
    fn from(error: DecodeError) -> Self {
        Self::Stream(error.to_string())
    }
}

impl From<StoreError> for SinkError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<LogError> for SinkError {
    fn from(error: LogError) -> Self {
        Self::Storage(error.to_string())
    }
}

/// Builds one generation from a stream. All of it blocks.
pub struct Sink<'a> {
    dir: &'a Path,
    sizes: &'a Sizes,
    shard: &'a str,
    slots: &'a str,
    decoder: Decoder,
    building: Option<Building>,
    entries: u64,
}

struct Building {
    staging: Staging,
    history: u128,
    lineage: Lineage,
    end: Link,
    time_ms: u64,
    last_key: Bytes,
}

/// A generation that is complete and synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// History of its log.
    pub history: u128,
    /// Where it is exact.
    pub end: Link,
    /// Entries that came in the stream.
    pub entries: u64,
}

impl<'a> Sink<'a> {
    /// A sink for a shard, which builds in an empty directory.
    pub fn new(dir: &'a Path, sizes: &'a Sizes, shard: &'a str, slots: &'a str) -> Self {
        Self {
            dir,
            sizes,
            shard,
            slots,
            decoder: Decoder::new(),
            building: None,
            entries: 0,
        }
    }

    /// Takes a piece of the stream; the generation, once the end has come.
    ///
    /// # Errors
    /// [`SinkError`]: give this sink up and remove its directory.
    pub fn push(&mut self, piece: &[u8]) -> Result<Option<Built>, SinkError> {
        self.decoder.push(piece);
        while let Some(chunk) = self.decoder.next_chunk()? {
            if let Some(built) = self.take(chunk)? {
                return Ok(Some(built));
            }
        }
        Ok(None)
    }

    fn take(&mut self, chunk: Chunk) -> Result<Option<Built>, SinkError> {
        match (chunk, &mut self.building) {
            (Chunk::Header(header), None) => {
                self.building = Some(self.begin(header)?);
                Ok(None)
            }
            (Chunk::Requests(requests), Some(building)) => {
                let request = |request: kvclient::wire::snapshot::Request| Request {
                    mark: request.mark,
                    position: request.position,
                    time_ms: request.time_ms,
                };
                building
                    .staging
                    .put_requests(&requests.into_iter().map(request).collect::<Vec<_>>())?;
                Ok(None)
            }
            (Chunk::Entries(entries), Some(building)) => {
                self.entries += building.take_entries(entries)?;
                Ok(None)
            }
            (Chunk::Frames(frames), Some(building)) => building.take_frames(frames).map(|()| None),
            (
                Chunk::End {
                    end,
                    entries,
                    time_ms,
                },
                Some(_),
            ) => self.finish(end, entries, time_ms).map(Some),
            (Chunk::Header(_), Some(_)) => Err(SinkError::Stream("a second header".into())),
            (_, None) => Err(SinkError::Stream("no header at the start".into())),
        }
    }

    fn begin(&self, header: Header) -> Result<Building, SinkError> {
        if (header.shard.as_str(), header.slots.as_str()) != (self.shard, self.slots) {
            return Err(SinkError::Stream(format!(
                "it is of shard {:?} with slots {}, this node's is {:?} with {}",
                header.shard, header.slots, self.shard, self.slots
            )));
        }
        let staging = Staging::create(
            &self.dir.join("lmdb"),
            header.history,
            &store_options(self.sizes),
        )?;
        Ok(Building {
            staging,
            history: header.history,
            lineage: header.lineage,
            end: header.start,
            time_ms: 0,
            last_key: Bytes::new(),
        })
    }

    /// Takes what has come for the whole: what a test switches on to see what would come of it.
    pub(super) fn finish_early(&mut self) -> Result<Built, SinkError> {
        let building = self.building.as_ref();
        let end = building.map(|building| building.end).unwrap_or_default();
        self.finish(end, self.entries, 0)
    }

    fn finish(&mut self, end: Link, entries: u64, time_ms: u64) -> Result<Built, SinkError> {
        let building = self
            .building
            .take()
            .ok_or_else(|| SinkError::Stream("no header".into()))?;
        if building.end != end {
            return Err(SinkError::Stream(format!(
                "its frames end at {}, its end says {}",
                building.end.position, end.position
            )));
        }
        if self.entries != entries {
            return Err(SinkError::Stream(format!(
                "{} entries came, {entries} were sent",
                self.entries
            )));
        }
        building
            .staging
            .finish(end, time_ms.max(building.time_ms), building.lineage)?;
        drop(Log::create(
            &self.dir.join("log"),
            building.history,
            end,
            log_options(self.sizes),
        )?);
        Ok(Built {
            history: building.history,
            end,
            entries,
        })
    }
}

impl Building {
    fn take_entries(
        &mut self,
        entries: Vec<kvclient::wire::snapshot::Entry>,
    ) -> Result<u64, SinkError> {
        let mut stored = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.key <= self.last_key {
                return Err(SinkError::Stream("its entries are not in key order".into()));
            }
            self.last_key = entry.key.clone();
            let value = Entry {
                position: entry.position,
                expires_at_ms: entry.expires_at_ms,
                value: entry.value,
            };
            stored.push((entry.key, value));
        }
        self.staging.put_entries(&stored)?;
        Ok(stored.len() as u64)
    }

    fn take_frames(&mut self, mut frames: Bytes) -> Result<(), SinkError> {
        while !frames.is_empty() {
            let frame = Frame::split_from(&mut frames)?;
            frame
                .header
                .check_follows(&self.end)
                .map_err(|error| SinkError::Stream(error.to_string()))?;
            let records = frame.records()?;
            for (position, record) in &records {
                if let Some(reign) = record.reign_at(*position) {
                    self.lineage
                        .push(reign)
                        .map_err(|error| SinkError::Stream(error.to_string()))?;
                }
            }
            self.end = frame.header.link();
            self.time_ms = frame.header.time_ms;
            self.staging.apply_frame(self.end, self.time_ms, &records)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kvclient::{
        position::{Position, Reign},
        wire::snapshot,
    };

    use super::*;
    use crate::{clock::ShardClock, storage};

    /// A replica built from a snapshot without frames knew no shard time. On a machine whose clock was behind, what
    /// had long expired was there again.
    #[test]
    fn what_is_built_from_a_snapshot_does_not_go_back_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            log_segment_bytes: 8 << 20,
            ..Sizes::default()
        };
        let end = Link {
            position: Position::new(1, 5),
            crc: 77,
        };
        let mut lineage = Lineage::new();
        let reign = Reign {
            epoch: 1,
            first_seq: 1,
            reign_id: 9,
        };
        lineage.push(reign).unwrap();
        let header = Header {
            history: 3,
            start: end,
            shard: "s".into(),
            slots: "0-16383".into(),
            lineage,
        };
        let far = 9_000_000_000_000;
        let last = Chunk::End {
            end,
            entries: 0,
            time_ms: far,
        };
        let mut sink = Sink::new(dir.path(), &sizes, "s", "0-16383");
        sink.push(&snapshot::preamble()).unwrap();
        sink.push(&Chunk::Header(header).encode()).unwrap();
        assert!(sink.push(&last.encode()).unwrap().is_some());

        let clock = Arc::new(ShardClock::start(0));
        let failures = tokio::sync::mpsc::channel(1).0;
        let opened = storage::open(dir.path(), 3, &sizes, &clock, &failures);
        assert!(opened.is_ok(), "{:?}", opened.err());
        assert!(clock.now_ms() >= far, "{}", clock.now_ms());
    }
}
