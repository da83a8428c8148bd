//! The tree is the architecture: a module uses only modules above it in this list.
//!
//! A new file fails the test until it has its place here; an import that runs upwards fails it by name.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// All modules, each below everything it uses. `lib.rs` re-exports and stands outside.
const ORDER: &[&str] = &[
    // Pure half: no HTTP library, no runtime.
    "faults",
    "key",
    "slot",
    "position",
    "scheme",
    "rfc3339",
    "token",
    "shard_map",
    "shard_map/fields",
    "shard_map/json",
    "shard_map/toml",
    "wire/bytes",
    "wire/short_bytes",
    "wire/error",
    "wire/line",
    "wire/query",
    "wire/redirect",
    "wire",
    "wire/batch/op",
    "wire/batch/result",
    "wire/batch",
    "wire/log/record",
    "wire/log/frame",
    "wire/log/lineage",
    "wire/log",
    "wire/pull",
    "wire/snapshot",
    "wire/scan",
    "wire/watch",
    // One node over HTTP.
    "attempt",
    "error",
    "tls/pem",
    "tls/credentials",
    "tls",
    "node_client/secured",
    "node_client/unsecured",
    "node_client/head",
    "node_client/chunked",
    "node_client/answer",
    "node_client/headers",
    "node_client/transport",
    "node_client/exchange",
    "node_client/connection",
    "node_client/pool",
    "node_client/options",
    "node_client/library",
    "node_client/client",
    "node_client/documents",
    "node_client/streams",
    "node_client",
    // Routing half.
    "policy/choice",
    "policy",
    "policy/budget",
    "policy/hedge",
    "policy/retry",
    "session",
    "plan",
    "options",
    "coalesce/health",
    "coalesce/latency",
    "coalesce/link",
    "coalesce/ticket",
    "coalesce/batch",
    "coalesce/lane",
    "coalesce",
    "history",
    "stats",
    "intent",
    "routes",
    "refresh",
    "request_ids",
    "router",
    "execute/attempt",
    "execute/course",
    "execute/recover",
    "execute/walk",
    "execute/steps",
    "execute",
    "entry",
    "shard_reader",
    "scan/shard",
    "scan",
    "watch/shard",
    "watch/event",
    "watch/feeds",
    "watch",
    "map_changes",
    "client",
    "atomic",
    "many",
    "update",
    "json",
    "builder",
    "blocking/runtime",
    "blocking",
    "backup/error",
    "backup/manifest",
    "backup/chain",
    "backup/copy",
    "backup/dir",
    "backup/verify",
    "backup/time",
    "backup/until",
    "backup/entries",
    "backup/fold",
    "backup/state",
    "backup/source",
    "backup/adding",
    "backup/pull",
    "backup/progress",
    "backup/restore",
    "backup",
    "bench",
];

/// The modules of the tool `kv`, a program over the library; its `main.rs` stands outside.
const TOOL: &[&str] = &[
    "exit",
    "text",
    "numbers",
    "failure",
    "out",
    "stop",
    "terms",
    "tls",
    "cert",
    "token",
    "bench/workload",
    "bench/args",
    "backup/args",
    "lines/args",
    "verify/args",
    "top/args",
    "args",
    "session_file",
    "connect",
    "nodes_say",
    "entries",
    "scan",
    "watch",
    "history",
    "undo",
    "route",
    "man",
    "status",
    "map",
    "backup/progress",
    "backup",
    "lines/entry",
    "lines/read",
    "lines",
    "top/view",
    "top/screen",
    "top/terminal",
    "top/live",
    "top",
    "doctor/finding",
    "doctor/facts",
    "doctor/maps",
    "doctor/node",
    "doctor/among",
    "doctor",
    "verify/verdict",
    "verify/counts",
    "verify/entries",
    "verify/side",
    "verify/again",
    "verify/deep",
    "verify",
    "bench/zipf",
    "bench/keys",
    "bench/load",
    "bench/pace",
    "bench/record",
    "bench/run",
    "bench/report",
    "bench/table",
    "bench",
];

#[test]
fn modules_use_only_what_stands_above_them() {
    check_order(ORDER, &source_files());
    check_order(TOOL, &tool_files());
}

