//! What can be wrong with the map: files and nodes that go by different ones, and addresses that lead nowhere.

use std::{cmp::Ordering, collections::BTreeMap};

use kvclient::ShardMap;

use super::{facts::Node, finding::Finding};

/// Nodes that go by another map than the one in force, and the file that was read.
pub(crate) fn versions(
    in_force: &ShardMap,
    file: Option<(&str, &ShardMap)>,
    nodes: &[Node],
) -> Vec<Finding> {
    let mut found = Vec::new();
    for node in nodes {
        if let Some(theirs) = node.text("/map_version") {
            let what = |how: &str| format!("its map {theirs} {how}, {}", in_force.identity());
            match compare(theirs, in_force.identity()) {
                None => {}
                Some(Ordering::Equal) => found.push(Finding::error(
                    &node.address,
                    what("has the same version as the one in force, and another content"),
                    "give all nodes one file with a larger version, and send each SIGHUP",
                )),
                Some(Ordering::Less) => found.push(Finding::warning(
                    &node.address,
                    what("is older than the one in force"),
                    "give it the new file and send it SIGHUP",
                )),
                Some(Ordering::Greater) => found.push(Finding::warning(
                    &node.address,
                    what("is newer than the one in force"),
                    "it was changed this moment; look again",
                )),
            }
        }
    }
    if let Some((name, own)) = file {
        let what = |how: &str| format!("{} {how}, {}", own.identity(), in_force.identity());
        match compare(own.identity(), in_force.identity()) {
            None => {}
            Some(Ordering::Equal) => found.push(Finding::error(
                name,
                what("has the same version as the map in force, and another content"),
                "kv map prints the one in force; make changes in that, with a larger version",
            )),
            Some(Ordering::Less) => found.push(Finding::warning(
                name,
                what("is older than the map in force"),
                "kv map prints that one",
            )),
            Some(Ordering::Greater) => found.push(Finding::warning(
                name,
                what("is newer than the map in force"),
                "give it to all nodes and send each SIGHUP",
            )),
        }
    }
    found
}

/// How two identities, `version-hash`, differ: by version, or `Equal` by content alone; `None` if not at all.
fn compare(one: &str, other: &str) -> Option<Ordering> {
    if one == other {
        return None;
    }
    let version = |identity: &str| identity.split('-').next()?.parse::<u64>().ok();
    Some(version(one).cmp(&version(other)))
}

/// Names that lead nowhere, or to whoever asks.
pub(crate) fn hosts(hosts: &BTreeMap<String, Option<bool>>) -> Vec<Finding> {
    let mut found = Vec::new();
    let is_elsewhere = hosts
        .values()
        .any(|is_loopback| *is_loopback == Some(false));
    for (host, is_loopback) in hosts {
        match is_loopback {
            None => found.push(Finding::error(
                host,
                "this name of the map leads to no address here",
                "mend the map, or the names this machine knows",
            )),
            Some(true) if is_elsewhere => found.push(Finding::error(
                host,
                "leads to this machine alone, and other hosts of the map do not: each machine would ask itself",
                "name it in the map as all other machines reach it",
            )),
            Some(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_differ_by_version_or_by_content() {
        for (one, other, how) in [
            ("1-ab", "1-ab", None),
            ("1-ab", "1-cd", Some(Ordering::Equal)),
            ("9-ab", "10-cd", Some(Ordering::Less)),
            ("2-ab", "1-ab", Some(Ordering::Greater)),
        ] {
            assert_eq!(compare(one, other), how, "{one} {other}");
        }
    }

    #[test]
    fn loopback_is_wrong_beside_other_hosts_only() {
        let said = |all: &[(&str, Option<bool>)]| {
            let all = all
                .iter()
                .map(|(host, is)| ((*host).to_owned(), *is))
                .collect();
            let found = hosts(&all);
            found
                .into_iter()
                .map(|finding| finding.about)
                .collect::<Vec<_>>()
        };
        assert!(said(&[("localhost", Some(true)), ("127.0.0.1", Some(true))]).is_empty());
        assert!(said(&[("a", Some(false)), ("b", Some(false))]).is_empty());
        assert_eq!(
            said(&[("a", Some(false)), ("localhost", Some(true))]),
            ["localhost"]
        );
        assert_eq!(said(&[("a", None), ("localhost", Some(true))]), ["a"]);
    }
}
