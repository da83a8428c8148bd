//! The tree is the architecture: every file of `src/` stands in one list, and imports only from above itself.
//!
//! What a file imports is read from its text: `use crate::...`, `use super::...` and paths written out in the code,
//! comments and tests left out. A file that imports only from above can be in no cycle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Every file, each below all that it imports. A folder's own name stands for its `mod.rs`, the facade over it.
const ORDER: &[&str] = &[
    // What knows nothing of this crate.
    "tls/expiry",
    "tls/files",
    "tls/current",
    "tls/names",
    "tls/shown",
    "tls",
    "access/digest",
    "access/failures",
    "access/scope",
    "access/grant",
    "access/tokens",
    "access",
    "asker",
    "json",
    "clock",
    "hashing",
    "in_flight",
    "begun",
    "timing",
    "memory",
    "supervisor",
    "metrics/histogram",
    "metrics/ops",
    "metrics/counting",
    "metrics/refusals",
    "metrics/slow",
    "metrics",
    "vitals",
    "ownership",
    "readiness",
    "descriptors",
    "durable",
    "marker",
    "data_dir",
    "config/error",
    "config/listen",
    "config/args",
    "config/credentials",
    "config/sizes",
    "config",
    "machine",
    "logging",
    // The log: the truth.
    "log/error",
    "log/files",
    "log/header",
    "log/milestones",
    "log/window",
    "log/segment",
    "log/spare",
    "log/walk",
    "log/ending",
    "log/rewrite",
    "log/state",
    "log/retention",
    "log/tail",
    "log/records",
    "log/writer",
    "log/recovery",
    "log/check",
    "log",
    // The store: its index.
    "store/error",
    "store/long_reads",
    "store/env",
    "store/sums",
    "store/tables",
    "store/effect",
    "store/requests",
    "store/row",
    "store/memtable",
    "store/meta",
    "store/merge",
    "store/writer",
    "store/sweep",
    "store/view",
    "store/counting",
    "store/core",
    "store/count",
    "store/publish",
    "store/read",
    "store/recall",
    "store/scan",
    "store/due",
    "store/flush",
    "store/staging",
    "store/leaves",
    "store/verify",
    "store/bench",
    "store",
    // The one way to change them.
    "commit/identity",
    "commit/command",
    "commit/decide",
    "commit/ages",
    "commit/remembered",
    "commit/marks",
    "commit/group",
    "commit/thread",
    "commit/writes",
    "commit/atomic",
    "commit/turn",
    "commit",
    // The change feed.
    "feed/event",
    "feed/batch",
    "feed/pieces",
    "feed/index",
    "feed/queue",
    "feed/found",
    "feed/reader",
    "feed/hub",
    "feed/feeder",
    "feed/follow",
    "feed",
    // All of them together.
    "kept_log",
    "storage",
    "past",
    // What handlers and tasks see.
    "replication/handshake",
    "replication/acks",
    "replication/progress",
    "acknowledge",
    "pending",
    "service",
    "atomic",
    "status",
    "reload",
    "sweeper",
    "sampler",
    "home",
    // Nodes among each other.
    "replication/diverged",
    "replication/reign",
    "replication/source",
    "replication/snapshot_source",
    "replication/snapshot_sink",
    "replication/puller",
    "replication",
    // HTTP: decode, ask, encode.
    "http/request",
    "http/guard",
    "http/accept",
    "http/awake",
    "http/body",
    "http/answer",
    "http/page",
    "http/path",
    "http/peer",
    "http/claim",
    "http/admit",
    "http/unread",
    "http/slow",
    "http/lines",
    "http/admin",
    "http/batch",
    "http/forms",
    "http/past",
    "http/kv",
    "http/log",
    "http/metrics/classic",
    "http/metrics/disk",
    "http/metrics/times",
    "http/metrics/sample",
    "http/metrics/requests",
    "http/metrics/replication",
    "http/metrics/storage",
    "http/metrics/process",
    "http/metrics",
    "http/openapi",
    "http/scan",
    "http/sums",
    "http/watch",
    "http",
    // The process.
    "offline",
    "compact",
    "stalled",
    "node",
    "lib",
    "main",
];

/// Crates that only some files may name: the crate, and where.
const CONFINED: &[(&str, &[&str])] = &[
    ("heed", &["store/"]),
    ("actix_web", &["http", "node"]),
    ("actix_tls", &["http/peer"]),
    ("actix_http", &["http", "node"]),
    ("actix_rt", &[]),
    ("reqwest", &[]),
    ("rustls", &["tls", "http/peer"]),
];

#[test]
fn every_file_imports_only_from_above() {
    let files = sources();
    let problems: Vec<String> = files
        .iter()
        .flat_map(|(name, text)| judge(name, text))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(files.len() > 60, "the files are found: {}", files.len());
}

#[test]
fn libraries_stay_where_they_belong() {
    for (name, text) in sources() {
        for (library, homes) in CONFINED {
            let is_home = homes.iter().any(|home| {
                name == *home || name.starts_with(&format!("{}/", home.trim_end_matches('/')))
            });
            assert!(
                is_home || !words(&text).any(|word| word == *library),
                "{name} names {library}, which belongs to {homes:?}"
            );
        }
    }
}

