//! Connections that wait for their next exchange, by node.
//!
//! An exchange takes the one used last, or opens one, and gives it back afterwards. There is no task here: what has
//! waited for too long is thrown away by the exchange that finds it, and at most once per `idle_timeout` by the one
//! that happens to come along.
//!
//! A connection that was kept may have been closed by the node meanwhile. It is looked at before it is used; if even
//! so the kernel takes no byte of the request, the next one is used: nothing was sent, so nothing is sent twice. If it
//! breaks later than that, nobody knows whether the node has read the request, and the caller is told so.
//!
//! Connections belong to the runtime they were made on. Those of one that has stopped are never looked at again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};

use super::{
    answer::Answer, connection::Connection, exchange::Failure, head::Request, secured::Tls,
};
use crate::{attempt::AttemptError, shard_map::Address};

/// Idle connections to all nodes.
#[derive(Debug)]
pub(super) struct Pool {
    /// For all nodes, or for none.
    pub(super) tls: Option<Tls>,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) idle_per_node: usize,
    /// Std lock: never held over an await.
    pub(super) idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
pub(super) struct Idle {
    /// In the order in which they were given back.
    by_node: HashMap<Address, Vec<Kept>>,
    /// When all of them were last looked through.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Kept {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// One exchange with a node.
    pub(super) async fn exchange(
        &self,
        node: &Address,
        request: &Request<'_>,
        limit: Duration,
        limit_bytes: usize,
    ) -> Result<Answer, AttemptError> {
        let until = Instant::now() + limit;
        loop {
            let (connection, was_kept) = self.connection(node, until).await?;
            match connection.exchange(node, request, until, limit_bytes).await {
                Ok((answer, connection)) => {
                    self.keep(node, connection);
                    return Ok(answer);
                }
                Err(Failure::NothingSent(_)) if was_kept => {}
                Err(Failure::NothingSent(problem)) => {
                    return Err(AttemptError::NotConnected(problem));
                }
                Err(Failure::Sent(error)) => return Err(error),
            }
        }
    }

    /// A connection, and whether it was kept from an earlier exchange.
    async fn connection(
        &self,
        node: &Address,
        until: Instant,
    ) -> Result<(Connection, bool), AttemptError> {
        match self.take(node) {
            Some(kept) => Ok((kept, true)),
            None => Ok((self.connect(node, until).await?, false)),
        }
    }

    async fn connect(&self, node: &Address, until: Instant) -> Result<Connection, AttemptError> {
        let opening = Connection::open(node, self.tls.as_ref(), self.connect_timeout);
        match timeout_at(until, opening).await {
            Ok(opened) => opened.map_err(|error| AttemptError::NotConnected(error.to_string())),
            Err(_) => Err(AttemptError::TimedOut),
        }
    }

    /// The connection used last that is open and silent.
    fn take(&self, node: &Address) -> Option<Connection> {
        let runtime = Handle::current().id();
        let now = Instant::now();
        loop {
            let mut idle = self.lock();
            let kept = idle.by_node.get_mut(node)?;
            let at = kept
                .iter()
                .rposition(|kept| kept.connection.made_on() == runtime)?;
            let Kept {
                mut connection,
                since,
            } = kept.remove(at);
            drop(idle);
            let waited = now.saturating_duration_since(since);
            if waited < self.idle_timeout && connection.is_silent(waited) {
                return Some(connection);
            }
        }
    }

    fn keep(&self, node: &Address, connection: Option<Connection>) {
        let Some(connection) = connection else {
            return;
        };
        let since = Instant::now();
        let mut idle = self.lock();
        idle.sweep(since, self.idle_timeout);
        let kept = match idle.by_node.get_mut(node) {
            Some(kept) => kept,
            None => idle.by_node.entry(node.clone()).or_default(),
        };
        if kept.len() < self.idle_per_node {
            kept.push(Kept { connection, since });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// Closes what nobody has used for so long, also to nodes that are never asked again.
    fn sweep(&mut self, now: Instant, idle_timeout: Duration) {
        let is_time = self
            .swept
            .is_none_or(|last| now.saturating_duration_since(last) >= idle_timeout);
        if !is_time {
            return;
        }
        self.swept = Some(now);
        self.by_node.retain(|_, kept| {
            kept.retain(|kept| now.saturating_duration_since(kept.since) < idle_timeout);
            !kept.is_empty()
        });
    }
}
