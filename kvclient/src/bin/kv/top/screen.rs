//! What is shown: totals and their last minute on top, a line for each node, and below why one is not well. Pure.

use crate::{
    numbers::{grouped, size, time},
    text::escaped,
};

use super::view::{SHOWN, Sample, State, View};

const HEAD: [&str; 14] = [
    "NODE", "SHARD", "ROLE", "STATE", "READS/S", "p50", "p99", "WRITES/S", "p50", "p99", "LAG",
    "LOG", "LMDB", "MEMORY",
];

/// The first columns are text and stand to the left.
const LEFT: usize = 4;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Whether a terminal is told about colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    Plain,
    Coloured,
}

/// A line, and whether it tells of trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    text: String,
    is_trouble: bool,
}

/// The lines, each cut to `width` characters, at most `height` of them.
pub(crate) fn lines(
    title: &str,
    views: &[View],
    colours: Colours,
    width: usize,
    height: usize,
) -> Vec<String> {
    let plain = |text: String| Row {
        text,
        is_trouble: false,
    };
    let mut rows = vec![plain(title.to_owned())];
    rows.extend(totals(views).map(plain));
    rows.push(plain(String::new()));
    rows.extend(table(views));
    rows.extend(views.iter().filter_map(trouble));
    rows.truncate(height);
    rows.into_iter()
        .map(|row| paint(&row, colours, width))
        .collect()
}

fn paint(row: &Row, colours: Colours, width: usize) -> String {
    let text: String = row.text.chars().take(width).collect();
    match (row.is_trouble, colours) {
        (true, Colours::Coloured) => format!("\x1b[31m{text}\x1b[0m"),
        _ => text,
    }
}

fn totals(views: &[View]) -> [String; 3] {
    let sum = |of: fn(&Sample) -> u64| views.iter().filter_map(View::last).map(of).sum::<u64>();
    let ready = views
        .iter()
        .filter(|view| view.state == State::Ready)
        .count();
    let line = |name: &str, of: fn(&Sample) -> u64| {
        format!(
            "{name:<8}{:>12}/s  {}",
            grouped(sum(of)),
            sparkline(&minute(views, of))
        )
    };
    [
        line("reads", |sample| sample.reads),
        line("writes", |sample| sample.writes),
        format!(
            "{:<8}{:>12}/s  {ready} of {} nodes ready",
            "failed",
            grouped(sum(|sample| sample.failed)),
            views.len()
        ),
    ]
}

/// Sums of all nodes that answer, by second, the newest last. A node's seconds are counted back from its newest.
fn minute(views: &[View], of: fn(&Sample) -> u64) -> Vec<u64> {
    let mut sums = Vec::new();
    for view in views.iter().filter(|view| view.last().is_some()) {
        let newest_first = view.samples.iter().rev().take(SHOWN).map(of);
        for (at, number) in newest_first.enumerate() {
            match sums.get_mut(at) {
                Some(sum) => *sum += number,
                None => sums.push(number),
            }
        }
    }
    sums.reverse();
    sums
}

/// A bar for each number; the largest is a full one, and only 0 is the lowest.
fn sparkline(numbers: &[u64]) -> String {
    let largest = numbers.iter().copied().max().unwrap_or(0).max(1);
    let bar = |number: &u64| {
        let step = number.saturating_mul(7).div_ceil(largest);
        BARS[usize::try_from(step).unwrap_or(7).min(7)]
    };
    numbers.iter().map(bar).collect()
}

