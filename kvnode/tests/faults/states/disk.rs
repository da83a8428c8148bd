//! A disk as a file system may leave it: what was synced, and any part of what was not.
//!
//! Strict where real file systems are kind. A file's bytes and length are durable once the file was synced; a name,
//! once its directory was. What was not synced may have arrived or not, each write, length and name by itself, in any
//! combination; a write may be torn between two sectors. Only a rename is never half done.
//!
//! Writes to a descriptor that was opened with `O_DSYNC` are durable when they return, alone.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
};

use super::trace::Event;

/// What a disk writes whole.
pub(super) const SECTOR_BYTES: usize = 512;

const O_TRUNC: i64 = 0o1000;
const O_CREAT: i64 = 0o100;
const O_DSYNC: i64 = 0o10000;
const STEP_BYTES: usize = 64 << 10;

/// A file or a directory.
#[derive(Debug, Default)]
struct Inode {
    is_dir: bool,
    /// LMDB's table of readers, made anew by whoever opens it alone.
    is_scratch: bool,
    /// Durable contents.
    data: Vec<u8>,
    /// Durable names.
    names: BTreeMap<String, usize>,
    /// Names as the process sees them.
    current: BTreeMap<String, usize>,
}

/// What is not durable yet.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write {
        inode: usize,
        at: usize,
        bytes: Vec<u8>,
    },
    Length {
        inode: usize,
        bytes: usize,
    },
    Link {
        dir: usize,
        name: String,
        inode: usize,
    },
    Unlink {
        dir: usize,
        name: String,
    },
    Rename {
        dir: usize,
        from: String,
        to: String,
        inode: usize,
    },
}

/// How much of a change arrived.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Arrived {
    Not,
    Whole,
    /// These sectors of a write, counted from its first.
    Sectors(Range<usize>),
}

/// The disk under a recorded directory.
#[derive(Debug)]
pub(super) struct Disk {
    /// The directory around the recorded one, whose own name was always there.
    around: PathBuf,
    inodes: Vec<Inode>,
    open: HashMap<i32, (usize, bool)>,
    pending: Vec<Change>,
}

impl Disk {
    /// An empty one, for what was recorded of `root`.
    pub(super) fn new(root: &Path) -> Self {
        let around = root.parent().expect("it is in a directory").to_owned();
        Self {
            around,
            inodes: vec![Inode {
                is_dir: true,
                ..Inode::default()
            }],
            open: HashMap::new(),
            pending: Vec::new(),
        }
    }

    /// What is not durable.
    pub(super) fn pending(&self) -> &[Change] {
        &self.pending
    }

    /// Whether this event makes something durable that was not.
    pub(super) fn is_sync(&self, event: &Event) -> bool {
        match event {
            Event::Sync { .. } => true,
            Event::Write { fd, .. } => self.open.get(fd).is_some_and(|(_, dsync)| *dsync),
            _ => false,
        }
    }

