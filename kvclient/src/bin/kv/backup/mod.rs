//! `kv backup` and `kv restore`: what [`kvclient::backup`] does, told to a person.
//!
//! Ctrl-C ends both at any moment: what is written stays whole, and the same command goes on where it was.

pub(crate) mod args;
mod progress;

use std::{path::Path, pin::pin, time::Duration};

use kvclient::{
    Client,
    backup::{
        self, BackupDir, BackupError, IntoNonEmpty, Manifest, Puller, Report, RestoreOptions,
        RestoreReport, ShardBackup, Summary, Until, time_text,
    },
};

use self::{
    args::{BackupArgs, RestoreArgs},
    progress::{Growth, Teller, size},
};
use crate::{
    connect::Connected,
    exit::Exit,
    failure::Failure,
    nodes_say::Asker,
    out::{Format, Out},
    stop::stopped,
};

/// How often a backup that follows asks for the map: seldom enough to cost nothing, soon enough after a failover.
const LOOK_FOR_MAP_EVERY: Duration = Duration::from_secs(5);

/// Copies the cluster, once or for ever.
pub(crate) async fn back_up(
    connected: &Connected,
    args: &BackupArgs,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let dir = BackupDir::create(&args.dir)?;
    let asker = Asker::new(connected)?;
    let teller = Teller::new();
    let mut stop = pin!(stopped());
    let exit = tokio::select! {
        biased;
        told = &mut stop => told.map(|()| Exit::Interrupted)?,
        pulled = pull(connected, &dir, &asker, args, &teller) => pulled.map(|()| Exit::Done)?,
    };
    let manifest = dir.manifest()?.filter(Manifest::is_whole);
    let Some(manifest) = manifest else {
        teller.say("stopped before it was whole; run the same command again to complete it");
        return Ok(exit);
    };
    print(&manifest, out)?;
    match (exit, args.follow) {
        // A primary was silent: what only it has is missing.
        (Exit::Done, _) | (Exit::Interrupted, true) if teller.has_warned() => Ok(Exit::No),
        // Following ends no other way.
        (Exit::Interrupted, true) => Ok(Exit::Done),
        _ => Ok(exit),
    }
}

/// Brings the backup up to date, and follows if that is wanted: by whatever map is in force then.
async fn pull(
    connected: &Connected,
    dir: &BackupDir,
    asker: &Asker,
    args: &BackupArgs,
    teller: &Teller,
) -> Result<(), Failure> {
    let report = |report: Report<'_>| tell(teller, report);
    // The nodes' map wins, if any of them answers; else nobody will be found in a moment.
    let _ = connected.kv.refresh().await;
    let map = connected.kv.map();
    let from = args.from.into();
    let puller = Puller::new(dir, asker.client().clone(), &map, from, &report)?;
    puller.run().await?;
    if !args.follow {
        return Ok(());
    }
    teller.say("up to date; following until Ctrl-C");
    loop {
        let map = connected.kv.map();
        let puller = Puller::new(dir, asker.client().clone(), &map, from, &report)?;
        tokio::select! {
            error = puller.follow() => return Err(error.into()),
            () = another_map(&connected.kv, map.identity()) => teller.say("going by a newer map"),
        }
    }
}

/// Waits until the nodes go by another map, say because a replica was promoted.
async fn another_map(kv: &Client, identity: &str) {
    while kv.map().identity() == identity {
        tokio::time::sleep(LOOK_FOR_MAP_EVERY).await;
        // Nobody answers: the map stays.
        let _ = kv.refresh().await;
    }
}

/// Checks a backup; asks nobody.
pub(crate) fn verify(args: &BackupArgs, out: &mut Out) -> Result<Exit, Failure> {
    let dir = BackupDir::open(&args.dir)?;
    let manifest = dir.whole_manifest()?;
    let verified = backup::verify(&dir, &manifest)?;
    print(&manifest, out)?;
    out.note(&format!(
        "all {} of it are sound; its snapshots have {} entries",
        size(verified.bytes as f64),
        verified.entries
    ));
    Ok(Exit::Done)
}

