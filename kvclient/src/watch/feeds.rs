//! What the shards of a watch bring, merged as it arrives: each shard hands out one event, then the next one.
//!
//! A shard's next piece is asked for when what it has brought is handed out, so that a watch holds one piece per shard,
//! however slowly its events are taken; the rest waits in the buffers of the connections, and then in the shard's log.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::{Stream, future::BoxFuture};
use futures_util::stream::FuturesUnordered;

use super::{
    event::{Event, event_of},
    shard::ShardWatch,
};
use crate::{error::Result, session::Session};

type Fetch = BoxFuture<'static, (usize, Result<Box<ShardWatch>>)>;

/// The feeds of all shards.
pub(super) struct Feeds {
    /// Shards that have brought something; `None` while one is being fetched.
    shards: Vec<Option<Box<ShardWatch>>>,
    fetching: FuturesUnordered<Fetch>,
    /// Places of the shards that have brought something: each hands out one event, then the next one.
    turns: VecDeque<usize>,
    /// Shards not listened to yet.
    unready: Vec<usize>,
}

impl Feeds {
    pub(super) fn new(feeds: impl Iterator<Item = Box<ShardWatch>>) -> Self {
        let mut all = Self {
            shards: Vec::new(),
            fetching: FuturesUnordered::new(),
            turns: VecDeque::new(),
            unready: Vec::new(),
        };
        for (place, feed) in feeds.enumerate() {
            all.shards.push(None);
            all.unready.push(place);
            all.fetch(place, feed);
        }
        all
    }

    fn fetch(&mut self, place: usize, feed: Box<ShardWatch>) {
        let fetch = async move { (place, feed.fetch().await) };
        self.fetching.push(Box::pin(fetch));
    }

    pub(super) fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
        position: &mut Session,
    ) -> Poll<Result<()>> {
        while !self.unready.is_empty() {
            ready!(self.poll_fetched(context, position))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_event(
        &mut self,
        context: &mut Context<'_>,
        position: &mut Session,
    ) -> Poll<Result<Option<Event>>> {
        loop {
            while let Some(place) = self.turns.pop_front() {
                if let Some(event) = self.take_turn(place, position) {
                    return Poll::Ready(Ok(Some(event)));
                }
            }
            if self.fetching.is_empty() {
                // All shards are over.
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_fetched(context, position))?;
        }
    }

    /// Lets one more shard bring something.
    fn poll_fetched(
        &mut self,
        context: &mut Context<'_>,
        position: &mut Session,
    ) -> Poll<Result<()>> {
        // Not empty: a shard is fetched, or it has its turn first, or it is over.
        let fetched = ready!(Pin::new(&mut self.fetching).poll_next(context));
        let Some((place, feed)) = fetched else {
            return Poll::Pending;
        };
        let mut feed = feed?;
        self.unready.retain(|unready| *unready != place);
        // Positions that lead are no events: where it listens is known at once.
        while let Some(at) = feed.pop_position() {
            position.advance(feed.reader().shard_idx(), at);
        }
        self.give_turn(place, feed);
        Poll::Ready(Ok(()))
    }

    fn give_turn(&mut self, place: usize, feed: Box<ShardWatch>) {
        if feed.is_empty() {
            if !feed.is_over() {
                self.fetch(place, feed);
            }
            return;
        }
        self.shards[place] = Some(feed);
        self.turns.push_back(place);
    }

    /// The next event of a shard; `None` if it brought only positions.
    fn take_turn(&mut self, place: usize, position: &mut Session) -> Option<Event> {
        let mut feed = self.shards[place].take()?;
        let mut event = None;
        while event.is_none()
            && let Some(item) = feed.pop()
        {
            let (at, found) = event_of(item, feed.reader());
            position.advance(feed.reader().shard_idx(), at);
            event = found;
        }
        self.give_turn(place, feed);
        event
    }
}
