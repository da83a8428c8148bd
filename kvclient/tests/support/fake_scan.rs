//! Scans of a scripted node: the entries of a shard, answered as a node would, and cut up as a test wants.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvclient::{
    Key, Position, ShardMap,
    slot::Slot,
    wire::{
        error::ErrorCode,
        header,
        scan::{ScanEnd, ScanEntry, after_key, encode_start, parse_after},
    },
};

use super::fake_node::{Part, Request, StreamReply};

/// A shard's entries; each has the position of its place in the order of keys.
#[derive(Debug, Clone)]
pub(crate) struct FakeShard {
    entries: BTreeMap<Vec<u8>, (Vec<u8>, Position)>,
    pub(crate) name: String,
    shards: u32,
    /// Most entries a page has, however many are asked for.
    pub(crate) page: usize,
    /// What end lines say.
    pub(crate) position: Position,
}

impl FakeShard {
    /// Those of the entries that a map gives to a shard.
    pub(crate) fn of(map: &ShardMap, shard: usize, entries: &BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        let is_here = |key: &[u8]| {
            let key = Key::copy_from(key).unwrap();
            map.shard_number(Slot::of(&key)) == shard
        };
        let here = entries.iter().filter(|(key, _)| is_here(key));
        let numbered = here
            .zip(1..)
            .map(|((key, value), seq)| (key.clone(), (value.clone(), Position::new(1, seq))));
        let entries: BTreeMap<_, _> = numbered.collect();
        Self {
            position: Position::new(1, 1_000 + entries.len() as u64),
            entries,
            name: map.shards()[shard].name.clone(),
            shards: u32::try_from(map.shards().len()).unwrap(),
            page: usize::MAX,
        }
    }

    /// The whole answer to a scan, each entry by itself, the end last.
    pub(crate) fn items(&self, request: &Request) -> Vec<Vec<u8>> {
        let query = request.query();
        let bound = |name| query.bytes(name).filter(|key| !key.is_empty());
        let text = |name| {
            query
                .bytes(name)
                .map(|text| String::from_utf8(text.to_vec()).unwrap())
        };
        let (prefix, start, end) = (bound("prefix"), bound("start"), bound("end"));
        let reverse = query.flag("reverse").unwrap();
        let keys_only = query.flag("keys_only").unwrap();
        let after = text("after").map(|after| parse_after(&after).unwrap());
        let limit: usize = text("limit").unwrap().parse().unwrap();
        assert!((1..=100_000).contains(&limit), "{}", request.uri);
        let mut wanted: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, _)| prefix.is_none_or(|prefix| key.starts_with(prefix)))
            .filter(|(key, _)| start.is_none_or(|start| key.as_slice() >= start))
            .filter(|(key, _)| end.is_none_or(|end| key.as_slice() < end))
            .filter(|(key, _)| match &after {
                Some(after) if reverse => key.as_slice() < after.as_bytes(),
                Some(after) => key.as_slice() > after.as_bytes(),
                None => true,
            })
            .collect();
        if reverse {
            wanted.reverse();
        }
        let count = wanted.len().min(limit).min(self.page);
        let next = (count < wanted.len()).then(|| after_key(wanted[count - 1].0));
        wanted.truncate(count);
        let mut items: Vec<Vec<u8>> = wanted
            .into_iter()
            .map(|(key, (value, position))| {
                let mut item = Vec::new();
                let entry = ScanEntry {
                    key: Key::copy_from(key).unwrap(),
                    value: (!keys_only).then(|| Bytes::copy_from_slice(value)),
                    position: *position,
                    ttl_ms: None,
                };
                entry.encode(&mut item);
                item
            })
            .collect();
        let mut end = Vec::new();
        let line = ScanEnd {
            next,
            shard: self.name.clone(),
            shards: self.shards,
            position: self.position,
        };
        line.encode(&mut end);
        items.push(end);
        let mut start = Vec::new();
        encode_start(&mut start);
        items[0].splice(0..0, start);
        items
    }

    /// Answers with these parts.
    pub(crate) fn reply(&self, parts: Vec<Part>) -> StreamReply {
        StreamReply::Stream(vec![(header::SHARD, self.name.clone())], parts)
    }

    /// Answers as a node would.
    pub(crate) fn answer(&self, request: &Request) -> StreamReply {
        self.reply(vec![Part::Bytes(self.items(request).concat())])
    }

    /// Answers with the first items only, then breaks.
    pub(crate) fn break_after(&self, request: &Request, items: usize) -> StreamReply {
        let mut all = self.items(request);
        all.truncate(items);
        self.reply(vec![Part::Bytes(all.concat()), Part::Cut])
    }
}

/// The refusal of a whole request.
pub(crate) fn refusal(code: ErrorCode) -> StreamReply {
    let body = format!(
        "{{\"error\":\"{}\",\"message\":\"as the script says\"}}",
        code.as_str()
    );
    StreamReply::Http(code.status(), body)
}