fn check_order(order: &[&str], files: &BTreeMap<String, String>) {
    let place = |module: &str| order.iter().position(|other| *other == module);
    let mut mistakes = Vec::new();
    for (module, text) in files {
        let Some(own) = place(module) else {
            mistakes.push(format!("{module} is not in the list"));
            continue;
        };
        for used in uses(module, text, files) {
            let is_above = place(&used).is_some_and(|other| other < own);
            if used != *module && !is_above {
                mistakes.push(format!("{module} uses {used}, which stands below it"));
            }
        }
    }
    for module in order {
        if !files.contains_key(*module) {
            mistakes.push(format!("{module} is in the list and has no file"));
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn only_one_folder_knows_http_and_sockets() {
    for library in ["httparse::", "socket2::", "TcpStream", "tokio_rustls::"] {
        let (inside, outside): (Vec<_>, Vec<_>) = source_files()
            .into_iter()
            .filter(|(_, text)| text.contains(library))
            .map(|(module, _)| module)
            .partition(|module| module.split('/').next() == Some("node_client"));
        assert!(!inside.is_empty(), "{library} is used nowhere");
        assert!(outside.is_empty(), "{library}: {outside:?}");
    }
    for (module, text) in tool_files() {
        assert!(!text.contains("TcpStream"), "{module} of the tool");
    }
}

#[test]
fn only_the_tool_reads_arguments_and_writes_to_the_terminal() {
    for (module, text) in source_files() {
        for word in ["clap", "tracing_subscriber", "io::stdout", "io::stderr"] {
            assert!(!text.contains(word), "{module} uses {word}");
        }
    }
}

#[test]
fn the_pure_half_has_no_runtime() {
    let pure = ORDER.iter().take_while(|module| **module != "attempt");
    let files = source_files();
    for module in pure {
        assert!(!files[*module].contains("tokio::"), "{module}");
    }
}

#[test]
fn public_async_functions_say_how_they_fail_and_what_cancelling_leaves() {
    for (module, text) in source_texts() {
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        let functions = (0..lines.len()).filter(|&at| lines[at].starts_with("pub async fn"));
        for at in functions {
            let doc = doc_above(&lines[..at]);
            for section in ["/// # Errors", "/// # Cancel safety"] {
                assert!(
                    doc.contains(&section),
                    "{module}: {} has no {section}",
                    lines[at]
                );
            }
        }
    }
}

/// Examples are compiled, so they stay true: each public async function, each type that the root re-exports, and all of
/// the blocking client have one of their own.
#[test]
fn what_programs_use_shows_how() {
    let mut unseen = re_exported();
    let mut mistakes = Vec::new();
    for (module, text) in source_texts() {
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        let folder = module.split('/').next().unwrap();
        for (at, line) in lines.iter().enumerate() {
            let is_exported = declared_type(line)
                .is_some_and(|name| unseen.remove(&format!("crate::{folder}::{name}")));
            let is_used = is_exported
                || line.starts_with("pub async fn")
                || module == "blocking" && line.starts_with("pub ");
            let doc = doc_above(&lines[..at]);
            if is_used && !doc.iter().any(|line| line.starts_with("/// ```")) {
                mistakes.push(format!("{module}: {line} has no example"));
            }
        }
    }
    // Otherwise another way to declare a type would go past this test.
    mistakes.extend(
        unseen
            .iter()
            .map(|path| format!("{path} is declared nowhere")),
    );
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

/// What `lib.rs` re-exports at the root, by folder and name: `crate::key::Key`.
fn re_exported() -> BTreeSet<String> {
    let root = texts_in("src").remove("lib").unwrap();
    let exported = root.split("\npub use ").skip(1).flat_map(paths);
    let in_folder = exported.map(|path| {
        let parts: Vec<&str> = path.split("::").collect();
        format!("crate::{}::{}", parts[1], parts[parts.len() - 1])
    });
    in_folder.collect()
}

/// The type that a line declares for everybody.
fn declared_type(line: &str) -> Option<&str> {
    let keywords = ["pub struct ", "pub enum ", "pub type ", "pub trait "];
    let rest = keywords.iter().find_map(|word| line.strip_prefix(word))?;
    rest.split(|c: char| !c.is_alphanumeric()).next()
}

/// The doc comment and the attributes that stand right above an item, from the last line to the first.
fn doc_above<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let above = lines.iter().rev();
    above
        .take_while(|line| line.starts_with("///") || line.starts_with("#["))
        .copied()
        .collect()
}

/// Module name (`wire/batch`) to text without comments and tests.
fn source_files() -> BTreeMap<String, String> {
    let texts = source_texts().into_iter();
    texts.map(|(name, text)| (name, code_of(&text))).collect()
}

/// The same for the tool, without `main.rs`.
fn tool_files() -> BTreeMap<String, String> {
    let mut texts = texts_in("src/bin/kv");
    texts.remove("main");
    let texts = texts.into_iter();
    texts.map(|(name, text)| (name, code_of(&text))).collect()
}

/// Module name to text, of the library.
fn source_texts() -> BTreeMap<String, String> {
    let mut texts = texts_in("src");
    texts.retain(|name, _| name != "lib" && !name.starts_with("bin/"));
    texts
}

fn texts_in(folder: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(&root).unwrap().with_extension("");
            let name = relative.to_str().unwrap().replace('\\', "/");
            let name = name.strip_suffix("/mod").unwrap_or(&name).to_owned();
            files.insert(name, fs::read_to_string(path).unwrap());
        }
    }
    files
}

fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that a file names behind `crate::`, `super::` or `self::`, in `use` lists or in the code.
fn uses(module: &str, text: &str, files: &BTreeMap<String, String>) -> Vec<String> {
    let parent = module.rsplit_once('/').map_or("", |(parent, _)| parent);
    // A folder's mod.rs finds its children by `self::`; `super::` is the folder for a child, the root for others.
    let mut used = Vec::new();
    for (prefix, base) in [("crate::", ""), ("super::", parent), ("self::", module)] {
        for (at, _) in text.match_indices(prefix) {
            let path = &text[at + prefix.len()..];
            used.extend(
                paths(path)
                    .iter()
                    .filter_map(|path| resolve(base, path, files)),
            );
        }
    }
    used
}

/// The paths of a use tree, flattened: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let head = &text[..end];
    if !text[end..].starts_with('{') {
        return vec![head.to_owned()];
    }
    let mut depth = 0;
    let mut start = end + 1;
    let mut found = Vec::new();
    for (at, c) in text[end..].char_indices().map(|(at, c)| (at + end, c)) {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 1 && c == ',' || depth == 0 {
            let item = text[start..at].trim();
            start = at + 1;
            // Nothing stands behind a trailing comma.
            let inner = if item.is_empty() {
                Vec::new()
            } else {
                paths(item)
            };
            found.extend(inner.iter().map(|path| format!("{head}{path}")));
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// The deepest module that a path names.
fn resolve(base: &str, path: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let mut module = base.to_owned();
    for name in path.split("::") {
        let deeper = match module.is_empty() {
            true => name.to_owned(),
            false => format!("{module}/{name}"),
        };
        if !files.contains_key(&deeper) {
            break;
        }
        module = deeper;
    }
    (!module.is_empty()).then_some(module)
}
