//! Copies a cluster into a directory, and keeps the copy up to date: a snapshot of each shard first, then its log.
//!
//! Replicas are asked first, so that the primary has little to do; it is asked last, for what the replica did not have yet.
//! Its answer says that both are the same log up to there. So a backup that ends well holds every write that was acknowledged
//! before it began. Where the primary is silent the backup reaches as far as the best replica, and says so.
//!
//! A shard that is there is not copied again: the log since is added to it. Where the log no longer reaches back a new
//! snapshot is taken; the old one stays until the new one is complete. Frames are synced and entered in the manifest in
//! pieces, so what an interrupted run loses is one piece, or the snapshot that was arriving.
//!
//! Cancel safety: may be dropped at any `.await`; the manifest in place names what is there.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{join_all, select_all};
use tokio::time::sleep;

use super::{
    adding::Adding,
    copy::{CheckedCopy, CopyCheck},
    dir::{BackupDir, Writing},
    error::BackupError,
    manifest::{FileEntry, Manifest, ShardBackup},
    source::{Pulled, Source},
};
use crate::{
    node_client::NodeClient,
    position::Position,
    shard_map::{Address, Shard, ShardMap},
};

/// Pause between two looks at the log: what a backup that follows may be behind.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// How old what is entered of a quiet shard may be, while the backup follows.
const ENTER_EVERY_MS: u64 = 5_000;

/// Who is asked for copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyFrom {
    /// Replicas where any is ready, else the primary.
    #[default]
    Replicas,
    /// The primary alone.
    Primary,
}

/// What happens, for whoever watches.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report<'a> {
    /// A snapshot arrives.
    Copying {
        /// Name of the shard.
        shard: &'a str,
        /// Who sends it.
        node: &'a Address,
        /// Entries so far.
        entries: u64,
        /// About how many it will be.
        of_entries: Option<u64>,
        /// Bytes so far.
        bytes: u64,
    },
    /// A snapshot is complete.
    Copied {
        /// What is known of the shard now.
        shard: &'a ShardBackup,
        /// Who sent it.
        node: &'a Address,
    },
    /// Frames were added and synced.
    Added {
        /// What is known of the shard now.
        shard: &'a ShardBackup,
        /// Bytes of frames since the last report.
        bytes: u64,
    },
    /// Something is not as it should be, and the backup goes on.
    Warning(String),
}

/// Copies a cluster into a directory.
pub struct Puller<'a> {
    dir: &'a BackupDir,
    source: Source,
    map: &'a ShardMap,
    from: CopyFrom,
    /// What is in force. Std mutex: never held over an await.
    manifest: Mutex<Manifest>,
    report: &'a (dyn Fn(Report<'_>) + Sync),
}

