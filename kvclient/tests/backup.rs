//! Backups as files, without any node: what is read back, what is noticed when a byte is missing or changed, and what the
//! state of a shard was at any moment, against a model.

#![allow(clippy::unwrap_used, reason = "only tests come here")]

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use kvclient::{
    Position,
    backup::{
        BackupDir, BackupError, Chain, FileEntry, Manifest, Restored, ShardBackup, States, Until,
        verify,
    },
    position::{Lineage, Reign},
    wire::{
        log::{Effect, FrameBuilder, Link, Record},
        snapshot::{Chunk, Entry, Header, preamble},
    },
};
use proptest::prelude::*;

/// Key to value, expiry, and where it was written.
type Model = BTreeMap<Bytes, (Bytes, Option<u64>, Position)>;

/// A shard that is written to and remembers every state it had.
struct Shard {
    frames: Vec<Bytes>,
    links: Vec<Link>,
    states: Vec<Model>,
    lineage: Lineage,
}

/// One write: which of a few keys, and what happens to it.
#[derive(Debug, Clone)]
struct Write {
    key: u8,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Put {
        value: Vec<u8>,
        expires_at_ms: Option<u64>,
    },
    Delete,
    Expire(Option<u64>),
}

impl Shard {
    fn new() -> Self {
        let mut shard = Self {
            frames: Vec::new(),
            links: vec![Link::default()],
            states: vec![Model::new()],
            lineage: Lineage::new(),
        };
        shard.frame(vec![Record::epoch_start(7, "a:1")]);
        let reign = Reign {
            epoch: 1,
            first_seq: 1,
            reign_id: 7,
        };
        shard.lineage.push(reign).unwrap();
        shard
    }

    fn frame(&mut self, records: Vec<Record>) {
        let before = *self.links.last().unwrap();
        let mut builder = FrameBuilder::new();
        records.iter().for_each(|record| builder.push(record));
        // A frame each ten milliseconds.
        let time_ms = 1_000 + 10 * self.frames.len() as u64;
        let frame = builder.finish(&before, 1, time_ms);
        let mut state = self.states.last().unwrap().clone();
        for (nth, record) in (1..).zip(records) {
            let at = Position::new(1, before.position.seq + nth);
            apply(&mut state, record, at);
        }
        self.links.push(frame.header.link());
        self.frames.push(frame.bytes);
        self.states.push(state);
    }

    /// Writes as a primary decides them: nothing for a key that is absent.
    fn write(&mut self, writes: &[Write]) {
        let mut there = self.states.last().unwrap().clone();
        let mut records = Vec::new();
        for write in writes {
            let record = record(write);
            let is_put = matches!(record.effect, Effect::Put { .. });
            if is_put || there.contains_key(&record.key) {
                apply(&mut there, record.clone(), Position::ZERO);
                records.push(record);
            }
        }
        if !records.is_empty() {
            self.frame(records);
        }
    }

    /// A backup of it, whose snapshot was read between two of its states; the log is cut into files of one frame each.
    fn back_up(&self, path: &Path, start: usize, end: usize) -> BackupDir {
        let dir = BackupDir::create(path).unwrap();
        let mut stream = preamble();
        let mut push = |chunk: Chunk| stream.extend_from_slice(&chunk.encode());
        push(Chunk::Header(Header {
            history: 5,
            start: self.links[start],
            shard: "s0".into(),
            slots: "0-16383".into(),
            lineage: self.lineage.clone(),
        }));
        let entries = self.read_slowly(start, end);
        let count = entries.len() as u64;
        entries
            .chunks(2)
            .for_each(|page| push(Chunk::Entries(page.to_vec())));
        let frames_at = stream.len() as u64;
        let mut push = |chunk: Chunk| stream.extend_from_slice(&chunk.encode());
        for frames in self.frames[start..end].chunks(2) {
            push(Chunk::Frames(frames.concat().into()));
        }
        let first_time_ms = 1_000 + 10 * end as u64 - 10;
        push(Chunk::End {
            end: self.links[end],
            entries: count,
            time_ms: first_time_ms,
        });
        fs::create_dir_all(dir.shard_dir(0)).unwrap();
        let file = |name: String, bytes: &[u8]| {
            fs::write(dir.file(0, &name), bytes).unwrap();
            FileEntry {
                name,
                bytes: bytes.len() as u64,
                crc32c: crc32c::crc32c(bytes),
            }
        };
        let last = *self.links.last().unwrap();
        let logs = self.frames[end..].iter().enumerate();
        let shard = ShardBackup {
            idx: 0,
            name: "s0".into(),
            slots: "0-16383".into(),
            history: 5,
            lineage: self.lineage.clone(),
            first: self.links[end].position,
            first_time_ms,
            last: last.position,
            last_crc: last.crc,
            complete_until_ms: 1_000 + 10 * self.frames.len() as u64,
            entries: count,
            frames_at,
            snapshot: file("snapshot-1.1".into(), &stream),
            log: logs
                .map(|(nth, frame)| file(format!("log-{nth:020}"), frame))
                .collect(),
        };
        let mut manifest = Manifest::new("1-ab".into(), 1);
        manifest.set(shard);
        dir.put_manifest(&manifest).unwrap();
        dir
    }

