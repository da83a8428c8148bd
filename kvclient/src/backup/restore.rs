//! Writes what a backup holds into a cluster, whatever its shards are.
//!
//! Entries go through [`Client`] as puts, so each finds its shard by its key. Every key is written once, with its final
//! value, see [`States`]; so putting it again after an interruption does no harm, and nothing has to be removed. Expiry
//! is kept as a moment: an entry gets the time that it still has by this machine's clock, reckoned anew while nodes are
//! waited for, and one whose time is over is left out and counted.
//!
//! Before the first write all of the backup is checked and the target must be empty. If anybody else writes to the target
//! meanwhile, the later write of a key stays.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, future::join_all};
use tokio::time::sleep;

use super::{
    dir::BackupDir,
    error::BackupError,
    manifest::{Manifest, ShardBackup},
    progress::{Progress, ProgressFile},
    state::{Restored, States},
    until::Until,
    verify::verify,
};
use crate::{
    client::Client,
    error::{ErrorKind, Result as KvResult},
    node_client::NodeClient,
    options::PutOptions,
    policy::Consistency,
    wire::route,
};

/// Entries and bytes that are under way at once: enough that batches to all nodes are full.
const WINDOW_ENTRIES: usize = 1_024;
const WINDOW_BYTES: usize = 8 << 20;

/// How often it is noted how far it has come.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Longest wait for one entry: a node that restarts is waited for.
const PUT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for an entry that expires until the time it still has is reckoned anew: it lives at most so much longer.
const TTL_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause before such an entry is put again.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest wait for a node's state.
const ASK_FOR: Duration = Duration::from_secs(5);

/// What is restored, and how.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// How far the log is applied, by name of shard; shards that are not named: by [`Self::others`].
    pub until: Vec<(String, Until)>,
    /// How far for all other shards.
    pub others: Until,
    /// Whether the target may have entries already. They stay, unless the backup has the key.
    pub into_non_empty: IntoNonEmpty,
    /// Where to note how far it has come.
    pub progress: PathBuf,
}

/// Whether a target may have entries already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IntoNonEmpty {
    /// It is refused.
    #[default]
    Refuse,
    /// What is there stays, unless the backup has the key.
    Allow,
}

/// What happens, for whoever watches.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreReport<'a> {
    /// All of the backup was read and is sound.
    Verified {
        /// Entries in its snapshots.
        entries: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// An interrupted restore goes on.
    Resumed {
        /// Entries that are written already.
        entries: u64,
    },
    /// Entries were written.
    Written {
        /// Name of the shard that they come from.
        shard: &'a str,
        /// Entries so far, of all shards.
        entries: u64,
        /// About how many it will be.
        of_entries: Option<u64>,
        /// Bytes of keys and values since the start of this run.
        bytes: u64,
    },
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Entries that were written.
    pub entries: u64,
    /// Entries left out because their time is over.
    pub expired: u64,
    /// What state each shard had: its name and position.
    pub reached: Vec<(String, crate::position::Position)>,
}

