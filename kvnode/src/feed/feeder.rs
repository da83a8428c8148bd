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

/// What a wake-up costs: 10,000 a second. Measured with three nodes, their 1,010 watchers and the writers on two cores:
/// at twice as many, writes as fast as they can be made come to a quarter less; at half as many, little is gained, and at
/// 10,000 writes a second an event takes 50 ms (p99) instead of less than 10.
const WAKE_COSTS: Duration = Duration::from_micros(100);

/// A timer's shortest pause: what is owed less than this long is not waited for.
const TICK: Duration = Duration::from_millis(1);

/// Longest pause between two looks while a wake-up is owed: no queue is full by then.
const LOOK_EVERY: Duration = Duration::from_millis(4);

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
            let woken = u32::try_from(listed.len()).unwrap_or(u32::MAX);
            listed.drain(..).for_each(|queue| queue.wake());
            paid_until = paid_until.max(now) + WAKE_COSTS.saturating_mul(woken);
        }
        if paid_until > now + TICK {
            sleep_until(paid_until.min(now + LOOK_EVERY)).await;
        } else if visible.changed().await.is_err() {
            return;
        }
    }
}
