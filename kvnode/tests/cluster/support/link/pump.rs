//! One way of one connection: reads a piece, holds it, judges it, passes on what may pass.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        PoisonError,
        atomic::Ordering,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use super::{Breaking, Connection, Cut, Shared, Way, mutate::Bodies};

/// Most bytes of a piece.
const PIECE_BYTES: usize = 16 << 10;

/// Pieces a second where a rate is set.
const PIECES_PER_SECOND: usize = 20;

/// What becomes of a piece of bytes.
enum Passing {
    All,
    /// So many pass, then everything breaks.
    Part(usize, Breaking),
}

/// Passes bytes until the connection ends or breaks.
pub(super) fn run(shared: &Shared, connection: &Connection, way: Way) {
    let (mut from, to) = match way {
        Way::ToNode => (&connection.near, &connection.far),
        Way::ToAsker => (&connection.far, &connection.near),
    };
    let mut bodies = match way {
        Way::ToAsker => shared.lock().mutator.is_some().then(Bodies::default),
        Way::ToNode => None,
    };
    let mut bytes = [0; PIECE_BYTES];
    let mut breaking = None;
    while let Ok(count @ 1..) = from.read(&mut bytes[..piece_bytes(shared, way)]) {
        wait_while_dark(shared, way);
        let passing = match way {
            Way::ToNode => judge_request(shared, connection, &bytes[..count]),
            Way::ToAsker => judge_answer(shared, connection, count),
        };
        let (pass, ends) = match passing {
            Passing::All => (count, None),
            Passing::Part(part, breaking) => (part, Some(breaking)),
        };
        let written = match &mut bodies {
            None => write(shared, to, way, &bytes[..pass]),
            Some(bodies) => {
                let changed = bodies.take(&bytes[..pass], |body| {
                    let mut state = shared.lock();
                    if let Some(mutator) = &mut state.mutator {
                        mutator.change(body);
                    }
                });
                write(shared, to, way, &changed)
            }
        };
        breaking = ends;
        if written.is_err() || breaking.is_some() {
            break;
        }
    }
    close(shared, connection, breaking);
}

/// What a limited rate lets pass at once.
fn piece_bytes(shared: &Shared, way: Way) -> usize {
    match shared.lock().rate {
        Some((limited, rate)) if limited == way => (rate / PIECES_PER_SECOND).clamp(1, PIECE_BYTES),
        _ => PIECE_BYTES,
    }
}

fn wait_while_dark(shared: &Shared, way: Way) {
    let state = shared.lock();
    let lit = shared
        .changed
        .wait_while(state, |state| state.dark.contains(&way) && !state.is_cut);
    drop(lit.unwrap_or_else(PoisonError::into_inner));
}

fn judge_request(shared: &Shared, connection: &Connection, piece: &[u8]) -> Passing {
    let mut state = shared.lock();
    if let Some(mutator) = &mut state.mutator {
        mutator.saw_request(piece);
    }
    match state.cut_next() {
        None => {}
        Some(Cut::AtOnce) => return Passing::Part(piece.len(), Breaking::Close),
        Some(Cut::AtAnswer) => connection.is_doomed.store(true, Ordering::SeqCst),
    }
    spent(state.spend(Way::ToNode, piece.len()))
}

fn judge_answer(shared: &Shared, connection: &Connection, count: usize) -> Passing {
    if connection.is_doomed.load(Ordering::SeqCst) {
        return Passing::Part(0, Breaking::Close);
    }
    let delay = {
        let mut state = shared.lock();
        match state.slow.strikes() {
            true => state.slow_for,
            false => state.delay,
        }
    };
    hold(delay);
    spent(shared.lock().spend(Way::ToAsker, count))
}

fn spent((passing, breaking): (usize, Option<Breaking>)) -> Passing {
    match breaking {
        None => Passing::All,
        Some(breaking) => Passing::Part(passing, breaking),
    }
}

fn write(shared: &Shared, mut to: &TcpStream, way: Way, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    let rate = {
        let mut state = shared.lock();
        if way == Way::ToAsker {
            state.passed += bytes.len();
        }
        state.rate
    };
    if let Some((limited, rate)) = rate
        && limited == way
    {
        hold(Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
    }
    Ok(())
}

/// Ends the connection for both sides, in the way that was asked for or, if it ended by itself, in order.
fn close(shared: &Shared, connection: &Connection, breaking: Option<Breaking>) {
    if let Some(breaking) = breaking {
        return connection.end(breaking);
    }
    if connection.is_reset.load(Ordering::SeqCst) {
        return;
    }
    let delay = shared.lock().slow_close;
    hold(delay);
    let _ = connection.near.shutdown(Shutdown::Both);
    let _ = connection.far.shutdown(Shutdown::Both);
}

/// Waits on a channel that nobody sends to: a wait that is a delay by intent.
fn hold(delay: Duration) {
    if delay.is_zero() {
        return;
    }
    let (_keep, never) = mpsc::channel::<()>();
    assert_eq!(never.recv_timeout(delay), Err(RecvTimeoutError::Timeout));
}
