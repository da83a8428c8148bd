//! Walks all that is stored and says what does not fit together.
//!
//! Checked are: the checksum of every entry and every remembered request, that lookups find them, that each entry's
//! position belongs to the log up to `applied`, that `expiry` holds exactly one row for each entry that expires, and
//! that counts and sums are those in `meta`.
//!
//! All steps read one state of LMDB, so that the sums can be compared while the flush goes on. Pages freed meanwhile
//! are not used again, so the file grows by what is flushed during a verification. That is the price; it is done at
//! start, and by `kvnode check` while nothing else runs.

use std::ops::Bound;

use heed::RoTxn;
use kvclient::faults::{self, Guarantee};

use super::{
    env::{Env, LongRead},
    error::StoreError,
    leaves::Leaves,
    meta::Meta,
    requests::decode_request,
    sums::Sums,
    tables::{StoredEntry, expiry_key},
};

/// Problems that are told in full; a broken disk has more than anybody reads.
const TOLD_PROBLEMS: usize = 100;

/// Bytes of one step of a whole verification.
const STEP_BYTES: u64 = 16 << 20;

/// A verification under way. It keeps LMDB open: drop it before the store is closed.
pub struct Verifier {
    env: Env,
    read: LongRead,
    /// The last key seen.
    last: Option<Vec<u8>>,
    tally: Tally,
}

/// What has been seen, and what should be.
struct Tally {
    meta: Meta,
    sums: Sums,
    expiring: u64,
    report: VerifyReport,
}

/// What a verification has found so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Entries seen.
    pub entries: u64,
    /// Bytes of keys and rows seen.
    pub bytes: u64,
    /// The first 100 problems, each a sentence.
    pub problems: Vec<String>,
    /// Problems beyond those.
    pub problems_untold: u64,
    /// Whether everything was seen; before that, sums are not compared.
    pub complete: bool,
}

impl VerifyReport {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, problem: String) {
        if self.problems.len() < TOLD_PROBLEMS {
            self.problems.push(problem);
        } else {
            self.problems_untold += 1;
        }
    }
}

impl Verifier {
    /// Begins with the state that LMDB has now.
    pub(super) fn new(env: &Env) -> Result<Self, StoreError> {
        let read = env.long_read()?;
        let tally = Tally {
            meta: Meta::read(env, &read.txn)?,
            sums: Sums::default(),
            expiring: 0,
            report: VerifyReport::default(),
        };
        Ok(Self {
            env: env.clone(),
            read,
            last: None,
            tally,
        })
    }

    /// What was found so far.
    pub fn report(&self) -> &VerifyReport {
        &self.tally.report
    }

    /// Goes on for about `max_bytes`. True: there is more to do.
    ///
    /// # Errors
    /// `Fatal`: LMDB itself cannot be read. What is damaged is not an error but in the report.
    pub fn step(&mut self, max_bytes: u64) -> Result<bool, StoreError> {
        if self.tally.report.complete {
            return Ok(false);
        }
        let stop_at = self.tally.report.bytes.saturating_add(max_bytes);
        let start = self.last.take();
        let start = start.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut leaves = Leaves::new(self.env.data, &self.read.txn);
        for row in self
            .env
            .data
            .range(&self.read.txn, &(start, Bound::Unbounded))?
        {
            let (key, row) = row?;
            self.tally.entry(&self.env, &self.read.txn, key, row)?;
            self.tally.unfound("key", &leaves.pass(key, row)?);
            if self.tally.report.bytes >= stop_at {
                self.tally.unfound("key", &leaves.end()?);
                self.last = Some(key.to_vec());
                return Ok(true);
            }
        }
        self.tally.unfound("key", &leaves.end()?);
        self.tally.requests(&self.env, &self.read.txn)?;
        self.tally.totals(&self.env, &self.read.txn)?;
        Ok(false)
    }

    /// Goes through all of it, telling `progress` the bytes seen so far.
    pub(super) fn run(mut self, mut progress: impl FnMut(u64)) -> Result<VerifyReport, StoreError> {
        while self.step(STEP_BYTES)? {
            progress(self.tally.report.bytes);
        }
        Ok(self.tally.report)
    }
}

impl Tally {
    fn entry(&mut self, env: &Env, txn: &RoTxn, key: &[u8], row: &[u8]) -> Result<(), StoreError> {
        self.report.entries += 1;
        self.report.bytes += (key.len() + row.len()) as u64;
        let entry = match StoredEntry::check(key, row) {
            Ok(entry) => entry,
            Err(problem) => {
                self.report
                    .add(format!("key \"{}\": {problem}", key.escape_ascii()));
                return Ok(());
            }
        };
        self.sums.add(key, entry.hash(key));
        let Meta {
            lineage, applied, ..
        } = &self.meta;
        if !lineage.holds(entry.position, applied.position.seq) {
            self.report.add(format!(
                "key \"{}\": its position {} is not of this log up to {}",
                key.escape_ascii(),
                entry.position,
                applied.position
            ));
        }
        if let Some(at) = entry.expires_at_ms {
            self.expiring += 1;
            let indexed = env.expiry.get(txn, &expiry_key(at, entry.position.seq))?;
            if indexed != Some(key) {
                self.report.add(format!(
                    "key \"{}\": its expiry is not in the index",
                    key.escape_ascii()
                ));
            }
        }
        Ok(())
    }

    /// What is there, and a lookup goes past it.
    fn unfound(&mut self, what: &str, keys: &[&[u8]]) {
        for key in keys {
            let key = key.escape_ascii();
            self.report.add(format!(
                "{what} \"{key}\": it is there, and lookups do not find it"
            ));
        }
    }

    fn requests(&mut self, env: &Env, txn: &RoTxn) -> Result<(), StoreError> {
        let mut leaves = Leaves::new(env.requests, txn);
        for row in env.requests.iter(txn)? {
            let (key, row) = row?;
            self.unfound("request", &leaves.pass(key, row)?);
            self.report.bytes += (key.len() + row.len()) as u64;
            if let Err(problem) = decode_request(key, row) {
                let key = key.escape_ascii();
                self.report.add(format!("request {key}: {problem}"));
            }
        }
        self.unfound("request", &leaves.end()?);
        Ok(())
    }

    /// Compares what was counted with what should be there.
    fn totals(&mut self, env: &Env, txn: &RoTxn) -> Result<(), StoreError> {
        let indexed = env.expiry.len(txn)?;
        if indexed != self.expiring {
            self.report.add(format!(
                "the index of expiries has {indexed} rows for {} entries",
                self.expiring
            ));
        }
        let ranges = self.sums.ranges().iter().zip(self.meta.sums.ranges());
        for (number, (seen, stored)) in ranges.enumerate() {
            if seen != stored && !faults::is_off(Guarantee::EntryChecksums) {
                self.report.add(format!(
                    "slots {}-{}: {} entries with sum {:016x} are there, {} with sum {:016x} should be",
                    number * 256,
                    number * 256 + 255,
                    seen.count,
                    seen.sum,
                    stored.count,
                    stored.sum
                ));
            }
        }
        self.report.complete = true;
        Ok(())
    }
}
