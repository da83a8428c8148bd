//! What the program that started the node is told, if that is systemd (`Type=notify`): that it serves, how it is doing,
//! and that it stops.
//!
//! Lines in a datagram to the socket that `NOTIFY_SOCKET` names; without it nobody is told. A message that does not get
//! through changes nothing: the node does not depend on who watches it. That it serves and how it is doing is told again
//! until it does get through.

use std::{
    cell::{Cell, RefCell},
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Who started the node.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// Whether the node serves, and that was not told yet.
    owes_ready: Cell<bool>,
    /// What it was told last of how the node is doing.
    told: RefCell<String>,
    /// Whether the last message did not get through: logged once.
    is_deaf: Cell<bool>,
}

impl Supervisor {
    /// The one that the environment names, if it names one.
    pub fn from_env() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| {
            connect(&name)
                .inspect_err(|error| tracing::warn!(?name, %error, "NOTIFY_SOCKET cannot be used"))
                .ok()
        });
        Self::of(socket)
    }

    fn of(socket: Option<UnixDatagram>) -> Self {
        Self {
            socket,
            owes_ready: Cell::default(),
            told: RefCell::default(),
            is_deaf: Cell::default(),
        }
    }

    /// The node listens, and its data is open or being copied.
    pub fn serves(&self) {
        self.owes_ready.set(!self.send("READY=1"));
    }

    /// How the node is doing, as `/readyz` says it. Told again only when it changes.
    pub fn is_doing(&self, how: &str) {
        if self.owes_ready.get() {
            self.serves();
        }
        // A line is a field.
        let is_new = *self.told.borrow() != how;
        if is_new && self.send(&format!("STATUS={}", how.replace('\n', " "))) {
            self.told.replace(how.to_owned());
        }
    }

    /// The node takes no more connections and finishes what runs.
    pub fn stops(&self) {
        self.send("STOPPING=1");
    }

    /// Whether it got through, or there is nobody to tell.
    fn send(&self, message: &str) -> bool {
        let Some(socket) = &self.socket else {
            return true;
        };
        let sent = socket.send(message.as_bytes());
        let was_deaf = self.is_deaf.replace(sent.is_err());
        if let Err(error) = &sent
            && !was_deaf
        {
            tracing::warn!(message, %error, "the service manager cannot be told; tried again each second");
        }
        sent.is_ok()
    }
}

/// A socket that sends to a path, or to the abstract name behind an `@`.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // Nobody waits for a reader that has stopped reading.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    fn supervisor(name: &OsStr) -> Supervisor {
        Supervisor::of(Some(connect(name).unwrap()))
    }

    #[test]
    fn each_change_is_told_once_as_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let supervisor = supervisor(path.as_os_str());
        supervisor.serves();
        supervisor.is_doing("ready");
        supervisor.is_doing("ready");
        supervisor.is_doing("not ready:\nwhy");
        supervisor.stops();
        for message in [
            "READY=1",
            "STATUS=ready",
            "STATUS=not ready: why",
            "STOPPING=1",
        ] {
            assert_eq!(receive(&socket), message);
        }
        // Whoever listened has gone: that is logged, and nothing else.
        drop(socket);
        supervisor.serves();
    }

    /// A manager that does not read for a while has a full queue; it then waited for a word that never came again.
    #[test]
    fn a_lost_ready_was_never_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let supervisor = supervisor(path.as_os_str());
        let mut filled = 0;
        while supervisor.send("EXTEND_TIMEOUT_USEC=1") {
            filled += 1;
        }
        supervisor.serves();
        supervisor.is_doing("ready");
        for _ in 0..filled {
            assert_eq!(receive(&socket), "EXTEND_TIMEOUT_USEC=1");
        }
        supervisor.is_doing("ready");
        assert_eq!(receive(&socket), "READY=1");
        assert_eq!(receive(&socket), "STATUS=ready");
        supervisor.is_doing("ready");
        supervisor.stops();
        assert_eq!(receive(&socket), "STOPPING=1");
    }

    #[test]
    fn a_name_behind_an_at_is_abstract() {
        let name = format!("kvnode-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        supervisor(OsStr::new(&format!("@{name}"))).stops();
        assert_eq!(receive(&socket), "STOPPING=1");
        assert!(connect(OsStr::new("/nobody/listens")).is_err());
    }
}
