//! What can be wrong with one node, by its own word.

use super::{facts::Node, finding::Finding};
use crate::numbers::size;

/// Descriptors that a node needs beside those of connections.
const OWN_FILES: u64 = 64;

/// All of it. Of a node that does not answer nothing more is known than that.
pub(crate) fn node(node: &Node) -> Vec<Finding> {
    let status = match &node.status {
        Ok(status) => status,
        Err(error) => {
            let advice = "is it running, and can it be reached from here? its log says more";
            return vec![Finding::error(
                &node.address,
                format!("does not answer: {error}"),
                advice,
            )];
        }
    };
    if !status.is_object() || node.text("/state").is_none() {
        let advice = "is this address really that of a kvnode?";
        return vec![Finding::error(
            &node.address,
            "what answers there says nothing a node would say",
            advice,
        )];
    }
    let rules = [
        identity,
        readiness,
        damage,
        disk,
        lmdb,
        files,
        access,
        tokens,
        certificates,
    ];
    rules.iter().filter_map(|rule| rule(node)).collect()
}

fn identity(node: &Node) -> Option<Finding> {
    let (says, wants) = (node.text("/address")?, node.address.to_string());
    (says != wants).then(|| {
        let what = format!("the node that answers there is {says}");
        Finding::error(
            &node.address,
            what,
            "two processes or names are mixed up; look at --address and --listen of both",
        )
    })
}

fn readiness(node: &Node) -> Option<Finding> {
    let state = node.text("/state").filter(|state| *state != "ready")?;
    let advice = "it serves again by itself once that has passed; else do as it says";
    Some(Finding::error(
        &node.address,
        format!("is not ready: {state}"),
        advice,
    ))
}

fn damage(node: &Node) -> Option<Finding> {
    let damaged = node.number("/damaged").filter(|damaged| *damaged > 0)?;
    let what = format!("has met {damaged} damaged entries since it started");
    Some(Finding::error(
        &node.address,
        what,
        "stop it, run kvnode check, and start it once with --rejoin as a replica",
    ))
}

fn disk(node: &Node) -> Option<Finding> {
    let free = node.number("/machine/disk_free_bytes")?;
    let all = node
        .number("/machine/disk_size_bytes")
        .filter(|all| *all > 0)?;
    let what = format!(
        "the disk of its data has {} of {} left",
        size(free),
        size(all)
    );
    match (free, free.saturating_mul(100) / all) {
        (..0x1000_0000, _) | (_, ..2) => Some(Finding::error(
            &node.address,
            what,
            "make room: a node whose disk is full refuses writes",
        )),
        (_, ..10) => Some(Finding::warning(
            &node.address,
            what,
            "make room, or give it a larger disk",
        )),
        _ => None,
    }
}

fn lmdb(node: &Node) -> Option<Finding> {
    let used = node.number("/lmdb_bytes")?;
    let map = node
        .number("/settings/lmdb_map_bytes")
        .filter(|map| *map > 0)?;
    let what = format!(
        "LMDB takes {} of the {} that it may grow to",
        size(used),
        size(map)
    );
    let advice = "start it with a larger --map-size";
    match used.saturating_mul(100) / map {
        ..80 => None,
        80..95 => Some(Finding::warning(&node.address, what, advice)),
        _ => Some(Finding::error(&node.address, what, advice)),
    }
}

fn files(node: &Node) -> Option<Finding> {
    let limit = node.number("/machine/open_files_limit")?;
    let wanted = node.number("/settings/max_connections")?;
    (limit < wanted.saturating_add(OWN_FILES)).then(|| {
        let what = format!(
            "may have {limit} files open, too few for its {wanted} connections: it takes fewer"
        );
        Finding::warning(
            &node.address,
            what,
            "raise the limit (ulimit -n, LimitNOFILE), or lower --max-connections",
        )
    })
}

fn access(node: &Node) -> Option<Finding> {
    let is_open = node.field("/insecure_no_auth")?.as_bool()?;
    is_open.then(|| {
        Finding::warning(
            &node.address,
            "runs with --insecure-no-auth",
            "whoever reaches it can read and change everything; see that nobody does who should not",
        )
    })
}

fn tokens(node: &Node) -> Option<Finding> {
    let why = node.text("/tokens_trouble")?;
    let what = format!("goes on with the tokens that it had: {why}");
    let advice = "mend the file and send the node SIGHUP";
    Some(Finding::warning(&node.address, what, advice))
}

fn certificates(node: &Node) -> Option<Finding> {
    let what = format!("its certificates: {}", node.text("/certificates_trouble")?);
    let advice = "put new files in their place and send the node SIGHUP";
    Some(Finding::warning(&node.address, what, advice))
}

#[cfg(test)]
mod tests {
    use kvclient::shard_map::Role;
    use serde_json::json;

    use super::*;
    use crate::doctor::{facts::tests::node as told, finding::Severity};

    #[test]
    fn each_trouble_is_found_and_nothing_else() {
        let (error, warning) = (Severity::Error, Severity::Warning);
        assert_eq!(node(&told(1, Role::Primary, &json!({}))), []);
        for (says, severity, part) in [
            (
                json!({ "address": "h:9" }),
                error,
                "the node that answers there is h:9",
            ),
            (
                json!({ "state": "not ready: it copies" }),
                error,
                "is not ready: not ready: it copies",
            ),
            (json!({ "damaged": 2 }), error, "2 damaged entries"),
            (
                json!({ "machine": { "disk_free_bytes": 9_u64 << 30 } }),
                warning,
                "9.0 GiB of 100.0 GiB left",
            ),
            (
                json!({ "machine": { "disk_free_bytes": 1_u64 << 30 } }),
                error,
                "1.0 GiB of 100.0 GiB left",
            ),
            (
                json!({ "lmdb_bytes": 60_u64 << 30 }),
                warning,
                "60.0 GiB of the 64.0 GiB",
            ),
            (
                json!({ "lmdb_bytes": 63_u64 << 30 }),
                error,
                "63.0 GiB of the 64.0 GiB",
            ),
            (
                json!({ "machine": { "open_files_limit": 1_024 } }),
                warning,
                "1024 files",
            ),
            (
                json!({ "insecure_no_auth": true }),
                warning,
                "--insecure-no-auth",
            ),
            (
                json!({ "tokens_trouble": "line 3: no name" }),
                warning,
                "the tokens that it had: line 3: no name",
            ),
            (
                json!({ "certificates_trouble": "node.pem ends in 3 days" }),
                warning,
                "its certificates: node.pem ends in 3 days",
            ),
        ] {
            let found = node(&told(1, Role::Primary, &says));
            assert_eq!(found.len(), 1, "{says}: {found:?}");
            assert_eq!(found[0].severity, severity, "{found:?}");
            assert!(found[0].what.contains(part), "{found:?}");
        }
    }

    #[test]
    fn what_is_no_node_is_told_once() {
        for status in [json!(null), json!([1]), json!({}), json!({ "state": 7 })] {
            let mut other = told(1, Role::Primary, &json!({}));
            other.status = Ok(status);
            assert_eq!(node(&other).len(), 1);
        }
        // An older version does not say some things.
        let bare = json!({ "machine": null, "settings": null, "lmdb_bytes": null });
        assert_eq!(node(&told(1, Role::Primary, &bare)), []);
    }
}
