//! A small disk for each node: a file with a file system in it, mounted, which can be filled and freed again.
//!
//! Needs root and loop devices. The disks outlive the nodes on them and are unmounted when dropped.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tempfile::TempDir;

use crate::{loop_disk::run, support::cluster::Node};

/// Holds the log, the spare segments and LMDB several times over.
const DISK_BYTES: u64 = 256 << 20;

/// Filled to within so many bytes.
const LEAST_BYTES: u64 = 4 << 10;

/// One disk for each node.
pub(super) struct Disks {
    mounts: Vec<PathBuf>,
    _dir: TempDir,
}

impl Disks {
    /// Makes them and puts the nodes' data directories there; the nodes were never started.
    pub(super) fn under(nodes: &[Node]) -> Result<Self, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let mut disks = Self {
            mounts: Vec::new(),
            _dir: dir,
        };
        for (number, node) in nodes.iter().enumerate() {
            let mount = disks.make(number)?;
            let data = mount.join("data");
            fs::create_dir(&data).expect("a directory");
            symlink(&data, &node.data).expect("a link to the disk");
        }
        Ok(disks)
    }

    fn make(&mut self, number: usize) -> Result<PathBuf, String> {
        let image = self._dir.path().join(format!("{number}.image"));
        let mount = self._dir.path().join(number.to_string());
        let file = File::create(&image).expect("a file");
        file.set_len(DISK_BYTES).expect("a length");
        fs::create_dir(&mount).expect("a directory");
        run("mkfs.ext4", &["-q", "-m", "0", "-F", text(&image)])?;
        run("mount", &["-o", "loop", text(&image), text(&mount)])?;
        self.mounts.push(mount.clone());
        Ok(mount)
    }

    /// Takes all that is free of a node's disk.
    pub(super) fn fill(&self, node: usize) {
        let mount = &self.mounts[node];
        let file = File::create(mount.join("filler")).expect("a file");
        let mut length = 0;
        let mut piece = free_bytes(mount);
        while piece >= LEAST_BYTES {
            match fallocate(&file, FallocateFlags::empty(), length, piece) {
                Ok(()) => length += piece,
                // What is free is not all to be had: some goes into tables of the file system.
                Err(_) => piece /= 2,
            }
        }
    }

    /// Gives it back.
    pub(super) fn free(&self, node: usize) {
        fs::remove_file(self.mounts[node].join("filler")).expect("it was filled");
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for mount in &self.mounts {
            if let Err(error) = run("umount", &[text(mount)]) {
                eprintln!("{error}");
            }
        }
    }
}

fn free_bytes(mount: &Path) -> u64 {
    let stat = statvfs(mount).expect("a file system");
    stat.f_bavail * stat.f_frsize
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
