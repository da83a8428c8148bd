//! Writes kvnode's manual pages into a directory: `cargo run -p kvnode --example man -- ~/.local/share/man/man1`.
//!
//! An example, since the node has no use for them: the program that runs is none the larger.

use std::{io, path::PathBuf};

use clap::CommandFactory;
use kvnode::config::Cli;

fn main() -> io::Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = dir.ok_or_else(|| io::Error::other("name the directory that the pages go to"))?;
    std::fs::create_dir_all(&dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
