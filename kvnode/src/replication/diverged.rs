//! Keeps what a replica has and its primary has not, before anything else is done about it.
//!
//! One NDJSON line a record, keys and values as text or base64, in `diverged/<history>-<from>-<to>.ndjson`, synced.
//! Nothing is truncated: the log stays as it is until a person orders `--rejoin`.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use kvclient::{
    position::{Position, Seq},
    wire::log::{Effect, Frame, Record},
};

use crate::{json::bytes_field, log::ReadFrames, storage::Storage};

/// Bytes of frames read at once.
const READ_BYTES: usize = 1 << 20;

/// The file that keeps the tail of this very log, if one was saved before.
pub fn saved_tail(dir: &Path, storage: &Storage) -> Option<PathBuf> {
    let begins = format!("{:032x}-", storage.history);
    let ends = format!("-{}.ndjson", storage.log.durable().seq);
    let files = std::fs::read_dir(dir).ok()?.flatten();
    files.map(|file| file.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&begins) && name.ends_with(&ends))
    })
}

/// Writes the records after seq `common` to a file in `dir`, and names it. A file that is there already is whole.
///
/// # Errors
/// The tail is not saved; it is still in the log.
pub fn save_tail(dir: &Path, storage: &Storage, common: Seq) -> std::io::Result<PathBuf> {
    let from = common.max(storage.log.truncated()) + 1;
    let to = storage.log.durable();
    let path = dir.join(format!("{:032x}-{from}-{}.ndjson", storage.history, to.seq));
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(dir)?;
    File::open(dir.join(".."))?.sync_all()?;
    let unfinished = path.with_extension("unfinished");
    let mut out = BufWriter::new(File::create(&unfinished)?);
    let mut read = from - 1;
    while read < to.seq {
        let mut frames = match storage
            .log
            .read_after(read, READ_BYTES)
            .map_err(std::io::Error::other)?
        {
            ReadFrames::Frames(frames) => frames,
            ReadFrames::UpToDate => break,
            ReadFrames::Truncated => {
                return Err(std::io::Error::other("the log was given free under it"));
            }
        };
        while !frames.is_empty() {
            read = write_frame(&mut out, &mut frames, from)?;
        }
    }
    out.into_inner()
        .map_err(|error| error.into_error())?
        .sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(path)
}

fn write_frame(out: &mut impl Write, frames: &mut Bytes, from: Seq) -> std::io::Result<Seq> {
    let frame = Frame::split_from(frames).map_err(std::io::Error::other)?;
    for (position, record) in frame.records().map_err(std::io::Error::other)? {
        if position.seq >= from {
            writeln!(out, "{}", line(position, frame.header.time_ms, &record))?;
        }
    }
    Ok(frame.header.last_seq())
}

fn line(position: Position, time_ms: u64, record: &Record) -> serde_json::Value {
    let mut line = serde_json::Map::new();
    line.insert("position".into(), position.to_string().into());
    line.insert("time_ms".into(), time_ms.into());
    let (name, key) = bytes_field("key", &record.key);
    line.insert(name, key);
    let kind = match &record.effect {
        Effect::Put {
            value,
            expires_at_ms,
        } => {
            let (name, value) = bytes_field("value", value);
            line.insert(name, value);
            line.insert("expires_at_ms".into(), (*expires_at_ms).into());
            "put"
        }
        Effect::Delete { by_expiry } => {
            line.insert("by_expiry".into(), (*by_expiry).into());
            "delete"
        }
        Effect::Expire { expires_at_ms } => {
            line.insert("expires_at_ms".into(), (*expires_at_ms).into());
            "expire"
        }
        Effect::EpochStart { reign_id, node } => {
            line.insert("reign_id".into(), format!("{reign_id:016x}").into());
            line.insert("node".into(), node.as_str().into());
            "epoch_start"
        }
    };
    line.insert("kind".into(), kind.into());
    line.into()
}
