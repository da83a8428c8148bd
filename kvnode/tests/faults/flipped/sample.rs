//! Data of a stopped node, copies of it, and bits to flip in them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use kvclient::{
    key::Key,
    position::Position,
    wire::batch::{Action, Op, OpResult, decode_results, encode_ops},
};
use tempfile::TempDir;

use crate::support::{
    cluster::{Cluster, Node, Shape},
    http::Ask,
    seeded,
};

/// Ops in a batch.
const BATCH: usize = 250;

/// Keys that are written, some of them several times, some deleted.
const KEYS: usize = 1_500;

/// How the node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Stop,
    Kill,
}

/// The data, and what it holds.
pub(super) struct Sample {
    cluster: Cluster,
    pub(super) end: End,
    /// `None`: deleted.
    entries: BTreeMap<Bytes, Option<(Position, Bytes)>>,
    /// The key of the last frame, which has nothing else.
    last: Bytes,
}

/// A copy to be damaged.
pub(super) struct Copy {
    pub(super) dir: TempDir,
}

/// A bit of a file.
#[derive(Debug)]
pub(super) struct Flip {
    file: PathBuf,
    at: u64,
    bit: u8,
}

/// What a node answers for all keys.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// A 200 with another value or position.
    pub(super) wrong: usize,
    /// A 404 for what was written.
    pub(super) missing: usize,
    /// A 500.
    pub(super) damaged: usize,
    /// Whether all that is wrong or missing was in the last frame.
    pub(super) only_last: bool,
}

impl Reading {
    /// Whether every answer was what was written.
    pub(super) fn is_right(&self) -> bool {
        self.wrong + self.missing + self.damaged == 0
    }
}

impl Sample {
    /// Writes and ends.
    pub(super) async fn make(end: End) -> Self {
        let cluster = Cluster::start(Shape::default()).await;
        let (mut rng, mut entries) = (seeded(), BTreeMap::new());
        let node = cluster.primary(0);
        for round in 0..3 {
            for from in (0..KEYS).step_by(BATCH) {
                let all = from..from + BATCH;
                let some = all.filter_map(|key| op(key, round, &mut rng));
                let ops: Vec<Op> = some.collect();
                note(&ops, &node.batch(&ops).await, &mut entries);
            }
        }
        let last = [put("last", Bytes::from_static(b"the last frame"))];
        note(&last, &node.batch(&last).await, &mut entries);
        match end {
            End::Stop => node.stop().await,
            End::Kill => node.kill(),
        }
        let last = last[0].key.to_bytes();
        Self {
            cluster,
            end,
            entries,
            last,
        }
    }

    pub(super) fn keys(&self) -> usize {
        self.entries.len()
    }

    /// A copy in memory, if the machine has room there, without spares.
    pub(super) fn copy(&self) -> Copy {
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let copy = Copy {
            dir: dir.expect("a directory"),
        };
        copy_dir(&self.cluster.primary(0).data, &copy.data());
        copy
    }

    /// Reads every key; `None` if the node dies of it.
    pub(super) async fn read(&self, node: &Node) -> Option<Reading> {
        let mut reading = Reading {
            only_last: true,
            ..Reading::default()
        };
        let keys: Vec<&Bytes> = self.entries.keys().collect();
        for page in keys.chunks(BATCH) {
            let get =
                |key: &&Bytes| Op::new(Key::new(Bytes::clone(key)).expect("a key"), Action::Get);
            let ops: Vec<Op> = page.iter().map(get).collect();
            let ask = Ask::new("POST", "/batch").header("content-type", "application/x-kv-frames");
            let answer = node.try_send(ask.body(encode_ops(ops.iter()))).await.ok()?;
            assert_eq!(answer.status, 200, "{}", answer.text());
            for (key, result) in page
                .iter()
                .zip(decode_results(answer.body).expect("results"))
            {
                self.judge(key, &result, &mut reading);
            }
        }
        Some(reading)
    }

    fn judge(&self, key: &Bytes, result: &OpResult, reading: &mut Reading) {
        let expected = self.entries[key].as_ref();
        let found = result.etag.zip(result.value.clone());
        let is_right = match result.status {
            200 => found.as_ref() == expected,
            404 => expected.is_none(),
            _ => false,
        };
        match result.status {
            _ if is_right => return,
            200 => reading.wrong += 1,
            404 => reading.missing += 1,
            500 => reading.damaged += 1,
            other => panic!("status {other} for {key:?}: {:?}", result.error),
        }
        reading.only_last &= *key == self.last;
    }
}