    /// The entries as a snapshot reads them: keys in order, each from a later state than the one before.
    fn read_slowly(&self, start: usize, end: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        for key in 0..=255_u8 {
            let moment = start + (end - start) * usize::from(key) / 12;
            let state = &self.states[moment.min(end)];
            if let Some((value, expires_at_ms, position)) = state.get(&[key][..]) {
                entries.push(Entry {
                    key: Bytes::copy_from_slice(&[key]),
                    position: *position,
                    expires_at_ms: *expires_at_ms,
                    value: value.clone(),
                });
            }
        }
        entries
    }
}

fn record(write: &Write) -> Record {
    let effect = match &write.what {
        What::Put {
            value,
            expires_at_ms,
        } => Effect::Put {
            value: value.clone().into(),
            expires_at_ms: *expires_at_ms,
        },
        What::Delete => Effect::Delete { by_expiry: false },
        What::Expire(expires_at_ms) => Effect::Expire {
            expires_at_ms: *expires_at_ms,
        },
    };
    Record::new(Bytes::copy_from_slice(&[write.key]), effect)
}

fn apply(state: &mut Model, record: Record, at: Position) {
    match record.effect {
        Effect::Put {
            value,
            expires_at_ms,
        } => {
            state.insert(record.key, (value, expires_at_ms, at));
        }
        Effect::Delete { .. } => {
            state.remove(&record.key);
        }
        Effect::Expire { expires_at_ms } => {
            if let Some((_, expiry, position)) = state.get_mut(&record.key) {
                (*expiry, *position) = (expires_at_ms, at);
            }
        }
        Effect::EpochStart { .. } => {}
    }
}

fn expected(state: &Model, after: Option<&[u8]>) -> Vec<Restored> {
    let entries = state
        .iter()
        .map(|(key, (value, expires_at_ms, _))| Restored {
            key: key.clone(),
            value: value.clone(),
            expires_at_ms: *expires_at_ms,
        });
    let is_behind = |entry: &Restored| after.is_none_or(|after| entry.key > after);
    entries.filter(is_behind).collect()
}

fn read(mut states: States) -> Vec<Restored> {
    std::iter::from_fn(|| states.next_entry().unwrap()).collect()
}

fn any_write() -> impl Strategy<Value = Write> {
    let expiry = || proptest::option::of(1..u64::MAX);
    let what = prop_oneof![
        4 => (proptest::collection::vec(any::<u8>(), 0..40), expiry())
            .prop_map(|(value, expires_at_ms)| What::Put { value, expires_at_ms }),
        1 => Just(What::Delete),
        2 => expiry().prop_map(What::Expire),
    ];
    (0..12_u8, what).prop_map(|(key, what)| Write { key, what })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is written while the snapshot is read: from its end on every state comes out as it was, with a table of
    /// any size, and from any key on.
    #[test]
    fn every_state_since_the_snapshot_comes_out_as_it_was(
        groups in proptest::collection::vec(proptest::collection::vec(any_write(), 1..4), 4..24),
        cuts in (0..100_usize, 0..100_usize),
        table_bytes in prop_oneof![Just(1), Just(300), Just(1 << 20)],
        after in 0..12_u8,
    ) {
        let mut shard = Shard::new();
        groups.iter().for_each(|group| shard.write(group));
        let frames = shard.frames.len();
        let start = 1 + cuts.0 % frames;
        let end = start + cuts.1 % (frames - start + 1);
        let temp = tempfile::tempdir().unwrap();
        let dir = shard.back_up(temp.path(), start, end);
        let manifest = dir.whole_manifest().unwrap();
        verify(&dir, &manifest).unwrap();
        let known = &manifest.shards[0];
        for number in end..=frames {
            let link = shard.links[number];
            let untils = [Until::Position(link.position), Until::TimeMs(1_000 + 10 * number as u64 - 10)];
            for until in untils {
                let states = States::with_table(&dir, known, until, None, table_bytes).unwrap();
                prop_assert_eq!(states.reached(), link.position);
                prop_assert_eq!(read(states), expected(&shard.states[number], None));
                let behind = States::with_table(&dir, known, until, Some(&[after]), table_bytes).unwrap();
                prop_assert_eq!(read(behind), expected(&shard.states[number], Some(&[after])));
            }
        }
        let all = States::open(&dir, known, Until::End, None).unwrap();
        prop_assert_eq!(read(all), expected(shard.states.last().unwrap(), None));
        let before = Position::new(1, shard.links[end].position.seq - 1);
        let behind = Position::new(1, shard.links[frames].position.seq + 1);
        for at in [before, behind, Position::new(2, before.seq + 1)] {
            let refused = States::open(&dir, known, Until::Position(at), None).err();
            prop_assert!(matches!(refused, Some(BackupError::OutOfRange(_))), "{}", at);
        }
    }
}

