//! `kv export` and `kv import`: entries as lines of JSON, to look into, to change, and to take elsewhere.
//!
//! An export is a scan: no gaps, but no one moment either. What has to be exact is a backup.

pub(crate) mod args;
mod entry;
mod read;

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::Path,
    pin::pin,
    time::Duration,
};

use futures_util::{StreamExt, future::join_all};
use kvclient::{Client, ErrorKind, PutOptions, ScannedEntry};
use tokio::task::spawn_blocking;

use self::{
    args::{ExportArgs, ImportArgs, OnConflict},
    entry::LineEntry,
    read::{Lines, Numbered, ms, now_ms},
};
use crate::{
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
    stop::stopped,
    text::KeyFormat,
};

/// Writes all entries as lines.
pub(crate) async fn export(
    kv: &Client,
    args: &ExportArgs,
    keys: KeyFormat,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let mut scan = kv.scan(keys.parse(&args.prefix).map_err(Failure::Usage)?);
    let mut sink = Sink::open(args.file.as_deref())?;
    let mut stop = pin!(stopped());
    let mut entries = 0_u64;
    let mut line = Vec::new();
    loop {
        let next = tokio::select! {
            biased;
            told = &mut stop => {
                told?;
                sink.finish(out)?;
                out.note(&format!("stopped behind {entries} entries; what is written is not all"));
                return Ok(Exit::Interrupted);
            }
            next = scan.next() => next,
        };
        let Some(scanned) = next.transpose()? else {
            break;
        };
        line.clear();
        line_entry(scanned).write(&mut line);
        sink.write(&line, out)?;
        entries += 1;
    }
    sink.finish(out)?;
    out.note(&format!("{entries} entries"));
    Ok(Exit::Done)
}

fn line_entry(scanned: ScannedEntry) -> LineEntry {
    LineEntry {
        key: scanned.key.as_bytes().to_vec(),
        value: scanned.value.unwrap_or_default().to_vec(),
        expires_at_ms: scanned.ttl.map(|ttl| now_ms().saturating_add(ms(ttl))),
    }
}

/// Where lines go.
enum Sink<'a> {
    Out,
    File(Box<BufWriter<File>>, &'a Path),
}

impl<'a> Sink<'a> {
    fn open(path: Option<&'a Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::Out);
        };
        let file = File::create_new(path).map_err(|error| Failure::file(path, &error))?;
        Ok(Self::File(Box::new(BufWriter::new(file)), path))
    }

    fn write(&mut self, line: &[u8], out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::Out => out.text(&String::from_utf8_lossy(line)),
            Self::File(file, path) => {
                let written = file.write_all(line);
                written.map_err(|error| cannot_write(path, &error))
            }
        }
    }

    fn finish(&mut self, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::Out => out.flush(),
            Self::File(file, path) => {
                let synced = file.flush().and_then(|()| file.get_ref().sync_all());
                synced.map_err(|error| cannot_write(path, &error))
            }
        }
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Local(format!("cannot write {}: {error}", path.display()))
}

/// What became of the lines of an import.
#[derive(Debug, Default)]
struct Counts {
    stored: u64,
    skipped: u64,
    expired: u64,
}

/// Stores the entries of lines.
pub(crate) async fn import(kv: &Client, args: &ImportArgs, out: &mut Out) -> Result<Exit, Failure> {
    let path = args.file.as_deref().filter(|path| *path != Path::new("-"));
    let name = path.map_or("standard input".to_owned(), |path| {
        path.display().to_string()
    });
    let input: Box<dyn Read + Send> = match path {
        Some(path) => Box::new(File::open(path).map_err(|error| Failure::file(path, &error))?),
        None => Box::new(std::io::stdin()),
    };
    let mut lines = Lines::new(input);
    let mut counts = Counts::default();
    let mut stop = pin!(stopped());
    let ended = loop {
        // Whoever types the lines may take their time.
        let reading = spawn_blocking(move || {
            let window = lines.window();
            (lines, window)
        });
        let read = tokio::select! {
            biased;
            told = &mut stop => break told.map(|()| Exit::Interrupted),
            read = reading => read,
        };
        let (rest, (window, ended)) = read.map_err(|error| Failure::Local(error.to_string()))?;
        lines = rest;
        let is_last = window.is_empty() || ended.is_err();
        // What stands before a bad line is stored: its number says where to go on.
        let stored = tokio::select! {
            biased;
            told = &mut stop => break told.map(|()| Exit::Interrupted),
            stored = store(kv, window, args.on_conflict, &mut counts) => stored,
        };
        if let Err((line, failure)) = stored {
            out.note(&format!("{name}: line {line} could not be stored"));
            break Err(failure);
        }
        if is_last {
            break ended.map(|()| Exit::Done).map_err(|problem| {
                Failure::Usage(format!("{name}: {problem}; the lines before it are stored"))
            });
        }
    };
    print(&counts, out)?;
    if matches!(ended, Ok(Exit::Interrupted)) {
        out.note(
            "stopped; lines behind those may be stored too, and storing them again does no harm",
        );
    }
    ended
}

async fn store(
    kv: &Client,
    window: Vec<Numbered>,
    on_conflict: OnConflict,
    counts: &mut Counts,
) -> Result<(), (u64, Failure)> {
    let now_ms = now_ms();
    let is_over = |entry: &LineEntry| entry.expires_at_ms.is_some_and(|at| at <= now_ms);
    let puts = window.into_iter().map(async |(number, entry)| {
        if is_over(&entry) {
            return (number, Ok(Became::Expired));
        }
        let mut options = PutOptions::new();
        if let Some(at) = entry.expires_at_ms {
            options = options.ttl(Duration::from_millis(at - now_ms));
        }
        if on_conflict == OnConflict::Skip {
            options = options.if_absent();
        }
        let became = match kv.put_with(&entry.key, entry.value, options).await {
            Ok(_) => Ok(Became::Stored),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(Became::Skipped),
            Err(error) => Err(error),
        };
        (number, became)
    });
    let mut first = Ok(());
    for (number, became) in join_all(puts).await {
        match became {
            Ok(Became::Stored) => counts.stored += 1,
            Ok(Became::Skipped) => counts.skipped += 1,
            Ok(Became::Expired) => counts.expired += 1,
            Err(error) if first.is_ok() => first = Err((number, error.into())),
            Err(_) => {}
        }
    }
    first
}

/// What became of a line.
enum Became {
    Stored,
    Skipped,
    Expired,
}

fn print(counts: &Counts, out: &mut Out) -> Result<(), Failure> {
    let Counts {
        stored,
        skipped,
        expired,
    } = counts;
    match out.format {
        Format::Text => {
            out.note(&format!(
                "{stored} stored, {skipped} skipped since they were there, {expired} left out because their time is over"
            ));
            Ok(())
        }
        Format::Json => out.json(|line| {
            line.field("stored", stored)
                .field("skipped", skipped)
                .field("expired", expired)
        }),
    }
}
