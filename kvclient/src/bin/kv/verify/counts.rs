//! The quick comparison: 64 counts and sums of each node, all at one position.
//!
//! All nodes of a shard are asked for one seq; each answers for the end of the first frame that reaches it
//! (`/status/sums`). While nobody writes that is the primary's last one. A primary that goes on is past it when the
//! question comes, so the next one is for a seq ahead, twice as far each time; if it does not get there soon, the
//! writes have ceased, and its last one is taken again.
//!
//! What is compared is what a node counted when it wrote its entries, not what its disk gives back today: `--deep`
//! reads that.

use std::time::Duration;

use futures_util::future::join_all;
use kvclient::{
    Address, Position,
    attempt::AttemptError,
    shard_map::Shard,
    wire::{error::ErrorCode, route},
};
use serde_json::Value;
use tokio::time::Instant;

use super::verdict::{Compared, Verdict};
use crate::nodes_say::Asker;

/// How long a node waits for a seq before it says that it is not there. Shorter than anybody waits for a node.
const NODE_WAITS: Duration = Duration::from_millis(1_000);

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// Ranges named of a node that differs.
const NAMED: usize = 3;

/// What a node contains at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts {
    position: Position,
    entries: u64,
    /// Count and sum by range of 256 slots.
    ranges: Vec<(u64, String)>,
}

