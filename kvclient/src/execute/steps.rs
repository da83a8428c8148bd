//! Many ops at once: those for one node leave in one batch, writes to one key one after the other.

use std::collections::HashMap;

use futures_util::future::join_all;
use tokio::{sync::oneshot, time::Instant};

use super::walk::Walk;
use crate::{
    error::Error,
    intent::Intent,
    key::Key,
    router::Router,
    wire::batch::{Op, OpResult},
};

/// Carries out all of them: one result per op, in order.
pub(super) async fn run<'a>(
    router: &'a Router,
    intents: Vec<Result<(Intent<'a>, Op), Error>>,
) -> Vec<Result<OpResult, Error>> {
    let mut ends = HashMap::new();
    let step = |intent: Result<_, Error>| {
        let (intent, op) = intent?;
        Step::new(router, intent, op, &mut ends)
    };
    let mut steps: Vec<_> = intents.into_iter().map(step).collect();
    if steps.len() > 1 {
        // All enter their lanes before any lane starts; nothing is awaited in between.
        let mut walks: Vec<_> = steps.iter_mut().flatten().filter_map(Step::walk).collect();
        walks.iter_mut().for_each(|walk| walk.push());
        walks.iter().for_each(|walk| walk.start());
    }
    join_all(steps.into_iter().map(finish)).await
}

async fn finish(step: Result<Step<'_>, Error>) -> Result<OpResult, Error> {
    step?.run().await
}

/// One of many ops.
struct Step<'a> {
    stage: Stage<'a>,
    /// Dropped when a write is over: the next one to its key waits for that.
    end: Option<oneshot::Sender<()>>,
}

enum Stage<'a> {
    /// Nothing stands before it.
    Ready(Walk<'a>),
    /// An earlier write to its key does. It is planned when that is over.
    Behind {
        earlier: oneshot::Receiver<()>,
        router: &'a Router,
        intent: Intent<'a>,
        op: Op,
    },
}

impl<'a> Step<'a> {
    /// `ends` holds the end of the last write to each key so far.
    fn new(
        router: &'a Router,
        intent: Intent<'a>,
        op: Op,
        ends: &mut HashMap<Key, oneshot::Receiver<()>>,
    ) -> Result<Self, Error> {
        let mut end = None;
        let mut earlier = None;
        if intent.kind.is_write() {
            let (sender, receiver) = oneshot::channel();
            end = Some(sender);
            earlier = ends.insert(op.key.clone(), receiver);
        }
        let stage = match earlier {
            None => Stage::Ready(Walk::new(router, intent, op)?),
            Some(earlier) => Stage::Behind {
                earlier,
                router,
                intent,
                op,
            },
        };
        Ok(Self { stage, end })
    }

    /// The op, if it can leave at once.
    fn walk(&mut self) -> Option<&mut Walk<'a>> {
        match &mut self.stage {
            Stage::Ready(walk) => Some(walk),
            Stage::Behind { .. } => None,
        }
    }

    async fn run(self) -> Result<OpResult, Error> {
        let _end = self.end;
        let walk = match self.stage {
            Stage::Ready(walk) => walk,
            Stage::Behind {
                earlier,
                router,
                mut intent,
                op,
            } => {
                // Nothing is ever sent: the other side is dropped, whatever became of the write.
                let _ = earlier.await;
                intent.began = Instant::now();
                Walk::new(router, intent, op)?
            }
        };
        walk.run().await
    }
}
