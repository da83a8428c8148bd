//! `sharding.toml` -> [`ShardMap`]: strict, and every mistake is named with its place and how to mend it.
//!
//! Read by nodes at start and by clients as the seed of their map; both stop on the first mistake. The format is
//! described in the comments of the `sharding.toml` that ships at the top of the tree.
//! What only a whole map can get wrong (gaps, overlaps, things used twice) is found by [`ShardMap::new`]; here it
//! gets its place in the text.

use std::collections::HashSet;

use toml::de::DeTable;

use super::{
    Address, MapError, NodeEntry, Shard, ShardMap, SlotRange, even_slots,
    fields::{Field, Fields, Mistake, Placed},
    normalize,
};
use crate::slot::SLOT_COUNT;

const VERSION: Field = Field {
    key: "version",
    mend: "write a whole number from 1 up, like version = 1",
};
const SHARDS: Field = Field {
    key: "shards",
    mend: "begin each shard with a line [[shards]]",
};
const NAME: Field = Field {
    key: "name",
    mend: "write 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.', like name = \"shard1\"",
};
const IDX: Field = Field {
    key: "idx",
    mend: "write a whole number from 0 to 16383, like idx = 0",
};
const ADDRESS: Field = Field {
    key: "address",
    mend: "write the primary's host and port, like address = \"localhost:8080\"",
};
const REPLICA: Field = Field {
    key: "replica",
    mend: "write one host and port, like replica = \"localhost:8083\", or use replicas",
};
const REPLICAS: Field = Field {
    key: "replicas",
    mend: "write a list, like replicas = [\"localhost:8083\", \"other:8083\"]",
};
const SLOTS: Field = Field {
    key: "slots",
    mend: "write a list of ranges and single slots, like slots = [\"0-5460\", \"9000\"]",
};
const ZONE: Field = Field {
    key: "zone",
    mend: "write 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.', like zone = \"a\"",
};
const REPLICA_ZONES: Field = Field {
    key: "replica_zones",
    mend: "write one zone per replica, in their order, like replica_zones = [\"b\"]",
};

const FILE_FIELDS: [Field; 2] = [VERSION, SHARDS];
const SHARD_FIELDS: [Field; 8] = [
    NAME,
    IDX,
    ADDRESS,
    REPLICA,
    REPLICAS,
    SLOTS,
    ZONE,
    REPLICA_ZONES,
];

/// The first mistake in a `sharding.toml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct TomlError {
    /// The file's name, as [`parse`] was given it.
    pub file: String,
    /// Its line, counted from 1.
    pub line: usize,
    /// Its place in the line: characters, counted from 1.
    pub column: usize,
    /// What is wrong, and how to mend it.
    pub message: String,
}

/// Reads a map; `file` is what its errors call the text.
///
/// ```
/// let text = "[[shards]]\nname = \"all\"\nidx = 0\naddress = \"localhost:8080\"\n";
/// let map = kvclient::shard_map::toml::parse(text, "sharding.toml").expect("a map");
/// assert_eq!(map.shards()[0].slots_text(), "0-16383");
/// ```
///
/// # Errors
/// [`TomlError`]: show it to the person who wrote the file; its text says what to change.
pub fn parse(text: &str, file: &str) -> Result<ShardMap, TomlError> {
    read(text).map_err(|mistake| {
        let before = &text[..text.floor_char_boundary(mistake.at)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        TomlError {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: mistake.message,
        }
    })
}

/// A shard as written: values with their places, for mistakes found later.
struct Entry<'a> {
    at: usize,
    name: Placed<&'a str>,
    idx: Placed<u16>,
    /// The primary first.
    nodes: Vec<Placed<NodeEntry>>,
    slots: Option<Vec<Placed<SlotRange>>>,
}

fn read(text: &str) -> Result<ShardMap, Mistake> {
    let document = DeTable::parse(text).map_err(|error| {
        let what = error.message().replace('\n', ", ");
        let at = error.span().map_or(0, |span| span.start);
        Mistake::new(at, format!("this is not TOML: {what}; correct this line"))
    })?;
    let file = Fields::new(document.get_ref(), ("the file", 0), &FILE_FIELDS)?;
    let version = file.number(&VERSION, (1, i64::MAX.unsigned_abs()))?;
    let entries = file
        .tables(&SHARDS)?
        .unwrap_or_default()
        .into_iter()
        .map(entry)
        .collect::<Result<Vec<_>, _>>()?;
    check_slots_given(&entries)?;
    check_numbering(&entries)?;
    let shards = entries
        .iter()
        .map(|entry| shard(entry, entries.len()))
        .collect();
    ShardMap::new(version.map_or(1, |version| version.value), shards).map_err(|error| {
        let at = place_of(&error, &entries)
            .or(file.place(&SHARDS))
            .unwrap_or(0);
        Mistake::new(at, format!("{error}; {}", mend_of(&error)))
    })
}

