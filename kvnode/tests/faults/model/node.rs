//! The storage of one node in a directory of its own: opened, closed, copied as it is, torn.
//!
//! Its shard time stands still but when a test moves it: the clock it follows is long past, so it stays at the latest
//! time that it was told of.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use kvclient::{
    position::{Epoch, Seq},
    wire::log::{Frame, Link},
};
use kvnode::{
    clock::ShardClock,
    config::Sizes,
    log::ReadFrames,
    replication::{snapshot_sink::Sink, snapshot_source},
    storage::{self, Storage, StorageThreads},
};
use proptest::test_runner::TestCaseError;
use tokio::{runtime::Runtime, sync::mpsc};

use super::steps::Tear;

const HISTORY: u128 = 11;
const SHARD: &str = "s";
const SLOTS: &str = "0-16383";

/// Small, so that frames, segments and memtables change often.
pub(super) const SIZES: Sizes = Sizes {
    max_value_bytes: 1 << 20,
    memtable_bytes: 6_000,
    map_bytes: 64 << 20,
    log_segment_bytes: 16 << 10,
    log_retention_bytes: 0,
    snapshot_log_limit_bytes: 1 << 30,
    max_in_flight_bytes: 1 << 20,
    checkpoint_every: 32,
};

/// A node's storage, open.
pub(super) struct Node {
    dir: PathBuf,
    pub(super) clock: Arc<ShardClock>,
    pub(super) storage: Storage,
    threads: StorageThreads,
}

/// A file's name and what is in it.
type Files = BTreeMap<PathBuf, Vec<u8>>;

impl Node {
    /// An empty one.
    pub(super) fn create(dir: PathBuf, now_ms: u64) -> Result<Self, TestCaseError> {
        storage::create(&dir, HISTORY, Link::default(), &SIZES).map_err(failed)?;
        Self::open(dir, now_ms)
    }

    /// The one in `dir`, at this time by the machine's clock.
    pub(super) fn open(dir: PathBuf, now_ms: u64) -> Result<Self, TestCaseError> {
        let clock = Arc::new(ShardClock::start(now_ms));
        clock.follow(0);
        let failures = mpsc::channel(1).0;
        let (storage, threads) =
            storage::open(&dir, HISTORY, &SIZES, &clock, &failures).map_err(failed)?;
        let node = Self {
            dir,
            clock,
            storage,
            threads,
        };
        node.verify()?;
        Ok(node)
    }

    /// Begins a reign.
    pub(super) fn reign(&self, runtime: &Runtime, epoch: Epoch) -> Result<(), TestCaseError> {
        let begun = self
            .storage
            .commit
            .begin_reign(epoch, fastrand::u64(..), "a:1".into());
        runtime.block_on(begun).map_err(failed)
    }

    /// Everything in LMDB fits together.
    pub(super) fn verify(&self) -> Result<(), TestCaseError> {
        let report = self.storage.store.verify(|_| ()).map_err(failed)?;
        match report.is_sound() {
            true => Ok(()),
            false => Err(TestCaseError::fail(format!("{:?}", report.problems))),
        }
    }

    /// Puts all into LMDB and lets go of the log before it.
    pub(super) fn flush(&self) -> Result<(), TestCaseError> {
        self.storage.store.flush().map_err(failed)?;
        let applied = self.storage.store.applied().position;
        self.storage.log.release(applied.seq).map_err(failed)?;
        self.verify()
    }

    /// A clean stop; where it was.
    pub(super) fn close(self) -> Result<PathBuf, TestCaseError> {
        self.storage.commit.stop();
        drop(self.storage);
        self.threads.close().map_err(failed)?;
        Ok(self.dir)
    }

    /// The node is gone from one moment to the next: its files as they are go to `dir`, which is opened.
    pub(super) fn crash(self, dir: PathBuf, now_ms: u64) -> Result<Self, TestCaseError> {
        for part in ["log", "lmdb"] {
            self.files(part).write(&dir.join(part));
        }
        fs::remove_dir_all(self.close()?).map_err(failed)?;
        Self::open(dir, now_ms)
    }

