//! `kv map`: the shard map that is in force, and whether file and nodes agree on it.

use std::fmt::Write;

use kvclient::{
    ShardMap,
    attempt::AttemptError,
    shard_map::{NodeEntry, Shard, even_slots, json},
};

use crate::{
    connect::Connected,
    exit::Exit,
    failure::Failure,
    nodes_say::{Asker, Maps},
    out::{Format, Out},
};

/// Prints the newest map that any node has.
pub(crate) async fn map(connected: &Connected, out: &mut Out) -> Result<Exit, Failure> {
    let maps = Asker::new(connected)?.maps(&connected.kv).await;
    let Some(newest) = maps.newest() else {
        return nobody(connected, &maps, out);
    };
    match out.format {
        Format::Json => out.text(&format!("{}\n", json::encode(newest)))?,
        Format::Text => out.text(&to_toml(newest))?,
    }
    for note in differences(newest, &maps) {
        out.note(&note);
    }
    if let Some(file) = connected.seed.file()
        && let Some(how) = difference(newest, &connected.kv.map())
    {
        out.note(&format!("{} {how}", file.display()));
    }
    Ok(Exit::Done)
}

/// Nobody says what is in force, so it is not printed.
fn nobody(connected: &Connected, maps: &Maps, out: &mut Out) -> Result<Exit, Failure> {
    for (address, answer) in &maps.answers {
        if let Err(error) = answer {
            out.note(&format!("{address}: {error}"));
        }
    }
    let known = match connected.seed.file() {
        Some(file) => format!("; {} has {}", file.display(), connected.kv.map().identity()),
        None => String::new(),
    };
    out.note(&format!(
        "no node answers, so which map is in force is not known{known}"
    ));
    Ok(Exit::Unavailable)
}

/// What is to be said of nodes that go by another map.
fn differences(newest: &ShardMap, maps: &Maps) -> Vec<String> {
    let difference = |address, answer: &Result<ShardMap, AttemptError>| {
        let how = match answer {
            Ok(map) => difference(newest, map)?,
            Err(error) => format!("does not say which map it goes by: {error}"),
        };
        Some(format!("{address} {how}"))
    };
    let answers = maps.answers.iter();
    answers
        .filter_map(|(address, answer)| difference(address, answer))
        .collect()
}

/// How a map differs from the one in force.
fn difference(in_force: &ShardMap, other: &ShardMap) -> Option<String> {
    let (ours, theirs) = (other.identity(), in_force.identity());
    if ours == theirs {
        return None;
    }
    Some(match other.version().cmp(&in_force.version()) {
        std::cmp::Ordering::Less => format!("is older: {ours}, in force is {theirs}"),
        std::cmp::Ordering::Equal => {
            format!("has the same version with another content: {ours}, in force is {theirs}")
        }
        std::cmp::Ordering::Greater => {
            format!("is newer than what the nodes go by: {ours}, in force is {theirs}")
        }
    })
}

/// A map as a `sharding.toml`.
fn to_toml(map: &ShardMap) -> String {
    let shards = map.shards();
    let is_even = shards.iter().all(|shard| {
        let count = u16::try_from(shards.len()).unwrap_or(u16::MAX);
        shard.slots == [even_slots(shard.idx, count)]
    });
    let mut text = format!("# {}\nversion = {}\n", map.identity(), map.version());
    for shard in shards {
        // Writing to a string cannot fail.
        let _ = write_shard(&mut text, shard, is_even);
    }
    text
}

fn write_shard(text: &mut String, shard: &Shard, is_even: bool) -> std::fmt::Result {
    // Names, zones and addresses are plain ASCII: nothing needs an escape, and a list reads as TOML's.
    let Shard {
        name,
        idx,
        primary,
        replicas,
        slots,
    } = shard;
    write!(text, "\n[[shards]]\nname = \"{name}\"\nidx = {idx}\n")?;
    writeln!(text, "address = \"{}\"", primary.address)?;
    let list = |of: &dyn Fn(&NodeEntry) -> String| replicas.iter().map(of).collect::<Vec<_>>();
    if !replicas.is_empty() {
        writeln!(
            text,
            "replicas = {:?}",
            list(&|node| node.address.to_string())
        )?;
    }
    match is_even {
        true => writeln!(text, "# slots {}", shard.slots_text())?,
        false => {
            let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
            writeln!(text, "slots = {slots:?}")?;
        }
    }
    if let Some(zone) = &primary.zone {
        writeln!(text, "zone = \"{zone}\"")?;
    }
    if replicas.iter().any(|node| node.zone.is_some()) {
        let zones = list(&|node| node.zone.clone().unwrap_or_default());
        writeln!(text, "replica_zones = {zones:?}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kvclient::shard_map::toml;

    use super::*;

    const EVEN: &str = "version = 3\n\
        [[shards]]\nname = \"a\"\nidx = 0\naddress = \"h:1\"\nreplicas = [\"h:2\", \"[::1]:3\"]\nzone = \"x\"\n\
        replica_zones = [\"y\", \"z\"]\n\
        [[shards]]\nname = \"b\"\nidx = 1\naddress = \"h:4\"\n";
    const UNEVEN: &str = "[[shards]]\nname = \"a\"\nidx = 0\naddress = \"h:1\"\nslots = [\"0-99\", \"200\"]\n\
        [[shards]]\nname = \"b\"\nidx = 1\naddress = \"h:2\"\nslots = [\"100-199\", \"201-16383\"]\n";

    fn parse(text: &str) -> ShardMap {
        toml::parse(text, "m").expect("a map")
    }

    #[test]
    fn a_printed_map_is_the_same_map() {
        for text in [EVEN, UNEVEN, include_str!("../../../../sharding.toml")] {
            let map = parse(text);
            let printed = to_toml(&map);
            assert_eq!(parse(&printed).identity(), map.identity(), "{printed}");
        }
        assert!(to_toml(&parse(EVEN)).contains("# slots 0-8191\n"));
        assert!(to_toml(&parse(UNEVEN)).contains("\nslots = [\"0-99\", \"200\"]\n"));
    }

    #[test]
    fn differences_are_told_by_kind() {
        let three = parse(EVEN);
        assert_eq!(difference(&three, &three), None);
        for (other, word) in [
            (EVEN.replace("version = 3", "version = 2"), "older"),
            (EVEN.replace("version = 3", "version = 4"), "newer"),
            (EVEN.replace("h:4", "h:5"), "same version"),
        ] {
            let how = difference(&three, &parse(&other)).expect("they differ");
            assert!(how.contains(word), "{how}");
        }
    }
}
