//! `kv undo`: puts keys back to what they were, by the log.
//!
//! The past is read twice: first which keys have changed since, then what those were. So memory holds no more than the
//! keys that are to be put back. Each is written under the condition that it is still what the log says: what somebody
//! changes meanwhile stays, and is told. What the log no longer knows is left alone, and told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use kvclient::{
    Change, Client, Consistency, DeleteOptions, ErrorKind, Event, Outcome, Position, PutOptions,
    Session, Watch, shard_map::Shard,
};

use crate::{
    args::UndoArgs,
    exit::Exit,
    failure::Failure,
    history::begins_at,
    out::{Format, Out},
    terms::Moment,
    text::{KeyFormat, escaped},
};

/// A key that has changed since.
#[derive(Debug)]
struct Changed {
    shard_idx: u16,
    /// The last change, and whether the key was there after it.
    last: Position,
    is_there: bool,
    then: Then,
}

/// What a key was.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// Nothing in the log says it.
    Unsaid,
    Absent,
    Value(Bytes, Option<SystemTime>),
}

/// What is to be done about a key.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Put(Bytes, Option<Duration>),
    Delete,
    /// It is as it was.
    Leave,
    /// The log does not go back so far.
    Unknown,
}

/// How many keys went how.
#[derive(Debug, Default)]
struct Counts {
    put_back: usize,
    changed_again: usize,
    unknown: usize,
    failed: usize,
}

/// Puts all keys with a prefix back to what they were.
pub(crate) async fn undo(
    kv: &Client,
    args: &UndoArgs,
    keys: KeyFormat,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let prefix = keys.parse(&args.prefix).map_err(Failure::Usage)?;
    names_all_shards(kv, &args.to)?;
    let Since {
        mut changed,
        silent,
    } = what_changed(kv, &prefix, &args.to).await?;
    let begin = what_it_was(kv, &prefix, &args.to, &mut changed).await?;
    let mut counts = Counts::default();
    for (key, changed) in &changed {
        // At this moment: what expires while others are put back does not come to life again.
        let now = SystemTime::now();
        let step = step(changed, begins_at(&begin, changed.shard_idx), now);
        if step == Step::Leave {
            continue;
        }
        tell(key, &step, changed, out)?;
        match args.yes {
            true => counts.add(take(kv, key, step, changed).await, key, out),
            false => counts.plan(&step),
        }
    }
    let exit = sum_up(&counts, args, out);
    if !silent.is_empty() {
        let shards = silent.join(", ");
        out.note(&format!(
            "{shards}: the log begins later than that; keys that changed before it begins, and not since, are not known"
        ));
    }
    Ok(match silent.is_empty() {
        true => exit,
        false => exit.and(Exit::No),
    })
}

/// A token without a shard would mean the moment before that shard's first record, and take away all it has.
fn names_all_shards(kv: &Client, to: &Moment) -> Result<(), Failure> {
    let Moment::Positions(session) = to else {
        return Ok(());
    };
    let map = kv.map();
    let lacks = |shard: &&Shard| session.position(shard.idx).is_none();
    match map.shards().iter().find(lacks) {
        None => Ok(()),
        Some(shard) => Err(Failure::Usage(format!(
            "the token has no position of shard {}; one that kv watch prints when it listens has them all, or give a time",
            shard.name
        ))),
    }
}

/// What has changed since the moment.
struct Since {
    changed: BTreeMap<Vec<u8>, Changed>,
    /// Shards whose log may begin later than that.
    silent: Vec<String>,
}

/// The keys that have changed since.
async fn what_changed(kv: &Client, prefix: &[u8], to: &Moment) -> Result<Since, Failure> {
    let mut changed = BTreeMap::new();
    let watch = kv.watch(prefix).consistency(Consistency::Primary);
    let mut since: Watch = match to {
        Moment::Positions(session) => watch.from(session.clone()),
        Moment::Time(_) => watch.from_earliest(),
    }
    .until_level();
    since.ready().await?;
    let begin = since.position();
    let mut reaching = BTreeSet::new();
    while let Some(event) = since.try_next().await? {
        if !is_later(&event, to) {
            reaching.insert(event.shard_idx);
            continue;
        }
        let key = event.key.as_bytes().to_vec();
        let entry = changed.entry(key).or_insert(Changed {
            shard_idx: event.shard_idx,
            last: event.position,
            is_there: true,
            then: Then::Unsaid,
        });
        entry.last = event.position;
        entry.is_there = !matches!(event.change, Change::Delete { .. });
    }
    let map = kv.map();
    let is_silent = |shard: &&Shard| {
        let is_cut = begins_at(&begin, shard.idx).seq > 0;
        matches!(to, Moment::Time(_)) && is_cut && !reaching.contains(&shard.idx)
    };
    let silent = map.shards().iter().filter(is_silent);
    Ok(Since {
        changed,
        silent: silent.map(|shard| shard.name.clone()).collect(),
    })
}

/// Finds what those keys were, and gives where the logs begin.
async fn what_it_was(
    kv: &Client,
    prefix: &[u8],
    to: &Moment,
    changed: &mut BTreeMap<Vec<u8>, Changed>,
) -> Result<Session, Failure> {
    let watch = kv.watch(prefix).consistency(Consistency::Primary);
    let mut past = watch.from_earliest().until_level();
    past.ready().await?;
    let begin = past.position();
    while let Some(event) = past.try_next().await? {
        if is_later(&event, to) {
            continue;
        }
        let Some(key) = changed.get_mut(event.key.as_bytes()) else {
            continue;
        };
        match (event.change, &mut key.then) {
            (Change::Put { value, expires_at }, then) => *then = Then::Value(value, expires_at),
            (Change::Delete { .. }, then) => *then = Then::Absent,
            (Change::Expire { expires_at }, Then::Value(_, expires)) => *expires = expires_at,
            (Change::Expire { .. }, Then::Unsaid | Then::Absent) => {}
        }
    }
    Ok(begin)
}

