//! The rows of the table, in its order. A new row: a file beside this one that measures it, and a line in [`ROWS`].

mod contest;
mod etcd;
mod first_launch;
mod judge;
mod large;
mod limits;
mod syncs;
mod wrk;

use futures_util::future::BoxFuture;

use crate::{arena::Arena, bench::Bench, load::Work, outcome::Outcome, peers::redis::Sync};

pub(crate) use contest::Contest;
use judge::Judge;

/// One line of the table.
pub(crate) struct Row {
    /// What it is called on the command line: a group, then what tells it apart.
    pub(crate) id: &'static str,
    /// What is done.
    pub(crate) work: &'static str,
    /// What it is to come to.
    pub(crate) goal: &'static str,
    pub(crate) run: Run,
}

/// Who starts the servers.
pub(crate) enum Run {
    /// This store beside Redis and Valkey; they are started once for all of these rows.
    Contest(Contest),
    /// The same servers, for something else than one load.
    Arena(RunInArena),
    /// The row itself, and nobody else runs meanwhile.
    Alone(RunAlone),
}

/// What a row does that starts its own servers; they are gone when it returns.
pub(crate) type RunAlone = for<'a> fn(bench: &'a Bench) -> BoxFuture<'a, anyhow::Result<Outcome>>;

/// What a row does with the servers of all contests.
pub(crate) type RunInArena =
    for<'a> fn(bench: &'a Bench, arena: &'a Arena) -> BoxFuture<'a, anyhow::Result<Outcome>>;

