//! Primary side of a snapshot: the shard's entries in key order, then the frames that came meanwhile.
//!
//! S is what is visible at the start, E what is visible after the last entry. Entries are read in short
//! transactions, so a slow receiver holds up neither the flush nor LMDB's free pages; the log from S on is kept
//! while the stream runs, up to a limit. Runs on a thread of its own and is throttled by a short queue; a receiver
//! that takes nothing for a while is given up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvclient::{
    position::Seq,
    shard_map::Address,
    wire::{
        log::Link,
        snapshot::{self, Chunk, Entry, Header},
    },
};
use tokio::{
    runtime::Runtime,
    sync::mpsc::{self, error::SendTimeoutError},
};

use crate::{
    clock::ShardClock,
    log::{Hold, ReadFrames},
    ownership::own_shard,
    service::Service,
    storage::Storage,
    store::{ScanContent, ScanLimits, ScanRange},
};

/// Entries in a chunk, by bytes and number: small enough that a transaction is short, and that a link of 10 kB/s
/// takes one within half of [`TAKE_WITHIN`].
const CHUNK_BYTES: usize = 128 << 10;
const CHUNK_ENTRIES: usize = 10_000;

/// Chunks that wait for a slow receiver.
const QUEUE: usize = 4;

/// How long one chunk may wait: as long as a receiver bears silence.
const TAKE_WITHIN: Duration = Duration::from_secs(30);

/// Why a snapshot ended early; the receiver sees a broken stream.
pub type Broken = std::io::Error;

/// Why a snapshot does not begin.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// As many run as may: each keeps log on the disk. Ask again later.
    #[error("as many snapshots as may be are being streamed; ask again later")]
    TooMany,
    /// What it begins with cannot be read.
    #[error(transparent)]
    Failed(#[from] Broken),
}

/// What is copied, and how much log may be kept for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Name of the shard.
    pub shard: String,
    /// Its slots, as the map writes them.
    pub slots: String,
    /// Bytes of log kept at most while it is streamed, and for a replica until it goes on.
    pub log_limit_bytes: u64,
    /// Address of the replica that copies it; `None`: somebody else does.
    pub replica: Option<Address>,
}

/// Starts a snapshot of the service's shard, for a replica or for somebody else; its bytes come out of the queue, an
/// error last if it broke.
///
/// # Errors
/// [`NotBegun`]: nothing is being streamed.
pub fn start(
    service: &Service,
    storage: &Storage,
    replica: Option<Address>,
) -> Result<mpsc::Receiver<Result<Bytes, Broken>>, NotBegun> {
    let map = service.map.load();
    let shard = own_shard(&map, service.place());
    let copied = Copied {
        shard: shard.name.clone(),
        slots: shard.slots_text(),
        log_limit_bytes: service.config.sizes.snapshot_log_limit_bytes,
        replica,
    };
    stream(storage, &service.clock, copied)
}

/// As [`start`], for a storage without a service around it.
///
/// # Errors
/// As [`start`].
pub fn stream(
    storage: &Storage,
    clock: &Arc<ShardClock>,
    copied: Copied,
) -> Result<mpsc::Receiver<Result<Bytes, Broken>>, NotBegun> {
    storage.kept_log.expire(Instant::now());
    if let Some(replica) = &copied.replica {
        storage.kept_log.forget(replica);
    }
    // Held from before the start is looked up, so that its frame cannot be given free in between.
    let visible = storage.store.visible();
    let hold = storage.log.hold(visible.seq, copied.log_limit_bytes);
    let hold = hold.ok_or(NotBegun::TooMany)?;
    let start = storage.log.link_at(visible.seq).map_err(broken)?;
    let header = Header {
        history: storage.history,
        start: start.ok_or_else(|| broken(format!("no frame ends at {visible}")))?,
        shard: copied.shard,
        slots: copied.slots,
        lineage: {
            let mut lineage = storage.store.lineage().as_ref().clone();
            lineage.truncate_after(visible.seq);
            lineage
        },
    };
    let (queue, receiver) = mpsc::channel(QUEUE + 1);
    let (storage, clock) = (storage.clone(), Arc::clone(clock));
    std::thread::Builder::new()
        .name("snapshot".into())
        .spawn(move || match Sender::new(queue, TAKE_WITHIN) {
            Ok(sender) => Source {
                storage,
                clock,
                hold,
                sender,
                replica: copied.replica,
            }
            .run(header),
            Err(error) => tracing::warn!(%error, "snapshot broke off"),
        })?;
    Ok(receiver)
}

/// The way out of the thread.
struct Sender {
    queue: mpsc::Sender<Result<Bytes, Broken>>,
    /// Room that is kept for the error, so that a receiver whose queue is full sees it too.
    last: mpsc::OwnedPermit<Result<Bytes, Broken>>,
    /// Of this thread alone: it only keeps the time.
    runtime: Runtime,
    take_within: Duration,
}

struct Source {
    storage: Storage,
    clock: Arc<ShardClock>,
    hold: Hold,
    sender: Sender,
    replica: Option<Address>,
}

