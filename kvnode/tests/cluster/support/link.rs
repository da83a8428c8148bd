//! A TCP proxy between two nodes, which a test can cut, slow down and break at a byte.
//!
//! A replica goes through it if its map has the proxy's address in the primary's place. It has threads of its own,
//! so that a busy test does not slow it.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// One link; cut for good when dropped.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_cut: bool,
    delay: Duration,
    /// Bytes that still pass towards the replica before everything breaks.
    budget: Option<usize>,
    breaks: usize,
    open: Vec<TcpStream>,
}

impl Link {
    /// A whole link to the node at `target`.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for a link");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accept(&shared, stream, target);
            }
        });
        Self { address, state }
    }

    /// Where the replica connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks all connections and refuses new ones.
    pub(crate) fn cut(&self) {
        let mut state = lock(&self.state);
        state.is_cut = true;
        state.break_all();
    }

    /// Lets everything pass again.
    pub(crate) fn heal(&self) {
        let mut state = lock(&self.state);
        state.is_cut = false;
        state.delay = Duration::ZERO;
        state.budget = None;
    }

    /// Holds each piece towards the replica for so long.
    pub(crate) fn delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Lets `bytes` pass towards the replica, then breaks all connections once, in the middle of whatever it is.
    pub(crate) fn drop_after(&self, bytes: usize) {
        lock(&self.state).budget = Some(bytes);
    }

    /// How often [`Link::drop_after`] has struck.
    pub(crate) fn breaks(&self) -> usize {
        lock(&self.state).breaks
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
    }
}

impl State {
    fn break_all(&mut self) {
        for stream in self.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many of `count` bytes pass now.
    fn spend(&mut self, count: usize) -> usize {
        let Some(budget) = &mut self.budget else {
            return count;
        };
        let passing = count.min(*budget);
        *budget -= passing;
        passing
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(shared: &Arc<Mutex<State>>, near: TcpStream, target: SocketAddr) {
    let Ok(far) = TcpStream::connect(target) else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let clone = |stream: &TcpStream| stream.try_clone().expect("a clone");
    {
        let mut state = lock(shared);
        if state.is_cut {
            return;
        }
        state.open.extend([clone(&near), clone(&far)]);
    }
    let (near_in, far_out) = (clone(&near), clone(&far));
    thread::spawn(move || {
        pump(near_in, far_out, |_| Passing::All);
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || pump(far, near, |count| judge(&shared, count)));
}

/// What becomes of a piece of bytes.
enum Passing {
    All,
    /// So many pass, then everything breaks.
    Part(usize),
}

fn judge(shared: &Mutex<State>, count: usize) -> Passing {
    let delay = lock(shared).delay;
    hold(delay);
    let mut state = lock(shared);
    let passing = state.spend(count);
    if passing == count && state.budget != Some(0) {
        return Passing::All;
    }
    state.budget = None;
    state.breaks += 1;
    Passing::Part(passing)
}

/// Waits on a channel that nobody sends to: a wait that is a delay by intent.
fn hold(delay: Duration) {
    if delay.is_zero() {
        return;
    }
    let (_keep, never) = mpsc::channel::<()>();
    assert_eq!(never.recv_timeout(delay), Err(RecvTimeoutError::Timeout));
}

fn pump(mut from: TcpStream, mut to: TcpStream, judge: impl Fn(usize) -> Passing) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let (pass, goes_on) = match judge(count) {
            Passing::All => (count, true),
            Passing::Part(part) => (part, false),
        };
        if to.write_all(&bytes[..pass]).is_err() || !goes_on {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
