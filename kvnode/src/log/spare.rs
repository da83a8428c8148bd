//! Spare files: preallocated, synced, waiting to become segments.
//!
//! One small thread keeps one spare ready, so that going on to the next segment never waits for 64 MiB of zeros.
//! Segments that are no longer needed come back as spares; with two ready, further ones are removed instead.
//!
//! Zeros are written piece by piece, with pauses, unless somebody waits for them: the syncs of the log need the same disk,
//! and took milliseconds for a quarter of a second while 64 MiB were written at once.
//!
//! A spare is made under `spare-N.new` and renamed when its zeros are synced, so after any crash a file named
//! `spare-N.seg` is complete. The thread ends, and is waited for, when [`Spares`] is dropped.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kvclient::faults::{self, Guarantee};

use super::{
    error::LogError,
    files::{Listing, ZEROS, locked, remove, spare_path, sync_dir},
    segment::{Segment, Spare, len},
};

/// More spares than this are removed: one is in use at a time, one more spares the disk the zeroing.
const MOST_READY: usize = 2;

/// Zeros that are synced at once. More of them keep a sync of the log beside them waiting for longer: with 1 MiB three
/// nodes on one disk got a tenth less done, and 99 % of writes took 4 ms instead of 1.5.
const PIECE_BYTES: usize = 256 << 10;

/// A pause lasts so many times as long as the piece before it took.
const PAUSE_PIECES: u32 = 6;

/// Longest pause: a disk that is that slow has troubles that no pause mends.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The spares of one log, and the thread that makes them.
#[derive(Debug)]
pub(super) struct Spares {
    maker: Arc<Maker>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Maker {
    dir: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
    // Outside the lock: looked at between the steps of preallocation.
    stop: AtomicBool,
    /// Lets a test have a full disk.
    #[cfg(test)]
    disk_full: AtomicBool,
}

#[derive(Debug)]
struct State {
    ready: Vec<Spare>,
    making: bool,
    /// Appends that cannot go on without a spare.
    waiting: usize,
    // After a failure the thread rests until somebody takes a spare or makes room.
    resting: bool,
    next_number: u64,
}

impl Spares {
    /// Takes over the spares that are there, removes what is of no use, and starts the thread.
    pub(super) fn start(
        dir: &Path,
        segment_bytes: u64,
        listing: &Listing,
    ) -> Result<Self, LogError> {
        let maker = Arc::new(Maker {
            dir: dir.to_path_buf(),
            segment_bytes,
            state: Mutex::new(State {
                ready: adopt(listing, segment_bytes)?,
                making: false,
                waiting: 0,
                resting: false,
                next_number: listing.next_spare,
            }),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            #[cfg(test)]
            disk_full: AtomicBool::new(false),
        });
        let run = Arc::clone(&maker);
        let thread = std::thread::Builder::new()
            .name("log-spare".into())
            .spawn(move || run.keep_one_ready())
            .map_err(LogError::io("start a thread for spares of", dir))?;
        Ok(Self {
            maker,
            thread: Some(thread),
        })
    }

