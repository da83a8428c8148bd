//! What a primary says to a replica that pulls: may it go on? Pure.
//!
//! Decided by history and lineage, never by seq alone: two logs of one length may differ. Nothing is ever truncated
//! to make a replica fit.

use kvclient::{
    position::{Epoch, Lineage, Position, Seq},
    wire::{log::Link, pull::PullRequest},
};

/// What the primary knows of its own log.
#[derive(Debug)]
pub(crate) struct Own<'a> {
    pub(crate) history: u128,
    pub(crate) lineage: &'a Lineage,
    pub(crate) durable: Position,
    pub(crate) truncated: Seq,
}

/// The answer to a pull, before any frame is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its log is a prefix of ours: frames after it may be sent.
    Continue,
    /// Our log no longer reaches back to it.
    SnapshotRequired,
    /// Both logs are the same up to here only.
    Diverged { common: Position },
    /// Its log has nothing to do with ours.
    ForeignHistory,
    /// It knows a newer reign than ours: we are no longer the primary.
    StaleEpoch { newer: Epoch },
}

/// Judges a pull. `link_at` finds the end of our frame that ends at a seq, if one does.
pub(crate) fn judge<E>(
    own: &Own<'_>,
    pull: &PullRequest,
    link_at: impl FnOnce(Seq) -> Result<Option<Link>, E>,
) -> Result<Verdict, E> {
    let Some(history) = pull.history else {
        let from_start = pull.after == 0 && own.truncated == 0;
        return Ok(if from_start {
            Verdict::Continue
        } else {
            Verdict::SnapshotRequired
        });
    };
    if history != own.history {
        return Ok(Verdict::ForeignHistory);
    }
    if pull.lineage.epoch() > own.lineage.epoch() {
        return Ok(Verdict::StaleEpoch {
            newer: pull.lineage.epoch(),
        });
    }
    let common = own
        .lineage
        .common_seq(own.durable.seq, &pull.lineage, pull.after);
    if common < pull.after {
        return Ok(Verdict::Diverged {
            common: own.lineage.position_at(common),
        });
    }
    if pull.after < own.truncated {
        return Ok(Verdict::SnapshotRequired);
    }
    // The reigns agree; the checksum of its last frame says whether the bytes do.
    match link_at(pull.after)? {
        Some(link) if link.crc == pull.last_crc => Ok(Verdict::Continue),
        _ => Ok(Verdict::Diverged {
            common: own.lineage.position_at(own.truncated),
        }),
    }
}

#[cfg(test)]
mod tests {
    use kvclient::position::Reign;

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

    fn verdict(
        history: Option<u128>,
        reigns: &[(Epoch, Seq, u64)],
        after: Seq,
        last_crc: u32,
    ) -> Verdict {
        let own = lineage(&[(1, 1, 7), (3, 10, 8)]);
        let own = Own {
            history: 5,
            lineage: &own,
            durable: Position::new(3, 20),
            truncated: 4,
        };
        let pull = PullRequest {
            after,
            max_bytes: 1,
            wait_ms: 0,
            node_id: 1,
            node_address: "h:1".parse().expect("address"),
            history,
            lineage: lineage(reigns),
            last_crc,
            map_version: None,
        };
        // Our frames end at even seqs; each has the seq as its checksum.
        let link_at = |seq: Seq| {
            let link = Link {
                position: Position::new(1, seq),
                crc: u32::try_from(seq).expect("small"),
            };
            Ok::<_, ()>(seq.is_multiple_of(2).then_some(link))
        };
        judge(&own, &pull, link_at).expect("no errors here")
    }

    #[test]
    fn every_verdict() {
        let (first, both) = (&[(1, 1, 7)][..], &[(1, 1, 7), (3, 10, 8)][..]);
        let diverged = |epoch, seq| Verdict::Diverged {
            common: Position::new(epoch, seq),
        };
        for (what, history, reigns, after, crc, expected) in [
            (
                "empty, but our log is trimmed",
                None,
                &[][..],
                0,
                0,
                Verdict::SnapshotRequired,
            ),
            (
                "another history",
                Some(6),
                both,
                20,
                20,
                Verdict::ForeignHistory,
            ),
            ("up to date", Some(5), both, 20, 20, Verdict::Continue),
            (
                "some frames behind",
                Some(5),
                both,
                12,
                12,
                Verdict::Continue,
            ),
            ("a reign behind", Some(5), first, 8, 8, Verdict::Continue),
            (
                "exactly at our first frame",
                Some(5),
                first,
                4,
                4,
                Verdict::Continue,
            ),
            (
                "behind what we keep",
                Some(5),
                first,
                2,
                2,
                Verdict::SnapshotRequired,
            ),
            (
                "a newer reign",
                Some(5),
                &[(1, 1, 7), (4, 10, 9)],
                12,
                12,
                Verdict::StaleEpoch { newer: 4 },
            ),
            ("longer than ours", Some(5), both, 22, 22, diverged(3, 20)),
            (
                "a tail that we do not have",
                Some(5),
                first,
                12,
                12,
                diverged(1, 9),
            ),
            (
                "another reign of the same number",
                Some(5),
                &[(1, 1, 7), (3, 10, 9)],
                12,
                12,
                diverged(1, 9),
            ),
            ("other bytes", Some(5), both, 12, 13, diverged(1, 4)),
            (
                "not at the end of a frame",
                Some(5),
                both,
                13,
                13,
                diverged(1, 4),
            ),
        ] {
            assert_eq!(verdict(history, reigns, after, crc), expected, "{what}");
        }
    }
}
