//! What came of all rows so far: `performance.json`, and the tables of `PERFORMANCE.md` that are made from it.
//!
//! A row that is measured again replaces what an earlier run said of it. Each keeps the commit and the machine that
//! it was measured at.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    outcome::{Line, Outcome, short},
    rows::{self, Row},
};

const BEGIN: &str = "<!-- table: begin -->";
const END: &str = "<!-- table: end -->";

/// All rows, by their names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Report {
    rows: BTreeMap<String, Saved>,
}

/// One row, as it was measured.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    work: String,
    goal: String,
    /// Repeats it.
    command: String,
    run: Circumstances,
    #[serde(flatten)]
    outcome: Outcome,
}

/// What was measured where, and how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Circumstances {
    pub(crate) commit: String,
    pub(crate) machine: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
}

impl Report {
    /// What was saved before; nothing if there is no such file.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("{}", file.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("{}", file.display())),
        }
    }

    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text + "\n").with_context(|| format!("{}", file.display()))
    }

    /// Replaces what is known of a row.
    pub(crate) fn put(&mut self, row: &Row, run: Circumstances, outcome: Outcome) {
        let saved = Saved {
            work: row.work.to_owned(),
            goal: row.goal.to_owned(),
            command: format!("./bench.sh {}", row.id),
            run,
            outcome,
        };
        self.rows.insert(row.id.to_owned(), saved);
    }

    /// Puts the tables between the marks of a page.
    pub(crate) fn write_page(&self, page: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(page).with_context(|| format!("{}", page.display()))?;
        let (head, rest) = text.split_once(BEGIN).context("where the table begins")?;
        let (_, tail) = rest.split_once(END).context("where the table ends")?;
        let tables = self.tables();
        Ok(fs::write(
            page,
            format!("{head}{BEGIN}\n{tables}{END}{tail}"),
        )?)
    }

    /// What came of each row; then everybody's figures; then where and when.
    fn tables(&self) -> String {
        let known = || {
            rows::all()
                .iter()
                .filter_map(|row| Some((row, self.rows.get(row.id)?)))
        };
        let mut text = String::from(
            "| Row | Work | This store | Beside | Times | Goal | Reached | Commit |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        for row in rows::all() {
            text.push_str(&match self.rows.get(row.id) {
                None => format!(
                    "| {} | {} | not measured | | | {} | | |\n",
                    row.id, row.work, row.goal
                ),
                Some(saved) => saved.verdict(row.id),
            });
        }
        text.push_str(
            "\n| Row | Who | Figures: the median of the rounds (lowest-highest) |\n|---|---|---|\n",
        );
        for (row, saved) in known() {
            text.extend(saved.outcome.lines.iter().map(|line| figures(row.id, line)));
        }
        text.push('\n');
        text.push_str(&self.circumstances());
        text
    }

    fn circumstances(&self) -> String {
        let mut rows_of: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (id, saved) in &self.rows {
            rows_of.entry(saved.run.in_words()).or_default().push(id);
            for note in &saved.outcome.notes {
                rows_of.entry(note.clone()).or_default().push(id);
            }
        }
        let lines = rows_of
            .iter()
            .map(|(said, ids)| match ids.len() == self.rows.len() {
                true => format!("- All rows: {said}\n"),
                false => format!("- {}: {said}\n", ids.join(", ")),
            });
        lines.collect()
    }
}

impl Saved {
    fn verdict(&self, id: &str) -> String {
        let outcome = &self.outcome;
        let ratio = outcome
            .ratio
            .map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let reached = match outcome.reached {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not judged",
        };
        format!(
            "| {id} | {} | {} | {} | {ratio} | {} | {reached} | {} |\n",
            self.work, outcome.ours, outcome.against, self.goal, self.run.commit
        )
    }
}

impl Circumstances {
    fn in_words(&self) -> String {
        format!(
            "{}, {} rounds of {} s, commit {}",
            self.machine, self.rounds, self.seconds, self.commit
        )
    }
}

fn figures(id: &str, line: &Line) -> String {
    let figures = line.figures.iter().map(|figure| {
        let rounds = figure.rounds.iter();
        let (low, high) = rounds.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
            (low.min(value), high.max(value))
        });
        let range = match figure.rounds.len() {
            0 | 1 => String::new(),
            _ => format!(" ({}-{})", short(low), short(high)),
        };
        format!("{} {}{range}", short(figure.median), figure.what)
    });
    let figures: Vec<String> = figures.collect();
    format!("| {id} | {} | {} |\n", line.name, figures.join("; "))
}
