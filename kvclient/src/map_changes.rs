//! A stream of the maps that a client adopts.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::{Stream, stream::BoxStream};
use futures_util::{StreamExt, stream::unfold};
use tokio::sync::watch::Receiver;

use crate::shard_map::ShardMap;

/// The map in force, then each newer one. Ends when the last clone of its client is gone.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use futures_util::StreamExt;
///
/// let mut maps = kv.map_changes();
/// while let Some(map) = maps.next().await {
///     let primaries: Vec<_> = map.shards().iter().map(|shard| &shard.primary.address).collect();
///     println!("version {}: {primaries:?}", map.version()); // at once, then after each change
/// }
/// # Ok(())
/// # }
/// ```
pub struct MapChanges(BoxStream<'static, Arc<ShardMap>>);

impl MapChanges {
    pub(crate) fn new(maps: Receiver<Arc<ShardMap>>) -> Self {
        let next = |mut maps: Receiver<Arc<ShardMap>>| async move {
            maps.changed().await.ok()?;
            let map = maps.borrow_and_update().clone();
            Some((map, maps))
        };
        Self(unfold(maps, next).boxed())
    }
}

impl Stream for MapChanges {
    type Item = Arc<ShardMap>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl fmt::Debug for MapChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MapChanges")
    }
}
