//! A TCP proxy in front of a node, which a test can break in every way that a network breaks, and in some that only
//! a broken program does.
//!
//! Whoever has a map with the proxy's address in the node's place goes through it: a replica on its way to its primary,
//! or a client. It has threads of its own, so that a busy test does not slow it. What it does to connections as a whole
//! is here; how bytes pass is in `pump.rs`, what becomes of the bodies of answers in `mutate.rs`.

pub(crate) mod mutate;
mod pump;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::net::sockopt;

use self::mutate::{Mutator, Tally};

/// What the proxy's sockets hold at most where a rate is set, so that a slow receiver is felt at the other end.
const SLOW_BUFFER_BYTES: usize = 64 << 10;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From whoever asks to the node.
    ToNode,
    /// From the node to whoever asked.
    ToAsker,
}

/// One link; cut for good when dropped.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when something that held bytes back is over.
    changed: Condvar,
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
    /// Bytes that still pass one way before everything breaks, and how it breaks.
    budget: Option<Budget>,
    breaks: usize,
    /// Bytes that passed towards the asking side.
    passed: usize,
    /// Ways on which nothing passes.
    dark: Vec<Way>,
    /// Bytes a second that pass one way.
    rate: Option<(Way, usize)>,
    /// How long the end of a connection is kept from the other side.
    slow_close: Duration,
    mutator: Option<Mutator>,
    /// Every connection, by its number.
    open: BTreeMap<usize, Arc<Connection>>,
    accepted: usize,
}

