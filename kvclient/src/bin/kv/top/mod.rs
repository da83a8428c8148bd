//! `kv top`: a table of all nodes that is drawn anew each second, until q or Ctrl-C.
//!
//! Where standard output is no terminal, or with `--once`, one table and the end.

pub(crate) mod args;
#[cfg(unix)]
mod live;
mod screen;
#[cfg(unix)]
mod terminal;
mod view;

use std::{cell::RefCell, io::IsTerminal};

use kvclient::ShardMap;

use self::{
    args::TopArgs,
    screen::{Colours, lines},
    view::{View, ask_all, views},
};
use crate::{
    connect::Connected,
    exit::Exit,
    failure::Failure,
    nodes_say::Asker,
    out::{Format, Out},
};

/// Shows how busy every node is.
pub(crate) async fn top(
    connected: &Connected,
    args: &TopArgs,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let asker = Asker::new(connected)?;
    let map = asker.first_map(&connected.kv).await;
    let views = views(&map);
    let is_live = !args.once && out.format == Format::Text;
    #[cfg(unix)]
    if let Some(terminal) = is_live.then(terminal::Terminal::take).flatten() {
        return live::live(&asker, &title(&map), &views, colours(), terminal).await;
    }
    ask_all(&asker, &views).await;
    print_once(&map, &views, out)
}

fn print_once(map: &ShardMap, views: &RefCell<Vec<View>>, out: &mut Out) -> Result<Exit, Failure> {
    let views = views.borrow();
    match out.format {
        Format::Text => {
            for line in lines(&title(map), &views, colours(), usize::MAX, usize::MAX) {
                out.text(&format!("{line}\n"))?;
            }
        }
        Format::Json => {
            for view in views.iter() {
                print_json(view, out)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn print_json(view: &View, out: &mut Out) -> Result<(), Failure> {
    out.json(|line| {
        let line = line
            .field("node", view.address.to_string())
            .field("shard", &view.shard)
            .field("role", view.role)
            .field("state", view.state.name());
        let line = line.optional("why", view.state.why());
        line.optional("last", view.last())
    })
}

fn title(map: &ShardMap) -> String {
    format!(
        "kv top: {} shards, map {}",
        map.shards().len(),
        map.identity()
    )
}

fn colours() -> Colours {
    match std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    {
        true => Colours::Coloured,
        false => Colours::Plain,
    }
}