#[test]
fn an_upward_import_is_noticed_in_every_spelling() {
    for (name, text, upward) in [
        ("clock", "use crate::service::Service;", Some("service")),
        (
            "clock",
            "use crate::{\n    json,\n    http::{self, body::Body},\n};",
            Some("http"),
        ),
        ("clock", "fn f() { crate::node::start() }", Some("node")),
        (
            "log/error",
            "use super::segment::Segment;",
            Some("log/segment"),
        ),
        (
            "log/error",
            "use super::{files, segment::{Segment, Spare}};",
            Some("log/files"),
        ),
        (
            "log/error",
            "fn f(s: &super::segment::Segment) {}",
            Some("log/segment"),
        ),
        ("log/segment", "use super::Log;", Some("log")),
        ("log/segment", "use crate::log::Log;", Some("log")),
        (
            "service",
            "use crate::replication::Progress;",
            Some("replication"),
        ),
        (
            "service",
            "use crate::replication::progress::Progress;",
            None,
        ),
        ("log", "use self::{segment::Segment, window::Window};", None),
        ("log", "pub use self::tail::ReadFrames;", None),
        ("node", "use crate::{http, service::Service as S};", None),
        ("main", "use kvnode::node::{self, RunningNode};", None),
        ("clock", "// use crate::service::Service;", None),
        (
            "clock",
            "#[cfg(test)]\nmod tests {\n    use crate::service::Service;\n}\n",
            None,
        ),
    ] {
        let problems = judge(name, text);
        match upward {
            None => assert!(problems.is_empty(), "{name}: {text}: {problems:?}"),
            Some(module) => assert!(
                problems
                    .iter()
                    .any(|problem| problem.contains(&format!(" {module},"))),
                "{name}: {text}: {problems:?}"
            ),
        }
    }
    assert_eq!(
        judge("unheard_of", "").len(),
        1,
        "a file that is not in the list"
    );
}

/// What is wrong with one file.
fn judge(name: &str, text: &str) -> Vec<String> {
    let Some(place) = ORDER.iter().position(|other| *other == name) else {
        return vec![format!(
            "src/{name}.rs stands in no line of ORDER; add it below what it imports"
        )];
    };
    let upward = imports(name, text).into_iter().filter(|import| {
        let other = ORDER.iter().position(|other| other == import);
        other.is_none_or(|other| other >= place)
    });
    upward
        .map(|import| format!("{name} imports {import}, which does not stand above it"))
        .collect()
}

/// All source files but tests: name and text without comments and tests.
fn sources() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
                continue;
            }
            // The page's files and the API's description are no Rust.
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let name = path
                .strip_prefix(&root)
                .expect("below src")
                .with_extension("");
            let name = name
                .to_str()
                .expect("UTF-8")
                .trim_end_matches("/mod")
                .to_owned();
            files.insert(name, fs::read_to_string(&path).expect("text"));
        }
    }
    files
}

/// The text without line comments and without what stands behind the tests' beginning.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let line = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text[..end].lines().map(line).collect::<Vec<_>>().join("\n")
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code(text)
        .split(|c: char| !is_part(c))
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

/// The modules of this crate that a file names, itself left out.
fn imports(name: &str, text: &str) -> BTreeSet<String> {
    let text = code(text);
    let mut found = BTreeSet::new();
    for root in ["crate", "super", "self", "kvnode"] {
        for (at, _) in text.match_indices(root) {
            let is_word =
                !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            let rest = &text[at + root.len()..];
            if let (true, Some(rest)) = (is_word, rest.strip_prefix("::")) {
                for path in paths(rest) {
                    found.extend(module(name, root, &path));
                }
            }
        }
    }
    found.remove(name);
    found
}

/// The paths that a text begins with: `a::b` is one, `a::{b, c::d}` are two.
fn paths(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        return members(group)
            .iter()
            .flat_map(|member| paths(member))
            .collect();
    }
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    let (segment, rest) = text.split_at(end);
    let deeper = rest.strip_prefix("::").map(paths).unwrap_or_default();
    if deeper.is_empty() {
        return vec![vec![segment.to_owned()]];
    }
    let with_segment = |mut path: Vec<String>| {
        path.insert(0, segment.to_owned());
        path
    };
    deeper.into_iter().map(with_segment).collect()
}

/// The members of a group up to its closing brace, at its own depth.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut from) = (0, 0);
    let mut members = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                members.push(group[from..at].trim());
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members.retain(|member| !member.is_empty());
    members
}

/// The file that a path leads to, seen from `name`: the longest part of it that is one.
fn module(name: &str, root: &str, path: &[String]) -> Option<String> {
    let is_facade = ORDER
        .iter()
        .any(|other| other.starts_with(&format!("{name}/")));
    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
    let base = match root {
        "super" => parent,
        "self" if is_facade => name,
        // `self::` in a file, and the item `self` of a use: the file itself.
        "self" => return None,
        _ => "",
    };
    let mut segments: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    let fixed = segments.len();
    segments.extend(
        path.iter()
            .map(String::as_str)
            .filter(|part| *part != "self"),
    );
    (fixed..=segments.len())
        .rev()
        .map(|end| segments[..end].join("/"))
        .find(|candidate| ORDER.contains(&candidate.as_str()))
}
