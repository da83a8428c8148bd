//! Sessions: each counts up keys of its own by conditional puts and reads everybody's; none ever sees less of a key than
//! it wrote or read before.
//!
//! A number is put on the condition that the one before is still there, so a put whose outcome was not told cannot take
//! place late and set a key back.

use std::{sync::Arc, time::Duration};

use kvclient::{
    Client, Consistency, Entry, ErrorKind, GetOptions, Outcome, PutOptions, position::Position,
    wire::batch::OpResult,
};

use super::{arena::SHARDS, watch::Watch};
use crate::support::{oracle::Verdict, shard_of};

/// Keys of each session.
pub(super) const KEYS: usize = 6;

/// One op in so many is a write.
const WRITE_EVERY: usize = 8;

/// Between two ops of a session.
const PAUSE: Duration = Duration::from_millis(5);

/// One session.
pub(super) struct Numbers {
    client: Client,
    watch: Arc<Watch>,
    rng: fastrand::Rng,
    /// Of all sessions.
    keys: Arc<[String]>,
    /// Its own keys: from this one on.
    first: usize,
    own: [Number; KEYS],
    /// The largest number seen of each key.
    seen: Vec<u64>,
    reads: usize,
}

/// What the writer of a key knows of it.
#[derive(Debug, Clone, Copy, Default)]
struct Number {
    acked: u64,
    position: Option<Position>,
    /// Whether the next number may have been put already.
    is_open: bool,
}

impl Numbers {
    /// The keys of so many sessions.
    pub(super) fn keys(sessions: usize) -> Arc<[String]> {
        (0..sessions * KEYS)
            .map(|n| format!("number:{n}"))
            .collect()
    }

    /// A session of its own.
    pub(super) fn new(
        number: usize,
        keys: Arc<[String]>,
        client: Client,
        watch: Arc<Watch>,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            client,
            watch,
            rng,
            first: number * KEYS,
            own: [Number::default(); KEYS],
            seen: vec![0; keys.len()],
            keys,
            reads: 0,
        }
    }

    /// Works until told to stop; then knows what must be there.
    pub(super) async fn work(mut self) -> Self {
        while self.watch.goes_on() {
            match self.rng.usize(..WRITE_EVERY) {
                0 => {
                    let own = self.rng.usize(..KEYS);
                    self.write(own).await;
                    self.read(self.first + own).await;
                }
                _ => {
                    let key = self.rng.usize(..self.keys.len());
                    self.read(key).await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        self
    }

    async fn write(&mut self, own: usize) {
        let key = self.first + own;
        let number = &mut self.own[own];
        let next = number.acked + 1;
        let options = match number.position {
            Some(position) => PutOptions::new().if_match(position),
            None => PutOptions::new().if_absent(),
        };
        let name = &self.keys[key];
        let put = self.client.put_with(name, next.to_string(), options);
        let shard = shard_of(name.as_bytes(), SHARDS);
        match self.watch.write(shard, put).await {
            Ok(written) => {
                number.done(next, written.position);
                self.seen[key] = next;
            }
            Err(error) if error.outcome() == Outcome::Unknown => number.is_open = true,
            Err(error) if error.kind() == ErrorKind::Conflict => self.settle(own).await,
            Err(_) => {}
        }
    }

    /// The number before is not there any more: it must be the open one that is.
    async fn settle(&mut self, own: usize) {
        let name = &self.keys[self.first + own];
        let options = GetOptions::new().consistency(Consistency::Primary);
        let Ok(found) = self.watch.op(self.client.get_with(name, options)).await else {
            return;
        };
        let number = &mut self.own[own];
        let next = number.acked + 1;
        match found.as_ref().map(|entry| (parse(entry), entry.position)) {
            Some((found, position)) if number.is_open && found == next => {
                number.done(next, position);
            }
            other => {
                let what = format!("{name} is {other:?} after a conflict, but {number:?}");
                self.watch.violation(what);
                // As it is from now on, so that one loss is told once.
                *number = other.map_or(Number::default(), |(acked, position)| Number {
                    acked,
                    position: Some(position),
                    is_open: false,
                });
            }
        }
    }

    async fn read(&mut self, key: usize) {
        let name = &self.keys[key];
        let read = self.client.get_with(name, GetOptions::new());
        match self.watch.op(read).await {
            Ok(found) => {
                let found = found.as_ref().map_or(0, parse);
                self.reads += 1;
                let seen = &mut self.seen[key];
                if found < *seen {
                    let what = format!("{name} went back from {seen} to {found} in a session");
                    self.watch.violation(what);
                }
                *seen = found;
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => self.watch.violation(format!("a session's read: {error}")),
        }
    }

    /// Reads that were compared with what the session had seen.
    pub(super) fn reads(&self) -> usize {
        self.reads
    }

    /// Names of its own keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.keys[self.first..][..KEYS].iter()
    }

    /// Judges what a shard's primary answers for one of its own keys.
    pub(super) fn judge(&self, name: &str, found: &OpResult, verdict: &mut Verdict) {
        let own = self.names().position(|key| key == name);
        let number = &self.own[own.expect("a key of this session")];
        let shown = found
            .value
            .as_ref()
            .map(|value| value.escape_ascii().to_string());
        let value = shown.as_deref().unwrap_or("0").parse::<u64>();
        if value == Ok(number.acked) && found.etag == number.position {
            return;
        }
        if number.is_open && value == Ok(number.acked + 1) {
            verdict.unknown_applied += 1;
            return;
        }
        match value == Ok(number.acked) {
            true => verdict.duplicated += 1,
            false => verdict.lost += 1,
        }
        let at = found.etag;
        self.watch.violation(format!(
            "{name} is {shown:?} at {at:?} at the end, but {number:?}"
        ));
    }
}

impl Number {
    fn done(&mut self, number: u64, position: Position) {
        *self = Self {
            acked: number,
            position: Some(position),
            is_open: false,
        };
    }
}

fn parse(entry: &Entry) -> u64 {
    let text = std::str::from_utf8(&entry.value).expect("digits");
    text.parse().expect("a number")
}
