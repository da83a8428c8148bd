//! Exit codes: one place that says which failure ends with which.
//!
//! Scripts branch on them, so they are as fixed as the protocol. `--help` shows the same table; a test compares them.

use kvclient::{ErrorKind, Outcome};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    #[default]
    Done = 0,
    /// The answer is no: a key is absent, a node is not ready, a replica differs, something is wrong.
    No = 1,
    /// The request can never succeed as written.
    Wrong = 2,
    /// A condition did not hold, or what was to be continued is gone. Not applied.
    Conflict = 3,
    /// Nobody answered in time. Not applied; again later is safe.
    Unavailable = 4,
    /// A write that may have been applied, or may yet be.
    Unknown = 5,
    /// Anything else: no rights, no room, maps that contradict each other, damage, trouble on this machine.
    Failed = 6,
    /// Stopped by Ctrl-C before it was done, as a shell would say.
    Interrupted = 130,
}

/// The table for people.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    done
  1    the answer is no: the key is absent, a node does not answer or is not ready, a replica
       differs, the doctor finds an error
  2    wrong usage; this can never succeed as written
  3    a condition did not hold, or what was to be continued is gone; not applied
  4    nobody answered in time; not applied, so it can be tried again
  5    nobody answered in time, and the write may have been applied
  6    anything else: denied, no room left, nodes and map disagree, damaged data
  130  a scan, a copy, a comparison or a measurement was stopped by Ctrl-C
  Of several keys: 5 if any of them ended so, else the largest.";

impl Exit {
    /// The code of an op that failed.
    pub(crate) fn of(kind: ErrorKind, outcome: Outcome) -> Self {
        match (outcome, kind) {
            (Outcome::Unknown, _) => Self::Unknown,
            (Outcome::NotApplied, ErrorKind::Invalid) => Self::Wrong,
            (Outcome::NotApplied, ErrorKind::Conflict) => Self::Conflict,
            (Outcome::NotApplied, ErrorKind::Unavailable) => Self::Unavailable,
            // Denied, Full, Misrouted, Corrupt, and what a later version adds.
            (Outcome::NotApplied, _) => Self::Failed,
        }
    }

    /// The code of several keys, one of which ended so.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (one, other) if one.code() >= other.code() => one,
            (_, other) => other,
        }
    }

    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        for (kind, exit) in [
            (ErrorKind::Invalid, Exit::Wrong),
            (ErrorKind::Conflict, Exit::Conflict),
            (ErrorKind::Denied, Exit::Failed),
            (ErrorKind::Unavailable, Exit::Unavailable),
            (ErrorKind::Full, Exit::Failed),
            (ErrorKind::Misrouted, Exit::Failed),
            (ErrorKind::Corrupt, Exit::Failed),
        ] {
            assert_eq!(Exit::of(kind, Outcome::NotApplied), exit, "{kind:?}");
            assert_eq!(Exit::of(kind, Outcome::Unknown), Exit::Unknown, "{kind:?}");
        }
    }

    #[test]
    fn of_several_an_unknown_write_counts_most() {
        let all = [
            Exit::Done,
            Exit::No,
            Exit::Wrong,
            Exit::Conflict,
            Exit::Unavailable,
            Exit::Failed,
            Exit::Unknown,
        ];
        for (at, one) in all.into_iter().enumerate() {
            for other in &all[..=at] {
                assert_eq!(one.and(*other), one);
                assert_eq!(other.and(one), one);
            }
        }
    }

    #[test]
    fn the_table_names_every_code() {
        for exit in [0_u8, 1, 2, 3, 4, 5, 6, Exit::Interrupted.code()] {
            let line = format!("\n  {exit:<5}");
            assert_eq!(TABLE.matches(&line).count(), 1, "{exit}");
        }
    }
}
