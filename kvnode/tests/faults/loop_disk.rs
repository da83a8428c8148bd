//! A disk in memory that can be copied as a power cut would leave it: a file in tmpfs, a loop device, a file system.
//!
//! What the file holds is what the device was given; what only the page cache of the mounted file system has is not in
//! it. So the file, copied while nothing moves, is the disk after a power cut. It is copied twice and compared, since
//! the file system's own threads may be writing.
//!
//! Needs root and loop devices. Whatever was mounted is unmounted when dropped; the loop device goes with it.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

const STEP_BYTES: usize = 1 << 20;

/// How often a copy is made before the disk counts as restless.
const COPIES: usize = 20;

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    fn make(self, image: &Path) {
        let image = image.to_str().expect("UTF-8");
        match self {
            Self::Ext4 => run("mkfs.ext4", &["-q", "-F", image]),
            Self::Xfs => run("mkfs.xfs", &["-q", "-f", image]),
        }
        .expect("a file system");
    }

    fn size_bytes(self) -> u64 {
        match self {
            Self::Ext4 => 192 << 20,
            // The smallest that mkfs.xfs makes.
            Self::Xfs => 320 << 20,
        }
    }

    fn options(self) -> &'static str {
        match self {
            // The journal is not written of its own accord, as it is every 5 s otherwise: syncs alone count.
            Self::Ext4 => "loop,commit=60",
            // A copy has the same id as its original, and both are mounted at once.
            Self::Xfs => "loop,nouuid",
        }
    }

    /// Why it cannot be used on this machine, if it cannot.
    pub(crate) fn missing(self) -> Option<String> {
        let program = match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        };
        if !rustix::process::geteuid().is_root() {
            return Some("needs root, to mount".into());
        }
        if let Err(why) = run(program, &["-V"]) {
            return Some(why);
        }
        let dir = tempfile::tempdir().expect("a directory");
        LoopDisk::make(self).mount(dir.path()).err()
    }
}

/// A disk that is not mounted.
#[derive(Debug)]
pub(crate) struct LoopDisk {
    dir: tempfile::TempDir,
    kind: FileSystem,
}

/// One that is.
#[derive(Debug)]
pub(crate) struct Mounted {
    disk: LoopDisk,
    at: PathBuf,
}

impl LoopDisk {
    fn empty(kind: FileSystem) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let disk = Self {
            dir: dir.expect("a directory"),
            kind,
        };
        let file = File::create(disk.image()).expect("a file");
        file.set_len(kind.size_bytes()).expect("a length");
        disk
    }

    /// A new one, with an empty file system.
    pub(crate) fn make(kind: FileSystem) -> Self {
        let disk = Self::empty(kind);
        kind.make(&disk.image());
        disk
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Mounts it at a directory, made if missing.
    pub(crate) fn mount(self, at: &Path) -> Result<Mounted, String> {
        fs::create_dir_all(at).expect("a directory");
        let (image, path) = (self.image(), at.to_str().expect("UTF-8"));
        let image = image.to_str().expect("UTF-8");
        run("mount", &["-o", self.kind.options(), image, path])?;
        Ok(Mounted {
            disk: self,
            at: at.to_owned(),
        })
    }
}

impl Mounted {
    /// The disk as a power cut would leave it now, and how often it had to be copied. Whoever writes to it is held
    /// still by the caller.
    pub(crate) fn cut(&self) -> LoopDisk {
        let copy = LoopDisk::empty(self.disk.kind);
        let (from, to) = (self.disk.image(), copy.image());
        copy_pieces(&from, &to);
        for _ in 0..COPIES {
            if copy_pieces(&from, &to) == 0 {
                return copy;
            }
        }
        panic!("the disk does not come to rest");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let at = self.at.to_str().expect("UTF-8");
        // Lazily: a node that still has it open is about to be killed. The loop device goes when nobody uses it.
        if let Err(why) = run("umount", &["-l", at]) {
            eprintln!("{why}");
        }
    }
}

/// Makes the second file like the first; how many pieces were not.
fn copy_pieces(from: &Path, to: &Path) -> usize {
    let mut from = File::open(from).expect("the disk");
    let to = File::options().read(true).write(true).open(to);
    let to = to.expect("the copy");
    let (mut piece, mut other) = (vec![0; STEP_BYTES], vec![0; STEP_BYTES]);
    let (mut at, mut changed) = (0, 0);
    while from.read_exact(&mut piece).is_ok() {
        to.read_exact_at(&mut other, at).expect("a piece");
        if piece != other {
            to.write_all_at(&piece, at).expect("room");
            changed += 1;
        }
        at += STEP_BYTES as u64;
    }
    changed
}

/// Runs a program; an error says why it failed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
