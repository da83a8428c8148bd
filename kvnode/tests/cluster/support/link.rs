//! A TCP proxy in front of a node, which a test can cut, slow down and break at a byte or between request and answer.
//!
//! Whoever has a map with the proxy's address in the node's place goes through it: a replica on its way to its primary,
//! or a client. It has threads of its own, so that a busy test does not slow it.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
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
    /// How many answers in a thousand are held, and for how long.
    slow: Share,
    slow_for: Duration,
    /// How many exchanges in a thousand are cut.
    cutting: Share,
    cuts: usize,
    /// Bytes that still pass towards the asking side before everything breaks.
    budget: Option<usize>,
    breaks: usize,
    /// Both ends of every connection, by its number.
    open: BTreeMap<usize, [TcpStream; 2]>,
    accepted: usize,
}

/// An even share of events: of a thousand, exactly so many, evenly spread.
#[derive(Debug, Default)]
struct Share {
    permille: usize,
    due: usize,
}

/// When a connection is cut, if this exchange is one that is.
enum Cut {
    /// As soon as the request has passed: the node may not have read it yet.
    AtOnce,
    /// When the answer comes: what was asked for is done.
    AtAnswer,
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

    /// Where the asking side connects to.
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
        state.slow = Share::default();
        state.cutting = Share::default();
        state.budget = None;
    }

    /// Holds each piece towards the asking side for so long.
    pub(crate) fn delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Holds so many in a thousand of the answers for so long. An answer is a piece here: a small one.
    pub(crate) fn delay_some(&self, permille: usize, delay: Duration) {
        let mut state = lock(&self.state);
        state.slow = Share { permille, due: 0 };
        state.slow_for = delay;
    }

    /// From now on breaks the connections of so many in a thousand of the exchanges between request and answer: by
    /// turns as soon as the request has passed, and when its answer comes.
    pub(crate) fn cut_answers(&self, permille: usize) {
        lock(&self.state).cutting = Share { permille, due: 0 };
    }

    /// How often [`Link::cut_answers`] has struck.
    pub(crate) fn cuts(&self) -> usize {
        lock(&self.state).cuts
    }

    /// Lets `bytes` pass towards the asking side, then breaks its connection once, in the middle of whatever it is.
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

impl Share {
    /// Whether this event is one of them.
    fn strikes(&mut self) -> bool {
        self.due += self.permille;
        let strikes = self.due >= 1_000;
        self.due %= 1_000;
        strikes
    }
}

impl State {
    fn break_all(&mut self) {
        for stream in self.open.values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.open.clear();
    }

    /// A request has passed: whether its connection is cut before the answer.
    fn cut_next(&mut self) -> Option<Cut> {
        if !self.cutting.strikes() {
            return None;
        }
        self.cuts += 1;
        Some(match self.cuts % 2 {
            0 => Cut::AtOnce,
            _ => Cut::AtAnswer,
        })
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
    let number = {
        let mut state = lock(shared);
        if state.is_cut {
            return;
        }
        state.accepted += 1;
        let number = state.accepted;
        state.open.insert(number, [clone(&near), clone(&far)]);
        number
    };
    let (near_in, far_out) = (clone(&near), clone(&far));
    // Set by a request whose answer shall not arrive.
    let is_doomed = Arc::new(AtomicBool::new(false));
    let (state, dooms) = (Arc::clone(shared), Arc::clone(&is_doomed));
    thread::spawn(move || {
        pump(near_in, far_out, |count| match lock(&state).cut_next() {
            None => Passing::All,
            Some(Cut::AtOnce) => Passing::Part(count),
            Some(Cut::AtAnswer) => {
                dooms.store(true, Ordering::SeqCst);
                Passing::All
            }
        });
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        pump(far, near, |count| match is_doomed.load(Ordering::SeqCst) {
            true => Passing::Part(0),
            false => judge(&shared, count),
        });
        lock(&shared).open.remove(&number);
    });
}

/// What becomes of a piece of bytes.
enum Passing {
    All,
    /// So many pass, then everything breaks.
    Part(usize),
}

fn judge(shared: &Mutex<State>, count: usize) -> Passing {
    let delay = {
        let mut state = lock(shared);
        match state.slow.strikes() {
            true => state.slow_for,
            false => state.delay,
        }
    };
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
