//! What processes hold: descriptors, threads, memory of their own and files, sampled while they run, and whether it
//! grows.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::cluster::Node;

/// One look at one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    at: Duration,
    /// Its place in the map; `None`: this process, in which the clients are.
    node: Option<usize>,
    pid: u32,
    descriptors: usize,
    threads: usize,
    /// Memory that is no file's (`RssAnon`).
    anonymous_kib: u64,
    log_bytes: u64,
    table_bytes: u64,
}

/// All looks so far.
#[derive(Debug)]
pub(super) struct Samples {
    began: Instant,
    all: Vec<Sample>,
}

/// A figure of a process that did not end: how it began, how it ended, how fast it grew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trend {
    pub(super) first: f64,
    pub(super) last: f64,
    pub(super) per_minute: f64,
}

impl Samples {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            all: Vec::new(),
        }
    }

    /// Looks at every node that runs, and at this process.
    pub(super) fn take(&mut self, nodes: &[Node]) {
        let at = self.began.elapsed();
        for (place, node) in nodes.iter().enumerate() {
            if node.is_running() {
                let sample = Sample::of(at, Some(place), node.pid(), Some(&node.data));
                self.all.extend(sample);
            }
        }
        self.all
            .extend(Sample::of(at, None, std::process::id(), None));
    }

    /// The largest of a figure over all nodes.
    pub(super) fn most(&self, figure: impl Fn(&Sample) -> u64) -> u64 {
        let nodes = self.all.iter().filter(|sample| sample.node.is_some());
        nodes.map(figure).max().unwrap_or(0)
    }

    /// Processes of nodes that were seen.
    pub(super) fn processes(&self) -> usize {
        let mut pids: Vec<u32> = self.all.iter().map(|sample| sample.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        pids.len() - 1
    }

    /// How a figure of one process developed from a time on; `None` unless it was one process all the time.
    pub(super) fn trend(
        &self,
        node: Option<usize>,
        from: Duration,
        figure: impl Fn(&Sample) -> u64,
    ) -> Option<Trend> {
        let of_node = |sample: &&Sample| sample.node == node && sample.at >= from;
        let samples: Vec<&Sample> = self.all.iter().filter(of_node).collect();
        let (first, last) = (samples.first()?, samples.last()?);
        if samples.iter().any(|sample| sample.pid != first.pid) {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let value = |sample: &Sample| figure(sample) as f64;
        let points = samples
            .iter()
            .map(|sample| (sample.at.as_secs_f64() / 60.0, value(sample)));
        Some(Trend {
            first: value(first),
            last: value(last),
            per_minute: slope(&points.collect::<Vec<_>>()),
        })
    }
}

impl Sample {
    /// `None` if the process has just gone.
    fn of(at: Duration, node: Option<usize>, pid: u32, data: Option<&Path>) -> Option<Self> {
        let entries = |name: &str| Some(fs::read_dir(format!("/proc/{pid}/{name}")).ok()?.count());
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let anonymous = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))?;
        let (mut log_bytes, mut table_bytes) = (0, 0);
        if let Some(data) = data {
            sizes(data, &mut log_bytes, &mut table_bytes);
        }
        Some(Self {
            at,
            node,
            pid,
            descriptors: entries("fd")?,
            threads: entries("task")?,
            anonymous_kib: anonymous.trim().trim_end_matches(" kB").parse().ok()?,
            log_bytes,
            table_bytes,
        })
    }

    pub(super) fn descriptors(&self) -> u64 {
        self.descriptors as u64
    }

    pub(super) fn threads(&self) -> u64 {
        self.threads as u64
    }

    pub(super) fn anonymous_kib(&self) -> u64 {
        self.anonymous_kib
    }

    pub(super) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    pub(super) fn table_bytes(&self) -> u64 {
        self.table_bytes
    }
}

/// Adds up the files below a directory: LMDB's, and the log's.
fn sizes(dir: &Path, log: &mut u64, table: &mut u64) {
    // Files come and go meanwhile.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => sizes(&path, log, table),
            Ok(meta) if path.ends_with("data.mdb") => *table += meta.len(),
            Ok(meta) if path.parent().is_some_and(|dir| dir.ends_with("log")) => *log += meta.len(),
            _ => {}
        }
    }
}

/// The slope of the line that is nearest to these points (least squares).
fn slope(points: &[(f64, f64)]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "few points")]
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (middle_x, middle_y) = (mean(|point| point.0), mean(|point| point.1));
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (x, y) in points {
        covariance += (x - middle_x) * (y - middle_y);
        variance += (x - middle_x).powi(2);
    }
    if variance == 0.0 {
        0.0
    } else {
        covariance / variance
    }
}

#[test]
fn a_slope_is_the_growth_per_unit() {
    assert_eq!(slope(&[(0.0, 3.0), (1.0, 5.0), (2.0, 7.0)]), 2.0);
    assert_eq!(slope(&[(0.0, 3.0), (1.0, 3.0)]), 0.0);
    assert_eq!(slope(&[(1.0, 3.0)]), 0.0);
}
