//! An end to connections whose other side takes nothing.
//!
//! The framework limits the time for a request's head, `http/body.rs` that for its body; nobody limits how long an
//! answer lies unread. The kernel does (`TCP_USER_TIMEOUT`): it ends a connection that has data to send and makes no
//! progress, whether the other side is gone or just does not read. Connections inherit it from their listener.

use std::{io, net::TcpListener, time::Duration};

use kvclient::faults::{self, Guarantee};
use rustix::net::sockopt::set_tcp_user_timeout;

/// How long an answer may lie unread. Longer than a busy reader's pauses, shorter than anyone waits for an answer.
const STALLED_WITHIN: Duration = Duration::from_secs(20);

/// Has the kernel end connections of this listener that make no progress.
///
/// # Errors
/// The kernel knows no such limit.
pub fn end_stalled(listener: &TcpListener) -> io::Result<()> {
    if faults::is_off(Guarantee::Bounds) {
        return Ok(());
    }
    let ms = u32::try_from(STALLED_WITHIN.as_millis()).unwrap_or(u32::MAX);
    Ok(set_tcp_user_timeout(listener, ms)?)
}
