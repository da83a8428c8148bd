//! One connection to a node, and one exchange over it at a time, in the caller's own future.
//!
//! Without a task behind it an exchange costs one write, one wait and one read: no hop between tasks and no channel.
//!
//! Invariant: a connection is used again only after an exchange that ended where both sides say it ended, and nothing
//! has come since. Who uses it owns it: dropped half way, it is closed.

use std::{io, pin::Pin, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    runtime::{self, Handle},
    select,
    time::{Instant, Sleep, sleep_until, timeout, timeout_at},
};

use super::{
    answer::Answer,
    exchange::{Failure, Wire},
    head::Request,
    secured::Tls,
    transport::Transport,
};
use crate::{attempt::AttemptError, scheme::Scheme, shard_map::Address};

/// An open connection with nothing under way.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire,
    /// Kept, since a timer that is set again to a later time costs next to nothing.
    timer: Pin<Box<Sleep>>,
    /// Only there it hears of what arrives.
    made_on: runtime::Id,
}

impl Connection {
    /// Connects: all addresses of a name in turn, each with an equal share of the time that is left. With TLS the
    /// handshake is part of it.
    pub(super) async fn open(
        node: &Address,
        tls: Option<&Tls>,
        limit: Duration,
    ) -> io::Result<Self> {
        let until = Instant::now() + limit;
        let found = timeout_at(until, lookup_host((node.bare_host(), node.port()))).await??;
        let found: Vec<_> = found.collect();
        let mut failure = io::Error::other("the name has no address");
        for (left, socket) in (1..=found.len()).rev().zip(&found) {
            let share = (until - Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
            let opening = async {
                let stream = tuned(TcpStream::connect(socket).await?)?;
                Transport::over(stream, node, tls).await
            };
            match timeout(share, opening).await {
                Ok(Ok(transport)) => return Ok(Self::over(transport, tls)),
                Ok(Err(error)) => failure = error,
                Err(late) => failure = late.into(),
            }
        }
        Err(failure)
    }

    fn over(transport: Transport, tls: Option<&Tls>) -> Self {
        let scheme = tls.map_or(Scheme::Http, |_| Scheme::Https);
        Self {
            wire: Wire::new(transport, scheme),
            timer: Box::pin(sleep_until(Instant::now())),
            made_on: Handle::current().id(),
        }
    }

    /// The runtime it belongs to.
    pub(super) fn made_on(&self) -> runtime::Id {
        self.made_on
    }

    /// Whether it is open and nothing has come that nobody asked for, after so long without an exchange.
    pub(super) fn is_silent(&mut self, idle: Duration) -> bool {
        self.wire.transport.is_silent(idle)
    }

    /// Sends a request and reads the answer; gives the connection back if it can be used again.
    pub(super) async fn exchange(
        mut self,
        node: &Address,
        request: &Request<'_>,
        until: Instant,
        limit_bytes: usize,
    ) -> Result<(Answer, Option<Self>), Failure> {
        let Self { wire, timer, .. } = &mut self;
        timer.as_mut().reset(until);
        let (answer, is_clean) = select! {
            biased;
            answer = wire.exchange(node, request, limit_bytes) => answer?,
            () = timer => return Err(Failure::Sent(AttemptError::TimedOut)),
        };
        Ok((answer, is_clean.then_some(self)))
    }
}

/// A socket as exchanges want it.
fn tuned(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let often = TcpKeepalive::new().with_time(Duration::from_secs(15));
    #[cfg(target_os = "linux")]
    let often = often.with_interval(Duration::from_secs(15)).with_retries(3);
    socket.set_tcp_keepalive(&often)?;
    // Without it, bytes sent to a node whose machine is gone are waited for as long as the exchange lasts.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}