fn entry<'a>(table: Placed<&'a DeTable<'a>>) -> Result<Entry<'a>, Mistake> {
    let fields = Fields::new(table.value, ("a shard", table.at), &SHARD_FIELDS)?;
    let name = fields.text(&NAME)?.ok_or_else(|| fields.missing(&NAME))?;
    check_word(&name, &NAME)?;
    let idx = fields
        .number(&IDX, (0, u64::from(SLOT_COUNT) - 1))?
        .ok_or_else(|| fields.missing(&IDX))?;
    let slots = fields.texts(&SLOTS)?;
    Ok(Entry {
        at: table.at,
        name,
        idx: Placed {
            at: idx.at,
            value: u16::try_from(idx.value).expect("checked to be below 16384"),
        },
        nodes: nodes(&fields)?,
        slots: slots.map(|slots| ranges(&fields, slots)).transpose()?,
    })
}

fn nodes(fields: &Fields<'_>) -> Result<Vec<Placed<NodeEntry>>, Mistake> {
    let primary = fields
        .text(&ADDRESS)?
        .ok_or_else(|| fields.missing(&ADDRESS))?;
    let zone = fields.text(&ZONE)?;
    let replicas = replicas(fields)?;
    let replica_zones = match fields.texts(&REPLICA_ZONES)? {
        None => vec![None; replicas.len()],
        Some(zones) if zones.len() == replicas.len() => zones.into_iter().map(Some).collect(),
        Some(zones) => {
            return Err(Mistake::new(
                fields.place(&REPLICA_ZONES).unwrap_or(fields.at),
                format!(
                    "replica_zones has {} for {}; {}",
                    count(zones.len(), "zone"),
                    count(replicas.len(), "replica"),
                    REPLICA_ZONES.mend
                ),
            ));
        }
    };
    let mut nodes = vec![node(primary, zone, &ZONE)?];
    for (address, zone) in replicas.into_iter().zip(replica_zones) {
        nodes.push(node(address, zone, &REPLICA_ZONES)?);
    }
    Ok(nodes)
}

fn replicas<'a>(fields: &Fields<'a>) -> Result<Vec<Placed<&'a str>>, Mistake> {
    match (fields.text(&REPLICA)?, fields.texts(&REPLICAS)?) {
        (Some(_), Some(_)) => Err(Mistake::new(
            fields
                .place(&REPLICA)
                .max(fields.place(&REPLICAS))
                .unwrap_or(fields.at),
            "replica and replicas stand in one shard; keep replica for one node or replicas for a list",
        )),
        (one, many) => Ok(many.unwrap_or_else(|| one.into_iter().collect())),
    }
}

fn node(
    address: Placed<&str>,
    zone: Option<Placed<&str>>,
    zone_field: &Field,
) -> Result<Placed<NodeEntry>, Mistake> {
    if let Some(zone) = &zone {
        check_word(zone, zone_field)?;
    }
    let at = address.at;
    let entry = NodeEntry {
        address: address
            .value
            .parse::<Address>()
            .map_err(|error| Mistake::new(at, error.to_string()))?,
        zone: zone.map(|zone| zone.value.to_owned()),
    };
    Ok(Placed { at, value: entry })
}

fn ranges(
    fields: &Fields<'_>,
    slots: Vec<Placed<&str>>,
) -> Result<Vec<Placed<SlotRange>>, Mistake> {
    if slots.is_empty() {
        let at = fields.place(&SLOTS).unwrap_or(fields.at);
        return Err(Mistake::new(
            at,
            format!(
                "slots is empty, and a shard owns at least one; {}",
                SLOTS.mend
            ),
        ));
    }
    let range = |Placed { at, value }: Placed<&str>| match value.parse() {
        Ok(value) => Ok(Placed { at, value }),
        Err(error) => Err(Mistake::new(at, error)),
    };
    slots.into_iter().map(range).collect()
}

/// Names and zones travel in headers and file names: they stay plain words.
fn check_word(word: &Placed<&str>, field: &Field) -> Result<(), Mistake> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match (1..=64).contains(&word.value.len()) && word.value.bytes().all(plain) {
        true => Ok(()),
        false => Err(Mistake::new(
            word.at,
            format!("{} cannot be {:?}; {}", field.key, word.value, field.mend),
        )),
    }
}

