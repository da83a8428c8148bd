//! A thread that does the async work of a blocking client.
//!
//! Callers wait on a channel of the standard library, never on a runtime: so they may call from anywhere, also from
//! inside of another runtime, where waiting for a future would panic.

use std::{
    future::Future,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::{
    attempt::Outcome,
    error::{Error, ErrorKind, Result},
};

/// A runtime on its own thread, which ends when this is dropped.
pub(super) struct Runtime {
    handle: Handle,
    /// Dropped, it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    pub(super) fn start() -> Result<Self> {
        let failed =
            |error| Error::new(ErrorKind::Unavailable, "start a thread").with_source(error);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            // Nothing is ever sent: the other side is dropped.
            let _ = runtime.block_on(stopped);
            // What is left is given up, as when a future is dropped; a name that is being looked up is not waited for.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("kvclient".to_owned());
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread.spawn(work).map_err(failed)?),
        })
    }

    /// Lets the thread carry out a future and waits for what it gives.
    pub(super) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // There is room for it, and the caller waits.
            let _ = sender.send(future.await);
        });
        receiver.recv().map_err(|_| {
            let gone = "the client's thread has ended";
            let failed = Error::new(ErrorKind::Unavailable, "run").with_source(gone);
            // How far the op came nobody can say.
            failed.with_outcome(Outcome::Unknown)
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was shown by it already.
            let _ = thread.join();
        }
    }
}
