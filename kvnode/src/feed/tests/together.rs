//! Writers, the feeder and watchers at the same time, on several threads.

use std::time::Duration;

use bytes::Bytes;
use kvclient::position::Position;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Shard, seqs};
use crate::feed::Feed;

const RECORDS: u64 = 30_000;

/// Takes now and then, begun anew now and then, until it is at the end.
async fn watch(feed: Feed, prefix: Bytes, mut at: Position, seed: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut told = Vec::new();
    while at.seq < RECORDS {
        let mut follow = feed.follow(prefix.clone(), at);
        for _ in 0..random.u32(1..200) {
            let events = follow.next().await.unwrap();
            let is_idle = events.is_empty();
            told.extend(seqs(events));
            if is_idle {
                let _ = tokio::time::timeout(Duration::from_millis(20), follow.ready()).await;
            }
            at = follow.at();
            if random.u8(..) < 20 {
                tokio::time::sleep(Duration::from_millis(random.u64(1..20))).await;
            }
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nobody_misses_or_repeats_anything_while_all_are_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = Shard::create(dir.path());
    let feed = Feed::new(shard.log.clone(), shard.visible.subscribe());
    let stopping = CancellationToken::new();
    let mut feeders = JoinSet::new();
    feeders.spawn(feed.clone().run(stopping.clone()));
    let mut watchers = JoinSet::new();
    for nth in 0..40_u64 {
        let prefix = Bytes::from(match nth % 4 {
            0 => String::new(),
            _ => format!("k{}", nth % 10),
        });
        let (feed, wanted) = (feed.clone(), prefix.clone());
        watchers.spawn(async move { (wanted, watch(feed, prefix, Position::ZERO, nth).await) });
    }
    let mut random = fastrand::Rng::with_seed(7);
    while shard.log.durable().seq < RECORDS {
        let left = usize::try_from(RECORDS - shard.log.durable().seq).unwrap();
        let count = random.usize(1..200).min(left);
        let key = || Bytes::from(format!("k{}", random.u32(..1_000)));
        let keys: Vec<Bytes> = std::iter::repeat_with(key).take(count).collect();
        shard.append(&keys);
        shard.publish();
        tokio::task::yield_now().await;
    }
    while let Some(watcher) = watchers.join_next().await {
        let (prefix, told) = watcher.unwrap();
        assert!(told == shard.wanted(&prefix, 0, RECORDS), "{prefix:?}");
    }
    // The end is told to whoever is fed.
    let mut follow = feed.follow(Bytes::new(), shard.log.durable());
    assert!(follow.next().await.unwrap().is_empty() && !follow.is_over());
    stopping.cancel();
    follow.ready().await;
    assert!(follow.next().await.unwrap().is_empty() && follow.is_over());
}