fn check_slots_given(entries: &[Entry<'_>]) -> Result<(), Mistake> {
    let with = entries.iter().find(|entry| entry.slots.is_some());
    let without = entries.iter().find(|entry| entry.slots.is_none());
    match (with, without) {
        (Some(with), Some(without)) => Err(Mistake::new(
            without.at,
            format!(
                "shard {:?} has no slots, but shard {:?} has; write slots for all shards or for none",
                without.name.value, with.name.value
            ),
        )),
        _ => Ok(()),
    }
}

/// Without slots, shard `idx` of `n` owns what the formula gives it, so the numbers are exactly `0..n`.
fn check_numbering(entries: &[Entry<'_>]) -> Result<(), Mistake> {
    let count = entries.len();
    let too_high =
        |entry: &&Entry<'_>| entry.slots.is_none() && usize::from(entry.idx.value) >= count;
    let Some(entry) = entries.iter().find(too_high) else {
        return Ok(());
    };
    let used: HashSet<usize> = entries
        .iter()
        .map(|entry| usize::from(entry.idx.value))
        .collect();
    let free = (0..count)
        .find(|idx| !used.contains(idx))
        .expect("one number below the count is free if another is not below it");
    Err(Mistake::new(
        entry.idx.at,
        format!(
            "idx is {}, but no shard has idx {free}: without slots, shards are numbered from 0 without a hole, because \
             idx decides which slots are whose; write idx = {free}, or give every shard its slots",
            entry.idx.value
        ),
    ))
}

fn shard(entry: &Entry<'_>, count: usize) -> Shard {
    let count = u16::try_from(count).unwrap_or(SLOT_COUNT).min(SLOT_COUNT);
    let slots = match &entry.slots {
        Some(slots) => normalize(slots.iter().map(|range| range.value).collect()),
        None => vec![even_slots(entry.idx.value, count)],
    };
    let mut nodes = entry.nodes.iter().map(|node| node.value.clone());
    Shard {
        name: entry.name.value.to_owned(),
        idx: entry.idx.value,
        slots,
        primary: nodes.next().expect("an entry begins with its primary"),
        replicas: nodes.collect(),
    }
}

fn place_of(error: &MapError, entries: &[Entry<'_>]) -> Option<usize> {
    match error {
        MapError::NoShards => None,
        MapError::TooManyShards(_) => entries.get(usize::from(SLOT_COUNT)).map(|entry| entry.at),
        MapError::DuplicateName { shard, .. } => Some(entries[*shard].name.at),
        MapError::DuplicateIdx { shard, .. } => Some(entries[*shard].idx.at),
        MapError::DuplicateAddress { address, .. } => entries
            .iter()
            .flat_map(|entry| &entry.nodes)
            .filter(|node| node.value.address == *address)
            .nth(1)
            .map(|node| node.at),
        MapError::Overlap { slot, shard, .. } => placed_ranges(entries)
            .filter(|(number, range)| number == shard && contains(range, *slot))
            .last()
            .map(|(_, range)| range.at),
        // The range that ends below the gap, else the one above it.
        MapError::Gap(gap) => placed_ranges(entries)
            .find(|(_, range)| range.value.last + 1 == gap.first)
            .or_else(|| placed_ranges(entries).find(|(_, range)| range.value.first == gap.last + 1))
            .map(|(_, range)| range.at),
    }
}

fn mend_of(error: &MapError) -> &'static str {
    match error {
        MapError::NoShards => SHARDS.mend,
        MapError::TooManyShards(_) => "write at most 16384",
        MapError::DuplicateName { .. } => "give each shard its own name",
        MapError::DuplicateIdx { .. } => "give each shard its own idx",
        MapError::DuplicateAddress { .. } => "change one of the two",
        MapError::Overlap { .. } => "give each slot to one shard",
        MapError::Gap(_) => "add them to one of the shards",
    }
}

fn placed_ranges<'a>(
    entries: &'a [Entry<'_>],
) -> impl Iterator<Item = (usize, &'a Placed<SlotRange>)> {
    let ranges = |(number, entry): (usize, &'a Entry<'_>)| {
        let slots = entry.slots.as_deref().unwrap_or_default();
        slots.iter().map(move |range| (number, range))
    };
    entries.iter().enumerate().flat_map(ranges)
}

fn contains(range: &Placed<SlotRange>, slot: u16) -> bool {
    (range.value.first..=range.value.last).contains(&slot)
}

fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../sharding.toml");

    /// The base of the table below; a case replaces one piece of it.
    const GOOD: &str = r#"version = 2
