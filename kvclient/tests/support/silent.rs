//! Addresses at which nobody says anything: the connection hangs, or all that is written to it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};

use kvclient::shard_map::Address;
use tokio::net::TcpSocket;

/// More connections than any short queue takes.
const ENOUGH: usize = 16;

pub(crate) struct Silent {
    pub(crate) address: Address,
    _listener: Listener,
    /// They fill the listener's queue.
    _waiting: Vec<TcpStream>,
}

enum Listener {
    Roomy(TcpListener),
    Full(tokio::net::TcpListener),
}

impl Silent {
    /// The kernel takes connections and bytes, and nobody ever reads them: a node that is stopped.
    pub(crate) fn never_reads() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        Self::new(address, Listener::Roomy(listener), Vec::new())
    }

    /// Not even a connection comes about: the listener's queue is full, so the kernel drops what asks for one. As
    /// if the machine were gone.
    pub(crate) async fn never_connects() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        socket.bind(any.into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        let soon = std::time::Duration::from_millis(50);
        let connect = move || TcpStream::connect_timeout(&address, soon);
        while let Ok(stream) = tokio::task::spawn_blocking(connect).await.unwrap() {
            waiting.push(stream);
            assert!(waiting.len() < ENOUGH, "its queue is never full");
        }
        Self::new(address, Listener::Full(listener), waiting)
    }

    fn new(address: SocketAddr, listener: Listener, waiting: Vec<TcpStream>) -> Self {
        Self {
            address: address.to_string().parse().unwrap(),
            _listener: listener,
            _waiting: waiting,
        }
    }
}
