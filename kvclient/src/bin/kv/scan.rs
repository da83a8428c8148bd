//! `kv scan`: the entries of all shards in key order.
//!
//! It has no gaps: where a shard cannot be read to its end, the command fails. Whenever it ends before the range does, it
//! says with which token to go on.

use std::pin::pin;

use futures_util::StreamExt;
use kvclient::{Client, Scan, ScannedEntry};

use crate::{
    args::ScanArgs,
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
    stop::stopped,
    text::KeyFormat,
};

/// Prints entries until the range or the limit is reached, or somebody says stop.
pub(crate) async fn scan(
    kv: &Client,
    args: &ScanArgs,
    keys: KeyFormat,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let mut scan = prepare(kv, args, keys)?;
    let mut stop = pin!(stopped());
    let mut printed = 0;
    let exit = loop {
        let next = tokio::select! {
            biased;
            told = &mut stop => break told.map(|()| Exit::Interrupted),
            next = scan.next() => next,
        };
        match next {
            None => return Ok(Exit::Done),
            Some(Err(error)) => break Err(error.into()),
            Some(Ok(entry)) => print(&entry, out)?,
        }
        printed += 1;
        if args.limit == Some(printed) {
            break Ok(Exit::Done);
        }
    };
    out.flush()?;
    if let Some(token) = scan.token().filter(|_| printed > 0) {
        out.note(&format!("go on with --after {token}"));
    }
    exit
}

fn prepare(kv: &Client, args: &ScanArgs, keys: KeyFormat) -> Result<Scan, Failure> {
    let key = |typed| keys.parse(typed).map_err(Failure::Usage);
    let mut scan = kv.scan(key(&args.prefix)?);
    if args.keys_only {
        scan = scan.keys_only();
    }
    if args.reverse {
        scan = scan.reverse();
    }
    if let Some(start) = &args.start {
        scan = scan.start(key(start)?);
    }
    if let Some(end) = &args.end {
        scan = scan.end(key(end)?);
    }
    if let Some(token) = &args.after {
        scan = scan.after(token);
    }
    Ok(match args.limit {
        Some(limit) => scan.limit(usize::try_from(limit).unwrap_or(usize::MAX)),
        None => scan,
    })
}

fn print(entry: &ScannedEntry, out: &mut Out) -> Result<(), Failure> {
    let key = entry.key.as_bytes();
    match (out.format, &entry.value) {
        (Format::Text, Some(value)) => out.columns(&[key, value]),
        (Format::Text, None) => out.columns(&[key]),
        (Format::Json, value) => out.json(|line| {
            let line = line.bytes("key", key);
            let line = match value {
                Some(value) => line.bytes("value", value),
                None => line,
            };
            line.field("position", entry.position.to_string())
                .optional("ttl_ms", entry.ttl.map(|ttl| ttl.as_millis()))
        }),
    }
}
