//! Tasks that put, delete and read keys of their own, with and without conditions, at every consistency, by key and by
//! scan; each knows what its keys must be.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt;
use kvclient::{
    Client, Consistency, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Outcome, PutOptions,
    wire::batch::OpResult,
};

use super::{
    arena::SHARDS,
    register::{Register, short},
    watch::Watch,
};
use crate::support::{oracle::Verdict, shard_of};

const KEYS: usize = 150;

/// One op in so many is a scan.
const SCAN_EVERY: usize = 400;

/// Sizes of values: one in three is not small, so that segments fill up in seconds.
const SMALL_BYTES: std::ops::Range<usize> = 20..600;
const LARGE_BYTES: std::ops::Range<usize> = 16 << 10..48 << 10;

/// Between two ops of a task.
const PAUSE: Duration = Duration::from_millis(5);

/// One task.
pub(super) struct Registers {
    client: Client,
    watch: Arc<Watch>,
    rng: fastrand::Rng,
    prefix: String,
    keys: Vec<(String, Register)>,
    /// Values written so far: each is written once.
    values: usize,
}

impl Registers {
    pub(super) fn new(
        number: usize,
        client: Client,
        watch: Arc<Watch>,
        rng: fastrand::Rng,
    ) -> Self {
        let prefix = format!("register:{number}:");
        let key = |n| (format!("{prefix}{n:04}"), Register::default());
        Self {
            keys: (0..KEYS).map(key).collect(),
            client,
            watch,
            rng,
            prefix,
            values: 0,
        }
    }

    /// Works until told to stop; then knows what must be there.
    pub(super) async fn work(mut self) -> Self {
        while self.watch.goes_on() {
            let key = self.rng.usize(..KEYS);
            match self.rng.usize(..SCAN_EVERY) {
                0 => self.scan().await,
                1..120 => self.put(key).await,
                120..160 => self.put_as_known(key).await,
                160..190 => self.delete(key).await,
                _ => self.read(key).await,
            }
            tokio::time::sleep(PAUSE).await;
        }
        self
    }

    fn next_value(&mut self) -> Bytes {
        self.values += 1;
        let sizes = match self.rng.usize(..3) {
            0 => LARGE_BYTES,
            _ => SMALL_BYTES,
        };
        let mut value = format!("{}{}#", self.prefix, self.values);
        let length = self.rng.usize(sizes);
        while value.len() < length {
            value.push(self.rng.lowercase());
        }
        value.into()
    }

    async fn put(&mut self, key: usize) {
        self.put_with(key, PutOptions::new()).await;
    }

    /// Puts on the condition that the key is as this task, its only writer, knows it.
    async fn put_as_known(&mut self, key: usize) {
        let register = &self.keys[key].1;
        let options = match (register.certain_position(), register.certainly_there()) {
            (Some(position), _) => PutOptions::new().if_match(position),
            (None, Some(false)) => PutOptions::new().if_absent(),
            _ => return,
        };
        self.put_with(key, options).await;
    }

    async fn put_with(&mut self, key: usize, options: PutOptions) {
        let value = self.next_value();
        let (name, register) = &mut self.keys[key];
        let put = self.client.put_with(&*name, value.clone(), options);
        match self.watch.write(shard(name), put).await {
            Ok(written) => register.put(written.position, value),
            Err(error) if error.outcome() == Outcome::Unknown => register.unknown(Some(value)),
            Err(error) => refused(&self.watch, name, register, &error),
        }
    }

    async fn delete(&mut self, key: usize) {
        let (name, register) = &mut self.keys[key];
        let options = DeleteOptions::new();
        let delete = self.client.delete_with(&*name, options);
        match self.watch.write(shard(name), delete).await {
            Ok(deleted) => {
                let was_there = deleted.is_some();
                if register
                    .certainly_there()
                    .is_some_and(|there| there != was_there)
                {
                    let known = register.describe();
                    let what = format!("{name} deleted, was there: {was_there}, but {known}");
                    self.watch.violation(what);
                }
                register.deleted();
            }
            Err(error) if error.outcome() == Outcome::Unknown => register.unknown(None),
            Err(error) => refused(&self.watch, name, register, &error),
        }
    }

