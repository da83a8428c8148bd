//! Whether a row reached its goal: this store's figure beside that of the best peer.

use crate::outcome::{Line, Outcome, short};

pub(super) const RATE: &str = "ops/s";
pub(super) const MEDIAN: &str = "p50 us";
pub(super) const SLOWEST: &str = "p99 us";
pub(super) const STORE_CPU: &str = "CPU us/op, store";

/// Which figure counts, and how it has to be to that of the best peer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Judge {
    /// Ops a second: at least that many times as many.
    Rate { at_least: f64 },
    /// The time of half of the ops: at most that many times as long.
    Median { at_most: f64 },
    /// The time that 99 of 100 ops keep: at most that many times as long.
    Slowest { at_most: f64 },
}

impl Judge {
    /// The first line is this store's.
    pub(super) fn verdict(self, lines: Vec<Line>, notes: Vec<String>) -> Outcome {
        let what = self.what();
        let of = |line: &Line| line.median(what).unwrap_or(f64::NAN);
        let ours = of(&lines[0]);
        let peers = lines[1..].iter();
        let best = peers.min_by(|a, b| self.cost(of(a)).total_cmp(&self.cost(of(b))));
        let ratio = best.map(|best| ours / of(best));
        Outcome {
            ours: format!("{} {what}", short(ours)),
            against: best.map_or_else(
                || "no peer is installed".to_owned(),
                |best| format!("{} {what} ({})", short(of(best)), best.name),
            ),
            ratio,
            reached: ratio.map(|ratio| self.is_reached(ratio)),
            lines,
            notes,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Rate { .. } => RATE,
            Self::Median { .. } => MEDIAN,
            Self::Slowest { .. } => SLOWEST,
        }
    }

    /// What the best peer has least of.
    fn cost(self, value: f64) -> f64 {
        match self {
            Self::Rate { .. } => -value,
            Self::Median { .. } | Self::Slowest { .. } => value,
        }
    }

    fn is_reached(self, ratio: f64) -> bool {
        match self {
            Self::Rate { at_least } => ratio >= at_least,
            Self::Median { at_most } | Self::Slowest { at_most } => ratio <= at_most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Figure;

    fn side(name: &str, what: &str, values: &[f64]) -> Line {
        Line {
            name: name.to_owned(),
            figures: vec![Figure::new(what, values.iter().copied())],
        }
    }

    #[test]
    fn the_best_peer_is_the_fastest_one() {
        let lines = vec![
            side("kvclient", RATE, &[300.0, 310.0, 290.0]),
            side("a", RATE, &[100.0]),
            side("b", RATE, &[120.0]),
        ];
        let outcome = Judge::Rate { at_least: 2.5 }.verdict(lines, Vec::new());
        assert_eq!(outcome.against, "120 ops/s (b)");
        assert_eq!((outcome.ratio, outcome.reached), (Some(2.5), Some(true)));
    }

    #[test]
    fn the_best_peer_is_the_quickest_one() {
        let lines = vec![
            side("kvclient", MEDIAN, &[130.0]),
            side("a", MEDIAN, &[100.0]),
            side("b", MEDIAN, &[120.0]),
        ];
        let outcome = Judge::Median { at_most: 1.2 }.verdict(lines, Vec::new());
        assert_eq!(outcome.against, "100 p50 us (a)");
        assert_eq!(outcome.reached, Some(false));
    }

    #[test]
    fn without_peers_nothing_is_judged() {
        let lines = vec![side("kvclient", RATE, &[1.0])];
        let missing = vec!["Redis: not installed".to_owned()];
        let outcome = Judge::Rate { at_least: 2.0 }.verdict(lines, missing);
        assert_eq!(outcome.against, "no peer is installed");
        assert_eq!(outcome.reached, None);
    }
}