fn put(key: u8, value: &str) -> Write {
    let what = What::Put {
        value: value.as_bytes().to_vec(),
        expires_at_ms: None,
    };
    Write { key, what }
}

/// A backup with something of everything.
fn sample(path: &Path) -> BackupDir {
    let mut shard = Shard::new();
    for group in [
        [put(1, "a"), put(2, "b")],
        [put(3, "c"), put(1, "d")],
        [put(2, "e"), put(4, "f")],
    ] {
        shard.write(&group);
    }
    shard.back_up(path, 1, 2)
}

fn is_sound(dir: &BackupDir) -> bool {
    let manifest = dir.whole_manifest();
    manifest.is_ok_and(|manifest| verify(dir, &manifest).is_ok())
}

#[test]
fn cut_at_any_byte_or_with_any_byte_changed_it_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = sample(temp.path());
    assert!(is_sound(&dir));
    let manifest = dir.whole_manifest().unwrap();
    let files: Vec<_> = manifest.shards[0]
        .files()
        .map(|file| dir.file(0, &file.name))
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(!is_sound(&dir), "{path:?} cut to {len}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, &changed).unwrap();
            assert!(!is_sound(&dir), "{path:?} changed at {at}");
        }
        fs::remove_file(&path).unwrap();
        assert!(!is_sound(&dir), "{path:?} removed");
        // The rest of an interrupted run.
        fs::write(&path, [&whole[..], b"half a frame"].concat()).unwrap();
        assert!(is_sound(&dir), "{path:?} with a rest behind it");
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn half_a_backup_is_no_backup() {
    let temp = tempfile::tempdir().unwrap();
    let dir = sample(temp.path());
    let mut manifest = dir.whole_manifest().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let other = BackupDir::create(empty.path()).unwrap();
    assert!(matches!(
        other.whole_manifest(),
        Err(BackupError::Missing(_))
    ));
    assert!(other.manifest().unwrap().is_none());
    manifest.shard_count = 2;
    other.put_manifest(&manifest).unwrap();
    let half = other.whole_manifest().unwrap_err();
    assert!(
        half.to_string()
            .contains("holds half a backup: 1 of its shards"),
        "{half}"
    );
    // Under the name of a whole one it is damage.
    fs::rename(
        empty.path().join("backup.part.json"),
        empty.path().join("backup.json"),
    )
    .unwrap();
    assert!(matches!(
        other.whole_manifest(),
        Err(BackupError::Damaged { .. })
    ));
}

#[test]
fn one_at_a_time_writes_and_nobody_reads_meanwhile() {
    let temp = tempfile::tempdir().unwrap();
    let writer = sample(temp.path());
    for second in [BackupDir::create(temp.path()), BackupDir::open(temp.path())] {
        assert!(matches!(second, Err(BackupError::Busy(_))));
    }
    drop(writer);
    let reader = BackupDir::open(temp.path()).unwrap();
    assert!(BackupDir::open(temp.path()).is_ok(), "many may read");
    assert!(matches!(
        BackupDir::create(temp.path()),
        Err(BackupError::Busy(_))
    ));
    drop(reader);
    // Copied elsewhere without the lock.
    fs::remove_file(temp.path().join("backup.lock")).unwrap();
    assert!(is_sound(&BackupDir::open(temp.path()).unwrap()));
}

/// A chain is public too: a program that reads the files checks them with it.
#[test]
fn a_missing_frame_is_noticed() {
    let mut shard = Shard::new();
    shard.write(&[put(1, "a")]);
    shard.write(&[put(1, "b")]);
    let mut chain = Chain {
        end: Link::default(),
        lineage: Lineage::new(),
        time_ms: 0,
    };
    chain.take_all(shard.frames[0].clone()).unwrap();
    let refused = chain.take_all(shard.frames[2].clone()).unwrap_err();
    assert!(
        refused.to_string().contains("does not follow 1.1"),
        "{refused}"
    );
}