    /// All files of a part. Threads may be at work on them; what does not change from one look to the next is what a
    /// crash leaves.
    fn files(&self, part: &str) -> Files {
        let dir = self.dir.join(part);
        let mut before = Files::read(&dir);
        loop {
            let now = Files::read(&dir);
            if now == before {
                return now;
            }
            before = now;
        }
    }

    /// LMDB as it is, for [`Node::tear`].
    pub(super) fn index(&self) -> impl FnOnce(&Path) + use<> {
        let files = self.files("lmdb");
        move |dir| files.write(&dir.join("lmdb"))
    }

    /// The node dies while it writes what is behind `after`, with LMDB as it was: of the frames in the last segment
    /// the rest from one on is missing, and that one is torn. Gives the node that comes back.
    pub(super) fn tear(
        self,
        index: impl FnOnce(&Path),
        after: Seq,
        tear: Tear,
        dir: PathBuf,
        now_ms: u64,
    ) -> Result<Self, TestCaseError> {
        let frames = self.frames_after(after)?;
        let mut log = self.files("log");
        let last = log.iter_mut().filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.ends_with(".seg") && !name.starts_with("spare")
        });
        let (_, segment) = last
            .max_by_key(|(name, _)| (*name).clone())
            .expect("a segment");
        let places: Vec<_> = frames
            .iter()
            .filter_map(|frame| Some((find(segment, &frame.bytes)?, frame.bytes.len())))
            .collect();
        if !places.is_empty() {
            let (at, len) = places[tear.frame % places.len()];
            segment[at + tear.byte % len..].fill(0);
        }
        log.write(&dir.join("log"));
        index(&dir);
        fs::remove_dir_all(self.close()?).map_err(failed)?;
        Self::open(dir, now_ms)
    }

    /// All frames that hold a seq after this one.
    pub(super) fn frames_after(&self, mut seq: Seq) -> Result<Vec<Frame>, TestCaseError> {
        let mut all = Vec::new();
        while let ReadFrames::Frames(mut bytes) =
            self.storage.log.read_after(seq, 8 << 10).map_err(failed)?
        {
            while !bytes.is_empty() {
                let frame = Frame::split_from(&mut bytes).map_err(failed)?;
                seq = frame.header.last_seq();
                all.push(frame);
            }
        }
        Ok(all)
    }

    /// Makes a copy of this node in `dir` by a snapshot; `meanwhile` happens while it is under way.
    pub(super) fn copy_to(
        &self,
        runtime: &Runtime,
        dir: PathBuf,
        meanwhile: impl FnOnce() -> Result<(), TestCaseError>,
    ) -> Result<Self, TestCaseError> {
        let copied = snapshot_source::Copied {
            replica: None,
            shard: SHARD.into(),
            slots: SLOTS.into(),
            log_limit_bytes: SIZES.snapshot_log_limit_bytes,
        };
        let mut pieces =
            snapshot_source::stream(&self.storage, &self.clock, copied).map_err(failed)?;
        meanwhile()?;
        let mut sink = Sink::new(&dir, &SIZES, SHARD, SLOTS);
        let mut is_complete = false;
        while let Some(piece) = runtime.block_on(pieces.recv()) {
            is_complete |= sink
                .push(&piece.map_err(failed)?)
                .map_err(failed)?
                .is_some();
        }
        if !is_complete {
            return Err(TestCaseError::fail("the snapshot has no end"));
        }
        Self::open(dir, self.clock.now_ms())
    }
}

trait OnDisk {
    fn read(dir: &Path) -> Self;
    fn write(&self, dir: &Path);
}

impl OnDisk for Files {
    fn read(dir: &Path) -> Self {
        let files = fs::read_dir(dir).expect("a directory").flatten();
        let file = |entry: fs::DirEntry| {
            // A spare may become a segment between two looks.
            let bytes = fs::read(entry.path()).ok()?;
            let name = PathBuf::from(entry.file_name());
            // LMDB's table of readers, which says nothing of the data.
            (name != Path::new("lock.mdb")).then_some((name, bytes))
        };
        files.filter_map(file).collect()
    }

    fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).expect("a directory");
        for (name, bytes) in self {
            fs::write(dir.join(name), bytes).expect("a file");
        }
    }
}

fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    all.windows(part.len()).position(|window| window == part)
}

/// Any error of the product ends the case.
pub(super) fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}
