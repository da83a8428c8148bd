//! The entries of several nodes side by side, in one order: the next key that any of them has, and who has it.

use futures_util::future::join_all;
use kvclient::{Key, attempt::AttemptError, node_client::NodeClient, shard_map::Shard};

use super::entries::{Entries, Held};

/// A shard's nodes, the primary first.
pub(crate) struct SideBySide<'a> {
    streams: Vec<Entries<'a>>,
    /// What each of them shows next; `None` at its end, or if it dropped out.
    heads: Vec<Option<(Key, Held)>>,
    /// Entries that the primary has shown.
    pub(crate) at_primary: u64,
}

/// Nodes that do not answer any more, by their place.
pub(crate) type Failed = Vec<(usize, AttemptError)>;

impl<'a> SideBySide<'a> {
    pub(crate) fn new(nodes: &'a NodeClient, shard: &'a Shard) -> Self {
        let streams = shard.nodes().map(|node| Entries::new(nodes, &node.address));
        let streams: Vec<_> = streams.collect();
        let heads = streams.iter().map(|_| None).collect();
        Self {
            streams,
            heads,
            at_primary: 0,
        }
    }

    /// Takes the first entry of each.
    pub(crate) async fn begin(&mut self) -> Failed {
        let mut failed = Vec::new();
        let first = join_all(self.streams.iter_mut().map(Entries::next)).await;
        for (at, head) in first.into_iter().enumerate() {
            match head {
                Ok(head) => self.heads[at] = head,
                Err(error) => failed.push((at, error)),
            }
        }
        failed
    }

    /// The next key; `None` at the end of all.
    pub(crate) fn smallest(&self) -> Option<Key> {
        let shown = self.heads.iter().flatten().map(|(key, _)| key);
        shown.min().cloned()
    }

    /// What a node has under the next key.
    pub(crate) fn held(&self, at: usize, key: &Key) -> Option<&Held> {
        let (shown, held) = self.heads[at].as_ref()?;
        (shown == key).then_some(held)
    }

    /// Goes on behind a key.
    pub(crate) async fn advance(&mut self, key: &Key) -> Failed {
        self.at_primary += u64::from(self.held(0, key).is_some());
        let mut failed = Vec::new();
        for (at, stream) in self.streams.iter_mut().enumerate() {
            if self.heads[at]
                .as_ref()
                .is_none_or(|(shown, _)| shown != key)
            {
                continue;
            }
            self.heads[at] = match stream.next().await {
                Ok(next) => next,
                Err(error) => {
                    failed.push((at, error));
                    None
                }
            };
        }
        failed
    }

    /// A node is not looked at any more.
    pub(crate) fn drop_out(&mut self, at: usize) {
        self.heads[at] = None;
    }
}
