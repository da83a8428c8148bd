//! May this node begin to take writes, and in which epoch? Decided once at start, from what the shard's other
//! nodes say within a second. Pure, but for the asking.
//!
//! A primary that comes back empty, or with a shorter log than a replica of its own history, must not be followed:
//! its replicas hold writes that were acknowledged and that it has lost.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kvclient::{
    attempt::AttemptError,
    faults::{self, Guarantee},
    node_client::NodeClient,
    position::{Epoch, Position},
    shard_map::Address,
    wire::route,
};

use crate::status::NodeStatus;

/// How long the other nodes have to answer.
const ASK_FOR: Duration = Duration::from_secs(1);

/// Pause before a node that did not answer is asked again.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// What matters of a node's state here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The node.
    pub(crate) address: String,
    /// History of its log; `None`: it has none.
    pub(crate) history: Option<u128>,
    /// Its last synced position.
    pub(crate) durable: Position,
    /// The largest epoch it has heard of.
    pub(crate) largest_epoch: Epoch,
}

/// What a starting primary does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// It begins a reign in this epoch.
    Reign(Epoch),
    /// It takes no writes: why, for a person.
    ReadOnly(String),
}

/// Decides from this node's own standing and those of the nodes that answered.
pub(crate) fn decide(own: &Standing, others: &[Standing], promoted: bool) -> Start {
    let is_told =
        |other: &&Standing| other.history.is_some() && !faults::is_off(Guarantee::Handshake);
    for other in others.iter().filter(is_told) {
        let ours = other.history == own.history;
        let empty = own.durable == Position::ZERO;
        let why = if empty && other.durable != Position::ZERO {
            format!(
                "this node is empty, but {} of its shard has data up to {}",
                other.address, other.durable
            )
        } else if !ours {
            format!(
                "{} of this shard has a log of another history",
                other.address
            )
        } else if other.durable > own.durable {
            format!(
                "{} has a longer log, up to {}; this one ends at {}",
                other.address, other.durable, own.durable
            )
        } else if other.largest_epoch > own.largest_epoch && !promoted {
            format!(
                "{} knows of epoch {}, newer than any here",
                other.address, other.largest_epoch
            )
        } else {
            continue;
        };
        return Start::ReadOnly(format!(
            "{why}. Taking writes would lose what that node holds. Make that node the primary (map and --promote), \
             or remove its data if it is wrong"
        ));
    }
    let largest = others
        .iter()
        .map(|other| other.largest_epoch)
        .max()
        .unwrap_or(0);
    match largest.max(own.largest_epoch).checked_add(1) {
        Some(epoch) => Start::Reign(epoch),
        None => Start::ReadOnly(
            "the last epoch that there is has been heard of; no reign can follow it. Copy the data into a new shard".into(),
        ),
    }
}

/// Asks nodes for their standing, again and again until each has answered or the time is over: nodes that start
/// together refuse connections for a moment, and one that recovers its log does not know yet how far it is.
pub(crate) async fn ask(client: &NodeClient, nodes: &[Address]) -> Vec<Standing> {
    let until = Instant::now() + ASK_FOR;
    let asked = nodes.iter().map(async |node| {
        loop {
            let left = until.checked_duration_since(Instant::now())?;
            match ask_once(client, node, left).await {
                Said::Standing(standing) => return Some(standing),
                Said::Refused => return None,
                Said::NotYet => {}
            }
            tokio::time::sleep(ASK_EVERY.min(left)).await;
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// What came of asking a node once.
enum Said {
    Standing(Standing),
    /// It may yet tell.
    NotYet,
    /// It does not know this node's token.
    Refused,
}

async fn ask_once(client: &NodeClient, node: &Address, within: Duration) -> Said {
    match client.get_json(node, route::STATUS, within).await {
        Ok(json) => standing(json).map_or(Said::NotYet, Said::Standing),
        Err(AttemptError::Refused(refusal)) if matches!(refusal.status, 401 | 403) => {
            tracing::error!(
                %node,
                why = refusal.message,
                "does not say how far it is, since it refuses this node's token (--node-token-file)"
            );
            Said::Refused
        }
        Err(_) => Said::NotYet,
    }
}

/// What a node says; `None` while it does not know yet.
fn standing(status: serde_json::Value) -> Option<Standing> {
    let status: NodeStatus = serde_json::from_value(status).ok()?;
    if status.recovering {
        return None;
    }
    Some(Standing {
        address: status.address,
        history: status
            .history
            .and_then(|text| u128::from_str_radix(&text, 16).ok()),
        durable: status.durable.parse().ok()?,
        largest_epoch: status.largest_epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(history: Option<u128>, durable: Position, largest_epoch: Epoch) -> Standing {
        Standing {
            address: "h:2".into(),
            history,
            durable,
            largest_epoch,
        }
    }

    /// The sum went over its end: a panic, or epoch 0 and positions used twice.
    #[test]
    fn no_reign_follows_the_last_epoch() {
        let own = standing(Some(5), Position::new(3, 20), 3);
        let last = standing(Some(5), Position::new(3, 20), Epoch::MAX);
        for promoted in [false, true] {
            let start = decide(&own, std::slice::from_ref(&last), promoted);
            assert!(matches!(start, Start::ReadOnly(_)), "{start:?}");
        }
    }

    #[test]
    fn every_case() {
        let own = standing(Some(5), Position::new(3, 20), 3);
        let fresh = standing(Some(9), Position::ZERO, 0);
        let at = Position::new;
        for (what, own, other, promoted, epoch) in [
            ("nobody answers", &own, None, false, Some(4)),
            (
                "an empty replica",
                &own,
                Some(standing(None, Position::ZERO, 0)),
                false,
                Some(4),
            ),
            (
                "a replica behind",
                &own,
                Some(standing(Some(5), at(3, 9), 3)),
                false,
                Some(4),
            ),
            (
                "a replica level",
                &own,
                Some(standing(Some(5), at(3, 20), 3)),
                false,
                Some(4),
            ),
            (
                "a longer log",
                &own,
                Some(standing(Some(5), at(3, 21), 3)),
                false,
                None,
            ),
            (
                "a longer log, even when promoted",
                &own,
                Some(standing(Some(5), at(3, 21), 3)),
                true,
                None,
            ),
            (
                "a newer epoch",
                &own,
                Some(standing(Some(5), at(3, 9), 4)),
                false,
                None,
            ),
            (
                "a newer epoch, but a person says so",
                &own,
                Some(standing(Some(5), at(3, 9), 7)),
                true,
                Some(8),
            ),
            (
                "another history",
                &own,
                Some(standing(Some(6), at(3, 9), 3)),
                false,
                None,
            ),
            (
                "empty beside data",
                &fresh,
                Some(standing(Some(5), at(3, 9), 3)),
                false,
                None,
            ),
            (
                "all new",
                &fresh,
                Some(standing(None, Position::ZERO, 0)),
                false,
                Some(1),
            ),
        ] {
            let others: Vec<Standing> = other.into_iter().collect();
            let start = decide(own, &others, promoted);
            match (&start, epoch) {
                (Start::Reign(begun), Some(epoch)) => assert_eq!(*begun, epoch, "{what}"),
                (Start::ReadOnly(why), None) => assert!(why.contains("h:2"), "{what}: {why}"),
                _ => panic!("{what}: {start:?}"),
            }
        }
    }
}