    /// Does what the process did.
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Start => self.open.clear(),
            Event::Promised(_) => {}
            Event::Open { fd, flags, path } => self.open(*fd, *flags, path),
            Event::Write { fd, at, bytes } => self.write(*fd, *at, bytes),
            Event::Length { fd, bytes } => {
                let (inode, bytes) = (self.open[fd].0, *bytes);
                if !self.inodes[inode].is_scratch {
                    self.pending.push(Change::Length { inode, bytes });
                }
            }
            Event::Sync { fd } => self.sync(self.open[fd].0),
            Event::Mkdir { path } => {
                let inode = self.make(Inode {
                    is_dir: true,
                    ..Inode::default()
                });
                self.link(path, inode);
            }
            Event::Unlink { path } => {
                let (dir, name) = self.place(path);
                self.inodes[dir].current.remove(&name);
                self.pending.push(Change::Unlink { dir, name });
            }
            Event::Rename { from, to } => self.rename(from, to),
        }
    }

    /// Writes the disk into `to`, with so much of each pending change.
    pub(super) fn write_image(&self, to: &Path, arrived: &[Arrived]) -> io::Result<()> {
        self.write_dir(0, to, arrived)
    }

    fn open(&mut self, fd: i32, flags: i64, path: &Path) {
        let found = self.find(path);
        assert!(found.is_some() || flags & O_CREAT != 0, "{path:?}");
        let inode = found.unwrap_or_else(|| {
            let inode = self.make(Inode {
                is_scratch: path.ends_with("lock.mdb"),
                ..Inode::default()
            });
            self.link(path, inode);
            inode
        });
        if found.is_some() && flags & O_TRUNC != 0 {
            self.pending.push(Change::Length { inode, bytes: 0 });
        }
        self.open.insert(fd, (inode, flags & O_DSYNC != 0));
    }

    fn write(&mut self, fd: i32, at: usize, bytes: &[u8]) {
        let (inode, dsync) = self.open[&fd];
        let change = Change::Write {
            inode,
            at,
            bytes: bytes.to_vec(),
        };
        if dsync {
            return self.inodes[inode].apply(&change, &Arrived::Whole);
        }
        // One preallocation is one change, not one for each piece.
        if let Some(Change::Write {
            inode: same,
            at: from,
            bytes: before,
        }) = self.pending.last_mut()
            && *same == inode
            && *from + before.len() == at
            && is_zeros(before)
            && is_zeros(bytes)
        {
            return before.extend_from_slice(bytes);
        }
        self.pending.push(change);
    }

    fn sync(&mut self, synced: usize) {
        let (done, left) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| change.inode() == synced);
        self.pending = left;
        let done: Vec<Change> = done;
        for change in &done {
            self.inodes[synced].apply(change, &Arrived::Whole);
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let ((dir, from), (to_dir, to)) = (self.place(from), self.place(to));
        assert_eq!(dir, to_dir, "renamed into another directory");
        let names = &mut self.inodes[dir].current;
        let inode = names.remove(&from).expect("it is there");
        names.insert(to.clone(), inode);
        self.pending.push(Change::Rename {
            dir,
            from,
            to,
            inode,
        });
    }

    fn make(&mut self, inode: Inode) -> usize {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    fn link(&mut self, path: &Path, inode: usize) {
        let (dir, name) = self.place(path);
        self.inodes[dir].current.insert(name.clone(), inode);
        self.pending.push(Change::Link { dir, name, inode });
    }

    fn place(&self, path: &Path) -> (usize, String) {
        let dir = self.find(path.parent().expect("it is in a directory"));
        let name = path.file_name().expect("a name").to_string_lossy();
        (dir.expect("its directory is there"), name.into_owned())
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let inside = path.strip_prefix(&self.around).expect("inside");
        let mut way = vec![0];
        for part in inside.components() {
            match part {
                Component::Normal(name) => {
                    let names = &self.inodes[*way.last()?].current;
                    way.push(*names.get(name.to_string_lossy().as_ref())?);
                }
                Component::ParentDir => drop(way.pop()),
                _ => {}
            }
        }
        way.last().copied()
    }

    fn write_dir(&self, dir: usize, to: &Path, arrived: &[Arrived]) -> io::Result<()> {
        fs::create_dir_all(to)?;
        let mut state = Inode {
            is_dir: true,
            names: self.inodes[dir].names.clone(),
            ..Inode::default()
        };
        self.bring(dir, &mut state, arrived);
        for (name, &inode) in &state.names {
            match self.inodes[inode].is_dir {
                true => self.write_dir(inode, &to.join(name), arrived)?,
                false => self.write_file(inode, &to.join(name), arrived)?,
            }
        }
        Ok(())
    }

    fn write_file(&self, inode: usize, to: &Path, arrived: &[Arrived]) -> io::Result<()> {
        let mut state = Inode {
            data: self.inodes[inode].data.clone(),
            ..Inode::default()
        };
        self.bring(inode, &mut state, arrived);
        let file = File::create(to)?;
        file.set_len(state.data.len() as u64)?;
        for (nth, piece) in state.data.chunks(STEP_BYTES).enumerate() {
            if !is_zeros(piece) {
                file.write_all_at(piece, (nth * STEP_BYTES) as u64)?;
            }
        }
        Ok(())
    }

    fn bring(&self, inode: usize, state: &mut Inode, arrived: &[Arrived]) {
        let changes = self.pending.iter().zip(arrived);
        for (change, arrived) in changes.filter(|(change, _)| change.inode() == inode) {
            state.apply(change, arrived);
        }
    }
}

impl Change {
    /// The file or directory whose sync makes it durable.
    fn inode(&self) -> usize {
        match self {
            Self::Write { inode, .. } | Self::Length { inode, .. } => *inode,
            Self::Link { dir, .. } | Self::Unlink { dir, .. } | Self::Rename { dir, .. } => *dir,
        }
    }

    /// How many sectors a write touches that can arrive apart; 1 for whatever cannot be torn.
    pub(super) fn sectors(&self) -> usize {
        match self {
            Self::Write { at, bytes, .. } if !is_zeros(bytes) => {
                (at + bytes.len()).div_ceil(SECTOR_BYTES) - at / SECTOR_BYTES
            }
            _ => 1,
        }
    }
}

impl Inode {
    fn apply(&mut self, change: &Change, arrived: &Arrived) {
        if *arrived == Arrived::Not {
            return;
        }
        match change {
            Change::Write { at, bytes, .. } => {
                let first = at / SECTOR_BYTES;
                let (from, to) = match arrived {
                    Arrived::Sectors(sectors) => (
                        ((first + sectors.start) * SECTOR_BYTES).max(*at),
                        ((first + sectors.end) * SECTOR_BYTES).min(at + bytes.len()),
                    ),
                    _ => (*at, at + bytes.len()),
                };
                if self.data.len() < to {
                    self.data.resize(to, 0);
                }
                self.data[from..to].copy_from_slice(&bytes[from - at..to - at]);
            }
            Change::Length { bytes, .. } => self.data.resize(*bytes, 0),
            Change::Link { name, inode, .. } => drop(self.names.insert(name.clone(), *inode)),
            Change::Unlink { name, .. } => drop(self.names.remove(name)),
            Change::Rename {
                from, to, inode, ..
            } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *inode);
            }
        }
    }
}

fn is_zeros(bytes: &[u8]) -> bool {
    static ZEROS: [u8; STEP_BYTES] = [0; STEP_BYTES];
    bytes
        .chunks(STEP_BYTES)
        .all(|piece| piece == &ZEROS[..piece.len()])
}