/// Compares the nodes of a shard.
pub(crate) async fn compare(asker: &Asker, shard: &Shard, wait: Duration) -> Vec<Compared> {
    let until = Instant::now() + wait;
    let mut ahead = 0;
    loop {
        let seq = match visible_seq(asker, &shard.primary.address).await {
            Ok(seq) => seq + ahead,
            Err(error) => return Compared::none(shard, &format!("the primary: {error}")),
        };
        let asked = shard.nodes().map(|node| ask(asker, &node.address, seq));
        let mut answers = join_all(asked).await;
        ahead = match answers.remove(0) {
            Ok(primary) => match judge(asker, shard, seq, &primary, answers, until).await {
                Some(all) => return all,
                None => 2 * ahead + 64,
            },
            Err(error) if is(&error, ErrorCode::PositionLost) => 2 * ahead + 64,
            Err(error) if is(&error, ErrorCode::Behind) => 0,
            Err(error) => return Compared::none(shard, &format!("the primary: {}", told(&error))),
        };
        if Instant::now() >= until {
            let why = "primary and replicas were not met at one position in time; a longer --wait may help";
            return Compared::none(shard, why);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What there is to say of each replica; `None` if one of them was past the seq when it was asked.
async fn judge(
    asker: &Asker,
    shard: &Shard,
    seq: u64,
    primary: &Counts,
    answers: Vec<Result<Counts, AttemptError>>,
    until: Instant,
) -> Option<Vec<Compared>> {
    let has = format!("{} entries at {}", primary.entries, primary.position);
    let own = &shard.primary.address;
    let mut all = vec![Compared::new(shard, own, Verdict::Primary(has))];
    let replicas = shard.replicas.iter().zip(answers);
    let replicas = replicas.map(async |(node, answer)| {
        let address = &node.address;
        (address, catch_up(asker, address, seq, answer, until).await)
    });
    for (address, answer) in join_all(replicas).await {
        let verdict = match answer {
            Ok(counts) => compare_counts(primary, &counts),
            Err(error) if is(&error, ErrorCode::PositionLost) => return None,
            Err(error) => Verdict::NotCompared(told(&error)),
        };
        all.push(Compared::new(shard, address, verdict));
    }
    Some(all)
}

/// Asks on while a replica is behind.
async fn catch_up(
    asker: &Asker,
    address: &Address,
    seq: u64,
    mut answer: Result<Counts, AttemptError>,
    until: Instant,
) -> Result<Counts, AttemptError> {
    while Instant::now() < until {
        match &answer {
            Err(error) if is(error, ErrorCode::Behind) => {
                tokio::time::sleep(PAUSE).await;
                answer = ask(asker, address, seq).await;
            }
            _ => break,
        }
    }
    answer
}

async fn visible_seq(asker: &Asker, address: &Address) -> Result<u64, AttemptError> {
    let status = asker.document(address, route::STATUS).await?;
    let visible = status.get("visible").and_then(Value::as_str);
    let visible: Option<Position> = visible.and_then(|text| text.parse().ok());
    let missing = || AttemptError::Undecodable("a status without visible".to_owned());
    visible.map(|at| at.seq).ok_or_else(missing)
}

async fn ask(asker: &Asker, address: &Address, seq: u64) -> Result<Counts, AttemptError> {
    let wait_ms = NODE_WAITS.min(asker.timeout() / 2).as_millis();
    let path = format!("{}?seq={seq}&wait_ms={wait_ms}", route::STATUS_SUMS);
    let answer = asker.document(address, &path).await?;
    decode(&answer).ok_or_else(|| AttemptError::Undecodable("these are no counts".to_owned()))
}

fn decode(answer: &Value) -> Option<Counts> {
    let range = |range: &Value| {
        let sum = range.get("sum")?.as_str()?;
        Some((range.get("count")?.as_u64()?, sum.to_owned()))
    };
    let ranges = answer.get("ranges")?.as_array()?;
    Some(Counts {
        position: answer.get("position")?.as_str()?.parse().ok()?,
        entries: answer.get("entries")?.as_u64()?,
        ranges: ranges.iter().map(range).collect::<Option<_>>()?,
    })
}

fn compare_counts(primary: &Counts, replica: &Counts) -> Verdict {
    if replica.position != primary.position {
        return Verdict::Differs(format!(
            "its log has {} where the primary's has {}",
            replica.position, primary.position
        ));
    }
    let ranges = primary.ranges.iter().zip(&replica.ranges).enumerate();
    let differing: Vec<String> = ranges
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|(number, (ours, theirs))| range_differs(number, ours.0, theirs.0))
        .collect();
    if differing.is_empty() && primary.ranges.len() == replica.ranges.len() {
        return Verdict::Equal(format!(
            "{} entries at {}",
            replica.entries, replica.position
        ));
    }
    let more = match differing.len() {
        0..=NAMED => String::new(),
        many => format!(", and {} ranges more", many - NAMED),
    };
    let named = differing[..differing.len().min(NAMED)].join(", ");
    Verdict::Differs(format!(
        "at {}: {named}{more}; --deep names the keys",
        replica.position
    ))
}

fn range_differs(number: usize, primary: u64, replica: u64) -> String {
    let slots = format!("slots {}-{}", number * 256, number * 256 + 255);
    match primary == replica {
        true => format!("{slots} {replica} entries, not the same ones"),
        false => format!("{slots} {replica} entries where the primary has {primary}"),
    }
}

fn is(error: &AttemptError, code: ErrorCode) -> bool {
    matches!(error, AttemptError::Refused(refusal) if refusal.code == code)
}

/// Why a node was not compared.
fn told(error: &AttemptError) -> String {
    match error {
        AttemptError::Refused(refusal) => match (refusal.code, refusal.position) {
            (ErrorCode::Behind, Some(at)) => format!("never got there: it is at {at}"),
            (ErrorCode::NoSuchPath, _) => {
                "an older version of kvnode, which does not tell its counts; --deep reads its entries".to_owned()
            }
            _ => error.to_string(),
        },
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(seq: u64, ranges: &[(u64, &str)]) -> Counts {
        let ranges = ranges
            .iter()
            .map(|(count, sum)| (*count, (*sum).to_owned()));
        Counts {
            position: Position::new(1, seq),
            entries: 7,
            ranges: ranges.collect(),
        }
    }

    #[test]
    fn what_differs_is_named() {
        let primary = counts(5, &[(1, "a"), (2, "b"), (0, "0"), (0, "0"), (4, "c")]);
        assert_eq!(
            compare_counts(&primary, &primary),
            Verdict::Equal("7 entries at 1.5".into())
        );
        let other = counts(5, &[(1, "a"), (2, "x"), (1, "0"), (0, "0"), (4, "c")]);
        let text = "at 1.5: slots 256-511 2 entries, not the same ones, slots 512-767 1 entries where the primary has 0; \
                    --deep names the keys";
        assert_eq!(
            compare_counts(&primary, &other),
            Verdict::Differs(text.into())
        );
        let all = counts(5, &[(9, "a"), (9, "x"), (9, "0"), (9, "0"), (9, "c")]);
        let Verdict::Differs(text) = compare_counts(&primary, &all) else {
            panic!("they differ");
        };
        assert!(text.contains(", and 2 ranges more; "), "{text}");
        assert!(matches!(
            compare_counts(&primary, &counts(6, &[])),
            Verdict::Differs(_)
        ));
        assert!(matches!(
            compare_counts(&primary, &counts(5, &[])),
            Verdict::Differs(_)
        ));
    }
}