impl Copy {
    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The files of the generation in force: the log's segments, or LMDB's.
    fn files(&self, is_log: bool) -> Vec<PathBuf> {
        let part = match is_log {
            true => "gen-1/log",
            false => "gen-1/lmdb",
        };
        let names = ["data.mdb", ".seg"];
        let all = fs::read_dir(self.data().join(part)).expect("a directory");
        let all = all.map(|entry| entry.expect("an entry").path());
        let mut files: Vec<PathBuf> = all
            .filter(|path| {
                names
                    .iter()
                    .any(|name| path.to_string_lossy().ends_with(name))
            })
            .collect();
        files.sort_unstable();
        files
    }
}

impl Flip {
    /// A random bit: of the used part of a segment, or of a page of LMDB's file.
    pub(super) fn choose(copy: &Copy, is_log: bool, rng: &mut fastrand::Rng) -> Self {
        let files = copy.files(is_log);
        let file = files[rng.usize(..files.len())].clone();
        let bytes = fs::read(&file).expect("a file");
        let used = bytes.iter().rposition(|&byte| byte != 0);
        Self {
            file,
            at: rng.u64(..=used.expect("it is not empty") as u64),
            bit: rng.u8(..8),
        }
    }

    /// A bit of the last frame's body.
    pub(super) fn in_last_frame(copy: &Copy) -> Self {
        let file = copy.files(true).pop().expect("a segment");
        let bytes = fs::read(&file).expect("a file");
        let at = bytes.iter().rposition(|&byte| byte != 0);
        Self {
            file,
            at: at.expect("it is not empty") as u64,
            bit: 0,
        }
    }

    pub(super) fn apply(&self, copy: &Copy) {
        assert!(self.file.starts_with(copy.data()), "not the copy");
        let file = File::options().read(true).write(true).open(&self.file);
        let (file, mut byte) = (file.expect("a file"), [0]);
        file.read_exact_at(&mut byte, self.at).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1 << self.bit], self.at)
            .expect("room");
    }
}

/// Writes enough for some flushes.
pub(super) async fn write_more(node: &Node) {
    for round in 0..3 {
        let value = |key: usize| Bytes::from(vec![b'm'; 200 + key]);
        let ops: Vec<Op> = (0..BATCH)
            .map(|key| put(&format!("more{}", key + round), value(key)))
            .collect();
        let results = node.batch(&ops).await;
        assert!(
            results.iter().all(|result| result.status == 204),
            "{}",
            node.said()
        );
    }
}

/// In the first round a value for each key; later for some keys another one, or a delete.
fn op(key: usize, round: usize, rng: &mut fastrand::Rng) -> Option<Op> {
    let name = format!("key{key:05}");
    if round > 0 && rng.u8(..3) > 0 {
        return None;
    }
    let op = match round > 0 && rng.u8(..4) == 0 {
        true => Op::new(Key::new(name).expect("a key"), Action::Delete),
        false => put(
            &name,
            Bytes::from(format!("{name}#{round}#{}", "v".repeat(rng.usize(..200)))),
        ),
    };
    Some(op)
}

fn put(name: &str, value: Bytes) -> Op {
    let action = Action::Put {
        value,
        ttl_ms: None,
    };
    Op::new(Key::new(name.to_owned()).expect("a key"), action)
}

fn note(
    ops: &[Op],
    results: &[OpResult],
    entries: &mut BTreeMap<Bytes, Option<(Position, Bytes)>>,
) {
    for (op, result) in ops.iter().zip(results) {
        let entry = match &op.action {
            Action::Put { value, .. } => {
                Some((result.position.expect("a position"), value.clone()))
            }
            _ => None,
        };
        entries.insert(op.key.to_bytes(), entry);
    }
}

/// Copies a directory; of files that are mostly zeros, the rest.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let (from, name) = entry
            .map(|entry| (entry.path(), entry.file_name()))
            .expect("an entry");
        let to = to.join(&name);
        if from.is_dir() {
            copy_dir(&from, &to);
        } else if !name.to_string_lossy().starts_with("spare-") {
            copy_file(&from, &to);
        }
    }
}

fn copy_file(from: &Path, to: &Path) {
    const STEP_BYTES: usize = 64 << 10;
    let (bytes, file) = (
        fs::read(from).expect("a file"),
        File::create(to).expect("a file"),
    );
    file.set_len(bytes.len() as u64).expect("room");
    for (nth, piece) in bytes.chunks(STEP_BYTES).enumerate() {
        if piece != &[0; STEP_BYTES][..piece.len()] {
            file.write_all_at(piece, (nth * STEP_BYTES) as u64)
                .expect("room");
        }
    }
}
