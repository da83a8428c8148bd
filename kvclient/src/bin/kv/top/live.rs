//! The table on a terminal: drawn each second, and when the window changes.

use std::{cell::RefCell, pin::pin, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    screen::{Colours, lines},
    terminal::Terminal,
    view::{View, follow},
};
use crate::{exit::Exit, failure::Failure, nodes_say::Asker, stop::stopped};

const EVERY: Duration = Duration::from_secs(1);

/// Ctrl-C, where the terminal makes no signal of it.
const CTRL_C: u8 = 3;

/// Shows the table until somebody has seen enough.
pub(crate) async fn live(
    asker: &Asker,
    title: &str,
    views: &RefCell<Vec<View>>,
    colours: Colours,
    mut terminal: Terminal,
) -> Result<Exit, Failure> {
    let resized = signal(SignalKind::window_change());
    let mut resized = resized.map_err(|error| Failure::Local(format!("signals: {error}")))?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut stop, mut following) = (pin!(stopped()), pin!(follow(asker, views)));
    let title = format!("{title}; q ends it");
    loop {
        tokio::select! {
            told = &mut stop => return told.map(|()| Exit::Done),
            key = terminal.key() => if matches!(key, b'q' | b'Q' | CTRL_C) {
                return Ok(Exit::Done);
            },
            _ = ticks.tick() => {}
            _ = resized.recv() => {}
            () = &mut following => {}
        }
        let (width, height) = terminal.size();
        let shown = lines(&title, &views.borrow(), colours, width, height);
        terminal.draw(&shown);
    }
}
