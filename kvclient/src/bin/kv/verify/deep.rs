//! The thorough comparison: all entries of all nodes of a shard, side by side in key order.
//!
//! The smallest key that any node shows next is compared, then all that showed it go on: memory is what the connections
//! hold, and some hundred keys that were not alike and are looked at again (`again.rs`). Compared are position, value and
//! whether the entry expires; when it expires follows from the position.

use std::{cell::Cell, time::Duration};

use futures_util::{StreamExt, stream};
use kvclient::{Address, Key, attempt::AttemptError, node_client::NodeClient, shard_map::Shard};
use tokio::time::Instant;

use super::{
    again::{Look, look},
    entries::Held,
    side::SideBySide,
    verdict::{Compared, Verdict},
};
use crate::{
    failure::Failure,
    out::{Format, Out},
    text::escaped,
};

/// Keys that wait to be looked at again. Nodes break off an answer that nobody takes for 20 s, so not for long.
const SUSPECTS: usize = 256;

/// Of those, looked at together.
const TOGETHER: usize = 32;

/// Differences after which a replica is not compared any further: it is another shard's, or lost.
const ENOUGH: u64 = 1_000;

/// How often is said how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// How far it is; whoever interrupts it still learns that.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) keys: Cell<u64>,
    pub(crate) differ: Cell<u64>,
}

/// A replica while it is compared.
struct Replica<'a> {
    address: &'a Address,
    suspects: Vec<Key>,
    entries: u64,
    differ: u64,
    unsettled: u64,
    /// Why it is not compared any more.
    ended: Option<Ended>,
}

enum Ended {
    TooMany,
    Failed(AttemptError),
}

/// What a deep comparison of one shard works with.
pub(crate) struct Deep<'a> {
    pub(crate) nodes: &'a NodeClient,
    pub(crate) shard: &'a Shard,
    /// Keys named of each replica.
    pub(crate) show: u64,
    pub(crate) progress: &'a Progress,
}

impl Deep<'_> {
    /// Compares the nodes of the shard, naming keys that differ as they are found.
    pub(crate) async fn compare(&self, out: &mut Out) -> Result<Vec<Compared>, Failure> {
        let shard = self.shard;
        let replicas = shard.replicas.iter();
        let mut replicas: Vec<Replica> = replicas.map(|node| Replica::new(&node.address)).collect();
        let mut side = SideBySide::new(self.nodes, shard);
        let (mut failed, mut told) = (side.begin().await, Instant::now());
        loop {
            for (at, error) in failed {
                match at.checked_sub(1) {
                    Some(replica) => replicas[replica].ended = Some(Ended::Failed(error)),
                    None => return Ok(Compared::none(shard, &format!("the primary: {error}"))),
                }
            }
            let Some(key) = side.smallest() else {
                break;
            };
            self.progress.keys.set(self.progress.keys.get() + 1);
            for (at, replica) in replicas.iter_mut().enumerate() {
                replica.compare(&key, side.held(0, &key), side.held(at + 1, &key));
                if replica.suspects.len() >= SUSPECTS {
                    self.settle(replica, out).await?;
                }
                if replica.ended.is_some() {
                    side.drop_out(at + 1);
                }
            }
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                self.tell(&key, out);
            }
            failed = side.advance(&key).await;
        }
        for replica in &mut replicas {
            self.settle(replica, out).await?;
        }
        let has = Verdict::Primary(format!("{} entries", side.at_primary));
        let mut all = vec![Compared::new(shard, &shard.primary.address, has)];
        all.extend(
            replicas
                .iter()
                .map(|one| Compared::new(shard, one.address, one.verdict())),
        );
        Ok(all)
    }

    /// Looks again at what was not alike.
    async fn settle(&self, replica: &mut Replica<'_>, out: &mut Out) -> Result<(), Failure> {
        let suspects = std::mem::take(&mut replica.suspects);
        if replica.ended.is_some() {
            return Ok(());
        }
        let (primary, address) = (&self.shard.primary.address, replica.address);
        let looks = suspects.into_iter().map(async |key| {
            let look = look(self.nodes, primary, address, &key).await;
            (key, look)
        });
        let mut looks = stream::iter(looks).buffered(TOGETHER);
        while let Some((key, look)) = looks.next().await {
            match look {
                Ok(Look::Equal) => {}
                Ok(Look::Unsettled) => replica.unsettled += 1,
                Ok(Look::Differs(ours, theirs)) => {
                    replica.differ += 1;
                    self.progress.differ.set(self.progress.differ.get() + 1);
                    if replica.differ <= self.show {
                        self.name(&key, address, [ours.as_ref(), theirs.as_ref()], out)?;
                    }
                }
                Err(error) => {
                    replica.ended = Some(Ended::Failed(error));
                    return Ok(());
                }
            }
        }
        if replica.differ >= ENOUGH {
            replica.ended = Some(Ended::TooMany);
        }
        Ok(())
    }

    fn name(
        &self,
        key: &Key,
        replica: &Address,
        [ours, theirs]: [Option<&Held>; 2],
        out: &mut Out,
    ) -> Result<(), Failure> {
        let (ours, theirs) = (shown(ours), shown(theirs));
        match out.format {
            Format::Json => out.json(|line| {
                line.bytes("key", key.as_bytes())
                    .field("shard", &self.shard.name)
                    .field("node", replica.to_string())
                    .field("primary_has", &ours)
                    .field("node_has", &theirs)
            })?,
            Format::Text => out.text(&format!(
                "{}  {replica}  {}: it has {theirs}, the primary {ours}\n",
                self.shard.name,
                escaped(key.as_bytes())
            ))?,
        }
        out.flush()
    }

    fn tell(&self, key: &Key, out: &mut Out) {
        out.note(&format!(
            "{}: {} keys compared, {} differ; now at {}",
            self.shard.name,
            self.progress.keys.get(),
            self.progress.differ.get(),
            escaped(key.as_bytes())
        ));
    }
}

impl<'a> Replica<'a> {
    fn new(address: &'a Address) -> Self {
        Self {
            address,
            suspects: Vec::new(),
            entries: 0,
            differ: 0,
            unsettled: 0,
            ended: None,
        }
    }

    fn compare(&mut self, key: &Key, primary: Option<&Held>, own: Option<&Held>) {
        self.entries += u64::from(own.is_some());
        if self.ended.is_none() && primary != own {
            self.suspects.push(key.clone());
        }
    }

    fn verdict(&self) -> Verdict {
        let differ = match self.differ {
            1 => "1 key differs".to_owned(),
            many => format!("{many} keys differ"),
        };
        match &self.ended {
            Some(Ended::TooMany) => {
                Verdict::Differs(format!("{differ}; it was not compared any further"))
            }
            Some(Ended::Failed(error)) if self.differ > 0 => {
                Verdict::Differs(format!("{differ}; then it gave out: {error}"))
            }
            Some(Ended::Failed(error)) => Verdict::NotCompared(error.to_string()),
            None if self.differ > 0 => Verdict::Differs(differ),
            None if self.unsettled > 0 => Verdict::NotCompared(format!(
                "{} keys were written whenever they were looked at; all others are equal",
                self.unsettled
            )),
            None => Verdict::Equal(format!("{} entries", self.entries)),
        }
    }
}

fn shown(held: Option<&Held>) -> String {
    held.map_or("nothing".to_owned(), |held| {
        let expires = if held.expires { ", expires" } else { "" };
        format!(
            "{} bytes of {:016x} at {}{expires}",
            held.value_bytes, held.value_hash, held.position
        )
    })
}