/// Restores a backup into the cluster of a client. `nodes` asks its primaries who they are.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client, nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::backup::{BackupDir, IntoNonEmpty, RestoreOptions, Until, restore};
///
/// let dir = BackupDir::open("backup".as_ref())?;
/// let options = RestoreOptions {
///     until: Vec::new(),
///     others: Until::End,
///     into_non_empty: IntoNonEmpty::Refuse,
///     progress: "restore.progress".into(),
/// };
/// let done = restore(&kv, &nodes, &dir, &options, &|report| println!("{report:?}")).await?;
/// println!("{} entries", done.entries);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`BackupError`]: why it ended. Unless it was refused before the first write, the same call goes on where it was.
///
/// # Cancel safety
/// Part of the entries is written; the same call goes on where it was.
pub async fn restore(
    kv: &Client,
    nodes: &NodeClient,
    dir: &BackupDir,
    options: &RestoreOptions,
    report: &dyn Fn(RestoreReport<'_>),
) -> Result<Summary, BackupError> {
    let manifest = dir.whole_manifest()?;
    let untils = untils(&manifest, options)?;
    let whole = (dir.clone(), manifest.clone());
    let verified = aside(move || verify(&whole.0, &whole.1)).await?;
    report(RestoreReport::Verified {
        entries: verified.entries,
        bytes: verified.bytes,
    });
    let file = ProgressFile(options.progress.clone());
    let new = Progress {
        backup: manifest.crc32c.clone(),
        until: format!("{untils:?}"),
        target: target(kv, nodes).await?,
        shard: 0,
        after: None,
        entries: 0,
        expired: 0,
    };
    let progress = match file.resume(&new)? {
        Some(found) => {
            report(RestoreReport::Resumed {
                entries: found.entries,
            });
            found
        }
        None => {
            if options.into_non_empty == IntoNonEmpty::Refuse && !is_empty(kv).await? {
                return Err(BackupError::NotEmpty);
            }
            // From here on the target is no longer empty, and a second try must know why.
            file.save(&new)?;
            new
        }
    };
    let mut writing = Writing {
        kv,
        report,
        noted: Instant::now(),
        file: &file,
        progress,
        of_entries: Some(verified.entries),
        bytes: 0,
    };
    let mut reached = Vec::new();
    for (number, (shard, until)) in manifest.shards.iter().zip(untils).enumerate() {
        let at = writing.shard(number, dir, shard, until).await?;
        reached.push((shard.name.clone(), at));
    }
    file.remove()?;
    Ok(Summary {
        entries: writing.progress.entries,
        expired: writing.progress.expired,
        reached,
    })
}

/// How far each shard's log is applied.
fn untils(manifest: &Manifest, options: &RestoreOptions) -> Result<Vec<Until>, BackupError> {
    let is_there = |name: &String| manifest.shards.iter().any(|shard| shard.name == *name);
    if let Some((name, _)) = options.until.iter().find(|(name, _)| !is_there(name)) {
        let names: Vec<&str> = manifest
            .shards
            .iter()
            .map(|shard| shard.name.as_str())
            .collect();
        let problem = format!(
            "the backup has no shard {name}; it has {}",
            names.join(", ")
        );
        return Err(BackupError::OutOfRange(problem));
    }
    let until = |shard: &ShardBackup| {
        let named = options.until.iter().find(|(name, _)| *name == shard.name);
        let until = named.map_or(options.others, |(_, until)| *until);
        until.check(shard).map_err(BackupError::OutOfRange)?;
        Ok(until)
    };
    manifest.shards.iter().map(until).collect()
}

/// Histories of the shards of the target.
async fn target(kv: &Client, nodes: &NodeClient) -> Result<Vec<String>, BackupError> {
    let mut histories = Vec::new();
    for shard in kv.map().shards() {
        let unreachable = |problem: String| BackupError::Unreachable {
            shard: shard.name.clone(),
            problem,
        };
        let primary = &shard.primary.address;
        let status = nodes.get_json(primary, route::STATUS, ASK_FOR).await;
        let status = status.map_err(|error| unreachable(format!("{primary}: {error}")))?;
        let history = status["history"].as_str().map(str::to_owned);
        histories.push(history.ok_or_else(|| unreachable(format!("{primary} holds no log yet")))?);
    }
    Ok(histories)
}

async fn is_empty(kv: &Client) -> Result<bool, BackupError> {
    // A replica may not have what was just written there.
    let scan = kv.scan("").consistency(Consistency::Primary);
    let mut first = scan.keys_only().limit(1);
    Ok(first.next().await.transpose()?.is_none())
}

/// A restore under way.
struct Writing<'a> {
    kv: &'a Client,
    report: &'a dyn Fn(RestoreReport<'_>),
    noted: Instant,
    file: &'a ProgressFile,
    progress: Progress,
    of_entries: Option<u64>,
    bytes: u64,
}

