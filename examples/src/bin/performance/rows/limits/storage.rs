//! What lies below a node: a lookup in LMDB, and an append to a preallocated file with one `fdatasync`.
//!
//! A transaction for each lookup, and frames of the size that a node writes for as many SETs.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use heed::{CommitOrAbort, Database, EnvOpenOptions, WithoutTls, types};
use kvclient::wire::log::{Effect, FrameBuilder, Record, RequestMark};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::{
    bench::Bench,
    load::{Times, VALUE_BYTES, key, value},
};

use super::{BATCH, Point};

/// The line of a lookup.
pub(super) const LOOKUP: &str = "LMDB alone, a transaction and a get, 1 thread";

/// The line of a lone SET's append.
pub(super) const LONE: &str = "append and fdatasync alone, a frame of 1 SET";

/// Frames of all tasks at once, and of the share of one of three nodes.
const FRAMES: [usize; 2] = [BATCH, 256];

/// A log's segment is as large.
const FILE_BYTES: usize = 64 << 20;

const MAP_BYTES: usize = 1 << 30;

type Table = Database<'static, types::Bytes, types::Bytes>;

/// A table and a file, both on the disk that is measured.
pub(super) struct Storage {
    env: heed::Env<WithoutTls>,
    table: Table,
    file: Arc<File>,
    keys: usize,
    _dir: TempDir,
}

impl Storage {
    pub(super) fn new(bench: &Bench) -> anyhow::Result<Self> {
        let dir = bench.directory()?;
        let env = open(&dir)?;
        let keys = bench.keys();
        let table = fill(&env, keys)?;
        let path = dir.path().join("file");
        std::fs::write(&path, vec![0; FILE_BYTES])?;
        let file = File::options().write(true).open(path)?;
        file.sync_all()?;
        Ok(Self {
            env,
            table,
            file: Arc::new(file),
            keys,
            _dir: dir,
        })
    }

    pub(super) async fn round(&self, bench: &Bench) -> anyhow::Result<Vec<(String, Point)>> {
        let lasts = bench.lasts;
        let mut points = vec![(LOOKUP.to_owned(), self.lookups(lasts).await?)];
        points.push((LONE.to_owned(), self.appends(lasts, 1).await?));
        for sets in FRAMES {
            let name = format!("append and fdatasync alone, a frame of {sets} SETs");
            points.push((name, self.appends(lasts, sets).await?));
        }
        Ok(points)
    }

    async fn lookups(&self, lasts: Duration) -> anyhow::Result<Point> {
        let (env, table, keys) = (self.env.clone(), self.table, self.keys);
        let lookup = move || -> anyhow::Result<()> {
            let txn = env.read_txn()?;
            let found = table.get(&txn, key(fastrand::usize(..keys)).as_bytes())?;
            // Copied out, as a node has to.
            let copy = found.map(Bytes::copy_from_slice);
            anyhow::ensure!(copy.is_some(), "a key is missing");
            Ok(())
        };
        Ok(Point::new(repeat(lasts, lookup).await?, 1))
    }

    async fn appends(&self, lasts: Duration, sets: usize) -> anyhow::Result<Point> {
        let (file, frame) = (self.file.clone(), frame(sets));
        let mut at = 0;
        let append = move || -> anyhow::Result<()> {
            if at + frame.len() > FILE_BYTES {
                at = 0;
            }
            file.write_all_at(&frame, at as u64)?;
            at += frame.len();
            Ok(file.sync_data()?)
        };
        Ok(Point::new(repeat(lasts, append).await?, sets))
    }
}

/// The same again and again on a thread of its own.
async fn repeat(
    lasts: Duration,
    mut work: impl FnMut() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Times> {
    let thread = spawn_blocking(move || -> anyhow::Result<Times> {
        let mut times = Vec::new();
        let mut began = Instant::now();
        let until = began + lasts;
        while began < until {
            work()?;
            let ended = Instant::now();
            times.push(ended - began);
            began = ended;
        }
        Ok(Times::new(times, lasts))
    });
    thread.await?
}

#[expect(
    unsafe_code,
    reason = "LMDB maps a file: nobody else may change this one, and nobody knows its name"
)]
fn open(dir: &TempDir) -> anyhow::Result<heed::Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES);
    // SAFETY: the directory was made for this environment, which is opened once.
    Ok(unsafe { options.open(dir.path())? })
}

/// A table with all keys.
fn fill(env: &heed::Env<WithoutTls>, keys: usize) -> anyhow::Result<Table> {
    let table = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
        let table = opener.create_database::<types::Bytes, types::Bytes>(txn, None)?;
        for number in 0..keys {
            table.put(txn, key(number).as_bytes(), &value(number, VALUE_BYTES))?;
        }
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(table))
    })?;
    table.commit().context("LMDB: the table was not made")
}

/// What a node appends for that many SETs of kvclient.
fn frame(sets: usize) -> Vec<u8> {
    let mut frame = FrameBuilder::new();
    for number in 0..sets {
        let effect = Effect::Put {
            value: value(number, VALUE_BYTES),
            expires_at_ms: None,
        };
        let mut record = Record::new(Bytes::copy_from_slice(key(number).as_bytes()), effect);
        record.mark = Some(RequestMark {
            client: 1,
            n: number as u64,
            floor: 0,
            digest: 1,
            // A result with status, position and ETag.
            outcome: [0; 40][..].into(),
        });
        frame.push(&record);
    }
    vec![1; frame.frame_bytes()]
}
