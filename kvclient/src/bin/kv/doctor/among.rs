//! What can be wrong between nodes: replicas that do not follow, clocks that differ, versions, settings, shared memory.

use std::collections::BTreeMap;

use kvclient::shard_map::Role;

use super::{facts::Node, finding::Finding};
use crate::numbers::size;

/// Difference of clocks that is told, in ms. Expiry goes by them when another node becomes the primary.
const SKEW_MS: i64 = 500;

/// Lag of a replica that is told, in ms.
const LAG_MS: u64 = 1_000;

/// A replica that is so far behind is as good as lost, in ms.
const LOST_MS: u64 = 60_000;

/// All of it.
pub(crate) fn among(nodes: &[Node]) -> Vec<Finding> {
    let mut found = Vec::new();
    let replicas = nodes.iter().filter(|node| node.role == Role::Replica);
    for replica in replicas {
        let is_primary = |node: &&Node| node.shard == replica.shard && node.role == Role::Primary;
        let primary = nodes.iter().find(is_primary);
        found.extend(follows(replica));
        if let Some(primary) = primary {
            found.extend(pulls(replica, primary));
            found.extend(reaches(replica, primary));
            found.extend(same_settings(replica, primary));
        }
    }
    found.extend(clocks(nodes));
    found.extend(versions(nodes));
    found.extend(twice(nodes));
    found.extend(memory(nodes));
    found
}

fn follows(replica: &Node) -> Option<Finding> {
    let lag = replica.number("/lag_ms");
    let records = replica.number("/lag_records").unwrap_or(0);
    let why = replica.text("/pull_trouble").map_or(String::new(), |why| {
        format!("; its last pull brought nothing: {why}")
    });
    let what = |lag: u64| format!("is {lag} ms and {records} records behind its primary{why}");
    let advice = "is its disk or the network too slow, or the primary away?";
    match lag? {
        ..=LAG_MS => None,
        lag @ ..=LOST_MS => Some(Finding::warning(&replica.address, what(lag), advice)),
        lag => Some(Finding::error(&replica.address, what(lag), advice)),
    }
}

/// The primary knows who pulls from it.
fn pulls(replica: &Node, primary: &Node) -> Option<Finding> {
    replica.status.as_ref().ok()?;
    let known = primary.field("/replicas")?.as_array()?;
    let own = known.iter().find(|known| {
        known.get("address").and_then(|address| address.as_str())
            == Some(&*replica.address.to_string())
    });
    let is_connected = own
        .and_then(|own| own.get("connected")?.as_bool())
        .unwrap_or(false);
    if is_connected {
        return None;
    }
    let (ours, theirs) = (primary.text("/history"), replica.text("/history"));
    let what = match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            format!(
                "its data is of another history than that of its primary {}",
                primary.address
            )
        }
        _ => format!("does not pull from its primary {}", primary.address),
    };
    let advice = "compare the maps and --address of both; a replica of another history is made one of this by --rejoin";
    Some(Finding::error(&replica.address, what, advice))
}

/// Whether the primary's log reaches back to where the replica is.
fn reaches(replica: &Node, primary: &Node) -> Option<Finding> {
    let (has, kept) = (replica.seq("/durable")?, primary.number("/truncated")?);
    let durable = primary.seq("/durable")?;
    if has < kept {
        let what = format!(
            "is at seq {has}, and its primary's log begins behind {kept}: it has to copy everything anew"
        );
        return Some(Finding::warning(
            &replica.address,
            what,
            "a larger --log-retention lets it be away for longer",
        ));
    }
    let (behind, length) = (durable.saturating_sub(has), durable.saturating_sub(kept));
    (behind > 1_000 && behind > length / 2).then(|| {
        let what = format!("is {behind} records behind, more than half of the {length} that its primary's log keeps");
        Finding::warning(&replica.address, what, "if the log no longer reaches back to it, it copies everything anew; raise --log-retention")
    })
}

