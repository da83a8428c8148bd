//! `kv doctor`: what is wrong with a cluster, and what to do.
//!
//! Looks once at the map and at every node's `/status`. Facts are gathered first (`facts.rs`); what follows from them is
//! decided without asking anybody (`maps.rs`, `node.rs`, `among.rs`), a finding a line.

mod among;
mod facts;
mod finding;
mod maps;
mod node;

use futures_util::future::join;

use self::finding::{Finding, Severity};
use crate::{
    connect::Connected,
    exit::Exit,
    failure::Failure,
    nodes_say::Asker,
    out::{Format, Out},
};

/// Prints what is wrong; says no if any of it is an error.
pub(crate) async fn doctor(connected: &Connected, out: &mut Out) -> Result<Exit, Failure> {
    let asker = Asker::new(connected)?;
    let own = connected.kv.map();
    let in_force = asker.in_force(&connected.kv).await;
    let (nodes, hosts) = join(facts::gather(&asker, &in_force), facts::hosts(&in_force)).await;
    let file = connected.seed.file().map(|path| path.display().to_string());
    let file = file.as_deref().map(|name| (name, &*own));

    let mut found: Vec<Finding> = nodes.iter().flat_map(node::node).collect();
    found.extend(maps::versions(&in_force, file, &nodes));
    found.extend(maps::hosts(&hosts));
    found.extend(among::among(&nodes));
    found.sort_by_key(|finding| finding.severity);
    for finding in &found {
        finding.print(out)?;
    }
    out.flush()?;
    if out.format == Format::Text {
        let errors = found
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .count();
        out.note(&format!(
            "{} nodes of {} shards: {errors} errors, {} warnings. {LOOKED_AT}",
            nodes.len(),
            in_force.shards().len(),
            found.len() - errors
        ));
    }
    Ok(
        match found
            .iter()
            .any(|finding| finding.severity == Severity::Error)
        {
            true => Exit::No,
            false => Exit::Done,
        },
    )
}

/// Said in any case: what is not among it was not looked at.
const LOOKED_AT: &str = "Looked at: answers, readiness, map versions, host names, lag and pulls of replicas, what \
    logs keep, clocks, room on disks and in LMDB, open files, memory, settings, versions, access";
