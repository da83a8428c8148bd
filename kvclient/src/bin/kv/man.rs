//! `kv man`: the manual pages, made of what `--help` knows.

use std::path::Path;

use clap::CommandFactory;

use crate::{args::Cli, exit::Exit, failure::Failure, out::Out};

/// Writes a page for the tool and one for each of its commands.
pub(crate) fn man(dir: &Path, out: &mut Out) -> Result<Exit, Failure> {
    let pages =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    pages.map_err(|error| Failure::file(dir, &error))?;
    out.text(&format!("{}\n", dir.join("kv.1").display()))?;
    Ok(Exit::Done)
}
