//! `kv watch`: changes as they happen.
//!
//! Every change is passed on at once. When the watch listens to all shards it says so on standard error, with the token
//! of that moment, and when it ends, with the token to go on with: so even one that is killed can be resumed without a
//! gap, at the price of changes that come again.

use std::{
    pin::pin,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt;
use kvclient::{Change, Client, Event, Watch, wire::line::Line};

use crate::{
    args::{From, WatchArgs},
    connect::Connected,
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
    stop::stopped,
    text::KeyFormat,
};

/// Prints changes until enough are printed, or somebody says stop.
pub(crate) async fn watch(
    connected: &Connected,
    args: &WatchArgs,
    keys: KeyFormat,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let prefix = keys.parse(&args.prefix).map_err(Failure::Usage)?;
    let mut watch = prepare(&connected.kv, &prefix, &args.from);
    if let Some(timeout) = connected.timeout {
        watch = watch.timeout(timeout);
    }
    let mut stop = pin!(stopped());
    tokio::select! {
        biased;
        told = &mut stop => return told.map(|()| Exit::Done),
        ready = watch.ready() => ready?,
    }
    out.note(&format!("watching from {}", watch.position()));
    let mut printed = 0;
    let exit = loop {
        let next = tokio::select! {
            biased;
            told = &mut stop => break told.map(|()| Exit::Done),
            next = watch.next() => next,
        };
        match next {
            None => break Ok(Exit::Done),
            Some(Err(error)) => break Err(error.into()),
            Some(Ok(event)) => print(&event, &watch, out)?,
        }
        printed += 1;
        if args.count == Some(printed) {
            break Ok(Exit::Done);
        }
    };
    out.note(&format!("go on with --from {}", watch.position()));
    exit
}

fn prepare(kv: &Client, prefix: &[u8], from: &From) -> Watch {
    let watch = kv.watch(prefix);
    match from {
        From::Now => watch.from_now(),
        From::Start => watch.from_start(),
        From::Earliest => watch.from_earliest(),
        From::Behind(session) => watch.from(session.clone()),
    }
}

fn print(event: &Event, watch: &Watch, out: &mut Out) -> Result<(), Failure> {
    match out.format {
        Format::Text => print_text(event, out)?,
        Format::Json => out.json(|line| {
            let line = line.field("change", name(&event.change));
            fields(line.bytes("key", event.key.as_bytes()), &event.change)
                .field("time_ms", unix_ms(event.time))
                .field("shard", &*event.shard)
                .field("position", event.position.to_string())
                .field("token", watch.position().to_token())
        })?,
    }
    out.flush()
}

fn print_text(event: &Event, out: &mut Out) -> Result<(), Failure> {
    let mut line = columns(&event.change);
    line.insert(1, event.key.as_bytes().to_vec());
    let line: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
    out.columns(&line)
}

/// A change as columns: its name, then its value or when it expires.
pub(crate) fn columns(change: &Change) -> Vec<Vec<u8>> {
    let name = name(change).as_bytes().to_vec();
    match change {
        Change::Put { value, .. } => vec![name, value.to_vec()],
        Change::Delete { by_expiry: true } => vec![name, b"expired".to_vec()],
        Change::Delete { by_expiry: false } => vec![name],
        Change::Expire { expires_at } => {
            let at = expires_at.map_or("never".to_owned(), |at| unix_ms(at).to_string());
            vec![name, at.into_bytes()]
        }
    }
}

/// `put`, `delete` or `expire`.
pub(crate) fn name(change: &Change) -> &'static str {
    match change {
        Change::Put { .. } => "put",
        Change::Delete { .. } => "delete",
        Change::Expire { .. } => "expire",
    }
}

/// The fields that only this kind of change has.
pub(crate) fn fields<'a>(line: Line<'a>, change: &Change) -> Line<'a> {
    match change {
        Change::Put { value, expires_at } => line
            .bytes("value", value)
            .optional("expires_at_ms", expires_at.map(unix_ms)),
        Change::Delete { by_expiry } => line.field("by_expiry", by_expiry),
        Change::Expire { expires_at } => line.field("expires_at_ms", expires_at.map(unix_ms)),
    }
}

pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