[[shards]]
name = "a"
idx = 0
address = "localhost:8080"
replicas = ["localhost:8083", "localhost:8084"]
slots = ["0-8191"]
zone = "x"
replica_zones = ["y", "z"]
[[shards]]
name = "b"
idx = 1
address = "localhost:8081"
replica = "localhost:8085"
slots = ["8192-16382", "16383"]
"#;

    fn error(text: &str) -> String {
        match parse(text, "m.toml") {
            Ok(map) => panic!("no mistake found: {map:?}\n{text}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_shipped_map() {
        let map = parse(SHIPPED, "sharding.toml").expect("a map");
        let nodes: Vec<String> = map.nodes().map(|node| node.address.to_string()).collect();
        let ports = [8080, 8083, 8081, 8084, 8082, 8085];
        assert_eq!(nodes, ports.map(|port| format!("localhost:{port}")));
        let slots: Vec<String> = map.shards().iter().map(Shard::slots_text).collect();
        assert_eq!(slots, ["0-5461", "5462-10922", "10923-16383"]);
        assert_eq!(map.version(), 1);
    }

    #[test]
    fn everything_written_is_read() {
        let map = parse(GOOD, "m.toml").expect("a map");
        assert_eq!(map.version(), 2);
        let a = &map.shards()[0];
        let zones: Vec<_> = a.nodes().map(|node| node.zone.as_deref()).collect();
        assert_eq!(zones, [Some("x"), Some("y"), Some("z")]);
        let b = &map.shards()[1];
        assert_eq!(
            (b.name.as_str(), b.slots_text()),
            ("b", "8192-16383".to_owned())
        );
        assert_eq!(b.replicas[0].address.to_string(), "localhost:8085");
        assert_eq!(b.primary.zone, None);
    }

    #[test]
    fn line_ends_of_windows_and_a_mark_at_the_start_do_not_matter() {
        let text = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
        assert_eq!(parse(&text, "m.toml"), parse(GOOD, "m.toml"));
    }

    #[test]
    fn every_mistake_in_one_place_is_named() {
        let cases = include_str!("../../tests/sharding_mistakes.txt");
        let mut lines = cases
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut piece = |mark: char| {
            let line = lines.next()?;
            let piece = line.strip_prefix(mark).expect("a case is -, +, !");
            Some(piece.trim_start().replace("\\n", "\n"))
        };
        let mut seen = 0;
        while let Some(from) = piece('-') {
            let to = piece('+').expect("what replaces it");
            assert_eq!(GOOD.matches(&from).count(), 1, "{from:?} stands once");
            assert_eq!(Some(error(&GOOD.replace(&from, &to))), piece('!'));
            seen += 1;
        }
        assert!(seen > 50, "only {seen} cases");
    }

    #[test]
    fn every_mistake_of_a_whole_file_is_named() {
        let shard = |name: &str, idx: u16, port: u16| {
            format!("[[shards]]\nname = \"{name}\"\nidx = {idx}\naddress = \"localhost:{port}\"\n")
        };
        for (text, want) in [
            (
                String::new(),
                "m.toml:1:1: the map has no shards; begin each shard with a line [[shards]]",
            ),
            (
                "version = 3\n# none yet\n".to_owned(),
                "m.toml:1:1: the map has no shards; begin each shard with a line [[shards]]",
            ),
            (
                "shards = []\n".to_owned(),
                "m.toml:1:1: the map has no shards; begin each shard with a line [[shards]]",
            ),
            (
                "shards = 3\n".to_owned(),
                "m.toml:1:10: shards cannot be an integer; begin each shard with a line [[shards]]",
            ),
            (
                "shards = [3]\n".to_owned(),
                "m.toml:1:11: shards cannot hold an integer; begin each shard with a line [[shards]]",
            ),
            (
                "[shards]\nname = \"a\"\n".to_owned(),
                "m.toml:1:1: shards cannot be a table; begin each shard with a line [[shards]]",
            ),
            (
                shard("a", 1, 8080),
                "m.toml:3:7: idx is 1, but no shard has idx 0: without slots, shards are numbered from 0 without a hole, because idx decides which slots are whose; write idx = 0, or give every shard its slots",
            ),
            (
                shard("a", 0, 8080) + &shard("b", 2, 8081) + &shard("c", 3, 8082),
                "m.toml:11:7: idx is 3, but no shard has idx 1: without slots, shards are numbered from 0 without a hole, because idx decides which slots are whose; write idx = 1, or give every shard its slots",
            ),
            (
                shard("a", 1, 8080) + &shard("b", 2, 8081),
                "m.toml:7:7: idx is 2, but no shard has idx 0: without slots, shards are numbered from 0 without a hole, because idx decides which slots are whose; write idx = 0, or give every shard its slots",
            ),
            (
                shard("a", 0, 8080) + &shard("b", 0, 8081),
                "m.toml:7:7: idx 0 is used twice; give each shard its own idx",
            ),
        ] {
            assert_eq!(error(&text), want);
        }
    }
}
