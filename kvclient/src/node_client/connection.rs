//! One connection to a node, and one exchange over it at a time, in the caller's own future.
//!
//! Without a task behind it an exchange costs one write, one wait and one read: no hop between tasks and no channel.
//!
//! Invariant: a connection is used again only after an exchange that ended where both sides say it ended, and nothing
//! has come since. Who uses it owns it: dropped half way, it is closed.
//!
//! A request counts as not sent only if the kernel took none of its bytes.

use std::{io, mem::MaybeUninit, pin::Pin, time::Duration};

use bytes::{BufMut, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    runtime::{self, Handle},
    select,
    time::{Instant, Sleep, sleep_until, timeout, timeout_at},
};

use super::{
    answer::Answer,
    chunked::Chunked,
    head::{AnswerHead, BodyLength, Headers, Request},
};
use crate::{attempt::AttemptError, shard_map::Address};

/// Bytes of an answer that are read at once, and most bytes of its head. A batch of 250 values of 100 bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes of a body that are copied to stand behind the head, so that both leave in one write.
const JOINED_BYTES: usize = 64 << 10;

/// For so long after an exchange the runtime's word that nothing has come is taken; later the kernel is asked, since
/// a runtime that was busy meanwhile has not looked.
const TRUSTED: Duration = Duration::from_millis(1);

/// How far an exchange got that brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel took no byte of it.
    NothingSent(String),
    /// Some of it may have arrived.
    Sent(AttemptError),
}

/// An open connection with nothing under way.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire,
    /// Kept, since a timer that is set again to a later time costs next to nothing.
    timer: Pin<Box<Sleep>>,
    /// Only there it hears of what arrives.
    made_on: runtime::Id,
}

#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    /// A request's head and the beginning of its body.
    outgoing: Vec<u8>,
    /// What has arrived and was not taken yet, at most [`BUFFER_BYTES`].
    incoming: Vec<u8>,
}

/// How much of a request was sent.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    /// The node began to answer, or stopped to listen, before it had it all.
    Part,
}

impl Connection {
    /// Connects: all addresses of a name in turn, each with an equal share of the time that is left.
    pub(super) async fn open(node: &Address, limit: Duration) -> io::Result<Self> {
        let until = Instant::now() + limit;
        let host = node.host().trim_matches(['[', ']']);
        let found = timeout_at(until, lookup_host((host, node.port()))).await??;
        let found: Vec<_> = found.collect();
        let mut failure = io::Error::other("the name has no address");
        for (left, socket) in (1..=found.len()).rev().zip(&found) {
            let share = (until - Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
            match timeout(share, TcpStream::connect(socket)).await {
                Ok(Ok(stream)) => return Self::over(stream),
                Ok(Err(error)) => failure = error,
                Err(late) => failure = late.into(),
            }
        }
        Err(failure)
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        let often = TcpKeepalive::new().with_time(Duration::from_secs(15));
        #[cfg(target_os = "linux")]
        let often = often.with_interval(Duration::from_secs(15)).with_retries(3);
        socket.set_tcp_keepalive(&often)?;
        // Without it, bytes sent to a node whose machine is gone are waited for as long as the exchange lasts.
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self {
            wire: Wire {
                stream,
                outgoing: Vec::new(),
                incoming: Vec::with_capacity(BUFFER_BYTES),
            },
            timer: Box::pin(sleep_until(Instant::now())),
            made_on: Handle::current().id(),
        })
    }

    /// The runtime it belongs to.
    pub(super) fn made_on(&self) -> runtime::Id {
        self.made_on
    }

    /// Whether it is open and nothing has come that nobody asked for, after so long without an exchange.
    pub(super) fn is_silent(&self, idle: Duration) -> bool {
        let stream = &self.wire.stream;
        let read = match idle < TRUSTED {
            // No system call as long as the runtime has heard nothing.
            true => stream.try_read(&mut [0]),
            false => SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]),
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
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

impl Wire {
    /// The answer, and whether nothing is left of the exchange.
    async fn exchange(
        &mut self,
        node: &Address,
        request: &Request<'_>,
        limit_bytes: usize,
    ) -> Result<(Answer, bool), Failure> {
        self.outgoing.clear();
        request.write_head(node, &mut self.outgoing);
        let sent = self.send(request.body).await?;
        let (answer, keeps_open) = self.answer(limit_bytes).await.map_err(Failure::Sent)?;
        let is_clean = keeps_open && sent == Sent::Whole && self.incoming.is_empty();
        Ok((answer, is_clean))
    }