/// Writes a backup into the cluster.
pub(crate) async fn restore(
    connected: &Connected,
    args: &RestoreArgs,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let dir = BackupDir::open(&args.dir)?;
    let asker = Asker::new(connected)?;
    let options = options(args);
    let teller = Teller::new();
    let report = |report: RestoreReport<'_>| tell_restore(&teller, report);
    let mut stop = pin!(stopped());
    let restoring = backup::restore(&connected.kv, asker.client(), &dir, &options, &report);
    let done = tokio::select! {
        biased;
        told = &mut stop => {
            told?;
            teller.say("stopped; part of the entries is written, run the same command again to go on");
            return Ok(Exit::Interrupted);
        }
        restored = restoring => restored.map_err(|error| hinted(error, args))?,
    };
    print_restored(&done, out)?;
    Ok(Exit::Done)
}

fn options(args: &RestoreArgs) -> RestoreOptions {
    let positions = args.to_position.iter();
    RestoreOptions {
        until: positions
            .map(|(shard, at)| (shard.clone(), Until::Position(*at)))
            .collect(),
        others: args.to_time.map_or(Until::End, Until::TimeMs),
        into_non_empty: match args.into_non_empty {
            true => IntoNonEmpty::Allow,
            false => IntoNonEmpty::Refuse,
        },
        progress: match &args.progress {
            Some(path) => path.clone(),
            None => args.dir.join("restore.progress"),
        },
    }
}

/// Names the flag that helps where the directory of the backup cannot be written.
fn hinted(error: BackupError, args: &RestoreArgs) -> Failure {
    let is_progress = |path: &Path| path.starts_with(&args.dir) && args.progress.is_none();
    match &error {
        BackupError::File { what, path, .. } if is_progress(path) && *what == "write" => {
            Failure::Local(format!(
                "{error}; --progress FILE notes elsewhere how far it has come"
            ))
        }
        _ => error.into(),
    }
}

fn tell(teller: &Teller, report: Report<'_>) {
    match report {
        Report::Copying {
            shard,
            node,
            entries,
            of_entries,
            bytes,
        } => teller.grown(&Growth {
            what: &format!("shard {shard} from {node}"),
            entries,
            of_entries,
            bytes,
        }),
        Report::Copied { shard, node } => teller.say(&format!(
            "shard {}: snapshot of {} entries at {} from {node}, {}",
            shard.name,
            shard.entries,
            shard.first,
            size(shard.snapshot.bytes as f64)
        )),
        Report::Added { .. } => {}
        Report::Warning(text) => teller.warn(text),
        _ => {}
    }
}

fn tell_restore(teller: &Teller, report: RestoreReport<'_>) {
    match report {
        RestoreReport::Verified { entries, bytes } => teller.say(&format!(
            "the backup is sound: {entries} entries and the log behind them, {}",
            size(bytes as f64)
        )),
        RestoreReport::Resumed { entries } => {
            teller.say(&format!(
                "going on behind {entries} entries that are written"
            ));
        }
        RestoreReport::Written {
            shard,
            entries,
            of_entries,
            bytes,
        } => teller.grown(&Growth {
            what: &format!("restoring shard {shard}"),
            entries,
            of_entries,
            bytes,
        }),
        _ => {}
    }
}

fn print(manifest: &Manifest, out: &mut Out) -> Result<(), Failure> {
    for shard in &manifest.shards {
        let bytes: u64 = shard.files().map(|file| file.bytes).sum();
        let (first, last) = (shard.first.to_string(), shard.last.to_string());
        let complete = complete(shard);
        match out.format {
            Format::Text => {
                let complete = complete.unwrap_or_else(|| "-".to_owned());
                let columns = [&shard.name, &first, &last, &complete, &bytes.to_string()];
                out.columns(&columns.map(|column| column.as_bytes()))?;
            }
            Format::Json => out.json(|line| {
                line.field("shard", &shard.name)
                    .field("first", first)
                    .field("first_time", time_text(shard.first_time_ms))
                    .field("last", last)
                    .optional("complete_until", complete)
                    .field("bytes", bytes)
            })?,
        }
    }
    Ok(())
}

/// Up to when it has everything, if a primary has said so.
fn complete(shard: &ShardBackup) -> Option<String> {
    (shard.complete_until_ms > 0).then(|| time_text(shard.complete_until_ms))
}

fn print_restored(done: &Summary, out: &mut Out) -> Result<(), Failure> {
    if out.format == Format::Json {
        return out.json(|line| {
            line.field("entries", done.entries)
                .field("expired", done.expired)
        });
    }
    for (shard, at) in &done.reached {
        out.columns(&[shard.as_bytes(), at.to_string().as_bytes()])?;
    }
    out.note(&format!(
        "{} entries written, {} left out because their time is over",
        done.entries, done.expired
    ));
    Ok(())
}