#[derive(Debug)]
struct Budget {
    way: Way,
    bytes: usize,
    breaking: Breaking,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaking {
    /// With a FIN, as when the program closes it.
    Close,
    /// With an RST, as when the machine has forgotten it.
    Reset,
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

/// Both ends of a connection through the link.
#[derive(Debug)]
struct Connection {
    near: TcpStream,
    far: TcpStream,
    /// Set by a request whose answer shall not arrive.
    is_doomed: AtomicBool,
    /// It ends with an RST, so that nobody may close it in order.
    is_reset: AtomicBool,
}

impl Link {
    /// A whole link to the node at `target`.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for a link");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accept(&accepting, stream, target);
            }
        });
        Self { address, shared }
    }

    /// Where the asking side connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks all connections and refuses new ones.
    pub(crate) fn cut(&self) {
        let mut state = self.shared.lock();
        state.is_cut = true;
        state.break_all(Breaking::Close);
        self.shared.changed.notify_all();
    }

    /// Lets everything pass again. What a black hole held passes now.
    pub(crate) fn heal(&self) {
        let mut state = self.shared.lock();
        state.is_cut = false;
        state.delay = Duration::ZERO;
        state.slow = Share::default();
        state.cutting = Share::default();
        state.budget = None;
        state.dark.clear();
        state.rate = None;
        state.slow_close = Duration::ZERO;
        state.mutator = None;
        self.shared.changed.notify_all();
    }

    /// Holds each piece towards the asking side for so long.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Holds so many in a thousand of the answers for so long. An answer is a piece here: a small one.
    pub(crate) fn delay_some(&self, permille: usize, delay: Duration) {
        let mut state = self.shared.lock();
        state.slow = Share { permille, due: 0 };
        state.slow_for = delay;
    }

    /// From now on breaks the connections of so many in a thousand of the exchanges between request and answer: by
    /// turns as soon as the request has passed, and when its answer comes.
    pub(crate) fn cut_answers(&self, permille: usize) {
        self.shared.lock().cutting = Share { permille, due: 0 };
    }

    /// How often [`Link::cut_answers`] has struck.
    pub(crate) fn cuts(&self) -> usize {
        self.shared.lock().cuts
    }

    /// Lets `bytes` pass towards the asking side, then breaks its connection once, in the middle of whatever it is.
    pub(crate) fn drop_after(&self, bytes: usize) {
        self.break_after(Way::ToAsker, bytes, Breaking::Close);
    }

    /// Lets `bytes` pass one way, then resets (RST) the connection once, to both sides.
    pub(crate) fn reset_after(&self, way: Way, bytes: usize) {
        self.break_after(way, bytes, Breaking::Reset);
    }

    fn break_after(&self, way: Way, bytes: usize, breaking: Breaking) {
        self.shared.lock().budget = Some(Budget {
            way,
            bytes,
            breaking,
        });
    }

    /// How often [`Link::drop_after`] and [`Link::reset_after`] have struck.
    pub(crate) fn breaks(&self) -> usize {
        self.shared.lock().breaks
    }

    /// Bytes that have passed towards the asking side so far.
    pub(crate) fn passed(&self) -> usize {
        self.shared.lock().passed
    }

    /// Resets (RST) every connection there is. New ones are as good as before.
    pub(crate) fn reset_all(&self) {
        self.shared.lock().break_all(Breaking::Reset);
        self.shared.changed.notify_all();
    }

    /// Connections are accepted and stay open, and nothing passes these ways until the link heals.
    pub(crate) fn black_hole(&self, ways: &[Way]) {
        ways.clone_into(&mut self.shared.lock().dark);
    }

    /// Lets so many bytes a second pass one way, on connections that are opened from now on; those there are break.
    pub(crate) fn limit(&self, way: Way, bytes_per_second: usize) {
        let mut state = self.shared.lock();
        state.rate = Some((way, bytes_per_second));
        state.break_all(Breaking::Close);
    }

    /// Keeps the end of a connection from the other side for so long.
    pub(crate) fn close_slowly(&self, delay: Duration) {
        self.shared.lock().slow_close = delay;
    }

    /// Changes the bodies of answers, on connections that are opened from now on; those there are break. See
    /// [`Link::tally`].
    pub(crate) fn mutate(&self, mutator: Mutator) {
        let mut state = self.shared.lock();
        state.mutator = Some(mutator);
        state.break_all(Breaking::Close);
    }

    /// What [`Link::mutate`] has come to so far.
    pub(crate) fn tally(&self) -> Tally {
        let state = self.shared.lock();
        state
            .mutator
            .as_ref()
            .map(Mutator::tally)
            .unwrap_or_default()
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn break_all(&mut self, breaking: Breaking) {
        for connection in std::mem::take(&mut self.open).values() {
            connection.end(breaking);
        }
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

    /// How many of `count` bytes pass this way now, and how the connection breaks then, if it does.
    fn spend(&mut self, way: Way, count: usize) -> (usize, Option<Breaking>) {
        let Some(budget) = self.budget.as_mut().filter(|budget| budget.way == way) else {
            return (count, None);
        };
        let passing = count.min(budget.bytes);
        budget.bytes -= passing;
        if budget.bytes > 0 {
            return (passing, None);
        }
        let breaking = budget.breaking;
        self.budget = None;
        self.breaks += 1;
        (passing, Some(breaking))
    }
}

impl Connection {
    /// Ends it for both sides. Reset, it goes once the last of its threads has let go of it.
    fn end(&self, breaking: Breaking) {
        let ends = [&self.near, &self.far];
        let how = match breaking {
            Breaking::Close => Shutdown::Both,
            Breaking::Reset => {
                self.is_reset.store(true, Ordering::SeqCst);
                for end in ends {
                    let _ = sockopt::set_socket_linger(end, Some(Duration::ZERO));
                }
                // Wakes the threads that read, and says nothing to the other side.
                Shutdown::Read
            }
        };
        for end in ends {
            let _ = end.shutdown(how);
        }
    }
}

fn accept(shared: &Arc<Shared>, near: TcpStream, target: SocketAddr) {
    let Ok(far) = TcpStream::connect(target) else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let connection = Arc::new(Connection {
        near,
        far,
        is_doomed: AtomicBool::new(false),
        is_reset: AtomicBool::new(false),
    });
    let number = {
        let mut state = shared.lock();
        if state.is_cut {
            return;
        }
        if state.rate.is_some() {
            for end in [&connection.near, &connection.far] {
                let _ = sockopt::set_socket_recv_buffer_size(end, SLOW_BUFFER_BYTES);
            }
        }
        state.accepted += 1;
        let number = state.accepted;
        state.open.insert(number, Arc::clone(&connection));
        number
    };
    for way in [Way::ToNode, Way::ToAsker] {
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        thread::spawn(move || {
            pump::run(&shared, &connection, way);
            if way == Way::ToAsker {
                shared.lock().open.remove(&number);
            }
        });
    }
}
