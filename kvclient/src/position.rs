//! Where a log stands: epoch, seq, position and lineage.
//!
//! A seq numbers the records of one shard, 1, 2, 3 ... without holes, across epochs; 0 is "nothing yet". Each time
//! a node begins to take writes a new and larger epoch begins, so a position (epoch, seq) is never used twice,
//! whatever was lost or restored. The lineage of a log is the list of its reigns. It is whole and never trimmed,
//! so two logs can always tell where they part.
//!
//! A node *holds* `e.s` if it has reached seq `s` and its lineage has epoch `e` at `s`.

use std::{fmt, str::FromStr};

/// Number of a primary's reign over a shard. 0 is "none yet". One restart a second would last 136 years.
pub type Epoch = u32;

/// Number of a record in its shard, from 1. 0 is "nothing yet".
pub type Seq = u64;

/// A place in a shard's log: `epoch.seq`, ordered by epoch, then seq.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::Position;
///
/// let read: Position = "3.1207".parse()?;
/// let later = Position::new(4, 1_208); // another reign, and its first record
/// assert!(Position::ZERO < read && read < later);
/// assert_eq!(read.to_etag(), "\"3.1207\""); // as HTTP has it
/// assert_eq!(Position::from_etag("\"4.1208\"")?, later);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The reign in which the record was written.
    pub epoch: Epoch,
    /// The record, inclusive.
    pub seq: Seq,
}

/// Text that is not `epoch.seq`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a position; a position is epoch.seq, for example 3.1207")]
pub struct PositionError {
    /// What was given, cut to 64 characters.
    pub text: String,
}

impl Position {
    /// Nothing yet.
    pub const ZERO: Self = Self { epoch: 0, seq: 0 };

    /// A position of its two parts.
    pub const fn new(epoch: Epoch, seq: Seq) -> Self {
        Self { epoch, seq }
    }

    /// The entity tag of an entry written here: the position in double quotes.
    pub fn to_etag(self) -> String {
        format!("\"{self}\"")
    }

    /// Reads an entity tag (`"3.1207"`, not weak).
    ///
    /// # Errors
    /// [`PositionError`] if it is not a position in double quotes.
    pub fn from_etag(text: &str) -> Result<Self, PositionError> {
        text.strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .ok_or_else(|| PositionError::new(text))
            .and_then(str::parse)
    }
}

impl PositionError {
    fn new(text: &str) -> Self {
        Self {
            text: text.chars().take(64).collect(),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    /// Digits, a dot, digits: no sign, no space, nothing left out.
    fn from_str(text: &str) -> Result<Self, PositionError> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let parse = || {
            let (epoch, seq) = text.split_once('.')?;
            if !digits(epoch) || !digits(seq) {
                return None;
            }
            Some(Self {
                epoch: epoch.parse().ok()?,
                seq: seq.parse().ok()?,
            })
        };
        parse().ok_or_else(|| PositionError::new(text))
    }
}

/// One primary's time over a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// Its number.
    pub epoch: Epoch,
    /// Seq of its first record, which is its `epoch_start`.
    pub first_seq: Seq,
    /// Drawn at random when it began: tells apart two reigns that took the same number on two nodes.
    pub reign_id: u64,
}

/// All reigns of a log, oldest first. Epochs and first seqs both grow strictly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage(Vec<Reign>);

/// A reign that cannot follow the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "epoch {epoch} from seq {first_seq} cannot follow epoch {last_epoch} from seq {last_first_seq}"
)]
pub struct LineageError {
    /// The reign offered.
    pub epoch: Epoch,
    /// Its first seq.
    pub first_seq: Seq,
    /// The newest reign so far.
    pub last_epoch: Epoch,
    /// Its first seq.
    pub last_first_seq: Seq,
}

impl Lineage {
    /// A lineage without reigns: an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The reigns, oldest first.
    pub fn reigns(&self) -> &[Reign] {
        &self.0
    }

    /// The newest epoch, 0 if there was none.
    pub fn epoch(&self) -> Epoch {
        self.0.last().map_or(0, |reign| reign.epoch)
    }

    /// Adds the next reign.
    ///
    /// # Errors
    /// [`LineageError`] unless both epoch and first seq are larger than those of the newest reign.
    pub fn push(&mut self, reign: Reign) -> Result<(), LineageError> {
        let last = self.0.last().copied().unwrap_or(Reign {
            epoch: 0,
            first_seq: 0,
            reign_id: 0,
        });
        if reign.epoch <= last.epoch || reign.first_seq <= last.first_seq {
            return Err(LineageError {
                epoch: reign.epoch,
                first_seq: reign.first_seq,
                last_epoch: last.epoch,
                last_first_seq: last.first_seq,
            });
        }
        self.0.push(reign);
        Ok(())
    }

    /// The epoch in which the record `seq` was written; 0 before the first reign.
    pub fn epoch_at(&self, seq: Seq) -> Epoch {
        let reigns_begun = self.0.partition_point(|reign| reign.first_seq <= seq);
        reigns_begun
            .checked_sub(1)
            .map_or(0, |newest| self.0[newest].epoch)
    }

    /// The full position of a seq of this log.
    pub fn position_at(&self, seq: Seq) -> Position {
        Position {
            epoch: self.epoch_at(seq),
            seq,
        }
    }

    /// Whether a log of this lineage that has reached `reached` holds `position`.
    pub fn holds(&self, position: Position, reached: Seq) -> bool {
        position.seq <= reached && self.epoch_at(position.seq) == position.epoch
    }

