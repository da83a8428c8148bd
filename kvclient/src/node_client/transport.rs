//! The way to a node: a TCP connection, in the clear or with TLS on it.
//!
//! With TLS nothing of a request is ever written to the socket itself: there is no way past the enum. That the plain
//! case costs nothing for it is why this is an enum and no trait object, and why the plain case stands first.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::secured::{Secured, Tls};
use crate::shard_map::Address;

/// For so long after an exchange the runtime's word that nothing has come is taken; later the kernel is asked, since
/// a runtime that was busy meanwhile has not looked.
const TRUSTED: Duration = Duration::from_millis(1);

/// An open way to a node.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Secured),
}

impl Transport {
    /// Makes one of a connection: with TLS after a handshake in which the node has proved that it is `node`.
    pub(super) async fn over(
        stream: TcpStream,
        node: &Address,
        tls: Option<&Tls>,
    ) -> io::Result<Self> {
        let Some(tls) = tls else {
            return Ok(Self::Plain(stream));
        };
        Ok(Self::Tls(Secured::connect(tls, node, stream).await?))
    }

    /// Whether a write that failed at once has certainly sent nothing. TLS may have sent a part of what it was given.
    pub(super) fn tells_what_was_sent(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Whether it is open and nothing has come that nobody asked for, after so long without an exchange.
    pub(super) fn is_silent(&mut self, idle: Duration) -> bool {
        match self {
            // No system call as long as the runtime has heard nothing.
            Self::Plain(stream) if idle < TRUSTED => would_block(stream.try_read(&mut [0])),
            Self::Plain(stream) => would_block(peek(stream)),
            Self::Tls(secured) => match secured.usable_socket() {
                Some(stream) => would_block(peek(stream)),
                None => false,
            },
        }
    }
}

fn peek(stream: &TcpStream) -> io::Result<usize> {
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])
}

fn would_block(read: io::Result<usize>) -> bool {
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(secured) => Pin::new(secured.stream()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(secured) => Pin::new(secured.stream()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(secured) => Pin::new(secured.stream()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(secured) => Pin::new(secured.stream()).poll_shutdown(cx),
        }
    }
}
