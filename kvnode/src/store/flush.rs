//! The flush thread: the only one that writes to LMDB while a store is open.
//!
//! It takes the oldest frozen memtable, sorted by key, and puts it into LMDB in one transaction with everything that
//! belongs to it: expiry rows, remembered requests (and the next few that are forgotten), `applied`, lineage, floor,
//! sums. After the commit it drops the memtable. The transaction begins and ends in one function on this thread.
//!
//! No room is no failure: the transaction is aborted, the memtable stays, and the flush is tried again each second.
//! Anything else ends the thread: what is on disk is then uncertain, and only recovery can tell.
//!
//! LMDB is built with `mdb_idl_logn_13` (`Cargo.toml`): of one transaction it holds at most 16,383 dirty pages, 64 MiB,
//! and writes the others early. So a flush may hold that much beside the memtables, and LMDB keeps the memory for the
//! next one. Entries go in sorted, so hardly a page that left early is needed again. With LMDB's own bound of 512 MiB
//! three nodes that loaded 10,000,000 entries of 100 bytes held 620 MB each instead of 180 MB, and were no faster.
//!
//! What a transaction frees, LMDB uses again two transactions later, since readers may look at the state before it. So
//! the pages of two flushes stay in the file beside what is live. With memtables full of large values they were more
//! than that: after 10 overwrites of 256 MiB in values of 4, 64 and 1,024 KiB three nodes' files were 4.88, 2.67 and 2.55
//! times as large as that. So a memtable is full with an eighth of its limit in such values (2.19, 1.26, 1.25), and
//! several of them may wait here, each for a transaction of its own. Small entries share leaf pages, and go in together.
//!
//! Measured with that larger bound (release build, 2 cores, 16-byte keys, 100-byte values; 64 MiB hold 225,000 of them):
//! 200,000 random entries into 2,000,000 took 1.3 to 1.7 s, 400,000 into 6,000,000 took 2.7 to 2.9 s.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use kvclient::{faults, position::Position};

use super::{
    core::{Core, State},
    error::StoreError,
    memtable::{Content, Memtable},
    meta::Meta,
    sweep::Sweep,
    writer::Writer,
};

/// How long the thread waits before it looks for room again.
const RETRY: Duration = Duration::from_secs(1);

/// What one transaction leaves behind.
struct Written {
    meta: Meta,
    sweep_from: u128,
}

/// What the thread has to do.
enum Job {
    Flush(Arc<Memtable>),
    WriteFloor,
}

impl Core {
    /// The thread's body. Returns when the store is closing or storage has failed.
    pub(super) fn run_flushes(&self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.flush_until_closing()));
        let failure = match ended {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(_) => StoreError::Fatal("the flush thread panicked".into()),
        };
        tracing::error!(%failure, "the flush thread has ended");
        self.lock().failure = Some(failure.clone());
        self.failed.send_replace(Some(failure));
        self.changed.notify_all();
    }

    fn flush_until_closing(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        while !state.closing {
            let Some(job) = self.next_job(&state) else {
                state = self.wait(state);
                continue;
            };
            let meta = Arc::clone(&state.meta);
            let (floor, sweep_from) = (state.floor_wanted, state.sweep_from);
            drop(state);
            let began = Instant::now();
            let written = self
                .write(&job, &meta, floor, sweep_from)
                .map_err(|error| self.env.judge_failure(error));
            self.settle(&job, written, began)?;
            // Freeing a memtable takes a while: not under the lock that the commit thread needs.
            drop(job);
            state = self.lock();
        }
        Ok(())
    }

    fn next_job(&self, state: &State) -> Option<Job> {
        let oldest = self.view.load().oldest_frozen().cloned();
        oldest
            .map(Job::Flush)
            .or(state.floor_wanted.map(|_| Job::WriteFloor))
    }

    /// One transaction: begins and commits, or leaves everything as it was.
    fn write(
        &self,
        job: &Job,
        before: &Meta,
        floor: Option<Position>,
        mut sweep_from: u128,
    ) -> Result<Written, StoreError> {
        let mut meta = before.clone();
        let visible = self.visible();
        meta.durable_floor = meta
            .durable_floor
            .max(visible)
            .max(floor.unwrap_or_default());
        let mut txn = self.env.write()?;
        if let Job::Flush(memtable) = job {
            let content = memtable.read();
            advance(&mut meta, &content)?;
            Writer::new(&self.env, &mut txn, &mut meta.sums).write(&content)?;
            let brought = content.request_count();
            sweep_from = Sweep::new(&self.env, &mut txn, meta.time_ms, brought).run(sweep_from)?;
        }
        meta.write(&self.env, &mut txn)?;
        faults::point("flush.before_commit");
        txn.commit()?;
        faults::point("flush.after_commit");
        Ok(Written { meta, sweep_from })
    }

    /// Tells everybody what became of it.
    fn settle(
        &self,
        job: &Job,
        written: Result<Written, StoreError>,
        began: Instant,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        match written {
            Ok(written) => {
                if let Job::Flush(_) = job {
                    state.flush_times.add(began.elapsed(), 1);
                }
                state.sweep_from = written.sweep_from;
                self.accept(&mut state, job, written.meta);
            }
            Err(StoreError::Full(why)) => {
                tracing::warn!(why, "no room to flush; reads go on, writes are refused");
                state.no_room = Some(why);
                self.changed.notify_all();
                let waited = self
                    .changed
                    .wait_timeout_while(state, RETRY, |s| !s.closing);
                drop(waited.expect("no holder panics"));
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn accept(&self, state: &mut State, job: &Job, meta: Meta) {
        let applied = meta.applied;
        if state
            .floor_wanted
            .is_some_and(|floor| floor <= meta.durable_floor)
        {
            state.floor_wanted = None;
        }
        let before = state.meta.applied.position.seq;
        state.meta = Arc::new(meta);
        state.no_room = None;
        if let Job::Flush(_) = job {
            state.flushes += 1;
            let meta = Arc::clone(&state.meta);
            state.counting.flushed(&meta);
            let checkpoint = state.add_checkpoint();
            if self.passes_checkpoint(before, applied.position.seq) {
                state.at_multiple = Some(checkpoint);
            }
            let view = self.view.load().without_oldest();
            self.view.store(Arc::new(view));
            self.applied.send_replace(applied);
            if state.freeze_pending {
                self.freeze(state);
            }
        }
        self.changed.notify_all();
    }

    /// Flushes all that is visible now, and waits for it.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        let target = self.visible().seq;
        while state.meta.applied.position.seq < target {
            state.check()?;
            self.freeze(&mut state);
            state = self.wait(state);
        }
        Ok(())
    }

    /// Writes how far the log has reached, and waits for it.
    pub(super) fn write_floor(&self, durable: Position) -> Result<(), StoreError> {
        let mut state = self.lock();
        while state.meta.durable_floor < durable {
            state.check()?;
            state.floor_wanted = state.floor_wanted.max(Some(durable));
            self.changed.notify_all();
            state = self.wait(state);
        }
        Ok(())
    }
}

/// Moves `meta` to the end of a memtable; its sums follow as the entries are written.
fn advance(meta: &mut Meta, content: &Content) -> Result<(), StoreError> {
    let (end, time_ms) = content
        .end()
        .ok_or_else(|| StoreError::Fatal("an empty memtable was frozen".into()))?;
    meta.applied = end;
    // That of a copy is a little later than its last frame.
    meta.time_ms = meta.time_ms.max(time_ms);
    for reign in content.reigns() {
        meta.lineage
            .push(*reign)
            .map_err(|error| StoreError::Fatal(error.to_string()))?;
    }
    Ok(())
}
