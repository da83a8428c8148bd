//! A terminal that keys are read from one by one, and that is as it was once this is dropped.
//!
//! A few escape codes that every terminal of the last thirty years knows, and the settings of the line (`termios`); a
//! library for more would be larger than the command.

use std::{
    io::{Read, Write},
    thread,
};

use rustix::termios::{
    LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::sync::mpsc;

/// The other screen, and no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";

/// The cursor, and the screen as it was.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Keys that wait to be taken.
const KEYS: usize = 16;

/// The terminal while it shows a screen.
pub(crate) struct Terminal {
    before: Termios,
    keys: mpsc::Receiver<u8>,
}

impl Terminal {
    /// Takes the terminal over; `None` if standard input or output is none.
    pub(crate) fn take() -> Option<Self> {
        let (input, output) = (std::io::stdin(), std::io::stdout());
        if !isatty(&input) || !isatty(&output) {
            return None;
        }
        let before = tcgetattr(&input).ok()?;
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(&input, OptionalActions::Now, &raw).ok()?;
        let (sender, keys) = mpsc::channel(KEYS);
        // Ends with the process: there is no way to wait for a key and for something else.
        thread::Builder::new()
            .name("keys".into())
            .spawn(move || read_keys(&sender))
            .ok()?;
        show(ENTER);
        Some(Self { before, keys })
    }

    /// The next key.
    ///
    /// # Cancel safety
    /// No key is lost.
    pub(crate) async fn key(&mut self) -> u8 {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Columns and lines, as they are now.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(std::io::stdout());
        size.map_or((80, 24), |size| {
            (
                usize::from(size.ws_col).max(1),
                usize::from(size.ws_row).max(1),
            )
        })
    }

    /// Shows these lines and nothing else.
    pub(crate) fn draw(&self, lines: &[String]) {
        let text: Vec<String> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
        show(&format!("\x1b[H{}\x1b[J", text.join("\r\n")));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        show(LEAVE);
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Whoever looks at it may have gone; then there is nothing to do about it.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn read_keys(sender: &mpsc::Sender<u8>) {
    let mut key = [0];
    while matches!(std::io::stdin().read(&mut key), Ok(1)) {
        if sender.blocking_send(key[0]).is_err() {
            return;
        }
    }
}
