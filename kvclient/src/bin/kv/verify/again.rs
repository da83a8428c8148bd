//! A key that two nodes did not show alike is looked at again: it may just have been written.
//!
//! The primary is asked before and after the replica, and the replica answers only when it holds what the primary had
//! made visible before. If the primary showed one and the same write both times and the replica another thing, three times
//! in a row, that is a difference. A key that is written all the time may never be met standing still; then it is said so.

use std::time::Duration;

use kvclient::{
    Address, Key, Position,
    attempt::AttemptError,
    node_client::NodeClient,
    wire::batch::{Action, Op},
};

use super::entries::Held;

/// Times in a row that a difference must be seen.
const SEEN: u32 = 3;

/// Looks at a key at most.
const LOOKS: u32 = 30;

const PAUSE: Duration = Duration::from_millis(100);

/// How long a replica may take to get where the primary was.
const CATCH_UP_MS: u32 = 5_000;

/// Longest wait for an answer: above the time that the node may wait.
const ANSWER: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    Equal,
    /// What primary and replica have; `None`: nothing.
    Differs(Option<Held>, Option<Held>),
    /// It was written all the time.
    Unsettled,
}

/// Looks until it is clear.
///
/// # Errors
/// One of the two does not answer.
pub(crate) async fn look(
    nodes: &NodeClient,
    primary: &Address,
    replica: &Address,
    key: &Key,
) -> Result<Look, AttemptError> {
    let mut seen = 0;
    for _ in 0..LOOKS {
        let (before, visible) = read(nodes, primary, key, None).await?;
        let (there, _) = read(nodes, replica, key, visible).await?;
        if there == before {
            return Ok(Look::Equal);
        }
        let (after, _) = read(nodes, primary, key, None).await?;
        if there == after {
            return Ok(Look::Equal);
        }
        seen = if before == after { seen + 1 } else { 0 };
        if seen == SEEN {
            return Ok(Look::Differs(after, there));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Look::Unsettled)
}

/// What a node has, and what it has made visible.
async fn read(
    nodes: &NodeClient,
    address: &Address,
    key: &Key,
    holds: Option<Position>,
) -> Result<(Option<Held>, Option<Position>), AttemptError> {
    let mut op = Op::new(key.clone(), Action::Get);
    op.terms.min_position = holds;
    op.terms.wait_ms = holds.map(|_| CATCH_UP_MS);
    let result = AttemptError::check(nodes.get(address, &op, ANSWER).await?)?;
    let value = result.value.as_deref().unwrap_or_default();
    let held = result
        .etag
        .map(|at| Held::new(at, value, result.ttl_ms.is_some()));
    Ok((held, result.position))
}