    /// Takes `count` spares, making what is not ready: all or none.
    ///
    /// # Errors
    /// [`LogError::NoSpace`]: the spares are as before; try again later.
    pub(super) fn take(&self, count: usize) -> Result<Vec<Spare>, LogError> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            match self.maker.take_one() {
                Ok(spare) => taken.push(spare),
                Err(error) => {
                    locked(&self.maker.state).ready.append(&mut taken);
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// Gets rid of a segment that left the log: a spare if it can serve as one, else removed. Durable on return,
    /// before the file can be anything else.
    pub(super) fn recycle(&self, segment: Arc<Segment>) -> Result<(), LogError> {
        let path = segment.path.clone();
        // Readers that have it open keep reading its bytes, so its file must not become another segment's.
        let unread = Arc::try_unwrap(segment).ok();
        let number = self.maker.number_for(unread.as_ref());
        match (unread, number) {
            (Some(segment), Some(number)) => self.maker.adopt(segment.into_spare(), number)?,
            _ => {
                remove(&path)?;
                sync_dir(&self.maker.dir)?;
            }
        }
        locked(&self.maker.state).resting = false;
        self.maker.changed.notify_all();
        Ok(())
    }

    /// Spares that are ready.
    pub(super) fn ready(&self) -> usize {
        locked(&self.maker.state).ready.len()
    }

    /// From now on, or no longer, preallocation finds the disk full.
    #[cfg(test)]
    pub(super) fn set_disk_full(&self, full: bool) {
        self.maker.disk_full.store(full, Ordering::SeqCst);
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        {
            // Under the lock, or the thread could miss it between looking and waiting.
            let _state = locked(&self.maker.state);
            self.maker.stop.store(true, Ordering::SeqCst);
        }
        self.maker.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Maker {
    fn keep_one_ready(&self) {
        let mut state = locked(&self.state);
        while !self.stop.load(Ordering::SeqCst) {
            if state.making || state.resting || !state.ready.is_empty() {
                state = self.wait(state);
                continue;
            }
            let (made, after) = self.make_one(state);
            state = after;
            match made {
                Ok(spare) => state.ready.push(spare),
                // Closing cuts the work short; the next start makes what is missing.
                Err(_) if self.stop.load(Ordering::SeqCst) => {}
                Err(error) => tracing::warn!(%error, "cannot prepare the next log segment"),
            }
        }
    }

    fn take_one(&self) -> Result<Spare, LogError> {
        let mut state = locked(&self.state);
        state.waiting += 1;
        // Whoever is making one pauses no longer.
        self.changed.notify_all();
        let (taken, mut state) = loop {
            if let Some(spare) = state.ready.pop() {
                state.resting = false;
                self.changed.notify_all();
                break (Ok(spare), state);
            }
            if !state.making {
                break self.make_one(state);
            }
            state = self.wait(state);
        };
        state.waiting -= 1;
        taken
    }

    /// Makes a spare without the lock, in which nobody else makes one.
    fn make_one<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> (Result<Spare, LogError>, MutexGuard<'a, State>) {
        state.making = true;
        let number = state.take_number();
        drop(state);
        let made = self.preallocate(number);
        let mut state = locked(&self.state);
        state.making = false;
        state.resting = made.is_err();
        self.changed.notify_all();
        (made, state)
    }

    fn preallocate(&self, number: u64) -> Result<Spare, LogError> {
        let path = spare_path(&self.dir, number);
        let unfinished = path.with_extension("new");
        let file = self.write_zeros(&unfinished).map_err(|error| {
            // Best effort: whatever is left under this name goes at the next start.
            let _ = std::fs::remove_file(&unfinished);
            LogError::preallocating(&unfinished)(error)
        })?;
        faults::point("spare.synced");
        std::fs::rename(&unfinished, &path).map_err(LogError::preallocating(&unfinished))?;
        sync_dir(&self.dir)?;
        Ok(Spare {
            path,
            file,
            bytes: self.segment_bytes,
        })
    }

    fn write_zeros(&self, path: &Path) -> io::Result<File> {
        #[cfg(test)]
        if self.disk_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        if faults::is_off(Guarantee::Reservation) {
            file.set_len(self.segment_bytes)?;
            return Ok(file);
        }
        // Finds out at once whether there is room, and gets it in one piece. The zeros are written all the same:
        // until then the blocks count as unwritten, and each later sync would have to change that on disk.
        let reserved = rustix::fs::fallocate(
            &file,
            rustix::fs::FallocateFlags::empty(),
            0,
            self.segment_bytes,
        );
        if let Err(error) = reserved
            && error != rustix::io::Errno::OPNOTSUPP
        {
            return Err(error.into());
        }
        let mut left = self.segment_bytes;
        while left > 0 {
            if self.stop.load(Ordering::SeqCst) {
                return Err(io::Error::other("the log is closing"));
            }
            let zeros = &ZEROS[..PIECE_BYTES.min(len(left))];
            let began = Instant::now();
            file.write_all(zeros)?;
            file.sync_data()?;
            left -= zeros.len() as u64;
            if left > 0 {
                self.pause(began.elapsed() * PAUSE_PIECES);
            }
        }
        file.sync_all()?;
        Ok(file)
    }

    /// Leaves the disk to others for a while, unless somebody waits.
    fn pause(&self, pause: Duration) {
        let state = locked(&self.state);
        let may_rest = |state: &mut State| state.waiting == 0 && !self.stop.load(Ordering::SeqCst);
        let rested = self
            .changed
            .wait_timeout_while(state, pause.min(LONGEST_PAUSE), may_rest);
        drop(rested.unwrap_or_else(PoisonError::into_inner));
    }

    /// A spare's number for this segment, if it may become one.
    fn number_for(&self, segment: Option<&Segment>) -> Option<u64> {
        let mut state = locked(&self.state);
        let fits = segment?.bytes == self.segment_bytes;
        (fits && state.ready.len() < MOST_READY).then(|| state.take_number())
    }

    fn adopt(&self, mut spare: Spare, number: u64) -> Result<(), LogError> {
        let path = spare_path(&self.dir, number);
        std::fs::rename(&spare.path, &path).map_err(LogError::io("rename", &spare.path))?;
        sync_dir(&self.dir)?;
        spare.path = path;
        locked(&self.state).ready.push(spare);
        Ok(())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }
}

/// Opens the spares of the right size; removes the others and whatever was never finished.
fn adopt(listing: &Listing, segment_bytes: u64) -> Result<Vec<Spare>, LogError> {
    let mut ready = Vec::new();
    listing
        .unfinished
        .iter()
        .try_for_each(|path| remove(path))?;
    for path in &listing.spares {
        let open = OpenOptions::new().read(true).write(true).open(path);
        let file = open.map_err(LogError::io("open", path))?;
        let metadata = file.metadata().map_err(LogError::io("examine", path))?;
        let bytes = metadata.len();
        if bytes == segment_bytes && ready.len() < MOST_READY {
            let path = path.clone();
            ready.push(Spare { path, file, bytes });
        } else {
            remove(path)?;
        }
    }
    Ok(ready)
}
