//! What travels during one exchange: a request out, the head and the body of an answer in.
//!
//! Whoever answers early may never read the rest of a request, so the answer is listened for while it is sent.
//!
//! A request counts as not sent only if the kernel took none of its bytes; with TLS, only before it got the first.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::{
    answer::Answer,
    chunked::Chunked,
    head::{AnswerHead, BodyLength, Headers, Request},
    secured::refused_certificate,
    transport::Transport,
};
use crate::{attempt::AttemptError, scheme::Scheme, shard_map::Address};

/// Bytes of an answer that are read at once, and most bytes of its head. A batch of 250 values of 100 bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes of a body that are copied to stand behind the head, so that both leave in one write.
const JOINED_BYTES: usize = 64 << 10;

/// How far an exchange got that brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel took no byte of it.
    NothingSent(String),
    /// Some of it may have arrived.
    Sent(AttemptError),
}

/// A way to a node, and what is between it and those who use it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) transport: Transport,
    scheme: Scheme,
    /// A request's head and the beginning of its body.
    outgoing: Vec<u8>,
    /// What has arrived and was not taken yet, at most [`BUFFER_BYTES`].
    incoming: Vec<u8>,
    /// Whether an answer has come: then the handshake is over on both sides.
    is_answered: bool,
}

/// How much of a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    /// The node began to answer, or stopped to listen, before it had it all.
    Part,
}

impl Wire {
    pub(super) fn new(transport: Transport, scheme: Scheme) -> Self {
        Self {
            transport,
            scheme,
            outgoing: Vec::new(),
            incoming: Vec::with_capacity(BUFFER_BYTES),
            is_answered: false,
        }
    }

    /// The answer, and whether nothing is left of the exchange.
    pub(super) async fn exchange(
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
        let Self {
            transport,
            outgoing,
            incoming,
            ..
        } = self;
        let mut may_be_unsent = transport.tells_what_was_sent();
        for mut piece in [&outgoing[..], rest] {
            while !piece.is_empty() {
                let write =
                    |way: Pin<&mut Transport>, cx: &mut Context<'_>| way.poll_write(cx, piece);
                match unless_heard(transport, incoming, write).await {
                    None => return Ok(Sent::Part),
                    Some(Ok(len)) => piece = &piece[len..],
                    Some(Err(error)) if may_be_unsent => {
                        return Err(Failure::NothingSent(error.to_string()));
                    }
                    Some(Err(_)) => return Ok(Sent::Part),
                }
                may_be_unsent = false;
            }
        }
        match unless_heard(transport, incoming, Transport::poll_flush).await {
            Some(Ok(())) => Ok(Sent::Whole),
            None | Some(Err(_)) => Ok(Sent::Part),
        }
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
        Ok((
            Answer::new(self.scheme, head.status, headers, body),
            keeps_open,
        ))
    }

    async fn head(&mut self) -> Result<AnswerHead, AttemptError> {
        loop {
            match AnswerHead::parse(&self.incoming).map_err(AttemptError::Broken)? {
                Some(head) if head.is_interim() => drop(self.incoming.drain(..head.len)),
                Some(head) => {
                    self.is_answered = true;
                    return Ok(head);
                }
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
            let read = self.transport.read_buf(&mut (&mut body).limit(left)).await;
            if read.map_err(|error| broken(&error))? == 0 {
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
        let read = self.transport.read_buf(&mut self.incoming).await;
        read.map_err(|error| match refused_certificate(&error) {
            // What is sent before a handshake is over is never read.
            Some(refusal) if !self.is_answered => AttemptError::NotConnected(refusal),
            _ => broken(&error),
        })
    }
}

/// Does one thing to the way out; `None` if the node is heard before it is done.
async fn unless_heard<T>(
    transport: &mut Transport,
    incoming: &mut Vec<u8>,
    mut act: impl FnMut(Pin<&mut Transport>, &mut Context<'_>) -> Poll<io::Result<T>>,
) -> Option<io::Result<T>> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = act(Pin::new(&mut *transport), cx) {
            return Poll::Ready(Some(done));
        }
        // It keeps nothing between two polls, so that a new one goes on where this one is.
        let _ = ready!(pin!(transport.read_buf(&mut *incoming)).poll(cx));
        Poll::Ready(None)
    })
    .await
}

fn broken(error: &io::Error) -> AttemptError {
    AttemptError::Broken(error.to_string())
}

fn cut_off() -> AttemptError {
    AttemptError::Broken("closed before the answer was complete".to_owned())
}
