//! The task that feeds: when to look at the log, and when to wake whom.
//!
//! It looks as soon as something is visible, and wakes those who are given something. A wake-up ends in a system call
//! here and one on the other side, several times what the write itself has cost. So they are paid for in time: a node
//! that has woken many waits before it wakes again, while it goes on to look; what gathers meanwhile leaves together.
//! Under the rate that is paid for nobody waits.
//!
//! Nobody watches: it sleeps, and writes cost it nothing.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{hub::Hub, queue::Queue};

/// What a wake-up costs while few are woken together: 10,000 a second. At half as many, an event takes several times
/// as long at 10,000 writes a second to a thousand watchers.
const WAKE_COSTS: Duration = Duration::from_micros(100);

/// So many are few. At 10,000 writes a second to a thousand watchers of prefixes, some dozens wait at a time.
const FEW: usize = 128;

/// What each further one costs. So many are waiting only when nodes, writers and watchers have all they can do, and
/// then the processors are better used for writes.
const MORE_COST: Duration = Duration::from_micros(300);

/// The longest that anybody is kept waiting for the wake-ups of others.
const LONGEST: Duration = Duration::from_millis(300);

/// A timer's shortest pause: what is owed less than this long is not waited for.
const TICK: Duration = Duration::from_millis(1);

/// Longest pause between two looks while a wake-up is owed: no queue is full by then.
const LOOK_EVERY: Duration = Duration::from_millis(8);

/// Closes the hub when the task ends, however it ends.
struct CloseOnDrop(Arc<Hub>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Feeds the watchers of a hub until the store is closed or the node stops.
///
/// # Cancel safety
/// May be dropped at any `.await`; watchers are told that it is over.
pub(super) async fn run(hub: Arc<Hub>, stopping: CancellationToken) {
    let hub = CloseOnDrop(hub);
    stopping.run_until_cancelled(feed(&hub.0)).await;
}

async fn feed(hub: &Hub) {
    let mut visible = hub.visible.clone();
    let mut listed: Vec<Arc<Queue>> = Vec::new();
    let mut paid_until = Instant::now();
    loop {
        if hub.is_empty() {
            hub.joined.notified().await;
        }
        let until = *visible.borrow_and_update();
        while hub.step(until, &mut listed) {
            tokio::task::yield_now().await;
        }
        let now = Instant::now();
        if paid_until <= now + TICK {
            paid_until = paid_until.max(now) + price(listed.len());
            listed.drain(..).for_each(|queue| queue.wake());
        }
        if paid_until > now + TICK {
            sleep_until(paid_until.min(now + LOOK_EVERY)).await;
        } else if visible.changed().await.is_err() {
            return;
        }
    }
}

/// How long nobody is woken after so many were.
fn price(woken: usize) -> Duration {
    let times = |count| u32::try_from(count).unwrap_or(u32::MAX);
    let few = WAKE_COSTS.saturating_mul(times(woken.min(FEW)));
    let more = MORE_COST.saturating_mul(times(woken.saturating_sub(FEW)));
    few.saturating_add(more).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wake_ups_cost_more_each_and_nobody_waits_too_long() {
        for (woken, price_us) in [
            (0, 0),
            (1, 100),
            (128, 12_800),
            (129, 13_100),
            (1_010, 277_400),
            (10_000, 300_000),
            (usize::MAX, 300_000),
        ] {
            assert_eq!(price(woken), Duration::from_micros(price_us), "{woken}");
        }
    }
}
