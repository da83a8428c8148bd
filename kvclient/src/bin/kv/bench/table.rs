//! A report for people: what was run, the figures in a table, what they are times of.

use super::report::{KindReport, Latency, Report};
use crate::{
    numbers::{grouped, time},
    text::harmless,
};

const HEAD: [&str; 8] = ["", "ops", "mean", "p50", "p95", "p99", "p99.9", "max"];

/// The whole text.
pub(crate) fn text(report: &Report) -> String {
    let mut text = intro(report);
    let times = rows(report);
    if times.len() > 1 {
        text.push('\n');
        text.push_str(&aligned(&times));
        text.push_str(meaning(report));
    }
    for failure in &report.failures {
        let line = format!(
            "{} {} failed: {}, {}; the first: {}\n",
            grouped(failure.count),
            failure.kind.name(),
            failure.error,
            failure.outcome.replace('_', " "),
            failure.first
        );
        text.push_str(&harmless(&line));
    }
    text
}

fn intro(report: &Report) -> String {
    let settings = &report.settings;
    let rate = settings.rate_per_second;
    let pace = rate.map_or("closed loop".to_owned(), |rate| {
        format!("open loop, {} ops/s due", grouped(u64::from(rate)))
    });
    let mut text = format!(
        "workload {}, {} keys of {} bytes, {}, {} tasks, {pace}, reads {}, ack {}, seed {}\n",
        report.workload,
        grouped(settings.keys),
        settings.value_bytes,
        settings.distribution.name(),
        settings.tasks,
        settings.consistency,
        settings.ack,
        settings.seed
    );
    text.push_str(&format!(
        "{} ops/s: {} ops in {:.1} s, {} failed, {} of them with unknown outcome\n",
        grouped_rounded(report.ops_per_second),
        grouped(report.ops),
        report.seconds,
        grouped(report.failed),
        grouped(report.unknown_outcome)
    ));
    if report.absent > 0 {
        text.push_str(&format!("{} found no entry\n", grouped(report.absent)));
    }
    if report.never_begun > 0 {
        text.push_str(&format!(
            "{} ops were due and never begun, since all tasks were busy: more was due than could be done\n",
            grouped(report.never_begun)
        ));
    }
    if report.interrupted {
        text.push_str("stopped before its time\n");
    }
    text
}

/// What the times are, and what they are not.
fn meaning(report: &Report) -> &'static str {
    match report.settings.rate_per_second {
        None => {
            "Times are service times, from request to answer. In a closed loop no op waits for a late one; --rate shows such waits.\n"
        }
        Some(_) => {
            "Times count from when an op was due; those marked (service) from when it was begun.\n"
        }
    }
}

fn rows(report: &Report) -> Vec<[String; HEAD.len()]> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for kind in &report.kinds {
        let name = kind.kind.name();
        if let Some(response) = &kind.response_time {
            rows.push(row(name, kind, response));
            rows.push(row(&format!("{name} (service)"), kind, &kind.service_time));
        } else {
            rows.push(row(name, kind, &kind.service_time));
        }
    }
    rows
}

fn row(name: &str, kind: &KindReport, times: &Latency) -> [String; HEAD.len()] {
    [
        name.to_owned(),
        grouped(kind.ops),
        time(times.mean_us),
        time(times.p50_us as f64),
        time(times.p95_us as f64),
        time(times.p99_us as f64),
        time(times.p99_9_us as f64),
        time(times.max_us as f64),
    ]
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[[String; HEAD.len()]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        text.push_str(&format!("{:<1$}", row[0], width(0)));
        for (column, cell) in row.iter().enumerate().skip(1) {
            text.push_str(&format!("  {cell:>0$}", width(column)));
        }
        text.push('\n');
    }
    text
}

fn grouped_rounded(number: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is small and not negative"
    )]
    let whole = number.round() as u64;
    grouped(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::sample;

    #[tokio::test]
    async fn an_open_loop_shows_both_times() {
        let text = text(&sample(Some(50)).await);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "workload a, 1,000 keys of 5 bytes, uniform, 8 tasks, open loop, 50 ops/s due, \
             reads max-lag=200ms, ack majority, seed 7"
        );
        assert_eq!(
            lines[1],
            "1 ops/s: 2 ops in 2.0 s, 1 failed, 0 of them with unknown outcome"
        );
        assert_eq!(lines[2], "1 found no entry");
        assert!(lines[3].starts_with("4 ops were due"), "{text}");
        assert_eq!(lines[4], "stopped before its time");
        assert!(
            lines[6].starts_with("                ops     mean"),
            "{text}"
        );
        assert!(
            lines[7].starts_with("read              2  4.50 ms"),
            "{text}"
        );
        assert!(
            lines[8].starts_with("read (service)    2  1.50 ms"),
            "{text}"
        );
        assert!(lines[9].contains("from when an op was due"), "{text}");
        assert!(lines[10].starts_with("1 update failed: invalid, not applied; the first: "));
    }

    #[tokio::test]
    async fn a_closed_loop_says_what_it_cannot_show() {
        let text = text(&sample(None).await);
        assert!(text.contains("closed loop"), "{text}");
        assert!(text.contains("Times are service times"), "{text}");
        assert!(!text.contains("(service)"), "{text}");
    }
}