/// Whether an event came after the moment.
fn is_later(event: &Event, moment: &Moment) -> bool {
    match moment {
        Moment::Positions(session) => event.position > begins_at(session, event.shard_idx),
        Moment::Time(time) => event.time > *time,
    }
}

/// What is to be done, if the log of the key's shard begins behind `begin`.
fn step(changed: &Changed, begin: Position, now: SystemTime) -> Step {
    let is_absent = match &changed.then {
        // Before the first record of all there was nothing.
        Then::Unsaid if begin.seq > 0 => return Step::Unknown,
        Then::Unsaid | Then::Absent => true,
        Then::Value(_, expires_at) => expires_at.is_some_and(|at| at <= now),
    };
    match (&changed.then, is_absent) {
        (Then::Value(value, expires_at), false) => {
            let ttl = expires_at.and_then(|at| at.duration_since(now).ok());
            Step::Put(value.clone(), ttl)
        }
        _ if changed.is_there => Step::Delete,
        _ => Step::Leave,
    }
}

/// Takes a step, unless the key has changed again.
async fn take(kv: &Client, key: &[u8], step: Step, changed: &Changed) -> kvclient::Result<Step> {
    match &step {
        Step::Put(value, ttl) => {
            let options = match changed.is_there {
                true => PutOptions::new().if_match(changed.last),
                false => PutOptions::new().if_absent(),
            };
            let options = match ttl {
                Some(ttl) => options.ttl(*ttl),
                None => options,
            };
            kv.put_with(key, value.clone(), options).await?;
        }
        Step::Delete => {
            let options = DeleteOptions::new().if_match(changed.last);
            kv.delete_with(key, options).await?;
        }
        Step::Leave | Step::Unknown => {}
    }
    Ok(step)
}

fn tell(key: &[u8], step: &Step, changed: &Changed, out: &mut Out) -> Result<(), Failure> {
    let (name, value): (_, &[u8]) = match step {
        Step::Put(value, _) => ("put", value),
        Step::Delete => ("delete", b""),
        Step::Unknown => ("unknown", b""),
        Step::Leave => return Ok(()),
    };
    match out.format {
        Format::Text => out.columns(&[name.as_bytes(), key, value]),
        Format::Json => out.json(|line| {
            let line = line.field("step", name).bytes("key", key);
            let line = match step {
                Step::Put(value, _) => line.bytes("value", value),
                _ => line,
            };
            line.field("changed_at", changed.last.to_string())
        }),
    }
}

impl Counts {
    fn plan(&mut self, step: &Step) {
        match step {
            Step::Unknown => self.unknown += 1,
            _ => self.put_back += 1,
        }
    }

    fn add(&mut self, taken: kvclient::Result<Step>, key: &[u8], out: &mut Out) {
        match taken {
            Ok(step) => self.plan(&step),
            Err(error)
                if error.kind() == ErrorKind::Conflict
                    && error.outcome() == Outcome::NotApplied =>
            {
                self.changed_again += 1;
                out.note(&format!("changed meanwhile, and left so: {}", escaped(key)));
            }
            Err(error) => {
                self.failed += 1;
                out.failed(&Failure::from(error));
            }
        }
    }
}

fn sum_up(counts: &Counts, args: &UndoArgs, out: &mut Out) -> Exit {
    if counts.unknown > 0 {
        let unknown = counts.unknown;
        out.note(&format!(
            "{unknown} keys: what they were is older than the log, so they stay"
        ));
    }
    if !args.yes {
        let count = counts.put_back;
        out.note(&format!(
            "{count} keys would be put back; with --yes they are"
        ));
    } else {
        let (done, again, failed) = (counts.put_back, counts.changed_again, counts.failed);
        out.note(&format!(
            "{done} keys put back, {again} changed meanwhile, {failed} failed"
        ));
    }
    match (counts.failed, counts.unknown + counts.changed_again) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::No,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(then: Then, is_there: bool) -> Changed {
        Changed {
            shard_idx: 0,
            last: Position::new(1, 9),
            is_there,
            then,
        }
    }

    #[test]
    fn what_is_to_be_done() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let value = |expires_at| Then::Value("v".into(), expires_at);
        let (cut, whole) = (Position::new(1, 3), Position::ZERO);
        let second = Duration::from_secs(1);
        for (then, is_there, begin, expected) in [
            (value(None), true, cut, Step::Put("v".into(), None)),
            (value(None), false, cut, Step::Put("v".into(), None)),
            (
                value(Some(now + second)),
                true,
                cut,
                Step::Put("v".into(), Some(second)),
            ),
            (value(Some(now)), true, cut, Step::Delete),
            (value(Some(now)), false, cut, Step::Leave),
            (Then::Absent, true, cut, Step::Delete),
            (Then::Absent, false, cut, Step::Leave),
            (Then::Unsaid, true, cut, Step::Unknown),
            (Then::Unsaid, false, cut, Step::Unknown),
            (Then::Unsaid, true, whole, Step::Delete),
        ] {
            let changed = changed(then, is_there);
            assert_eq!(step(&changed, begin, now), expected, "{changed:?}");
        }
    }
}