    /// Sends the head and a body.
    async fn send(&mut self, body: &[u8]) -> Result<Sent, Failure> {
        let (first, rest) = body.split_at(body.len().min(JOINED_BYTES));
        self.outgoing.extend_from_slice(first);
        let (mut from, mut to) = self.stream.split();
        let mut nothing_sent = true;
        for mut piece in [&self.outgoing[..], rest] {
            while !piece.is_empty() {
                // Who answers early may never read the rest, so the answer must be heard meanwhile.
                let written = select! {
                    biased;
                    written = to.write(piece) => written,
                    _ = from.read_buf(&mut self.incoming) => return Ok(Sent::Part),
                };
                match written {
                    Ok(len) => piece = &piece[len..],
                    Err(error) if nothing_sent => {
                        return Err(Failure::NothingSent(error.to_string()));
                    }
                    Err(_) => return Ok(Sent::Part),
                }
                nothing_sent = false;
            }
        }
        Ok(Sent::Whole)
    }

    /// Reads an answer, and whether the connection stays open.
    async fn answer(&mut self, limit_bytes: usize) -> Result<(Answer, bool), AttemptError> {
        let head = self.head().await?;
        let headers = Headers::of_head(&self.incoming[..head.len]);
        self.incoming.drain(..head.len);
        let body = match head.body {
            BodyLength::Bytes(len) => self.body(len, limit_bytes).await?,
            BodyLength::Chunked => self.chunks(limit_bytes).await?,
            BodyLength::UntilClosed => self.until_closed(limit_bytes).await?,
        };
        let keeps_open = head.keeps_open && head.body != BodyLength::UntilClosed;
        Ok((Answer::new(head.status, headers, body), keeps_open))
    }

    async fn head(&mut self) -> Result<AnswerHead, AttemptError> {
        loop {
            match AnswerHead::parse(&self.incoming).map_err(AttemptError::Broken)? {
                Some(head) if head.is_interim() => drop(self.incoming.drain(..head.len)),
                Some(head) => return Ok(head),
                None => self.more().await?,
            }
        }
    }

    /// A body of `len` bytes. What has not arrived yet is read straight into its place.
    async fn body(&mut self, len: u64, limit_bytes: usize) -> Result<Bytes, AttemptError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > limit_bytes {
            return Err(AttemptError::AnswerTooLarge { limit_bytes });
        }
        let here = len.min(self.incoming.len());
        let mut body = Vec::with_capacity(len);
        body.extend(self.incoming.drain(..here));
        while body.len() < len {
            let left = len - body.len();
            let read = self.stream.read_buf(&mut (&mut body).limit(left)).await;
            if read.map_err(broken)? == 0 {
                return Err(cut_off());
            }
        }
        Ok(body.into())
    }

    async fn chunks(&mut self, limit_bytes: usize) -> Result<Bytes, AttemptError> {
        let (mut chunked, mut body) = (Chunked::default(), Vec::new());
        loop {
            let taken = chunked.push(&self.incoming, &mut body);
            let taken = taken.map_err(|problem| AttemptError::Broken(problem.to_owned()))?;
            self.incoming.drain(..taken);
            if body.len() > limit_bytes {
                return Err(AttemptError::AnswerTooLarge { limit_bytes });
            }
            if chunked.is_over() {
                return Ok(body.into());
            }
            self.more().await?;
        }
    }

    async fn until_closed(&mut self, limit_bytes: usize) -> Result<Bytes, AttemptError> {
        let mut body = Vec::new();
        loop {
            body.append(&mut self.incoming);
            if body.len() > limit_bytes {
                return Err(AttemptError::AnswerTooLarge { limit_bytes });
            }
            if self.read().await? == 0 {
                return Ok(body.into());
            }
        }
    }

    /// Reads on; the answer is not complete.
    async fn more(&mut self) -> Result<(), AttemptError> {
        if self.incoming.len() >= BUFFER_BYTES {
            let problem = format!("more than {BUFFER_BYTES} bytes around an answer's body");
            return Err(AttemptError::Broken(problem));
        }
        match self.read().await? {
            0 => Err(cut_off()),
            _ => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<usize, AttemptError> {
        let read = self.stream.read_buf(&mut self.incoming).await;
        read.map_err(broken)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` wants")]
fn broken(error: io::Error) -> AttemptError {
    AttemptError::Broken(error.to_string())
}

fn cut_off() -> AttemptError {
    AttemptError::Broken("closed before the answer was complete".to_owned())
}
