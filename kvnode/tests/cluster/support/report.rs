//! What a fault did to the nodes, in figures: one row of the table in `RELIABILITY.md`, and its control run.
//!
//! A row says what was kept; its control run switches off what keeps it and says what the same test then found. Both
//! are saved as JSON where `KV_REPORT_DIR` says, one file each, since tests run in processes of their own;
//! `table.rs` of the fault tests makes the table of them. Whatever cannot run here saves why.

use std::{fs, path::PathBuf, time::Instant};

use serde_json::{Value, json};

use super::{oracle::Verdict, seed};

/// The figures of one row.
#[derive(Debug)]
pub(crate) struct Row {
    id: &'static str,
    began: Instant,
    /// How often the fault struck.
    pub(crate) rounds: usize,
    /// Writes and what became of them.
    pub(crate) writes: Verdict,
    /// Longest time without an acknowledged write, in ms, where that was watched.
    pub(crate) longest_gap_ms: Option<u64>,
    /// Whatever else was counted or measured, as text.
    pub(crate) figures: String,
}

impl Row {
    /// The row of this id, which stands in the list of `table.rs`.
    pub(crate) fn begin(id: &'static str) -> Self {
        Self {
            id,
            began: Instant::now(),
            rounds: 0,
            writes: Verdict::default(),
            longest_gap_ms: None,
            figures: String::new(),
        }
    }

    /// Prints and saves it.
    pub(crate) fn save(self) {
        let writes = &self.writes;
        let row = json!({
            "rounds": self.rounds,
            "acknowledged": writes.acked,
            "lost": writes.lost,
            "duplicated": writes.duplicated,
            "unknown": writes.unknown,
            "unknown_applied": writes.unknown_applied,
            "longest_gap_ms": self.longest_gap_ms,
            "figures": self.figures,
            "seed": seed().to_string(),
            "seconds": self.began.elapsed().as_secs(),
            "full": super::bar(),
        });
        save(self.id, "row", &row);
    }
}

/// Saves what a row's test found once `off` was switched off. It found something, or it would have failed.
pub(crate) fn save_control(id: &str, off: &str, found: &str) {
    save(id, "control", &json!({ "off": off, "found": found }));
}

/// Saves why a row cannot be tested on this machine.
pub(crate) fn save_skipped(id: &str, why: &str) {
    save(id, "skipped", &json!({ "why": why }));
}

fn save(id: &str, kind: &str, value: &Value) {
    eprintln!("bar {id}: {kind}: {value}");
    let Some(dir) = std::env::var_os("KV_REPORT_DIR").filter(|dir| !dir.is_empty()) else {
        return;
    };
    let dir = PathBuf::from(dir);
    fs::create_dir_all(&dir).expect("a directory for the report");
    let text = format!("{value}\n");
    fs::write(dir.join(format!("{id}.{kind}.json")), text).expect("a file of the report");
}