    /// Whether this lineage shows that `position` will never come: a newer epoch began at or below its seq.
    pub fn has_lost(&self, position: Position) -> bool {
        position.seq > 0
            && self
                .0
                .iter()
                .any(|reign| reign.epoch > position.epoch && reign.first_seq <= position.seq)
    }

    /// Cuts off the reigns that began after `seq`, as when a torn tail is cut from the log.
    pub fn truncate_after(&mut self, seq: Seq) {
        self.0.retain(|reign| reign.first_seq <= seq);
    }

    /// The last seq up to which a log of this lineage at `mine` and one of lineage `other` at `theirs` are the
    /// same, as far as reigns can tell; 0 if they share none. `other` may be only the newest part of a lineage.
    ///
    /// A reign is one writer's and carries a random id, so two logs that share one agree on everything before it
    /// and, within the newest one they share, up to where either of them ends or enters a reign of its own.
    pub fn common_seq(&self, mine: Seq, other: &Self, theirs: Seq) -> Seq {
        let newest_shared = other.0.iter().enumerate().rev().find_map(|(there, reign)| {
            let here = self.0.iter().rposition(|own| own == reign)?;
            Some((here, there))
        });
        let Some((here, there)) = newest_shared else {
            return 0;
        };
        let end = |lineage: &Self, at: usize, reached: Seq| {
            lineage
                .0
                .get(at + 1)
                .map_or(reached, |next| reached.min(next.first_seq - 1))
        };
        end(self, here, mine).min(end(other, there, theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(reigns: &[(Epoch, Seq, u64)]) -> Lineage {
        let mut lineage = Lineage::new();
        for &(epoch, first_seq, reign_id) in reigns {
            lineage
                .push(Reign {
                    epoch,
                    first_seq,
                    reign_id,
                })
                .expect("in order");
        }
        lineage
    }

    #[test]
    fn text_of_positions() {
        assert_eq!("3.1207".parse(), Ok(Position::new(3, 1207)));
        assert_eq!(
            Position::from_etag("\"3.1207\""),
            Ok(Position::new(3, 1207))
        );
        for bad in [
            "",
            ".",
            "3",
            "3.",
            ".3",
            "+3.1",
            "3.-1",
            "3.1 ",
            "3.1.2",
            "4294967296.1",
            "1.18446744073709551616",
        ] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
        for bad in ["3.1", "\"3.1", "W/\"3.1\"", "\"\""] {
            assert!(Position::from_etag(bad).is_err(), "{bad:?}");
        }
        assert!(Position::new(2, 1) > Position::new(1, 9));
    }

    #[test]
    fn which_epoch_a_seq_belongs_to() {
        let lineage = lineage(&[(1, 1, 7), (3, 10, 8)]);
        for (seq, epoch) in [(0, 0), (1, 1), (9, 1), (10, 3), (99, 3)] {
            assert_eq!(lineage.epoch_at(seq), epoch, "seq {seq}");
        }
    }

    #[test]
    fn holding_and_losing() {
        let lineage = lineage(&[(1, 1, 7), (3, 10, 8)]);
        assert!(lineage.holds(Position::new(1, 9), 12));
        assert!(!lineage.holds(Position::new(3, 13), 12), "not reached yet");
        assert!(
            !lineage.holds(Position::new(1, 11), 12),
            "written by a reign that is not ours"
        );
        assert!(lineage.has_lost(Position::new(1, 11)));
        assert!(lineage.has_lost(Position::new(2, 10)));
        assert!(!lineage.has_lost(Position::new(3, 99)));
        assert!(!lineage.has_lost(Position::new(1, 9)));
        assert!(!lineage.has_lost(Position::ZERO));
    }

    #[test]
    fn reigns_only_grow() {
        let mut lineage = lineage(&[(1, 1, 7)]);
        for (epoch, first_seq) in [(1, 5), (0, 5), (2, 1), (2, 0)] {
            assert!(
                lineage
                    .push(Reign {
                        epoch,
                        first_seq,
                        reign_id: 1
                    })
                    .is_err(),
                "{epoch} {first_seq}"
            );
        }
    }

    #[test]
    fn where_two_logs_part() {
        let mine = lineage(&[(1, 1, 7), (2, 10, 8)]);
        for (other, theirs, common) in [
            (lineage(&[(1, 1, 7)]), 5, 5),
            (lineage(&[(1, 1, 7)]), 15, 9),
            (lineage(&[(1, 1, 7), (2, 10, 8)]), 12, 12),
            (lineage(&[(1, 1, 7), (2, 10, 8)]), 30, 20),
            (lineage(&[(1, 1, 7), (2, 10, 9)]), 15, 9),
            (lineage(&[(1, 1, 7), (3, 6, 9)]), 15, 5),
            (lineage(&[(2, 10, 8)]), 12, 12),
            (lineage(&[(1, 1, 9)]), 5, 0),
            (lineage(&[]), 0, 0),
        ] {
            assert_eq!(
                mine.common_seq(20, &other, theirs),
                common,
                "{other:?} at {theirs}"
            );
        }
    }

    #[test]
    fn truncation_forgets_reigns_that_were_cut() {
        let mut lineage = lineage(&[(1, 1, 7), (2, 10, 8)]);
        lineage.truncate_after(9);
        assert_eq!(lineage.epoch(), 1);
    }
}
