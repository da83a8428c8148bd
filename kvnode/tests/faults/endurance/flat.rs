//! Whether processes grew: descriptors, threads, memory and files, of those that lived long enough to tell.

use std::time::Duration;

use super::{
    arena::{PER_SHARD, RETENTION_BYTES, SHARDS},
    resources::{Sample, Samples, Trend},
    strikes::Pace,
};

/// From this length on, growth is judged: before, everything warms up.
const LONG: Duration = Duration::from_secs(600);

/// Most growth of a process's own memory, KiB a minute.
const MOST_GROWTH: f64 = 1024.0;
/// Most growth of descriptors and threads, a minute: ten in twenty minutes, which comes and goes.
const MOST_MORE: f64 = 0.5;
/// Most growth of LMDB's file, bytes a minute; what is stored does not grow.
const MOST_TABLE_GROWTH: f64 = 512.0 * 1024.0;

/// Log segments beyond what is kept: the one that is written, the spare, and those not yet applied.
const MORE_LOG_BYTES: u64 = 8 * (4100 << 10);

/// Bounds for a node of this load, however long it runs.
const MOST_DESCRIPTORS: u64 = 400;
const MOST_THREADS: u64 = 100;
const MOST_TABLE_BYTES: u64 = 128 << 20;

type Figure = fn(&Sample) -> u64;

/// The processes that live long: the last shard's nodes, and this one, in which the clients are.
fn lasting() -> impl Iterator<Item = Option<usize>> {
    let last_shard = (SHARDS - 1) * PER_SHARD;
    (last_shard..last_shard + PER_SHARD).map(Some).chain([None])
}

/// What they held at most, and how that developed.
pub(super) fn figures(samples: &Samples, pace: Pace) -> String {
    let shown = |figure: Figure, unit: f64| {
        let trends = lasting().map(|node| samples.trend(node, pace.spared_from, figure));
        let show = |trend: Option<Trend>| match trend {
            None => "-".to_owned(),
            Some(trend) => format!(
                "{:.0} to {:.0} ({:+.2} a minute)",
                trend.first / unit,
                trend.last / unit,
                trend.per_minute / unit
            ),
        };
        trends.map(show).collect::<Vec<_>>().join(", ")
    };
    let mib = f64::from(1 << 20);
    format!(
        "{} node processes, at most {} descriptors, {} threads, {} MiB of log and {} MiB of tables each; from minute {:.0} \
         on, the last shard's three nodes and the clients' process: memory in KiB {}; descriptors {}; threads {}; tables \
         in MiB {}",
        samples.processes(),
        samples.most(Sample::descriptors),
        samples.most(Sample::threads),
        samples.most(Sample::log_bytes) >> 20,
        samples.most(Sample::table_bytes) >> 20,
        pace.spared_from.as_secs_f64() / 60.0,
        shown(Sample::anonymous_kib, 1.0),
        shown(Sample::descriptors, 1.0),
        shown(Sample::threads, 1.0),
        shown(Sample::table_bytes, mib),
    )
}

/// Bounds that hold at any length; growth once the run is long enough to show it.
pub(super) fn check(samples: &Samples, pace: Pace) {
    for (name, figure, most) in [
        (
            "descriptors",
            Sample::descriptors as Figure,
            MOST_DESCRIPTORS,
        ),
        ("threads", Sample::threads, MOST_THREADS),
        (
            "log bytes",
            Sample::log_bytes,
            RETENTION_BYTES + MORE_LOG_BYTES,
        ),
        ("table bytes", Sample::table_bytes, MOST_TABLE_BYTES),
    ] {
        let found = samples.most(figure);
        assert!(found <= most, "a node had {found} {name}");
    }
    if pace.length < LONG {
        return;
    }
    for node in lasting() {
        for (name, figure, most) in [
            (
                "KiB of memory",
                Sample::anonymous_kib as Figure,
                MOST_GROWTH,
            ),
            ("descriptors", Sample::descriptors, MOST_MORE),
            ("threads", Sample::threads, MOST_MORE),
            ("bytes of tables", Sample::table_bytes, MOST_TABLE_GROWTH),
        ] {
            let trend = samples.trend(node, pace.spared_from, figure);
            let trend = trend.expect("it lived on");
            assert!(trend.per_minute < most, "{node:?}: {name}: {trend:?}");
        }
    }
}
