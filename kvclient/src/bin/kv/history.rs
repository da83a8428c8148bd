//! `kv history`: what a key was, as far back as the log of its shard goes.

use futures_util::TryStreamExt;
use kvclient::{Client, Consistency, Position, Session, rfc3339};

use crate::{
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
    watch::{columns, fields, name, unix_ms},
};

/// Prints every change of a key that is still in the log, the oldest first.
pub(crate) async fn history(kv: &Client, key: &[u8], out: &mut Out) -> Result<Exit, Failure> {
    let mut past = kv
        .watch(key)
        .from_earliest()
        .until_level()
        .consistency(Consistency::Primary);
    past.ready().await?;
    let begin = past.position();
    let mut reaches_back = None;
    while let Some(event) = past.try_next().await? {
        // Keys that begin with this one are told, too.
        if event.key.as_bytes() != key {
            continue;
        }
        reaches_back.get_or_insert_with(|| begins_at(&begin, event.shard_idx));
        let position = event.position.to_string();
        match out.format {
            Format::Text => {
                let time = rfc3339::format_ms(event.time);
                let mut line = vec![position.into_bytes(), time.into_bytes()];
                line.extend(columns(&event.change));
                let line: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
                out.columns(&line)?;
            }
            Format::Json => out.json(|line| {
                let line = line.field("position", position);
                let line = line.field("change", name(&event.change)).bytes("key", key);
                fields(line, &event.change)
                    .field("time_ms", unix_ms(event.time))
                    .field("shard", &*event.shard)
            })?,
        }
    }
    Ok(match reaches_back {
        None => {
            out.note("no change of this key is in the log any more, or it was never there");
            Exit::No
        }
        Some(Position { seq: 0, .. }) => Exit::Done,
        Some(begin) => {
            out.note(&format!("what was before {begin} is no longer in the log"));
            Exit::Done
        }
    })
}

/// What the oldest record of a shard's log follows.
pub(crate) fn begins_at(begin: &Session, shard_idx: u16) -> Position {
    begin.position(shard_idx).unwrap_or_default()
}