fn table(views: &[View]) -> Vec<Row> {
    let mut rows = vec![(HEAD.map(str::to_owned), false)];
    rows.extend(
        views
            .iter()
            .map(|view| (cells(view), view.state.why().is_some())),
    );
    let width = |column: usize| {
        rows.iter()
            .map(|(cells, _)| cells[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let text = |cells: &[String; HEAD.len()]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| match at < LEFT {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            });
        padded.collect::<Vec<_>>().join("  ")
    };
    rows.iter()
        .map(|(cells, is_trouble)| Row {
            text: text(cells),
            is_trouble: *is_trouble,
        })
        .collect()
}

fn cells(view: &View) -> [String; HEAD.len()] {
    let last = view.last();
    let of = |show: &dyn Fn(&Sample) -> Option<String>| {
        last.and_then(show).unwrap_or_else(|| "-".to_owned())
    };
    let us = |of_sample: fn(&Sample) -> Option<f64>| of(&|sample| of_sample(sample).map(time));
    [
        view.address.to_string(),
        view.shard.clone(),
        view.role.to_owned(),
        view.state.name().to_owned(),
        of(&|sample| Some(grouped(sample.reads))),
        us(|sample| sample.read_p50_us),
        us(|sample| sample.read_p99_us),
        of(&|sample| Some(grouped(sample.writes))),
        us(|sample| sample.write_p50_us),
        us(|sample| sample.write_p99_us),
        of(&|sample| match view.role {
            "primary" => None,
            _ => sample.lag_ms.map(|ms| format!("{ms} ms")),
        }),
        of(&|sample| Some(size(sample.log_bytes))),
        of(&|sample| Some(size(sample.lmdb_bytes))),
        of(&|sample| sample.memory_bytes.map(size)),
    ]
}

fn trouble(view: &View) -> Option<Row> {
    let why = view.state.why()?;
    let text = format!("{}: {}", view.address, escaped(why.as_bytes()));
    Some(Row {
        text,
        is_trouble: true,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::view::tests::view, *};

    fn sample(reads: u64, writes: u64) -> Sample {
        Sample {
            reads,
            writes,
            read_p50_us: Some(120.0),
            read_p99_us: Some(1_500.0),
            lag_ms: Some(3),
            log_bytes: 64 << 20,
            memory_bytes: Some(5 << 20),
            ..Sample::default()
        }
    }

    fn all() -> [View; 3] {
        [
            view(
                1,
                "primary",
                State::Ready,
                &[sample(0, 0), sample(1_000, 10), sample(2_000, 20)],
            ),
            view(2, "replica", State::Ready, &[sample(500, 0)]),
            view(
                3,
                "replica",
                State::Down("no\u{1b}[2J".into()),
                &[sample(9, 9)],
            ),
        ]
    }

    #[test]
    fn a_screen() {
        let shown = lines("kv top", &all(), Colours::Plain, 200, 50);
        let expected = [
            "kv top",
            "reads          2,500/s  ▁▄█",
            "writes            20/s  ▁▅█",
            "failed             0/s  2 of 3 nodes ready",
            "",
            "NODE  SHARD  ROLE     STATE  READS/S     p50      p99  WRITES/S  p50  p99   LAG       LOG     LMDB   MEMORY",
            "h:1   s      primary  ready    2,000  120 us  1.50 ms        20    -    -     -  64.0 MiB  0 bytes  5.0 MiB",
            "h:2   s      replica  ready      500  120 us  1.50 ms         0    -    -  3 ms  64.0 MiB  0 bytes  5.0 MiB",
            "h:3   s      replica  down         -       -        -         -    -    -     -         -        -        -",
            "h:3: no\\x1b[2J",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn it_fits_into_a_small_terminal() {
        let shown = lines("kv top", &all(), Colours::Coloured, 10, 9);
        assert_eq!(shown.len(), 9);
        assert_eq!(shown[8], "\x1b[31mh:3   s   \x1b[0m");
        assert!(shown[..8].iter().all(|line| line.chars().count() <= 10));
        assert!(lines("kv top", &[], Colours::Plain, 0, 0).is_empty());
    }

    #[test]
    fn bars_show_what_is_more_than_nothing() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[0, 0]), "▁▁");
        assert_eq!(sparkline(&[0, 1, 1_000, 500]), "▁▂█▅");
        assert_eq!(sparkline(&[u64::MAX]).chars().count(), 1);
    }
}