const ROWS: &[Row] = &[
    Row {
        id: "get-64",
        work: "GET, 64 tasks",
        goal: ">= 1.2 times the best peer",
        run: Run::Contest(Contest {
            work: Work::Get,
            tasks: 64,
            sync: Sync::Always,
            judge: Judge::Rate { at_least: 1.2 },
        }),
    },
    Row {
        id: "get-256",
        work: "GET, 256 tasks",
        goal: ">= 2 times the best peer",
        run: Run::Contest(Contest {
            work: Work::Get,
            tasks: 256,
            sync: Sync::Always,
            judge: Judge::Rate { at_least: 2.0 },
        }),
    },
    Row {
        id: "get-512",
        work: "GET, 512 tasks",
        goal: ">= 2.5 times the best peer",
        run: Run::Contest(Contest {
            work: Work::Get,
            tasks: 512,
            sync: Sync::Always,
            judge: Judge::Rate { at_least: 2.5 },
        }),
    },
    Row {
        id: "set-64",
        work: "SET, 64 tasks; peers: `appendfsync always`",
        goal: ">= 1.2 times the best peer",
        run: Run::Contest(Contest {
            work: Work::Set,
            tasks: 64,
            sync: Sync::Always,
            judge: Judge::Rate { at_least: 1.2 },
        }),
    },
    Row {
        id: "set-256",
        work: "SET, 256 tasks; peers: `appendfsync always`",
        goal: ">= 2 times the best peer",
        run: Run::Contest(Contest {
            work: Work::Set,
            tasks: 256,
            sync: Sync::Always,
            judge: Judge::Rate { at_least: 2.0 },
        }),
    },
    Row {
        id: "set-512",
        work: "SET, 512 tasks; peers: `appendfsync always`",
        goal: ">= 2.5 times the best peer",
        run: Run::Contest(Contest {
            work: Work::Set,
            tasks: 512,
            sync: Sync::Always,
            judge: Judge::Rate { at_least: 2.5 },
        }),
    },
    Row {
        id: "everysec-256",
        work: "SET, 256 tasks; peers: `appendfsync everysec`, which answers before the sync",
        goal: ">= 1.2 times the best peer",
        run: Run::Contest(Contest {
            work: Work::Set,
            tasks: 256,
            sync: Sync::EverySecond,
            judge: Judge::Rate { at_least: 1.2 },
        }),
    },
    Row {
        id: "get-1",
        work: "GET, 1 task, p50",
        goal: "<= 1.2 times as long as the best peer",
        run: Run::Contest(Contest {
            work: Work::Get,
            tasks: 1,
            sync: Sync::Always,
            judge: Judge::Median { at_most: 1.2 },
        }),
    },
    Row {
        id: "set-1",
        work: "SET, 1 task, p50; peers: `appendfsync always`",
        goal: "<= 1.0 times as long as the best peer",
        run: Run::Contest(Contest {
            work: Work::Set,
            tasks: 1,
            sync: Sync::Always,
            judge: Judge::Median { at_most: 1.0 },
        }),
    },
    Row {
        id: "mixed-256",
        work: "9 GETs to 1 SET, 256 tasks, p99; peers: `appendfsync always`",
        goal: "<= 1.0 times as long as the best peer",
        run: Run::Contest(Contest {
            work: Work::Mixed,
            tasks: 256,
            sync: Sync::Always,
            judge: Judge::Slowest { at_most: 1.0 },
        }),
    },
    Row {
        id: "syncs",
        work: "SET, 64 tasks, under `strace`: how many SETs share a sync; peers: `appendfsync always`",
        goal: "<= 64, on every side",
        run: Run::Arena(syncs::run),
    },
    Row {
        id: "etcd-put",
        work: "`PUT /kv/{key}` beside etcd's `/v3/kv/put`, one op a request, 64 connections of `wrk`",
        goal: ">= 10 times etcd",
        run: Run::Alone(etcd::put),
    },
    Row {
        id: "etcd-get",
        work: "`GET /kv/{key}` beside etcd's `/v3/kv/range`, one op a request, 64 connections of `wrk`",
        goal: ">= 10 times etcd",
        run: Run::Alone(etcd::get),
    },
    Row {
        id: "bulk",
        work: "1,000,000 records of 100 bytes through `put_many`, 3 primaries",
        goal: ">= 150,000 a second",
        run: Run::Alone(large::bulk),
    },
    Row {
        id: "scan",
        work: "scan of one node with 2,000,000 values of 100 bytes",
        goal: ">= 1,000,000 entries a second",
        run: Run::Alone(large::scan),
    },
    Row {
        id: "replica-log",
        work: "a replica that was down while 2,000,000 records came, from the log",
        goal: ">= 300,000 records a second",
        run: Run::Alone(large::catch_up),
    },
    Row {
        id: "replica-snapshot",
        work: "the same where the log is gone, by a copy",
        goal: ">= 300,000 records a second",
        run: Run::Alone(large::snapshot),
    },
    Row {
        id: "replica-lag",
        work: "50,000 writes a second: from each acknowledgement until the replica shows it",
        goal: "p99 <= 50 ms",
        run: Run::Alone(large::lag),
    },
    Row {
        id: "replica-cost",
        work: "50,000 writes a second: CPU of the primary with a replica and without",
        goal: "<= 1.15 times as much",
        run: Run::Alone(large::cost),
    },
    Row {
        id: "watch",
        work: "1,000 watchers on 1,000 prefixes and 10 on everything, at 10,000 writes a second and as many as can be made; ops/s left",
        goal: "none misses one event; >= 70 %",
        run: Run::Alone(large::watchers),
    },
    Row {
        id: "keys",
        work: "10,000,000 keys beside 100,000: GET, 256 tasks and 1; a restart after `kill -9`; 60 s of SET, 256 tasks",
        goal: "<= 2 times slower; < 5 s; no op over 250 ms",
        run: Run::Alone(large::keys),
    },
    Row {
        id: "values-4k",
        work: "values of 4 KiB, 256 MiB of them, 16 tasks; peers: `appendfsync always`; LMDB's files after 10 overwrites of 256 MiB and of 1 GiB",
        goal: "files <= 2 times keys and values",
        run: Run::Alone(large::run_4k),
    },
    Row {
        id: "values-64k",
        work: "values of 64 KiB, 256 MiB of them, 16 tasks; peers: `appendfsync always`; LMDB's files after 10 overwrites of 256 MiB and of 1 GiB",
        goal: "files <= 2 times keys and values",
        run: Run::Alone(large::run_64k),
    },
    Row {
        id: "values-1m",
        work: "values of 1 MiB, 256 MiB of them, 16 tasks; peers: `appendfsync always`; LMDB's files after 10 overwrites of 256 MiB and of 1 GiB",
        goal: "files <= 2 times keys and values",
        run: Run::Alone(large::run_1m),
    },
    Row {
        id: "memory",
        work: "anonymous memory of a node, at start and under loads",
        goal: "<= 20 MiB at start; at most that, two memtables and the cap of bodies: 404 MiB",
        run: Run::Alone(large::memory),
    },
    Row {
        id: "build",
        work: "the first `./launch.sh` from nothing, packages fetched: three shards and their replicas ready",
        goal: "none: in the table",
        run: Run::Alone(first_launch::run),
    },
    Row {
        id: "limits",
        work: "what this machine can do: loopback, bare HTTP, LMDB alone, append and sync alone",
        goal: "none: shows the distance",
        run: Run::Alone(limits::run),
    },
];

/// Those that the names mean: a row, or a group of them; all if there are no names.
pub(crate) fn named(names: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    for name in names {
        let known = ROWS.iter().any(|row| row.is_meant_by(name));
        anyhow::ensure!(known, "there is no row {name}");
    }
    let wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| row.is_meant_by(name));
    Ok(ROWS.iter().filter(wanted).collect())
}

/// All of them.
pub(crate) fn all() -> &'static [Row] {
    ROWS
}

impl Row {
    fn is_meant_by(&self, name: &str) -> bool {
        let rest = self.id.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_rows_and_groups() {
        let ids = |name: &str| -> Vec<&str> {
            let rows = named(&[name.to_owned()]).unwrap();
            rows.iter().map(|row| row.id).collect()
        };
        assert_eq!(ids("set-64"), ["set-64"]);
        assert_eq!(ids("get"), ["get-64", "get-256", "get-512", "get-1"]);
        assert!(named(&["ge".to_owned()]).is_err());
    }

    #[test]
    fn each_row_has_its_own_name() {
        let mut ids: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROWS.len());
    }
}