impl<'a> Puller<'a> {
    /// Prepares to copy the cluster of a map; asks nobody yet.
    ///
    /// # Errors
    /// [`BackupError::Foreign`]: the directory holds another cluster's backup. [`BackupError::Damaged`] or
    /// [`BackupError::File`]: what it holds cannot be read.
    pub fn new(
        dir: &'a BackupDir,
        nodes: NodeClient,
        map: &'a ShardMap,
        from: CopyFrom,
        report: &'a (dyn Fn(Report<'_>) + Sync),
    ) -> Result<Self, BackupError> {
        let shard_count = u16::try_from(map.shards().len()).unwrap_or(u16::MAX);
        let manifest = match dir.manifest()? {
            Some(manifest) => manifest,
            None => Manifest::new(map.identity().to_owned(), shard_count),
        };
        manifest
            .check_map(map)
            .map_err(|problem| foreign(dir, problem))?;
        Ok(Self {
            dir,
            source: Source::new(nodes),
            map,
            from,
            manifest: Mutex::new(manifest),
            report,
        })
    }

    /// What the backup holds.
    pub fn manifest(&self) -> Manifest {
        let manifest = self.manifest.lock();
        manifest.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Brings every shard up to date.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client, nodes: kvclient::node_client::NodeClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use kvclient::backup::{BackupDir, CopyFrom, Puller};
    ///
    /// let (dir, map) = (BackupDir::create("backup".as_ref())?, kv.map());
    /// let puller = Puller::new(&dir, nodes, &map, CopyFrom::Replicas, &|report| println!("{report:?}"))?;
    /// puller.run().await?;
    /// for shard in puller.manifest().shards {
    ///     println!("{} up to {}", shard.name, shard.last);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BackupError`] of the first shard that failed, when all others are done. What was complete stays.
    ///
    /// # Cancel safety
    /// What was complete stays; run it again to go on.
    pub async fn run(&self) -> Result<(), BackupError> {
        let shards = self.map.shards().iter();
        let shards = shards.map(|shard| self.shard(shard, 1));
        join_all(shards).await.into_iter().collect()
    }

    /// Goes on bringing every shard up to date, for ever, each beside the others.
    ///
    /// ```no_run
    /// # async fn example(puller: kvclient::backup::Puller<'_>) {
    /// let error = puller.follow().await;
    /// println!("the backup stays as it is: {error}");
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BackupError`] of the first shard that cannot go on. Nodes that do not answer are no reason; they are reported and
    /// asked again.
    ///
    /// # Cancel safety
    /// As [`Self::run`].
    pub async fn follow(&self) -> BackupError {
        // Each at its own pace: one whose nodes are slow or silent holds up no other. A map has at least one shard.
        let shards = self.map.shards().iter();
        let following = shards.map(|shard| Box::pin(self.follow_shard(shard)));
        select_all(following).await.0
    }

    async fn follow_shard(&self, shard: &Shard) -> BackupError {
        loop {
            match self.shard(shard, ENTER_EVERY_MS).await {
                Ok(()) => {}
                Err(error @ BackupError::Unreachable { .. }) => {
                    (self.report)(Report::Warning(error.to_string()));
                }
                Err(error) => return error,
            }
            sleep(FOLLOW_EVERY).await;
        }
    }

    async fn shard(&self, shard: &Shard, enter_every_ms: u64) -> Result<(), BackupError> {
        if self.manifest().shard(shard.idx).is_none() {
            self.copy(shard).await?;
        }
        if self.catch_up(shard, enter_every_ms).await? {
            return Ok(());
        }
        self.copy(shard).await?;
        if self.catch_up(shard, enter_every_ms).await? {
            return Ok(());
        }
        let problem = "its log is given free faster than it is copied; raise --log-retention";
        Err(BackupError::Unreachable {
            shard: shard.name.clone(),
            problem: problem.to_owned(),
        })
    }

    fn known(&self, shard: &Shard) -> Option<ShardBackup> {
        self.manifest().shard(shard.idx).cloned()
    }

    /// Nodes to copy from: best first, the primary last.
    async fn nodes(&self, shard: &Shard, at_least: Position) -> Vec<Address> {
        let mut nodes = Vec::new();
        if self.from == CopyFrom::Replicas {
            let replicas = self.source.replicas(shard, at_least).await;
            nodes.extend(replicas.into_iter().map(|able| able.address));
        }
        nodes.push(shard.primary.address.clone());
        nodes
    }

    /// Takes a new snapshot of a shard.
    async fn copy(&self, shard: &Shard) -> Result<(), BackupError> {
        let before = self.known(shard);
        let reached = before.as_ref().map_or(Position::ZERO, |known| known.last);
        let mut problems = Vec::new();
        for node in self.nodes(shard, reached).await {
            match self.copy_from(shard, &node, before.as_ref()).await? {
                Ok(()) => return Ok(()),
                Err(problem) => problems.push(format!("{node}: {problem}")),
            }
        }
        Err(BackupError::Unreachable {
            shard: shard.name.clone(),
            problem: problems.join("; "),
        })
    }

    /// The same from one node; the inner error is that node's.
    async fn copy_from(
        &self,
        shard: &Shard,
        node: &Address,
        before: Option<&ShardBackup>,
    ) -> Result<Result<(), String>, BackupError> {
        let mut file = self.dir.begin_snapshot(shard.idx)?;
        let arrived = self.receive(shard, node, &mut file).await;
        let copy = match arrived {
            Ok(Ok(copy)) => copy,
            failed => {
                file.discard();
                return failed.map(|inner| inner.map(drop));
            }
        };
        let header = &copy.header;
        if (&header.shard, &header.slots) != (&shard.name, &shard.slots_text()) {
            let problem = format!("it has shard {} with slots {}", header.shard, header.slots);
            file.discard();
            return Ok(Err(problem));
        }
        let history = header.history;
        if let Some(known) = before {
            if known.history != history {
                file.discard();
                return Err(foreign(
                    self.dir,
                    histories(&shard.name, known.history, Some(history)),
                ));
            }
            if copy.chain.end.position < known.last {
                file.discard();
                return Ok(Err(format!("its copy ends before {}", known.last)));
            }
        }
        let name = format!("snapshot-{}", header.start.position);
        let snapshot = self.dir.name_snapshot(shard.idx, file, &name)?;
        let known = taken(shard, &copy, snapshot);
        self.enter(known.clone())?;
        self.dir.remove_others(&known)?;
        (self.report)(Report::Copied {
            shard: &known,
            node,
        });
        Ok(Ok(()))
    }

    async fn receive(
        &self,
        shard: &Shard,
        node: &Address,
        file: &mut Writing,
    ) -> Result<Result<CheckedCopy, String>, BackupError> {
        let of_entries = self.source.entries(node).await;
        let mut body = match self.source.snapshot(node).await {
            Ok(body) => body,
            Err(problem) => return Ok(Err(problem)),
        };
        let mut check = CopyCheck::new();
        loop {
            let piece = match body.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(check.finish().map_err(|error| error.to_string())),
                Err(error) => return Ok(Err(error.to_string())),
            };
            if let Err(error) = check.push(&piece) {
                return Ok(Err(error.to_string()));
            }
            file.write(&piece)?;
            (self.report)(Report::Copying {
                shard: &shard.name,
                node,
                entries: check.entries(),
                of_entries,
                bytes: file.bytes(),
            });
        }
    }

    /// Adds the log since; `false` if it no longer reaches back. That nothing has happened is entered only where what
    /// stands there is so many milliseconds old.
    async fn catch_up(&self, shard: &Shard, enter_every_ms: u64) -> Result<bool, BackupError> {
        let Some(known) = self.known(shard) else {
            return Ok(true);
        };
        let mut adding = Adding::new(known);
        if self.from == CopyFrom::Replicas {
            let replicas = self.source.replicas(shard, adding.chain.end.position).await;
            for replica in replicas {
                // Whatever keeps a replica from it, the primary has the last word.
                if let Pulled::Frames { .. } = self.add_from(&mut adding, &replica.address).await? {
                    break;
                }
            }
        }
        let primary = &shard.primary.address;
        match self.add_from(&mut adding, primary).await? {
            Pulled::Frames { asked_at_ms, .. } => {
                if let Some(until_ms) = adding.complete_until(asked_at_ms, enter_every_ms) {
                    adding.known.complete_until_ms = until_ms;
                    self.enter(adding.known)?;
                }
                Ok(true)
            }
            Pulled::Truncated => Ok(false),
            Pulled::Parted(common) => Err(BackupError::Ahead {
                shard: shard.name.clone(),
                have: adding.known.last,
                common,
            }),
            Pulled::Foreign(history) => {
                let problem = histories(&shard.name, adding.known.history, history);
                Err(foreign(self.dir, problem))
            }
            Pulled::Failed(problem) => {
                let reached = adding.known.last;
                let problem = format!(
                    "the primary {primary} does not say whether there is more ({problem}); the backup reaches {reached}"
                );
                (self.report)(Report::Warning(format!("shard {}: {problem}", shard.name)));
                Ok(true)
            }
        }
    }

    /// Adds frames of one node until what was its end at first is there; gives the last answer.
    async fn add_from(&self, adding: &mut Adding, node: &Address) -> Result<Pulled, BackupError> {
        let mut goal = None;
        loop {
            let mut pulled = self
                .source
                .pull(node, adding.known.history, &adding.chain)
                .await;
            let Pulled::Frames {
                frames,
                durable,
                asked_at_ms,
            } = &mut pulled
            else {
                self.enter_added(adding)?;
                return Ok(pulled);
            };
            let (end, first_asked_ms) = *goal.get_or_insert((*durable, *asked_at_ms));
            *asked_at_ms = first_asked_ms;
            let is_dry = frames.is_empty();
            if let Err(problem) = adding.add(self.dir, frames)? {
                self.enter_added(adding)?;
                return Ok(Pulled::Failed(problem));
            }
            if adding.is_due() {
                self.enter_added(adding)?;
            }
            if adding.chain.end.position >= end || is_dry {
                self.enter_added(adding)?;
                return Ok(pulled);
            }
        }
    }

    /// Syncs what was added and enters it.
    fn enter_added(&self, adding: &mut Adding) -> Result<(), BackupError> {
        let bytes = adding.sync()?;
        if bytes == 0 {
            return Ok(());
        }
        self.enter(adding.known.clone())?;
        (self.report)(Report::Added {
            shard: &adding.known,
            bytes,
        });
        Ok(())
    }

    fn enter(&self, shard: ShardBackup) -> Result<(), BackupError> {
        let mut manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = manifest.clone();
        changed.set(shard);
        self.dir.put_manifest(&changed)?;
        *manifest = changed;
        Ok(())
    }
}

/// A shard of which a snapshot is there and no log yet.
fn taken(shard: &Shard, copy: &CheckedCopy, snapshot: FileEntry) -> ShardBackup {
    ShardBackup {
        idx: shard.idx,
        name: shard.name.clone(),
        slots: shard.slots_text(),
        history: copy.header.history,
        lineage: copy.chain.lineage.clone(),
        first: copy.chain.end.position,
        first_time_ms: copy.chain.time_ms,
        last: copy.chain.end.position,
        last_crc: copy.chain.end.crc,
        complete_until_ms: 0,
        entries: copy.entries,
        frames_at: copy.frames_at,
        snapshot,
        log: Vec::new(),
    }
}

fn histories(shard: &str, ours: u128, theirs: Option<u128>) -> String {
    let theirs = theirs.map_or("none".to_owned(), |theirs| format!("{theirs:032x}"));
    format!("its shard {shard} has history {ours:032x}, this cluster's has {theirs}")
}

fn foreign(dir: &BackupDir, problem: String) -> BackupError {
    BackupError::Foreign {
        dir: dir.path().to_owned(),
        problem,
    }
}
