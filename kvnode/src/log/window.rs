//! The window: which seqs the running append of several frames covers.
//!
//! When frames are synced one at a time, a crash can only leave the last one broken. When several are synced at
//! once, a power cut may keep a later one and lose an earlier one, which looks like damage. So before such an
//! append its seqs are made durable in the file `window`, at the price of a second sync; only replicas that catch
//! up pay it. A window that does not parse covers nothing.
//!
//! ```text
//! offset  size  field   little-endian
//!      0     4  magic   "KVWN"
//!      4     4  format  kvclient::wire::log::LOG_FORMAT
//!      8     8  after   last seq before the append
//!     16     8  end     last seq of the append
//!     24     4  crc     CRC32C of bytes 0..24
//! ```

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use kvclient::{position::Seq, wire::log::LOG_FORMAT};

use super::error::LogError;

const MAGIC: [u8; 4] = *b"KVWN";
const USED_BYTES: usize = 28;
const FILE_BYTES: usize = 4096;

/// The seqs of one append of several frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Exclusive.
    pub(super) after: Seq,
    /// Inclusive.
    pub(super) end: Seq,
}

impl Span {
    /// Whether `seq` was being appended.
    pub(super) fn covers(self, seq: Seq) -> bool {
        self.after < seq && seq <= self.end
    }

    fn to_bytes(self) -> [u8; USED_BYTES] {
        let mut bytes = [0; USED_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&LOG_FORMAT.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.after.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.end.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; USED_BYTES]) -> Option<Self> {
        let after = Seq::from_le_bytes(*bytes[8..].first_chunk()?);
        let end = Seq::from_le_bytes(*bytes[16..].first_chunk()?);
        let span = Self { after, end };
        (span.to_bytes() == *bytes && after < end).then_some(span)
    }
}

/// The window of a log that is open for writing.
#[derive(Debug)]
pub(super) struct Window {
    file: File,
    path: PathBuf,
}

impl Window {
    /// Opens the window, or makes one that covers nothing. Its name is durable after the directory's sync.
    pub(super) fn open(dir: &Path) -> Result<Self, LogError> {
        let path = Self::path(dir);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(LogError::io("open", &path))?;
        let length = file
            .metadata()
            .map_err(LogError::io("examine", &path))?
            .len();
        if length < FILE_BYTES as u64 {
            file.write_all_at(&[0; FILE_BYTES], 0)
                .and_then(|()| file.sync_all())
                .map_err(LogError::preallocating(&path))?;
        }
        Ok(Self { file, path })
    }

    /// What the window of `dir` covers; nothing if it is missing, empty or broken.
    pub(super) fn read(dir: &Path) -> Option<Span> {
        let file = File::open(Self::path(dir)).ok()?;
        let mut bytes = [0; USED_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Span::parse(&bytes)
    }

    /// Makes durable that `span` is about to be appended.
    pub(super) fn set(&self, span: Span) -> Result<(), LogError> {
        self.store(&span.to_bytes())
    }

    /// Makes durable that nothing is being appended.
    pub(super) fn clear(&self) -> Result<(), LogError> {
        self.store(&[0; USED_BYTES])
    }

    fn store(&self, bytes: &[u8]) -> Result<(), LogError> {
        self.file
            .write_all_at(bytes, 0)
            .map_err(LogError::io("write", &self.path))?;
        self.file
            .sync_data()
            .map_err(LogError::io("sync", &self.path))
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("window")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frozen: the file looks like this.
    #[test]
    fn golden_window() {
        let span = Span { after: 5, end: 300 };
        let hex: String = span.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "4b56574e0100000005000000000000002c0100000000000009573ff7"
        );
        assert_eq!(Span::parse(&span.to_bytes()), Some(span));
    }

    #[test]
    fn every_bit_matters() {
        for bit in 0..USED_BYTES * 8 {
            let mut bytes = Span { after: 5, end: 300 }.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Span::parse(&bytes), None, "bit {bit}");
        }
        assert_eq!(Span::parse(&[0; USED_BYTES]), None);
    }

    #[test]
    fn is_kept_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Window::read(dir.path()), None, "no file");
        let window = Window::open(dir.path()).unwrap();
        assert_eq!(Window::read(dir.path()), None, "empty");
        let span = Span { after: 1, end: 9 };
        window.set(span).unwrap();
        drop(Window::open(dir.path()).unwrap());
        assert_eq!(Window::read(dir.path()), Some(span));
        assert!(span.covers(2) && span.covers(9) && !span.covers(1) && !span.covers(10));
        window.clear().unwrap();
        assert_eq!(Window::read(dir.path()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_window_or_nothing(mut bytes in any::<[u8; USED_BYTES]>()) {
            prop_assert_eq!(Span::parse(&bytes), None);
            bytes[..8].copy_from_slice(&Span { after: 5, end: 300 }.to_bytes()[..8]);
            let crc = crc32c::crc32c(&bytes[..24]);
            bytes[24..].copy_from_slice(&crc.to_le_bytes());
            if let Some(span) = Span::parse(&bytes) {
                prop_assert!(span.covers(span.end) && !span.covers(span.after));
                prop_assert_eq!(span.to_bytes(), bytes);
            }
        }
    }
}
