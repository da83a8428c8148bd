//! Commands on single entries: get, put, delete, incr, touch, persist.

use std::{
    ffi::OsStr,
    fs::File,
    io::{IsTerminal, Read},
};

use kvclient::{
    Client, DeleteOptions, Entry, GetOptions, PutOptions, Written, wire::MAX_VALUE_BYTES_CEILING,
};

use crate::{
    args::{DeleteArgs, PutArgs},
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
    text::{bytes_of, escaped},
};

/// Prints values: one as it is, several with their keys.
pub(crate) async fn get(kv: &Client, keys: &[Vec<u8>], out: &mut Out) -> Result<Exit, Failure> {
    let entries = kv.get_many_with(keys, GetOptions::new()).await;
    let mut exit = Exit::Done;
    for (key, entry) in keys.iter().zip(entries) {
        exit = exit.and(match entry {
            Ok(Some(entry)) => found(key, &entry, keys.len() == 1, out)?,
            Ok(None) => absent(key, out)?,
            Err(error) => failed(error, out),
        });
    }
    Ok(exit)
}

fn found(key: &[u8], entry: &Entry, is_alone: bool, out: &mut Out) -> Result<Exit, Failure> {
    let ttl_ms = entry.ttl.map(|ttl| ttl.as_millis());
    match out.format {
        Format::Text if is_alone => out.raw(&entry.value)?,
        Format::Text => out.columns(&[key, &entry.value])?,
        Format::Json => out.json(|line| {
            line.bytes("key", key)
                .bytes("value", &entry.value)
                .field("position", entry.position.to_string())
                .optional("ttl_ms", ttl_ms)
        })?,
    }
    Ok(Exit::Done)
}

/// Stores one value.
pub(crate) async fn put(
    kv: &Client,
    key: &[u8],
    args: &PutArgs,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let mut options = PutOptions::new();
    if let Some(ttl) = args.ttl {
        options = options.ttl(ttl);
    }
    if args.if_absent {
        options = options.if_absent();
    }
    if args.if_exists {
        options = options.if_exists();
    }
    if let Some(position) = args.if_match {
        options = options.if_match(position);
    }
    let value = value(args, out)?;
    let written = kv.put_with(key, value, options).await?;
    changed(key, Some(written), true, out)
}

fn value(args: &PutArgs, out: &mut Out) -> Result<Vec<u8>, Failure> {
    if let Some(path) = args.file.as_deref().filter(|path| *path != "-") {
        let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
        return read_all(file)
            .map_err(|problem| Failure::Usage(format!("{}: {problem}", path.display())));
    }
    match args
        .value
        .as_deref()
        .filter(|value| *value != OsStr::new("-"))
    {
        Some(value) => bytes_of(value).map_err(Failure::Usage),
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                out.note(
                    "reading the value from the terminal; Ctrl-D at the start of a line ends it",
                );
            }
            read_all(stdin).map_err(|problem| Failure::Usage(format!("standard input: {problem}")))
        }
    }
}

/// Reads no more than any node takes.
fn read_all(source: impl Read) -> Result<Vec<u8>, String> {
    let mut value = Vec::new();
    let limit_bytes = MAX_VALUE_BYTES_CEILING as u64;
    let read = source.take(limit_bytes + 1).read_to_end(&mut value);
    read.map_err(|error| error.to_string())?;
    match value.len() <= MAX_VALUE_BYTES_CEILING {
        true => Ok(value),
        false => Err(format!("a value has at most {} MiB", limit_bytes >> 20)),
    }
}

/// Removes keys.
pub(crate) async fn delete(
    kv: &Client,
    keys: &[Vec<u8>],
    args: &DeleteArgs,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let mut options = DeleteOptions::new();
    if let Some(position) = args.if_match {
        if keys.len() > 1 {
            return Err(Failure::Usage("--if-match is for one key".to_owned()));
        }
        options = options.if_match(position);
    }
    let removed = kv.delete_many_with(keys, options).await;
    let mut exit = Exit::Done;
    for (key, removed) in keys.iter().zip(removed) {
        exit = exit.and(match removed {
            Ok(written) => changed(key, written, keys.len() == 1, out)?,
            Err(error) => failed(error, out),
        });
    }
    Ok(exit)
}

/// Adds to a counter.
pub(crate) async fn incr(kv: &Client, key: &[u8], by: i64, out: &mut Out) -> Result<Exit, Failure> {
    let value = kv.incr(key, by).await?;
    match out.format {
        Format::Text => out.text(&format!("{value}\n"))?,
        Format::Json => out.json(|line| line.bytes("key", key).field("value", value))?,
    }
    Ok(Exit::Done)
}

/// Says of an entry whose expiry was to change whether it was there.
pub(crate) fn was_there(key: &[u8], was_there: bool, out: &mut Out) -> Result<Exit, Failure> {
    if !was_there {
        return absent(key, out);
    }
    if out.format == Format::Json {
        out.json(|line| line.bytes("key", key))?;
    }
    Ok(Exit::Done)
}

/// A write that took place, or found nothing.
fn changed(
    key: &[u8],
    written: Option<Written>,
    is_alone: bool,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let Some(Written { position }) = written else {
        return absent(key, out);
    };
    let position = position.to_string();
    match out.format {
        Format::Text if is_alone => out.columns(&[position.as_bytes()])?,
        Format::Text => out.columns(&[key, position.as_bytes()])?,
        Format::Json => out.json(|line| line.bytes("key", key).field("position", position))?,
    }
    Ok(Exit::Done)
}

fn absent(key: &[u8], out: &mut Out) -> Result<Exit, Failure> {
    match out.format {
        Format::Text => out.note(&format!("absent: {}", escaped(key))),
        Format::Json => out.json(|line| line.bytes("key", key).field("absent", true))?,
    }
    Ok(Exit::No)
}

fn failed(error: kvclient::Error, out: &mut Out) -> Exit {
    let failure = Failure::from(error);
    out.failed(&failure);
    failure.exit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_whole_or_not_at_all() {
        assert_eq!(read_all(&b""[..]), Ok(Vec::new()));
        let largest = std::io::repeat(7).take(MAX_VALUE_BYTES_CEILING as u64);
        assert_eq!(
            read_all(largest).map(|value| value.len()),
            Ok(MAX_VALUE_BYTES_CEILING)
        );
        let error = read_all(std::io::repeat(7)).expect_err("endless");
        assert_eq!(error, "a value has at most 16 MiB");
    }
}