impl Writing<'_> {
    /// Writes one shard of the backup, or what is missing of it; the position that it had.
    async fn shard(
        &mut self,
        number: usize,
        dir: &BackupDir,
        shard: &ShardBackup,
        until: Until,
    ) -> Result<crate::position::Position, BackupError> {
        let after = match number == self.progress.shard {
            true => self.progress.after_key(),
            false => None,
        };
        let (dir, known) = (dir.clone(), shard.clone());
        let opening = aside(move || States::open(&dir, &known, until, after.as_deref()));
        let mut states = opening.await?;
        let reached = states.reached();
        if number < self.progress.shard {
            return Ok(reached);
        }
        loop {
            let (reader, window) = aside(move || {
                let window = window(&mut states);
                (states, window)
            })
            .await;
            states = reader;
            let window = window?;
            let Some(last) = window.last().map(|entry| entry.key.clone()) else {
                break;
            };
            self.write(window).await?;
            self.progress.set_after(&last);
            self.note()?;
            (self.report)(RestoreReport::Written {
                shard: &shard.name,
                entries: self.progress.entries,
                of_entries: self.of_entries,
                bytes: self.bytes,
            });
        }
        self.progress.shard = number + 1;
        self.progress.after = None;
        self.file.save(&self.progress)?;
        Ok(reached)
    }

    async fn write(&mut self, window: Vec<Restored>) -> Result<(), BackupError> {
        let bytes: usize = window.iter().map(entry_bytes).sum();
        let puts = window.into_iter().map(|entry| put(self.kv, entry));
        for put in join_all(puts).await {
            match put? {
                Put::Written => self.progress.entries += 1,
                Put::Over => self.progress.expired += 1,
            }
        }
        self.bytes += bytes as u64;
        Ok(())
    }

    fn note(&mut self) -> Result<(), BackupError> {
        if self.noted.elapsed() >= NOTE_EVERY {
            self.file.save(&self.progress)?;
            self.noted = Instant::now();
        }
        Ok(())
    }
}

/// What became of an entry.
enum Put {
    Written,
    /// Its time is over.
    Over,
}

/// Writes an entry, with the time that it still has when it is sent.
async fn put(kv: &Client, entry: Restored) -> KvResult<Put> {
    let Some(expires_at_ms) = entry.expires_at_ms else {
        let options = PutOptions::new().timeout(PUT_TIMEOUT);
        kv.put_with(&entry.key, entry.value, options).await?;
        return Ok(Put::Written);
    };
    let began = Instant::now();
    loop {
        let Some(left) = time_left(expires_at_ms) else {
            return Ok(Put::Over);
        };
        let options = PutOptions::new().timeout(TTL_TIMEOUT.min(left)).ttl(left);
        match kv.put_with(&entry.key, entry.value.clone(), options).await {
            Err(error)
                if error.kind() == ErrorKind::Unavailable && began.elapsed() < PUT_TIMEOUT => {}
            put => return put.map(|_| Put::Written),
        }
        sleep(PAUSE).await;
    }
}

/// Time until a moment, in whole milliseconds; `None` if it has come.
fn time_left(until_ms: u64) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let left = until_ms.checked_sub(now_ms).filter(|left| *left > 0);
    left.map(Duration::from_millis)
}

/// Reads files on a thread that may wait for them, so that whoever restores can still be told to stop.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The next entries that are written together.
fn window(states: &mut States) -> Result<Vec<Restored>, BackupError> {
    let (mut window, mut bytes) = (Vec::new(), 0);
    while window.len() < WINDOW_ENTRIES && bytes < WINDOW_BYTES {
        let Some(entry) = states.next_entry()? else {
            break;
        };
        bytes += entry_bytes(&entry);
        window.push(entry);
    }
    Ok(window)
}

fn entry_bytes(entry: &Restored) -> usize {
    entry.key.len() + entry.value.len()
}
