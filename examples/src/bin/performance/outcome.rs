//! What came of a row, as it is saved: the words of its line in the table, and every figure behind them.

use serde::{Deserialize, Serialize};

/// What came of one row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// This store's figure, as the table shows it.
    pub(crate) ours: String,
    /// The one it is held against, and whose that is.
    pub(crate) against: String,
    /// How many times as much, or as long.
    pub(crate) ratio: Option<f64>,
    /// `None`: nobody was there to be measured against, or the row has no goal.
    pub(crate) reached: Option<bool>,
    /// Who was measured, with all figures.
    pub(crate) lines: Vec<Line>,
    /// What a reader has to know: who is missing, and why.
    pub(crate) notes: Vec<String>,
}

/// All figures of one side.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) figures: Vec<Figure>,
}

/// A figure's name, and how it is taken from a round.
pub(crate) type Taken<R> = (&'static str, fn(&R) -> f64);

/// One figure, measured in several rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// With its unit: `ops/s`, `p50 us`.
    pub(crate) what: String,
    pub(crate) median: f64,
    pub(crate) rounds: Vec<f64>,
}

impl Outcome {
    /// Nothing was measured, since this program is not there.
    pub(crate) fn not_installed(program: &str) -> Self {
        Self {
            ours: "not measured".to_owned(),
            against: format!("{program} is not installed"),
            notes: vec![format!("{program}: not installed")],
            ..Self::default()
        }
    }
}

impl Figure {
    pub(crate) fn new(what: &str, rounds: impl IntoIterator<Item = f64>) -> Self {
        let rounds: Vec<f64> = rounds.into_iter().collect();
        Self {
            what: what.to_owned(),
            median: median(&rounds),
            rounds,
        }
    }
}

impl Line {
    /// Figures of one side, each taken from every round.
    pub(crate) fn of<R>(name: &str, rounds: &[R], figures: &[Taken<R>]) -> Self {
        let figures = figures.iter();
        let figures = figures.map(|(what, get)| Figure::new(what, rounds.iter().map(get)));
        Self {
            name: name.to_owned(),
            figures: figures.collect(),
        }
    }

    /// Median of one of its figures.
    pub(crate) fn median(&self, what: &str) -> Option<f64> {
        let mut figures = self.figures.iter();
        figures
            .find(|figure| figure.what == what)
            .map(|figure| figure.median)
    }
}

/// The middle one; of an even number the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, half) if count % 2 == 1 => sorted[half],
        (_, half) => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// A number for people: three digits that count.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        huge if huge >= 999_500.0 => format!("{:.2} M", value / 1_000_000.0),
        big if big >= 99_950.0 => format!("{:.0} k", value / 1_000.0),
        big if big >= 9_995.0 => format!("{:.1} k", value / 1_000.0),
        big if big >= 1_000.0 => format!("{:.2} k", value / 1_000.0),
        middle if middle >= 99.5 => format!("{value:.0}"),
        small if small >= 9.95 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (2_191_000.0, "2.19 M"),
            (310_400.0, "310 k"),
            (99_949.0, "99.9 k"),
            (1_234.0, "1.23 k"),
            (123.4, "123"),
            (12.34, "12.3"),
            (1.234, "1.23"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }
}
