//! Primary side of a snapshot: the shard's entries in key order, then the frames that came meanwhile.
//!
//! S is what is visible at the start, E what is visible after the last entry. Entries are read in short
//! transactions, so a slow receiver holds up neither the flush nor LMDB's free pages; the log from S on is kept
//! while the stream runs, up to a limit. Runs on a thread of its own and is throttled by a short queue.

use bytes::Bytes;
use kvclient::{
    position::Seq,
    wire::{
        log::Link,
        snapshot::{self, Chunk, Entry, Header},
    },
};
use tokio::sync::mpsc;

use crate::{
    log::{Hold, ReadFrames},
    service::{Service, own_shard},
    storage::Storage,
    store::{ScanContent, ScanLimits, ScanRange},
};

/// Entries in a chunk, by bytes and number: small enough that a transaction is short.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_ENTRIES: usize = 10_000;

/// Chunks that wait for a slow receiver.
const QUEUE: usize = 4;

/// Why a snapshot ended early; the receiver sees a broken stream.
pub type Broken = std::io::Error;

/// Starts a snapshot; its bytes come out of the queue, an error last if it broke.
///
/// # Errors
/// [`Broken`] if it cannot even begin.
pub fn start(
    service: &Service,
    storage: &Storage,
) -> Result<mpsc::Receiver<Result<Bytes, Broken>>, Broken> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let map = service.map.load();
    let shard = own_shard(&map, service.place());
    // Held from before the start is looked up, so that its frame cannot be given free in between.
    let visible = storage.store.visible();
    let hold = storage.log.hold(visible.seq);
    let start = storage.log.link_at(visible.seq).map_err(broken)?;
    let header = Header {
        history: storage.history,
        start: start.ok_or_else(|| broken(format!("no frame ends at {visible}")))?,
        shard: shard.name.clone(),
        slots: shard.slots_text(),
        lineage: {
            let mut lineage = storage.store.lineage().as_ref().clone();
            lineage.truncate_after(visible.seq);
            lineage
        },
    };
    let limit_bytes = service.config.sizes.snapshot_log_limit_bytes;
    let source = Source {
        storage: storage.clone(),
        hold,
        limit_bytes,
        sender,
    };
    std::thread::Builder::new()
        .name("snapshot".into())
        .spawn(move || source.run(header))?;
    Ok(receiver)
}

struct Source {
    storage: Storage,
    hold: Hold,
    limit_bytes: u64,
    sender: mpsc::Sender<Result<Bytes, Broken>>,
}

impl Source {
    fn run(self, header: Header) {
        let start = header.start.position;
        tracing::info!(%start, "snapshot begins");
        match self.stream(header) {
            Ok(entries) => tracing::info!(%start, entries, "snapshot ends"),
            Err(error) => {
                tracing::warn!(%start, %error, "snapshot broke off");
                let _ = self.sender.blocking_send(Err(error));
            }
        }
    }

    fn stream(&self, header: Header) -> Result<u64, Broken> {
        let start = header.start;
        self.send(snapshot::preamble().into())?;
        self.send_chunk(&Chunk::Header(header))?;
        self.send_requests()?;
        let entries = self.send_entries()?;
        let end = self.send_frames(start)?;
        self.send_chunk(&Chunk::End { end, entries })?;
        Ok(entries)
    }

    fn send_requests(&self) -> Result<(), Broken> {
        let mut after = None;
        loop {
            let page = self
                .storage
                .store
                .requests(after, CHUNK_ENTRIES)
                .map_err(broken)?;
            let is_last = page.len() < CHUNK_ENTRIES;
            if let Some(last) = page.last() {
                after = Some((last.mark.client, last.mark.n));
                let request = |request: crate::store::Request| snapshot::Request {
                    position: request.position,
                    time_ms: request.time_ms,
                    mark: request.mark,
                };
                self.send_chunk(&Chunk::Requests(page.into_iter().map(request).collect()))?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn send_entries(&self) -> Result<u64, Broken> {
        let limits = ScanLimits {
            max_entries: CHUNK_ENTRIES,
            max_bytes: CHUNK_BYTES,
            content: ScanContent::Entries,
        };
        let mut range = ScanRange::all();
        let mut sent = 0;
        loop {
            let page = self.storage.store.scan(&range, &limits).map_err(broken)?;
            let Some((last, _)) = page.entries.last() else {
                return Ok(sent);
            };
            range = range.after(last.clone());
            sent += page.entries.len() as u64;
            let entry = |(key, entry): (Bytes, crate::store::Entry)| Entry {
                key,
                position: entry.position,
                expires_at_ms: entry.expires_at_ms,
                value: entry.value,
            };
            self.send_chunk(&Chunk::Entries(
                page.entries.into_iter().map(entry).collect(),
            ))?;
            if !page.more {
                return Ok(sent);
            }
        }
    }

    /// Sends the frames from the start to what is visible now.
    fn send_frames(&self, start: Link) -> Result<Link, Broken> {
        let end: Seq = self.storage.store.visible().seq;
        let mut sent = start;
        while sent.position.seq < end {
            let frames = match self
                .storage
                .log
                .read_after(sent.position.seq, CHUNK_BYTES)
                .map_err(broken)?
            {
                ReadFrames::Frames(frames) => frames,
                ReadFrames::UpToDate | ReadFrames::Truncated => {
                    return Err(broken("the log was given free under the snapshot"));
                }
            };
            let mut rest = frames.clone();
            while !rest.is_empty() {
                sent = kvclient::wire::log::Frame::split_from(&mut rest)
                    .map_err(broken)?
                    .header
                    .link();
            }
            self.send_chunk(&Chunk::Frames(frames))?;
        }
        Ok(sent)
    }

    fn send_chunk(&self, chunk: &Chunk) -> Result<(), Broken> {
        let held = self.hold.held_bytes();
        if held > self.limit_bytes {
            return Err(broken(format!(
                "the log kept for it has {held} bytes, more than --snapshot-log-limit allows ({})",
                self.limit_bytes
            )));
        }
        self.send(chunk.encode().into())
    }

    fn send(&self, bytes: Bytes) -> Result<(), Broken> {
        self.sender
            .blocking_send(Ok(bytes))
            .map_err(|_| broken("the receiver has gone"))
    }
}

fn broken(error: impl ToString) -> Broken {
    std::io::Error::other(error.to_string())
}
