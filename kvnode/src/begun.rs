//! How many requests a thread has begun to serve: whoever may block it can tell whether it has other things to do.

use std::cell::Cell;

thread_local! {
    static BEGUN: Cell<u64> = const { Cell::new(0) };
}

/// This thread begins a request.
pub(crate) fn count() {
    BEGUN.set(BEGUN.get() + 1);
}

/// Requests that this thread has begun since it started.
pub(crate) fn here() -> u64 {
    BEGUN.get()
}