fn same_settings(replica: &Node, primary: &Node) -> Vec<Finding> {
    let differs = |name: &str, flag: &str, why: &str| {
        let pointer = format!("/settings/{name}");
        let (theirs, ours) = (replica.number(&pointer)?, primary.number(&pointer)?);
        (theirs != ours).then(|| {
            let what = format!(
                "its {flag} is {}, its primary's {}",
                size(theirs),
                size(ours)
            );
            Finding::warning(&replica.address, what, format!("{why}; give both the same"))
        })
    };
    let smaller_map = || {
        let pointer = "/settings/lmdb_map_bytes";
        let (theirs, ours) = (replica.number(pointer)?, primary.number(pointer)?);
        (theirs < ours).then(|| {
            let what = format!(
                "its --map-size is {}, its primary's {}",
                size(theirs),
                size(ours)
            );
            Finding::warning(
                &replica.address,
                what,
                "it will be full before its primary is; give it as much",
            )
        })
    };
    let all = [
        differs(
            "max_value_bytes",
            "--max-value-size",
            "it would refuse other values once it is the primary",
        ),
        differs(
            "log_segment_bytes",
            "--log-segment-size",
            "a frame of the primary has to fit into its segments",
        ),
        differs(
            "log_retention_bytes",
            "--log-retention",
            "it would keep less or more once it is the primary",
        ),
        smaller_map(),
    ];
    all.into_iter().flatten().collect()
}

fn clocks(nodes: &[Node]) -> Vec<Finding> {
    let known: Vec<_> = nodes
        .iter()
        .filter_map(|node| Some((node, node.ahead_ms?)))
        .collect();
    let advice = "let chrony or ntpd keep all clocks";
    let mut found = Vec::new();
    for (node, (ahead, error)) in &known {
        if ahead.abs() - error > SKEW_MS {
            let how = if *ahead > 0 { "ahead of" } else { "behind" };
            let what = format!("its clock is {} ms {how} this machine's", ahead.abs());
            found.push(Finding::warning(&node.address, what, advice));
        }
    }
    let by_clock = |entry: &&(&Node, (i64, i64))| entry.1.0;
    let (first, last) = (
        known.iter().min_by_key(by_clock),
        known.iter().max_by_key(by_clock),
    );
    if let (Some((slow, (one, one_error))), Some((fast, (other, other_error)))) = (first, last)
        && other - one - one_error - other_error > SKEW_MS
    {
        let what = format!(
            "its clock is {} ms ahead of that of {}",
            other - one,
            slow.address
        );
        found.push(Finding::warning(&fast.address, what, advice));
    }
    found
}

fn versions(nodes: &[Node]) -> Option<Finding> {
    let mut by_version: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in nodes {
        if let Some(version) = node.text("/version") {
            by_version
                .entry(version)
                .or_default()
                .push(node.address.to_string());
        }
    }
    let told: Vec<String> = by_version
        .iter()
        .map(|(version, nodes)| format!("{version} on {}", nodes.join(", ")))
        .collect();
    (by_version.len() > 1).then(|| {
        let what = format!("nodes run different versions: {}", told.join("; "));
        Finding::warning(
            "cluster",
            what,
            "bring all to the newest, replicas before their primaries",
        )
    })
}

/// One data directory that answers under two addresses.
fn twice(nodes: &[Node]) -> Vec<Finding> {
    let mut seen: BTreeMap<&str, &Node> = BTreeMap::new();
    let mut found = Vec::new();
    for node in nodes {
        let Some(id) = node.text("/node_id") else {
            continue;
        };
        if let Some(other) = seen.insert(id, node) {
            let what = format!(
                "is the same node as {}, or has a copy of its data directory",
                other.address
            );
            found.push(Finding::error(
                &node.address,
                what,
                "each node needs an address and a directory of its own",
            ));
        }
    }
    found
}