    /// Reads a key by whatever consistency. By the weaker ones it may be old, but never another key's.
    async fn read(&mut self, key: usize) {
        let consistency = match self.rng.usize(..4) {
            0 => Consistency::Primary,
            1 => Consistency::MaxLag(Duration::from_millis(500)),
            2 => Consistency::Eventual,
            _ => Consistency::ReadYourWrites,
        };
        let (name, register) = &self.keys[key];
        let options = GetOptions::new().consistency(consistency);
        let read = self.client.get_with(name, options);
        let Ok(found) = self
            .watch
            .op(read)
            .await
            .inspect_err(|error| self.fails(error))
        else {
            return;
        };
        let is_right = match consistency {
            Consistency::Primary | Consistency::ReadYourWrites => {
                let entry = |entry: &Entry| (entry.position, entry.value.clone());
                let found = found.as_ref().map(entry);
                let found = found.as_ref().map(|(position, value)| (*position, value));
                register.judge(found).is_right()
            }
            _ => found
                .as_ref()
                .is_none_or(|entry| entry.value.starts_with(self.prefix.as_bytes())),
        };
        if !is_right {
            let found = found.map(|entry| (entry.position, short(&entry.value)));
            let known = register.describe();
            let what = format!("{name} read as {found:?} by {consistency:?}, but {known}");
            self.watch.violation(what);
        }
    }

    /// All keys of this task by a scan: each as it must be, and none besides.
    async fn scan(&mut self) {
        let scan = self.client.scan(&self.prefix).try_collect::<Vec<_>>();
        let Ok(entries) = self
            .watch
            .op(scan)
            .await
            .inspect_err(|error| self.fails(error))
        else {
            return;
        };
        let mut entries = entries.iter().peekable();
        for (name, register) in &self.keys {
            let entry = entries.next_if(|entry| entry.key.as_bytes() == name.as_bytes());
            let found = entry.and_then(|entry| Some((entry.position, entry.value.as_ref()?)));
            if !register.judge(found).is_right() {
                let found = found.map(|(position, value)| (position, short(value)));
                let known = register.describe();
                let what = format!("{name} scanned as {found:?}, but {known}");
                self.watch.violation(what);
            }
        }
        if let Some(entry) = entries.next() {
            let what = format!("a scan shows {}, which nobody wrote", entry.key);
            self.watch.violation(what);
        }
    }

    /// A read may come too late, nothing else.
    fn fails(&self, error: &Error) {
        if error.kind() != ErrorKind::Unavailable {
            self.watch.violation(format!("a read: {error}"));
        }
    }

    /// Names of all keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.keys.iter().map(|(name, _)| name)
    }

    /// Judges what a shard's primary answers for one of the keys.
    pub(super) fn judge(&self, name: &str, found: &OpResult, verdict: &mut Verdict) {
        let place = self
            .keys
            .binary_search_by(|(key, _)| key.as_str().cmp(name));
        let register = &self.keys[place.expect("a key of this task")].1;
        let entry = found.etag.zip(found.value.as_ref());
        let judgement = register.judge(entry);
        judgement.add_to(verdict);
        if !judgement.is_right() {
            let entry = entry.map(|(position, value)| (position, short(value)));
            let known = register.describe();
            self.watch
                .violation(format!("{name} is {entry:?} at the end, but {known}"));
        }
    }
}

fn shard(key: &str) -> usize {
    shard_of(key.as_bytes(), SHARDS)
}

/// A write that was refused: whether it may have been.
fn refused(watch: &Watch, name: &str, register: &Register, error: &Error) {
    let is_fine = match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Full => true,
        // A write of unknown outcome may have come in between.
        ErrorKind::Conflict => register.certainly_there().is_none(),
        _ => false,
    };
    if !is_fine {
        let known = register.describe();
        watch.violation(format!("{name}: {error}; {known}"));
    }
}