impl Source {
    fn run(self, header: Header) {
        let start = header.start.position;
        tracing::info!(%start, "snapshot begins");
        match self.stream(header) {
            Ok((entries, end)) => {
                tracing::info!(%start, entries, "snapshot ends");
                if let Some(replica) = self.replica {
                    let kept_log = &self.storage.kept_log;
                    kept_log.keep(replica, self.hold, end.position.seq);
                }
            }
            Err(error) => {
                tracing::warn!(%start, %error, "snapshot broke off");
                self.sender.last.send(Err(error));
            }
        }
    }

    /// How many entries were sent, and where the copy ends.
    fn stream(&self, header: Header) -> Result<(u64, Link), Broken> {
        let start = header.start;
        self.sender.send(snapshot::preamble().into())?;
        self.send_chunk(&Chunk::Header(header))?;
        self.send_requests()?;
        let entries = self.send_entries()?;
        let end = self.send_frames(start)?;
        self.send_chunk(&Chunk::End {
            end,
            entries,
            time_ms: self.clock.now_ms(),
        })?;
        Ok((entries, end))
    }

    fn send_requests(&self) -> Result<(), Broken> {
        let mut after = None;
        loop {
            let page = self
                .storage
                .store
                .requests(after, CHUNK_ENTRIES)
                .map_err(broken)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.id());
            let request = |request: crate::store::Request| snapshot::Request {
                position: request.position,
                time_ms: request.time_ms,
                mark: request.mark,
            };
            self.send_chunk(&Chunk::Requests(page.into_iter().map(request).collect()))?;
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
        if self.hold.has_lapsed() {
            return Err(broken(
                "the log kept for it has more bytes than --snapshot-log-limit allows",
            ));
        }
        self.sender.send(chunk.encode().into())
    }
}

impl Sender {
    /// On the thread that sends.
    fn new(
        queue: mpsc::Sender<Result<Bytes, Broken>>,
        take_within: Duration,
    ) -> Result<Self, Broken> {
        Ok(Self {
            last: queue.clone().try_reserve_owned().map_err(broken)?,
            queue,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()?,
            take_within,
        })
    }

    fn send(&self, bytes: Bytes) -> Result<(), Broken> {
        let sent = self
            .runtime
            .block_on(async { self.queue.send_timeout(Ok(bytes), self.take_within).await });
        sent.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => broken(format!(
                "the receiver took nothing for {} s",
                self.take_within.as_secs_f64()
            )),
            SendTimeoutError::Closed(_) => broken("the receiver has gone"),
        })
    }
}

fn broken(error: impl ToString) -> Broken {
    std::io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use kvclient::{
        key::Key,
        position::Lineage,
        wire::batch::{Action, Op},
    };

    use super::*;
    use crate::{commit::WriteOp, config::Sizes, storage};

    fn put(nth: usize) -> WriteOp {
        let action = Action::Put {
            value: vec![b'v'; CHUNK_BYTES].into(),
            ttl_ms: None,
        };
        let op = Op::new(Key::new(nth.to_string()).unwrap(), action);
        WriteOp::new(op, None)
    }

    /// A piece took longer than a replica has for it, and no copy ever ended.
    #[test]
    fn a_link_of_10_kb_a_second_takes_a_piece_in_half_of_its_time() {
        let takes = Duration::from_millis((CHUNK_BYTES / 10) as u64);
        assert!(takes <= TAKE_WITHIN / 2, "{takes:?}");
    }

    /// A receiver that stayed connected and read nothing kept the thread, its hold, and so the log, for ever.
    #[tokio::test]
    async fn a_receiver_that_takes_nothing_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            log_segment_bytes: 8 << 20,
            ..Sizes::default()
        };
        storage::create(dir.path(), 1, Link::default(), &sizes).unwrap();
        let clock = Arc::new(ShardClock::start(0));
        let failures = mpsc::channel(1).0;
        let (storage, _threads) = storage::open(dir.path(), 1, &sizes, &clock, &failures).unwrap();
        storage
            .commit
            .begin_reign(1, 9, "a:1".into())
            .await
            .unwrap();
        storage.commit.write((0..8).map(put).collect()).await;

        let (queue, mut receiver) = mpsc::channel(QUEUE + 1);
        let header = Header {
            history: 1,
            start: storage.log.end(),
            shard: "s".into(),
            slots: "0-16383".into(),
            lineage: Lineage::new(),
        };
        let log = storage.log.clone();
        let stalled = std::thread::spawn(move || {
            let source = Source {
                hold: storage.log.hold(0, 1 << 30).unwrap(),
                storage,
                clock,
                sender: Sender::new(queue, Duration::from_millis(20)).unwrap(),
                replica: Some("b:1".parse().unwrap()),
            };
            source.run(header);
        });
        stalled.join().unwrap();
        assert_eq!(log.stats().holds, 0);
        for _ in 0..QUEUE {
            assert!(receiver.recv().await.unwrap().is_ok());
        }
        let last = receiver.recv().await.unwrap().unwrap_err();
        assert_eq!(last.to_string(), "the receiver took nothing for 0.02 s");
        assert!(receiver.recv().await.is_none());
    }
}