/// Memtables of all nodes on a machine against its memory.
fn memory(nodes: &[Node]) -> Vec<Finding> {
    let mut by_host: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for node in nodes {
        let needs = node
            .number("/settings/memtable_bytes")
            .map(|one| one.saturating_mul(2));
        if let (Some(needs), Some(has)) = (needs, node.number("/machine/memory_bytes")) {
            let host = by_host.entry(node.address.host()).or_default();
            *host = (host.0 + 1, host.1.saturating_add(needs), has);
        }
    }
    let too_much = by_host
        .into_iter()
        .filter(|(_, (_, needs, has))| *needs > has / 2);
    too_much
        .map(|(host, (count, needs, has))| {
            let what = format!("the memtables of its {count} nodes may take {} of {} of memory", size(needs), size(has));
            Finding::warning(host, what, "lower --memtable-size, or run fewer nodes there: LMDB reads through the page cache")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::doctor::{facts::tests::node, finding::Severity};

    /// What is found of a pair, each of which says something besides.
    fn pair(primary: &Value, replica: &Value) -> Vec<Finding> {
        among(&[
            node(1, Role::Primary, primary),
            node(2, Role::Replica, replica),
        ])
    }

    #[test]
    fn each_trouble_is_found_and_nothing_else() {
        let (error, warning) = (Severity::Error, Severity::Warning);
        let none = json!({});
        assert_eq!(pair(&none, &none), []);
        for (primary, replica, severity, part) in [
            (
                none.clone(),
                json!({ "lag_ms": 2_000 }),
                warning,
                "2000 ms and 0 records behind",
            ),
            (
                none.clone(),
                json!({ "lag_ms": 90_000, "pull_trouble": "no" }),
                error,
                "brought nothing: no",
            ),
            (
                json!({ "replicas": [] }),
                none.clone(),
                error,
                "does not pull from its primary h:1",
            ),
            (
                json!({ "replicas": [{ "address": "h:2", "connected": false }] }),
                json!({ "history": "b" }),
                error,
                "another history",
            ),
            (
                json!({ "truncated": 4_000 }),
                json!({ "durable": "1.3000" }),
                warning,
                "copy everything anew",
            ),
            (
                json!({ "truncated": 1_000 }),
                json!({ "durable": "1.2000" }),
                warning,
                "more than half of the 4000",
            ),
            (
                none.clone(),
                json!({ "version": "2" }),
                warning,
                "1 on h:1; 2 on h:2",
            ),
            (
                none.clone(),
                json!({ "node_id": "h:1" }),
                error,
                "the same node as h:1",
            ),
            (
                none.clone(),
                json!({ "settings": { "max_value_bytes": 2 << 20 } }),
                warning,
                "--max-value-size is 2.0 MiB",
            ),
            (
                none.clone(),
                json!({ "settings": { "lmdb_map_bytes": 1_u64 << 30 } }),
                warning,
                "--map-size is 1.0 GiB",
            ),
            (
                none.clone(),
                json!({ "settings": { "memtable_bytes": 2_u64 << 30 } }),
                warning,
                "its 2 nodes may take 4.1 GiB",
            ),
        ] {
            let found = pair(&primary, &replica);
            assert_eq!(found.len(), 1, "{primary} {replica}: {found:?}");
            assert_eq!(found[0].severity, severity, "{found:?}");
            assert!(found[0].what.contains(part), "{found:?}");
        }
        let larger = json!({ "settings": { "lmdb_map_bytes": 128_u64 << 30 } });
        assert_eq!(pair(&none, &larger), [], "room for more is no trouble");
    }

    #[test]
    fn clocks_are_compared_with_this_machine_and_each_other() {
        let ahead = |one, other| {
            let mut nodes = [
                node(1, Role::Primary, &json!({})),
                node(2, Role::Primary, &json!({})),
            ];
            (nodes[0].ahead_ms, nodes[1].ahead_ms) = (one, other);
            clocks(&nodes)
                .into_iter()
                .map(|finding| finding.what)
                .collect::<Vec<_>>()
        };
        assert!(ahead(Some((400, 0)), Some((-100, 0))).is_empty());
        assert!(
            ahead(Some((900, 500)), None).is_empty(),
            "the answer took too long to say"
        );
        assert_eq!(
            ahead(Some((300, 0)), Some((-300, 0))),
            ["its clock is 600 ms ahead of that of h:2"]
        );
        let told = [
            "its clock is 900 ms behind this machine's",
            "its clock is 901 ms ahead of that of h:1",
        ];
        assert_eq!(ahead(Some((-900, 0)), Some((1, 0))), told);
    }
}
