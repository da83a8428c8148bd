//! From the saved rows to `reliability.json` and the table in `RELIABILITY.md`.
//!
//! `./test.sh --bar` runs this last. A row that was measured now replaces the one of an earlier run; each keeps the
//! commit that it was measured at.

use std::{env, fs, path::Path};

use serde_json::{Map, Value, json};

/// Every row: its id, and the fault.
const ROWS: &[(&str, &str)] = &[
    ("A1", "kill -9 of a node under load"),
    ("A2", "power cut (the page cache is lost) under load"),
    ("A3", "every crash state between two syncs, of log and LMDB"),
    ("A4", "death at each named point"),
    ("A5", "EIO on fdatasync and on writes"),
    ("A6", "disk full, freed, full again"),
    ("A7", "LMDB's map is full"),
    ("A8", "a reader held open while everything is overwritten"),
    ("A9", "600 reads at once"),
    ("A10", "the data is gone, the marker is there"),
    ("A11", "a second process on the same directory"),
    ("A12", "one flipped bit, in the log and in LMDB"),
    ("A13", "no descriptors, no memory"),
    ("A14", "SIGTERM under load"),
    ("B1", "replica killed under load"),
    ("B2", "replica away for longer than the log is kept"),
    ("B3", "snapshot interrupted, either side killed"),
    ("B4", "a replica that takes a snapshot at 10 kB/s"),
    ("B5", "link cut, reset, half-open, lossy"),
    (
        "B6",
        "stream with bytes changed, left out, repeated, reordered",
    ),
    ("B7", "replica with a tail of its own"),
    ("B8", "primary shorter than its replica"),
    ("B9", "primary restarts empty"),
    ("B10", "sessions read from replicas that lag and die"),
    ("B11", "replica and primary stand still"),
    ("B12", "one write after a long silence"),
    ("B13", "two primaries by a changed map"),
    ("B14", "forged pulls"),
    (
        "K1",
        "primary's disk destroyed, replica promoted by hand, writes with Kv-Ack: 1",
    ),
    ("D1", "connection cut between request and answer"),
    ("D2", "stale shard map, all nodes swapped"),
    (
        "D3",
        "redirect loop, redirect to a dead and to an unknown node",
    ),
    ("D4", "one node silent"),
    ("D5", "all nodes slow"),
    ("D6", "curl through a redirect, every way to send a body"),
    ("D7", "any bytes as key, by curl, client and redirect"),
    ("D9", "futures dropped in mid-call"),
    ("E1", "requests made from the API's description"),
    ("E2", "arbitrary and mutated bytes to every decoder"),
    ("E3", "slow heads, bodies and readers"),
    ("E4", "thousands of connections, then silence"),
    ("E5", "everything oversize"),
    ("E6", "odd and smuggled HTTP"),
    ("E7", "hostile pages in a browser"),
    ("E8", "every path and method, asked by every kind of caller"),
    ("E9", "redirects to where a token does not belong"),
    ("E10", "keys, values and headers in logs and metrics"),
    (
        "F1",
        "mixed load, a fault every 10 s, 3 shards with 2 replicas each",
    ),
    (
        "L1",
        "histories of single keys, under faults, checked for linearizability",
    ),
    (
        "M1",
        "sequences of ops, crashes and snapshots against a plain map",
    ),
];

const BEGIN: &str = "<!-- table: begin -->";
const END: &str = "<!-- table: end -->";

#[test]
fn row_ids_are_unique() {
    let mut ids: Vec<&str> = ROWS.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), ROWS.len());
}

#[test]
#[ignore = "writes the report; ./test.sh --bar runs it"]
fn write_the_report() {
    let dir = env::var("KV_REPORT_DIR").expect("KV_REPORT_DIR names the saved rows");
    let commit = env::var("KV_COMMIT").expect("KV_COMMIT names what was measured");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (data, page) = (root.join("reliability.json"), root.join("RELIABILITY.md"));
    let before = fs::read_to_string(&data).unwrap_or_else(|_| "{}".into());
    let before: Map<String, Value> = serde_json::from_str(&before).expect("JSON");
    let mut report = Map::new();
    for (id, fault) in ROWS {
        let row = gather(Path::new(&dir), id, fault, &commit);
        if let Some(row) = row.or_else(|| before.get(*id).cloned()) {
            report.insert((*id).to_owned(), row);
        }
    }
    let text = serde_json::to_string_pretty(&report).expect("JSON");
    fs::write(&data, text + "\n").expect("reliability.json");
    let text = fs::read_to_string(&page).expect("RELIABILITY.md");
    let (head, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (_, tail) = rest.split_once(END).expect("where the table ends");
    let table = table(&report);
    fs::write(&page, format!("{head}{BEGIN}\n{table}{END}{tail}")).expect("RELIABILITY.md");
}

/// What this run saved of a row. The short form's figures are not worth a line.
fn gather(dir: &Path, id: &str, fault: &str, commit: &str) -> Option<Value> {
    let read = |kind: &str| -> Option<Value> {
        let text = fs::read_to_string(dir.join(format!("{id}.{kind}.json"))).ok()?;
        Some(serde_json::from_str(&text).expect("JSON"))
    };
    let mut row = read("row").filter(|row| row["full"] == true)?;
    row["fault"] = json!(fault);
    row["commit"] = json!(commit);
    row["control"] = read("control").unwrap_or(Value::Null);
    Some(row)
}

/// Two tables, since one would be too wide to read: what came of it in numbers, and in words with the control runs.
fn table(report: &Map<String, Value>) -> String {
    let mut numbers = String::from(
        "| Row | Fault | Rounds | Acknowledged | Lost | Twice | Unknown (of these applied) | Longest gap | Commit |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut words = String::from(
        "| Row | What was seen | Control: what was switched off, and what the same test then found | Seed |\n\
         |---|---|---|---|\n",
    );
    for (id, fault) in ROWS {
        match report.get(*id) {
            None => numbers.push_str(&format!(
                "| {id} | {fault} | not measured |{}\n",
                " |".repeat(6)
            )),
            Some(row) => {
                numbers.push_str(&in_numbers(id, fault, row));
                words.push_str(&in_words(id, row));
            }
        }
    }
    format!("{numbers}\n{words}")
}

fn in_numbers(id: &str, fault: &str, row: &Value) -> String {
    let number = |name: &str| row[name].as_u64().unwrap_or(0);
    let writes = match (number("acknowledged"), number("unknown")) {
        // Not a row of writes.
        (0, 0) => "| | | |".to_owned(),
        (acknowledged, unknown) => format!(
            "{acknowledged} | {} | {} | {unknown} ({})",
            number("lost"),
            number("duplicated"),
            number("unknown_applied")
        ),
    };
    let gap = row["longest_gap_ms"].as_u64();
    let gap = gap.map_or(String::new(), |ms| format!("{ms} ms"));
    let commit = cell(&row["commit"]);
    let commit = commit.get(..9).unwrap_or(&commit);
    let rounds = number("rounds");
    format!("| {id} | {fault} | {rounds} | {writes} | {gap} | {commit} |\n")
}

fn in_words(id: &str, row: &Value) -> String {
    let control = match &row["control"] {
        Value::Null => "none".to_owned(),
        control => format!("{}: {}", cell(&control["off"]), cell(&control["found"])),
    };
    format!(
        "| {id} | {} | {control} | {} |\n",
        cell(&row["figures"]),
        cell(&row["seed"])
    )
}

/// Text that stays in its cell.
fn cell(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_default()
        .replace('|', "/")
        .replace('\n', " ")
}
