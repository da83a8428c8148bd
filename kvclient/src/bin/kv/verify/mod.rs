//! `kv verify`: whether replicas have what their primary has.
//!
//! Quick: counts and sums at one position (`counts.rs`). `--deep`: every entry (`deep.rs`). Either may run beside writes.

mod again;
pub(crate) mod args;
mod counts;
mod deep;
mod entries;
mod side;
mod verdict;

use std::pin::pin;

use futures_util::future::join_all;
use kvclient::ShardMap;

use self::{
    args::VerifyArgs,
    deep::{Deep, Progress},
    verdict::Compared,
};
use crate::{
    connect::Connected, exit::Exit, failure::Failure, nodes_say::Asker, out::Out, stop::stopped,
};

/// Compares all replicas of the map with their primaries.
pub(crate) async fn verify(
    connected: &Connected,
    args: &VerifyArgs,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let asker = Asker::new(connected)?;
    let map = asker.in_force(&connected.kv).await;
    let progress = Progress::default();
    let compared = {
        let compared = pin!(compare(&asker, &map, args, &progress, out));
        tokio::select! {
            told = stopped() => told.map(|()| None),
            compared = compared => compared.map(Some),
        }
    }?;
    let Some(compared) = compared else {
        out.flush()?;
        out.note(&format!(
            "stopped; {} keys were compared, {} of them differ",
            progress.keys.get(),
            progress.differ.get()
        ));
        return Ok(Exit::Interrupted);
    };
    verdict::print(&compared, out)?;
    Ok(verdict::exit(&compared))
}

async fn compare(
    asker: &Asker,
    map: &ShardMap,
    args: &VerifyArgs,
    progress: &Progress,
    out: &mut Out,
) -> Result<Vec<Compared>, Failure> {
    if !args.deep {
        let shards = map.shards().iter();
        let shards = shards.map(|shard| counts::compare(asker, shard, args.wait));
        return Ok(join_all(shards).await.concat());
    }
    let mut all = Vec::new();
    for shard in map.shards() {
        let deep = Deep {
            nodes: asker.nodes(),
            shard,
            show: args.show,
            progress,
        };
        all.extend(deep.compare(out).await?);
    }
    Ok(all)
}
