//! What is asked for: the core workloads A to F of YCSB, their mixes and which keys they favour.
//!
//! The mixes are those of `workloads/workloada` to `workloadf` in <https://github.com/brianfrankcooper/YCSB>, described in
//! "Benchmarking Cloud Serving Systems with YCSB", Cooper et al., SoCC 2010. Two things differ, and are options: a value
//! is one piece of 100 bytes and not ten fields of 100 bytes, and a run lasts some time and not some number of ops.
//!
//! A read-modify-write is a read, then a put of the same key without a condition, timed as one op: as YCSB does it, so that
//! figures can be compared. A careful program would use `Client::update`; on the hottest keys that measures how often it
//! has to begin anew.

use clap::ValueEnum;
use fastrand::Rng;
use serde::Serialize;

/// A core workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// 50 % reads, 50 % updates; zipfian
    A,
    /// 95 % reads, 5 % updates; zipfian
    B,
    /// Reads; zipfian
    C,
    /// 95 % reads, 5 % inserts; latest
    D,
    /// 95 % scans of 1 to 100 entries, 5 % inserts; zipfian
    E,
    /// 50 % reads, 50 % read-modify-writes; zipfian
    F,
}

/// What an op does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Read,
    Update,
    Insert,
    Scan,
    ReadModifyWrite,
}

/// Which keys are favoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Distribution {
    /// Few keys get most ops, all over the key space
    Zipfian,
    /// All keys alike
    Uniform,
    /// Few keys get most ops, the newest ones
    Latest,
}

impl Workload {
    /// Kinds of ops and how many of a hundred are of each.
    pub(crate) fn mix(self) -> &'static [(Kind, u8)] {
        match self {
            Self::A => &[(Kind::Read, 50), (Kind::Update, 50)],
            Self::B => &[(Kind::Read, 95), (Kind::Update, 5)],
            Self::C => &[(Kind::Read, 100)],
            Self::D => &[(Kind::Read, 95), (Kind::Insert, 5)],
            Self::E => &[(Kind::Scan, 95), (Kind::Insert, 5)],
            Self::F => &[(Kind::Read, 50), (Kind::ReadModifyWrite, 50)],
        }
    }

    /// The distribution that belongs to it.
    pub(crate) fn distribution(self) -> Distribution {
        match self {
            Self::D => Distribution::Latest,
            Self::A | Self::B | Self::C | Self::E | Self::F => Distribution::Zipfian,
        }
    }

    /// Its letter.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::D => "d",
            Self::E => "e",
            Self::F => "f",
        }
    }

    /// The kind of the next op.
    pub(crate) fn pick(self, rng: &mut Rng) -> Kind {
        let mut left = rng.u8(..100);
        for (kind, percent) in self.mix() {
            match left.checked_sub(*percent) {
                Some(behind) => left = behind,
                None => return *kind,
            }
        }
        Kind::Read
    }
}

impl Kind {
    /// Its name, as in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Scan => "scan",
            Self::ReadModifyWrite => "read_modify_write",
        }
    }
}

impl Distribution {
    /// Its name, as in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zipfian => "zipfian",
            Self::Uniform => "uniform",
            Self::Latest => "latest",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_whole() {
        for workload in Workload::value_variants() {
            let whole: u8 = workload.mix().iter().map(|(_, percent)| percent).sum();
            assert_eq!(whole, 100, "{workload:?}");
        }
    }

    #[test]
    fn many_draws_come_near_the_mix() {
        const DRAWS: u32 = 200_000;
        let mut rng = Rng::with_seed(7);
        for workload in Workload::value_variants() {
            let drawn: Vec<Kind> = (0..DRAWS).map(|_| workload.pick(&mut rng)).collect();
            for (kind, percent) in workload.mix() {
                let count = drawn.iter().filter(|other| *other == kind).count();
                let share = 100.0 * count as f64 / f64::from(DRAWS);
                // Five standard deviations of 50 % are 0.56.
                let off = (share - f64::from(*percent)).abs();
                assert!(off < 0.56, "{workload:?} {kind:?}: {share}");
            }
            let known = |kind| workload.mix().iter().any(|(other, _)| *other == kind);
            assert!(drawn.iter().all(|kind| known(*kind)), "{workload:?}");
        }
    }

    #[test]
    fn names_are_those_of_json() {
        let mixes = Workload::value_variants().iter().map(|one| one.mix());
        for (kind, _) in mixes.flatten() {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{}\"", kind.name()));
        }
        for distribution in Distribution::value_variants() {
            let json = serde_json::to_string(distribution).unwrap();
            assert_eq!(json, format!("\"{}\"", distribution.name()));
        }
    }
}
